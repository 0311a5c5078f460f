//! `POST /v1/connections/{id}/delink` and `…/invalidate`: acknowledged at once, idempotent.

use std::time::Instant;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::approvals::routes::awaits;
use crate::approvals::{AwaitingApproval, Gated};
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::input::schema::Reason;
use crate::connections::input::{location, not_active, reason};
use crate::connections::model::{Connection, RevocationKind, Status};
use crate::connections::query::wait::wait_until;
use crate::connections::revocation::{InvalidateError, Request, RevokeOutcome};
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
    let deadline = Instant::now() + context.pace.answer_within;
    let (within, actor, app) = (context.clone(), caller.actor.clone(), caller.client.app);
    let revoking = async move {
        revocation::revoke(&within, &actor, app, id.0, Request::told(RevocationKind::Delink, None))
            .await
    };
    let outcome = detached(&context.tasks, revoking).await??;
    answer(&context, app, id.0, outcome, deadline).await
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

/// What became of the request.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered")]
pub enum InvalidationAccepted {
    /// It is being delinked.
    Revoking(Box<Connection>),
    /// It waits for a second person.
    Waits(AwaitingApproval),
}

/// Invalidates: declares the token dead.
#[utoipa::path(
    post, path = "/v1/connections/{id}/invalidate", tag = "Connections", operation_id = "invalidateConnection",
    security(("bearer" = ["connections:revoke"])),
    params(("id" = ConnectionId, Path, description = "The connection")),
    request_body = InvalidateRequest,
    responses(
        (status = 200, description = "Ended: `invalidated`, or `delinked` where it was before", body = Connection),
        (status = 202, description = "`revoking`: Dapi has not confirmed in time; the delinking is repeated until it does. Or, with four eyes on and `revokeUpstream: false`, nothing was done and it waits for a second person: the answer is `{\"approval\": …}`", body = InvalidationAccepted, headers(("Location" = String, description = "The connection, or the approval"))),
        Problems<(ForClients, WithJson, code::NotFound, code::ConnectionNotActive, code::TooManyRequests)>,
    )
)]
pub async fn invalidate(
    caller: Authorized<needs::ConnectionsRevoke>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
    body: Body<InvalidateRequest>,
) -> Result<HttpResponse, Problem> {
    reason(&body.0.reason)?;
    let deadline = Instant::now() + context.pace.answer_within;
    let (within, actor, app) = (context.clone(), caller.actor.clone(), caller.client.app);
    let InvalidateRequest { reason, revoke_upstream } = body.0;
    let revoking = async move {
        if !revoke_upstream {
            return revocation::invalidate_unconfirmed(&within, &actor, app, id.0, reason).await;
        }
        let request = Request::told(RevocationKind::Invalidate, Some(&reason));
        Ok(Gated::Done(revocation::revoke(&within, &actor, app, id.0, request).await?))
    };
    match detached(&context.tasks, revoking).await?? {
        Gated::Done(outcome) => answer(&context, app, id.0, outcome, deadline).await,
        Gated::Awaits(approval) => Ok(awaits(approval)),
    }
}

impl From<InvalidateError> for Problem {
    fn from(error: InvalidateError) -> Self {
        match error {
            InvalidateError::Ask(error) => error.into(),
            InvalidateError::Connection(error) => error.into(),
        }
    }
}

/// Waits for the confirmation until the deadline, and answers.
async fn answer(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    outcome: RevokeOutcome,
    deadline: Instant,
) -> Result<HttpResponse, Problem> {
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
