//! `POST /v1/connections/{id}/token`: reveals the token in the clear.

use actix_web::http::header::{CACHE_CONTROL, PRAGMA};
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::common::ids::ConnectionId;
use crate::connections::input::schema::Reason;
use crate::connections::input::{not_active, reason};
use crate::connections::reveal::Reveal;
use crate::connections::{Budgets, Context, reveal};
use crate::http::body::{Body, Id};
use crate::http::caller::{Authorized, Client, needs};
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{ForClients, Problems, WithJson};
use crate::providers::UserSecret;

/// Why the token is read.
#[derive(Deserialize, ToSchema)]
pub struct RevealRequest {
    /// For the audit trail.
    #[schema(value_type = Reason, example = "nightly balance run")]
    reason: String,
}

/// The token and what calls to the provider need with it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevealedToken<'a> {
    /// The connection.
    id: ConnectionId,
    /// The permanent token.
    #[schema(example = "eyJhbGciOiJIUzI1NiJ9.token.c2lnbmF0dXJl")]
    access_token: &'a str,
    /// Connect's user secret; `null` at Plaid, which has none, and if the connection came through Dapi's own wire and no
    /// call has brought it yet.
    #[schema(example = "zD0kHc1qXhV3t4bY8mWn2g==")]
    user_secret: Option<&'a str>,
    /// The app's own name for the user.
    #[serde(rename = "clientUserID")]
    #[schema(example = "user-42")]
    client_user_id: &'a str,
    /// The provider's name for the bank login.
    #[serde(rename = "connectionID")]
    #[schema(example = "a2b6c1d4-5e8f-4a30-b7c9-1d2e3f405162")]
    login_id: Option<&'a str>,
    /// Dapi's name for the user.
    #[serde(rename = "userID")]
    #[schema(example = "3e1d2b6a-9f10-4f0e-8a4b-7f1c2d5e9c57")]
    user_id: Option<&'a str>,
    /// Dapi's name for the token.
    #[serde(rename = "tokenID")]
    #[schema(example = "9c57a2b6-c1d4-4a30-b7c9-5e8f1d2e3f40")]
    dapi_token_id: Option<&'a str>,
}

/// Reads a token in the clear. That it was read is on record before it leaves.
///
/// A client may read a limited number of tokens a minute; beyond it, it gets `too_many_requests`.
#[utoipa::path(
    post, path = "/v1/connections/{id}/token", tag = "Connections", operation_id = "revealToken",
    security(("bearer" = ["tokens:read"])),
    params(("id" = ConnectionId, Path, description = "The connection")),
    request_body = RevealRequest,
    responses(
        (status = 200, description = "The token; never cached", body = RevealedToken),
        Problems<(ForClients, WithJson, code::NotFound, code::ConnectionNotActive, code::TooManyRequests)>,
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
