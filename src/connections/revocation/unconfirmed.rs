//! Ending a connection without its delinking: a token that may live on at the bank link, so that four eyes hold it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Request, RevokeOutcome, revoke};
use crate::approvals::{self, AskError, Gated, Kind, NewRequest};
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::model::{RevocationKind, Status};
use crate::connections::{ConnectionError, Context, query};

/// An invalidation without a delinking that waits for a second person.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestedInvalidation {
    /// The connection.
    pub id: ConnectionId,
    /// For the audit trail.
    pub reason: String,
}

impl RequestedInvalidation {
    fn to_request(&self, app: AppId) -> NewRequest {
        let request = json!(self);
        NewRequest {
            app: Some(app),
            kind: Kind::Invalidation,
            request: request.to_string(),
            described: request,
            matched: Some(1),
        }
    }
}

/// Why an invalidation could not be carried through or recorded.
#[derive(Debug, thiserror::Error)]
pub enum InvalidateError {
    /// Recording it.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Carrying it out.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// Invalidates a connection without having it delinked, or records that this waits for a second person.
///
/// # Errors
/// See [`InvalidateError`].
pub async fn invalidate_unconfirmed(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
    reason: String,
) -> Result<Gated<RevokeOutcome>, InvalidateError> {
    let Some(found) = query::find(context, app, id).await? else {
        return Ok(Gated::Done(RevokeOutcome::Unknown));
    };
    // One that has ended holds nothing that could live on.
    let lives = matches!(found.status, Status::Pending | Status::Active | Status::Revoking);
    let asked = RequestedInvalidation { id, reason };
    let permitted = {
        let mut conn = context.pool.acquire().await.map_err(ConnectionError::from)?;
        let needed = lives && context.four_eyes.is_on();
        approvals::ask(&mut conn, &context.vault, actor, needed, &asked.to_request(app)).await?
    };
    let permitted = match permitted {
        Gated::Done(permitted) => permitted,
        Gated::Awaits(awaiting) => return Ok(Gated::Awaits(awaiting)),
    };
    let request = Request {
        kind: RevocationKind::Invalidate,
        reason: Some(&asked.reason),
        // A token may have come to one that had ended: that one is delinked.
        unconfirmed: (lives || !context.four_eyes.is_on()).then_some(&permitted),
    };
    Ok(Gated::Done(revoke(context, actor, app, id, request).await?))
}
