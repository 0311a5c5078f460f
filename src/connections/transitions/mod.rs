//! Carrying out what the rules decided, under the lock of the login.

pub mod store;

use self::store::{End, SealedToken};
use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId};
use crate::connections::bank_login::LockedConnection;
use crate::connections::model::{
    self, PredecessorEvent, PredecessorTransition, State, Status, Transition,
};
use crate::connections::{Context, superseded};
use crate::database::Conn;

/// The steps that end a connection or activate it, with a token that has just come or with the one
/// that is held.
pub async fn apply(
    context: &Context,
    tx: &mut Conn,
    me: &LockedConnection,
    transition: &Transition,
    came: Option<(i32, Option<&SealedToken>)>,
) -> Result<(), sqlx::Error> {
    let actor = AuditActor::from(&Actor::service());
    let (epoch, token) = came.map_or((None, None), |(epoch, token)| (Some(epoch), token));
    let ended = match transition {
        Transition::Activate { supersedes } => {
            if let Some(older) = supersedes {
                supersede(context, tx, me.app, *older, (me.id, me.unproven)).await?;
            }
            return store::activate(tx, me, epoch, token).await;
        }
        Transition::GiveWay { to } => {
            End { replaced_by: Some(*to), ..End::new(Status::Invalidated) }
        }
        Transition::Fail(status, failure) => {
            if token.is_some() {
                context.metrics.tokens_dropped.inc();
            }
            End { failure: Some(failure), ..End::new(*status) }
        }
        Transition::EndRevocation { confirmed, what } => {
            let status = match me.state {
                State::Revoking(kind, _) => kind.ends(*confirmed),
                _ => Status::Invalidated,
            };
            context.metrics.revocation(if *confirmed { "confirmed" } else { "unconfirmed" });
            End { confirmed: *confirmed, last_error: what.as_deref(), ..End::new(status) }
        }
        Transition::Hold
        | Transition::Delink
        | Transition::TryAgain { .. }
        | Transition::DropToken
        | Transition::Nothing => {
            return Ok(());
        }
    };
    store::end(tx, &actor, me.app, me.id, &ended).await
}

/// Ends an older connection of a login in favour of a newer one: destroyed here, but not delinked,
/// which could cut the new link. In favour of one that is not known to work its token is kept for a while.
pub async fn supersede(
    context: &Context,
    tx: &mut Conn,
    app: AppId,
    older: ConnectionId,
    (newer, by_unproven): (ConnectionId, bool),
) -> Result<(), sqlx::Error> {
    context.metrics.revocation("superseded");
    let event = PredecessorEvent::Superseded { by_unproven };
    if model::predecessor_transition(event) == PredecessorTransition::Keep {
        superseded::store::insert_superseded(tx, app, older, newer).await?;
    } else {
        superseded::after(tx, app, older, event).await?;
    }
    let actor = AuditActor::from(&Actor::service());
    let superseded = End { replaced_by: Some(newer), ..End::new(Status::Invalidated) };
    store::end(tx, &actor, app, older, &superseded).await
}
