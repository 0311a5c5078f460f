//! `POST /v1/connections/{id}/delink` and `…/invalidate`: acknowledged at once, idempotent.

use std::time::Instant;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::input::schema::Reason;
use crate::connections::input::{location, not_active, reason};
use crate::connections::model::{Connection, RevocationKind, Status};
use crate::connections::query::wait::wait_until;
use crate::connections::revocation::{Request, RevokeOutcome};
use crate::connections::{Context, revocation};
use crate::http::body::{Body, Id};
use crate::http::caller::{Authorized, needs};
use crate::http::detached;
use crate::http::problem::{Problem, code};
use crate::http::responses::{ForClients, Problems, WithJson};

/// Delinks: the user unlinks the bank. No body is needed.
///
/// When this is answered, the token is not usable here any more, whatever the answer says about Dapi.
#[utoipa::path(
    post, path = "/v1/connections/{id}/delink", tag = "Connections", operation_id = "delinkConnection",
    security(("bearer" = ["connections:revoke"])),
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses(
        (status = 200, description = "Ended: `delinked`, or `invalidated` where it was before", body = Connection),
        (status = 202, description = "`revoking`: Dapi has not confirmed in time; the delinking is repeated until it does", body = Connection),
        Problems<(ForClients, code::NotFound, code::ConnectionNotActive)>,
    )
)]
pub async fn delink(
    caller: Authorized<needs::ConnectionsRevoke>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
) -> Result<HttpResponse, Problem> {
    let request = (RevocationKind::Delink, None, true);
    revoke(&context, &caller.actor, caller.client.app, id.0, request).await
}

/// Why a token is declared dead.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvalidateRequest {
    /// For the audit trail.
    #[schema(value_type = Reason, example = "device reported stolen")]
    reason: String,
    /// Whether the token is to be delinked at Dapi. `false` also ends a `revoking` that can never be confirmed.
    #[serde(default = "yes")]
    #[schema(default = true)]
    revoke_upstream: bool,
}

const fn yes() -> bool {
    true
}

/// Invalidates: declares the token dead.
#[utoipa::path(
    post, path = "/v1/connections/{id}/invalidate", tag = "Connections", operation_id = "invalidateConnection",
    security(("bearer" = ["connections:revoke"])),
    params(("id" = ConnectionId, Path, description = "The connection")),
    request_body = InvalidateRequest,
    responses(
        (status = 200, description = "Ended: `invalidated`, or `delinked` where it was before", body = Connection),
        (status = 202, description = "`revoking`: Dapi has not confirmed in time; the delinking is repeated until it does", body = Connection),
        Problems<(ForClients, WithJson, code::NotFound, code::ConnectionNotActive)>,
    )
)]
pub async fn invalidate(
    caller: Authorized<needs::ConnectionsRevoke>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
    body: Body<InvalidateRequest>,
) -> Result<HttpResponse, Problem> {
    reason(&body.0.reason)?;
    let request = (RevocationKind::Invalidate, Some(body.0.reason), body.0.revoke_upstream);
    revoke(&context, &caller.actor, caller.client.app, id.0, request).await
}

/// Revokes in a task of its own, which a caller's disconnect does not cancel, and waits for the confirmation until the
/// deadline.
async fn revoke(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
    (kind, reason, revoke_upstream): (RevocationKind, Option<String>, bool),
) -> Result<HttpResponse, Problem> {
    let deadline = Instant::now() + context.pace.answer_within;
    let revoking = {
        let (context, actor) = (context.clone(), actor.clone());
        async move {
            let request = Request { kind, reason: reason.as_deref(), revoke_upstream };
            revocation::revoke(&context, &actor, app, id, request).await
        }
    };
    let outcome = detached(&context.tasks, revoking).await??;
    // If nothing was acknowledged, there is nothing to wait for.
    let deadline = if outcome == RevokeOutcome::Acknowledged { deadline } else { Instant::now() };
    let done = |status| status != Status::Revoking;
    let found = wait_until(context, app, id, deadline, done).await?;
    let connection = found.ok_or_else(Problem::not_found)?;
    if outcome == RevokeOutcome::NotActive {
        return Err(not_active(id, connection.status));
    }
    let mut answer = match connection.status {
        Status::Revoking => HttpResponse::Accepted(),
        _ => HttpResponse::Ok(),
    };
    Ok(answer.insert_header(location(id)).json(connection))
}
