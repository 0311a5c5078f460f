//! `POST /v1/connections/{id}/token`: reveals the token in the clear.

use actix_web::http::header::{CACHE_CONTROL, PRAGMA};
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::common::ids::ConnectionId;
use crate::connections::input::{not_active, reason};
use crate::connections::reveal::Reveal;
use crate::connections::{Budgets, Context, reveal};
use crate::http::body::{Body, Id};
use crate::http::caller::{Authorized, Client, needs};
use crate::http::problem::{Problem, ProblemCode};
use crate::providers::UserSecret;

/// Why the token is read.
#[derive(Deserialize, ToSchema)]
pub struct RevealRequest {
    /// In words, for the audit trail.
    #[schema(example = "nightly balance run", max_length = 500)]
    reason: String,
}

/// The token and what calls to the provider need with it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevealedToken<'a> {
    /// The connection.
    id: ConnectionId,
    /// The permanent token.
    access_token: &'a str,
    /// Connect's user secret; `null` at Plaid, which has none, and if the connection came through Dapi's own wire and no
    /// call has brought it yet.
    user_secret: Option<&'a str>,
    /// The app's own name for the user.
    #[serde(rename = "clientUserID")]
    client_user_id: &'a str,
    /// The provider's name for the bank login.
    #[serde(rename = "connectionID")]
    login_id: Option<&'a str>,
    /// Dapi's name for the user.
    #[serde(rename = "userID")]
    user_id: Option<&'a str>,
    /// Dapi's name for the token.
    #[serde(rename = "tokenID")]
    dapi_token_id: Option<&'a str>,
}

/// Reads a token in the clear. That it was read is on record before it leaves.
#[utoipa::path(
    post, path = "/v1/connections/{id}/token", tag = "Connections",
    security(("bearer" = ["tokens:read"])),
    params(("id" = ConnectionId, Path, description = "The connection")),
    request_body = RevealRequest,
    responses(
        (status = 200, description = "The token; never cached", body = RevealedToken),
        (status = 400, description = "`invalid_request`"),
        (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`insufficient_scope`"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`connection_not_active`, with `connectionStatus`"),
        (status = 415, description = "`unsupported_media_type`"),
        (status = 429, description = "`too_many_requests`: the client's budget for this minute is spent; with `Retry-After`"),
        (status = 503, description = "`unavailable`"),
    )
)]
pub async fn token(
    caller: Authorized<needs::TokensRead>,
    context: web::Data<Context>,
    budgets: web::Data<Budgets>,
    id: Id<ConnectionId>,
    body: Body<RevealRequest>,
) -> Result<HttpResponse, Problem> {
    reason(&body.0.reason)?;
    within_budget(&context, &budgets, &caller.client).await?;
    let app = caller.client.app;
    let revealed = reveal::reveal(&context, &caller.actor, app, id.0, &body.0.reason).await?;
    let secrets = match revealed {
        Reveal::Secrets(secrets) => secrets,
        Reveal::NotActive(status) => return Err(not_active(id.0, status)),
        Reveal::Unknown => return Err(Problem::not_found()),
        Reveal::Busy => {
            let detail = "The connection is being changed; try again in a moment.";
            return Err(Problem::new(ProblemCode::Unavailable, detail).retry_after(1));
        }
    };
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "no-store")).insert_header((PRAGMA, "no-cache"));
    Ok(answer.json(RevealedToken {
        id: id.0,
        access_token: secrets.access_token.expose(),
        user_secret: secrets.user_secret.as_ref().map(UserSecret::expose),
        client_user_id: &secrets.client_user_id,
        login_id: secrets.login_id.as_deref(),
        user_id: secrets.dapi_user_id.as_deref(),
        dapi_token_id: secrets.dapi_token_id.as_deref(),
    }))
}

/// Takes one reveal from the client's budget. A refusal is logged as a warning, because it is either a theft or a
/// client that needs a larger budget.
async fn within_budget(
    context: &Context,
    budgets: &Budgets,
    client: &Client,
) -> Result<(), Problem> {
    let taken = budgets.take(&context.pool, &client.id, client.reveals_per_minute).await?;
    taken.map_err(|seconds| {
        context.metrics.reveals_refused.inc();
        tracing::warn!(client = &*client.id, "the client's budget of reveals is spent");
        let detail = "The client has read as many tokens as it may within a minute.";
        Problem::new(ProblemCode::TooManyRequests, detail).retry_after(seconds)
    })
}
