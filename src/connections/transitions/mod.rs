//! Applies what the rules decided, under the lock of the bank login.

pub mod store;

use self::store::{End, SealedToken};
use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::bank_login::LockedConnection;
use crate::connections::effects::{Effects, RevocationEnd};
use crate::connections::model::{
    self, PredecessorEvent, PredecessorTransition, State, Status, Transition,
};
use crate::connections::superseded;
use crate::database::Conn;

/// What an exchange fetched, and the epoch of the lease that it was fetched under.
#[derive(Clone, Copy, Debug)]
pub struct Fetched<'a> {
    /// The lease's epoch.
    pub epoch: i32,
    /// The token; `None` if the exchange brought none.
    pub token: Option<&'a SealedToken>,
}

/// Applies the transitions that activate a connection or end it, with the token that was just fetched or with the
/// one that the row holds. The others belong to the exchange and change nothing here.
pub async fn apply(
    tx: &mut Conn,
    me: &LockedConnection,
    transition: &Transition,
    fetched: Option<Fetched<'_>>,
) -> sqlx::Result<Effects> {
    let token = fetched.and_then(|fetched| fetched.token);
    let (end, effects) = match transition {
        Transition::Activate { supersedes } => {
            let effects = match supersedes {
                Some(older) => supersede(tx, me.app, *older, (me.id, me.unproven)).await?,
                None => Effects::default(),
            };
            store::activate(tx, me, fetched.map(|fetched| fetched.epoch), token).await?;
            if let Some(older) = supersedes {
                superseded::store::hand_on_rotation(tx, me.app, *older, me.id).await?;
            }
            return Ok(effects);
        }
        Transition::GiveWay { to } => {
            (End { replaced_by: Some(*to), ..End::new(Status::Invalidated) }, Effects::default())
        }
        Transition::Fail(status, failure) => {
            let end = End { failure: Some(failure), ..End::new(*status) };
            (end, token.map_or_else(Effects::default, |_| Effects::token_dropped()))
        }
        Transition::EndRevocation { confirmed, what } => {
            let status = match me.state {
                State::Revoking(kind, _) => kind.ends(*confirmed),
                _ => Status::Invalidated,
            };
            let last_error = what.as_deref();
            let end = End { confirmed: *confirmed, last_error, ..End::new(status) };
            (end, Effects::revocation(RevocationEnd::of(*confirmed)))
        }
        Transition::Hold
        | Transition::Delink
        | Transition::TryAgain { .. }
        | Transition::DropToken
        | Transition::Nothing => return Ok(Effects::default()),
    };
    store::end(tx, &AuditActor::from(&Actor::service()), me.app, me.id, &end).await?;
    Ok(effects)
}

/// Ends an older connection of a login in favour of a newer one: its token is destroyed here but not delinked,
/// because a delinking could cut the new link. If the newer token is not known to work, the older one is kept for
/// a while. So it is if its rotation was begun: the newer token may be the one that it replaced.
///
/// The caller then inserts or activates the newer one and [hands the rotation on](superseded::store::hand_on_rotation).
pub async fn supersede(
    tx: &mut Conn,
    app: AppId,
    older: ConnectionId,
    (newer, by_unproven): (ConnectionId, bool),
) -> sqlx::Result<Effects> {
    let by_unproven = by_unproven || superseded::store::was_rotated(tx, app, older).await?;
    let event = PredecessorEvent::Superseded { by_unproven };
    if model::predecessor_transition(event) == PredecessorTransition::Keep {
        superseded::store::insert_superseded(tx, app, older, newer).await?;
    } else {
        superseded::after(tx, app, older, event).await?;
    }
    let actor = AuditActor::from(&Actor::service());
    let end = End { replaced_by: Some(newer), ..End::new(Status::Invalidated) };
    store::end(tx, &actor, app, older, &end).await?;
    Ok(Effects::revocation(RevocationEnd::Superseded))
}
