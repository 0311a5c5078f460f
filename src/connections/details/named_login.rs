//! Corrects the login of a connection by the item that its provider names: an import says its `itemID` by itself, and an
//! exchange whose answer broke off does not say one.

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::bank_login::{self, LockedConnection};
use crate::connections::effects::{Effects, RevocationEnd};
use crate::connections::model::{self, PredecessorEvent, RevocationKind, State, Transition};
use crate::connections::token_lease::TokenLease;
use crate::connections::transitions::store::{End, NewRevocation};
use crate::connections::{ConnectionError, Context, superseded, token_lease, transitions};
use crate::database::Conn;

/// A connection, and the item that its provider names.
pub(super) struct Named<'a> {
    pub(super) app: AppId,
    pub(super) id: ConnectionId,
    pub(super) item_id: &'a str,
    /// What the provider was asked with.
    pub(super) lease: &'a TokenLease,
}

/// Moves an active connection to the login that is its token's, if it has another. What it superseded under the wrong one
/// is active again, and what its true login has already decides about it, without a call: a revocation of either would
/// end both.
///
/// Lock order: both logins, then the rows of the true one and the connection's by id.
pub(super) async fn correct(
    tx: &mut Conn,
    context: &Context,
    named: &Named<'_>,
) -> Result<Effects, ConnectionError> {
    let Named { app, id, item_id, .. } = *named;
    let Some((Some(said), user)) = bank_login::login_of(tx, app, id).await? else {
        return Ok(Effects::default());
    };
    if said == item_id {
        return Ok(Effects::default());
    }
    bank_login::lock_two_logins(tx, app, [&said, item_id]).await?;
    let locked = bank_login::lock_bank_login(tx, app, Some(item_id), Some(id), user).await?;
    let Some(me) = locked.me.filter(|me| me.state == State::Active) else {
        return Ok(Effects::default());
    };
    if me.login_id.as_deref() != Some(&said) {
        return Err(ConnectionError::Contended);
    }
    // First it leaves the wrong login, of which one connection at most can be active, and takes no other: the true one may
    // be taken as well.
    bank_login::set_login(tx, app, id, &model::unknown_login(id)).await?;
    let restored = superseded::after(tx, app, id, PredecessorEvent::Died).await?;
    if let Some(older) = restored {
        tracing::warn!(connection = %older, instead_of = %id, "a superseded token is active again");
    }
    let is_copy = match locked.login.older_active {
        Some(older) if me.unproven => holds_copy(tx, context, named, older).await?,
        _ => false,
    };
    let transition = model::on_login_named(locked.login, is_copy);
    tracing::warn!(connection = %id, ?transition, "a token is of another login than its connection said");
    let effects = follow(tx, &me, &transition).await?;
    bank_login::set_login(tx, app, id, item_id).await?;
    if !model::is_unknown_login(&said) {
        bank_login::record_correction(tx, app, id, &said).await?;
    }
    // The restored one has details of its own to confirm.
    Ok(effects.changed(id).wake())
}

async fn holds_copy(
    tx: &mut Conn,
    context: &Context,
    named: &Named<'_>,
    other: ConnectionId,
) -> Result<bool, ConnectionError> {
    let Some(held) = token_lease::store::held_token(tx, named.app, other).await? else {
        return Ok(false);
    };
    Ok(named.lease.holds_same_token(&context.vault, other, &held).await?)
}

async fn follow(
    tx: &mut Conn,
    me: &LockedConnection,
    transition: &Transition,
) -> sqlx::Result<Effects> {
    let (app, id) = (me.app, me.id);
    match transition {
        Transition::Activate { supersedes: Some(older) } => {
            transitions::supersede(tx, app, *older, (id, false)).await
        }
        Transition::GiveWay { to } => {
            // Its token works. The other's may not, if that was imported as well.
            let keeps = superseded::store::may_keep(tx, app, *to).await?;
            transitions::supersede(tx, app, id, (*to, keeps)).await
        }
        Transition::EndRevocation { what, .. } => {
            let reason = what.as_deref();
            let new = NewRevocation { kind: RevocationKind::Invalidate, reason };
            let end =
                End { last_error: reason, ..End::new(RevocationKind::Invalidate.ends(false)) };
            let actor = AuditActor::from(&Actor::service());
            transitions::store::revoke(tx, &actor, app, id, &new, &end).await?;
            Ok(Effects::revocation(RevocationEnd::Unconfirmed))
        }
        _ => Ok(Effects::default()),
    }
}
