//! Ends connections whose token Dapi reports as dead in its answer to a call.

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::effects::{Effects, RevocationEnd};
use crate::connections::model::{PredecessorEvent, RevocationKind, Status};
use crate::connections::transitions::store::{End, NewRevocation};
use crate::connections::{ConnectionError, Context, bank_login, superseded, transitions};

/// Ends an active connection as `invalidated`, confirmed, if `kind`, the `type` of Dapi's answer to a call with its
/// token, is one of `DAPI_DEAD_TYPES`. Returns whether it ended.
///
/// If the connection was imported and its predecessor's token is still kept, the predecessor is active again.
///
/// # Errors
/// The vault's or the database's. The connection is then unchanged.
pub async fn dapi_reports_dead_token(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    kind: &str,
) -> Result<bool, ConnectionError> {
    if !context.providers.settings().dead_types.iter().any(|dead| dead == kind) {
        return Ok(false);
    }
    let mut tx = context.pool.begin().await?;
    let Some((dapi_connection_id, user)) = bank_login::login_of(&mut tx, app, id).await? else {
        return Ok(false);
    };
    let locked =
        bank_login::lock_bank_login(&mut tx, app, &dapi_connection_id, Some(id), user).await?;
    // A revoking connection is left to its delinking, which gets the same answer from Dapi.
    if locked.me.is_none_or(|me| me.status != Status::Active) {
        return Ok(false);
    }
    let reason = format!("Dapi answered {kind}");
    let new = NewRevocation { kind: RevocationKind::Invalidate, reason: Some(&reason) };
    transitions::store::record_revocation(&mut tx, app, id, &new).await?;
    let end = End {
        confirmed: true,
        last_error: Some(&reason),
        ..End::new(RevocationKind::Invalidate.ends(true))
    };
    transitions::store::end(&mut tx, &AuditActor::from(&Actor::service()), app, id, &end).await?;
    let restored = superseded::after(&mut tx, app, id, PredecessorEvent::Died).await?;
    fail::fail_point!("dead::before_commit");
    tx.commit().await?;
    if let Some(older) = restored {
        tracing::warn!(connection = %older, instead_of = %id, "a superseded token is active again");
    }
    Effects::revocation(RevocationEnd::Confirmed).changed(id).apply(context);
    Ok(true)
}
