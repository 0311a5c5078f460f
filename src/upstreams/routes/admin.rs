//! `/v1/admin/upstreams`: the upstreams of the caller's own app. Their secrets are never shown.

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{name, unknown};
use crate::http::body::Body;
use crate::http::caller::{Authorized, needs};
use crate::http::problem::{Problem, code};
use crate::http::responses::{ForClients, Problems, WithJson};
use crate::upstreams::model::{Change, Draft, Upstream, UpstreamName};
use crate::upstreams::{Context, admin, store};

/// The upstreams of an app, by name.
#[derive(Serialize, ToSchema)]
pub struct UpstreamList {
    /// The upstreams.
    upstreams: Vec<Upstream>,
}

/// Adds an upstream. Nothing is asked of it before its first token is.
#[utoipa::path(
    post, path = "/v1/admin/upstreams", tag = "Administration", operation_id = "createUpstream",
    security(("bearer" = ["admin"])),
    request_body = Draft,
    responses(
        (status = 201, description = "Added", body = Upstream, headers(("Location" = String, description = "The upstream"))),
        Problems<(ForClients, WithJson, code::UpstreamExists)>,
    )
)]
pub async fn add(
    caller: Authorized<needs::Admin>,
    context: web::Data<Context>,
    body: Body<Draft>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let (app, reach) = (caller.client.app, context.outbound.reach());
    let added = admin::add(&mut conn, &context.vault, &caller.actor, app, body.0, reach).await?;
    let location = (LOCATION, format!("/v1/admin/upstreams/{}", added.name));
    Ok(HttpResponse::Created().insert_header(location).json(added))
}

/// Lists the app's upstreams.
#[utoipa::path(
    get, path = "/v1/admin/upstreams", tag = "Administration", operation_id = "listUpstreams",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "All of them, by name", body = UpstreamList),
        Problems<ForClients>,
    )
)]
pub async fn list(
    caller: Authorized<needs::Admin>,
    context: web::Data<Context>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let upstreams = store::list(&mut conn, caller.client.app).await?;
    Ok(HttpResponse::Ok().json(UpstreamList { upstreams }))
}

/// One upstream, with the times of its token and its last failure.
#[utoipa::path(
    get, path = "/v1/admin/upstreams/{name}", tag = "Administration", operation_id = "getUpstream",
    security(("bearer" = ["admin"])),
    params(("name" = UpstreamName, Path, description = "The upstream")),
    responses(
        (status = 200, description = "The upstream", body = Upstream),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn get(
    caller: Authorized<needs::Admin>,
    context: web::Data<Context>,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let found = store::find(&mut conn, caller.client.app, name(&req)?).await?;
    found.map(|upstream| HttpResponse::Ok().json(upstream)).ok_or_else(unknown)
}

/// Changes an upstream: its cached token is dropped, and a failure's wait ends. What is left out stays.
#[utoipa::path(
    patch, path = "/v1/admin/upstreams/{name}", tag = "Administration", operation_id = "updateUpstream",
    security(("bearer" = ["admin"])),
    params(("name" = UpstreamName, Path, description = "The upstream")),
    request_body = Change,
    responses(
        (status = 200, description = "Changed", body = Upstream),
        Problems<(ForClients, WithJson, code::NotFound)>,
    )
)]
pub async fn change(
    caller: Authorized<needs::Admin>,
    context: web::Data<Context>,
    req: HttpRequest,
    body: Body<Change>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let (app, reach) = (caller.client.app, context.outbound.reach());
    let (vault, actor) = (&context.vault, &caller.actor);
    let changed = admin::change(&mut conn, vault, actor, app, name(&req)?, body.0, reach).await?;
    Ok(HttpResponse::Ok().json(changed))
}

/// Removes an upstream with its secret and its cached token. The token lives on at the upstream until it
/// runs out: client credentials know no way back.
#[utoipa::path(
    delete, path = "/v1/admin/upstreams/{name}", tag = "Administration", operation_id = "deleteUpstream",
    security(("bearer" = ["admin"])),
    params(("name" = UpstreamName, Path, description = "The upstream")),
    responses(
        (status = 204, description = "Removed"),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn remove(
    caller: Authorized<needs::Admin>,
    context: web::Data<Context>,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    admin::remove(&mut conn, &caller.actor, caller.client.app, name(&req)?).await?;
    Ok(HttpResponse::NoContent().finish())
}
