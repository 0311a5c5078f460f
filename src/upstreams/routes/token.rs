//! `POST /v1/upstreams/{name}/token`: the cached token.

use actix_web::http::header::{CACHE_CONTROL, PRAGMA};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use super::{name, no_token};
use crate::http::caller::{Authorized, needs};
use crate::http::problem::{Problem, code};
use crate::http::responses::{Calling, ForClients, Problems};
use crate::upstreams::Context;
use crate::upstreams::acquire::{AcquireOutcome, Purpose, acquire};
use crate::upstreams::model::UpstreamName;

/// An upstream's access token (RFC 6749 §5.1).
#[derive(Serialize, utoipa::ToSchema)]
pub struct UpstreamTokenResponse<'a> {
    /// The token.
    #[schema(example = "2YotnFZFEjr1zCsicMWpAA")]
    access_token: &'a str,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds of life that it has left.
    #[schema(example = 3412)]
    expires_in: i64,
}

/// Reads an upstream's token from the cache that all replicas share. The audit trail records that
/// before the token leaves. If no token is valid, the request waits for the one that fetches it.
///
/// `upstream_failed` comes with `failure` and the upstream's `oauthError`, and with `Retry-After` until it is asked again.
#[utoipa::path(
    post, path = "/v1/upstreams/{name}/token", tag = "Upstreams", operation_id = "getUpstreamToken",
    security(("bearer" = ["upstreams:use"])),
    params(("name" = UpstreamName, Path, description = "The upstream")),
    responses(
        (status = 200, description = "A token that is valid; never cached", body = UpstreamTokenResponse),
        Problems<(ForClients, Calling, code::NotFound)>,
    )
)]
pub async fn token(
    caller: Authorized<needs::UpstreamsUse>,
    context: web::Data<Context>,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let app = caller.client.app;
    let acquired = match acquire(&context, &caller.actor, app, name(&req)?, Purpose::Read).await? {
        AcquireOutcome::Token(acquired) => acquired,
        none => return Err(no_token(none)),
    };
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "no-store")).insert_header((PRAGMA, "no-cache"));
    Ok(answer.json(UpstreamTokenResponse {
        access_token: acquired.token.expose(),
        token_type: "Bearer",
        expires_in: acquired.expires_in,
    }))
}
