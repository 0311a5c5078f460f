//! Ends connections whose token the provider reports as dead.

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::effects::{Effects, RevocationEnd};
use crate::connections::model::{PredecessorEvent, RevocationKind, Status};
use crate::connections::revocation::store;
use crate::connections::transitions::store::{End, NewRevocation};
use crate::connections::{ConnectionError, Context, bank_login, superseded, transitions};
use crate::providers::{AccessToken, Provider};
use crate::vault::Sealed;

/// Ends an active connection as `invalidated`, confirmed, because its provider says that the token is dead, by a refusal
/// of this `kind` (see [`reports_dead_token`](crate::providers::Client::reports_dead_token)). Returns whether it ended: not if it
/// holds another token than `token` by now, the one that was refused, nor while a rotation may have replaced that.
///
/// If the connection was imported and its predecessor's token is still kept, the predecessor is active again.
///
/// # Errors
/// The vault's or the database's. The connection is then unchanged.
pub async fn end_dead_token(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    provider: Provider,
    kind: &str,
    token: Option<&Sealed<AccessToken>>,
) -> Result<bool, ConnectionError> {
    end_dead_token_under(context, app, id, provider, kind, token, None).await
}

/// The same if the refusal answers a rotation's own call, made under the epoch `rotation`: not if another has begun since.
///
/// # Errors
/// As those of [`end_dead_token`].
pub async fn end_dead_token_under(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    provider: Provider,
    kind: &str,
    token: Option<&Sealed<AccessToken>>,
    rotation: Option<i32>,
) -> Result<bool, ConnectionError> {
    let mut tx = context.pool.begin().await?;
    let Some((login_id, user)) = bank_login::login_of(&mut tx, app, id).await? else {
        return Ok(false);
    };
    let locked =
        bank_login::lock_bank_login(&mut tx, app, login_id.as_deref(), Some(id), user).await?;
    // A revoking connection is left to its delinking, which gets the same answer.
    if locked.me.is_none_or(|me| me.status != Status::Active) {
        return Ok(false);
    }
    if let Some(token) = token
        && !store::refusal_counts(&mut tx, app, id, token, rotation).await?
    {
        return Ok(false);
    }
    let reason = format!("{} answered {kind}", provider.name());
    let new = NewRevocation { kind: RevocationKind::Invalidate, reason: Some(&reason) };
    let end = End {
        confirmed: true,
        last_error: Some(&reason),
        ..End::new(RevocationKind::Invalidate.ends(true))
    };
    let actor = AuditActor::from(&Actor::service());
    transitions::store::revoke(&mut tx, &actor, app, id, &new, &end).await?;
    let restored = superseded::after(&mut tx, app, id, PredecessorEvent::Died).await?;
    fail::fail_point!("dead::before_commit");
    tx.commit().await?;
    if let Some(older) = restored {
        tracing::warn!(connection = %older, instead_of = %id, "a superseded token is active again");
    }
    Effects::revocation(RevocationEnd::Confirmed).changed(id).apply(context);
    Ok(true)
}

/// Ends an imported connection whose token has not worked yet, because its provider refuses the token in a way that a
/// typing error explains as well as a dead token does (see
/// [`doubts_token`](crate::providers::Client::doubts_token)), and restores the connection that it superseded. The
/// end is not confirmed: the token may be alive elsewhere. Returns `false`, with nothing changed, if no token of a
/// predecessor is kept.
///
/// # Errors
/// The database's. The connection is then unchanged.
pub async fn restore_predecessor(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    provider: Provider,
    kind: &str,
) -> Result<bool, ConnectionError> {
    let mut tx = context.pool.begin().await?;
    let Some((login_id, user)) = bank_login::login_of(&mut tx, app, id).await? else {
        return Ok(false);
    };
    let locked =
        bank_login::lock_bank_login(&mut tx, app, login_id.as_deref(), Some(id), user).await?;
    if locked.me.is_none_or(|me| me.status != Status::Active || !me.unproven) {
        return Ok(false);
    }
    let reason = format!("{} answered {kind}", provider.name());
    let new = NewRevocation { kind: RevocationKind::Invalidate, reason: Some(&reason) };
    let end = End { last_error: Some(&reason), ..End::new(RevocationKind::Invalidate.ends(false)) };
    let actor = AuditActor::from(&Actor::service());
    transitions::store::revoke(&mut tx, &actor, app, id, &new, &end).await?;
    // Without one, the transaction is rolled back.
    let Some(older) = superseded::after(&mut tx, app, id, PredecessorEvent::Died).await? else {
        return Ok(false);
    };
    fail::fail_point!("dead::before_commit");
    tx.commit().await?;
    tracing::warn!(connection = %older, instead_of = %id, "a superseded token is active again");
    let effects = Effects::revocation(RevocationEnd::Unconfirmed).changed(id);
    effects.wake().apply(context);
    Ok(true)
}
