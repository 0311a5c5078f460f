//! The route table.

use actix_cors::Cors;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{ALLOW, HeaderValue, LOCATION, RETRY_AFTER};
use actix_web::middleware::{self, Next};
use actix_web::{Error, FromRequest, Handler, HttpMessage, HttpResponse, Resource, Responder, web};

use crate::approvals::routes as approvals;
use crate::audit::routes as audit;
use crate::connections::{self, Context, erasure};
use crate::events::endpoints::routes as webhooks;
use crate::http::caller::{self, Authentication, Principal, Scheme};
use crate::http::problem::{Problem, ProblemCode};
use crate::oauth::routes::admin;
use crate::oauth::{Issuer, Proofs};
use crate::relay::routes as relay;
use crate::service::{Shared, Thread, documents, query, status};
use crate::upstreams::routes as upstream;
use crate::vault::Vault;
use crate::{events, oauth, sessions};

/// Registers what handlers extract.
pub(super) fn data(config: &mut web::ServiceConfig, shared: &Shared, thread: Option<Thread>) {
    let Some(Thread { context, upstreams, relay, events }) = thread else { return };
    config
        .app_data(web::Data::new(context.pool.clone()))
        .app_data(web::Data::new(context))
        .app_data(web::Data::new(upstreams))
        .app_data(web::Data::new(relay))
        .app_data(web::Data::new(events))
        .app_data(web::Data::new(shared.vault.clone()))
        .app_data(web::Data::new(shared.issuer.clone()))
        .app_data(web::Data::new(shared.proofs.clone()))
        .app_data(web::Data::new(shared.signer.clone()))
        .app_data(web::Data::new(shared.budgets.clone()))
        .app_data(web::Data::new(shared.readiness.clone()))
        .app_data(web::Data::new(shared.operators.clone()))
        .app_data(web::Data::new(shared.proxies.clone()))
        .app_data(web::Data::new(shared.body_pool.clone()))
        .app_data(web::Data::new(shared.webhooks.clone()))
        .app_data(web::Data::new(shared.pages.clone()))
        .app_data(web::Data::new(shared.metrics.http.clone()));
}

/// Registers every route. Each has a line in the `OpenAPI` document, and each operation of that
/// document a row in the test of authorization.
///
/// What is asked most is first, here and below: paths are tried one after the other, and each with a parameter is a
/// regular expression.
pub(super) fn all(config: &mut web::ServiceConfig, cors_origins: &[String]) {
    config
        .configure(|config| version_1(config, cors_origins))
        .configure(oauth_endpoints)
        .service(read("/healthz", status::healthz))
        .service(read("/readyz", status::readyz))
        .service(at("/dapi/v2/{path:.*}", "POST").route(web::post().to(relay::wire::dapi::by_path)))
        .service(at("/plaid/{path:.*}", "POST").route(web::post().to(relay::wire::plaid::by_path)))
        .service(at("/dapi", "POST").route(web::post().to(relay::wire::dapi::by_action)))
        .service(at("/dapi/", "POST").route(web::post().to(relay::wire::dapi::by_action)))
        .service(
            at("/hooks/plaid/{app}", "POST")
                .route(web::post().to(connections::webhooks::routes::plaid)),
        )
        .service(web::redirect("/docs", "/docs/"))
        .service(read("/docs/{_:.*}", documents::page))
        .service(read(documents::OPENAPI, documents::document))
        .service(read("/", documents::index))
        .service(read("/problems/{code}", status::problem));
}

/// The API, whose callers have a token.
fn version_1(config: &mut web::ServiceConfig, cors_origins: &[String]) {
    config.service(
        web::scope("/v1")
            .configure(|config| connections(config, cors_origins))
            .configure(calls)
            .configure(revocations)
            .service(
                at("/connect-sessions", "POST").route(web::post().to(sessions::routes::create)),
            )
            .service(at("/events", "GET").route(web::get().to(events::routes::list)))
            .configure(upstreams)
            .configure(admin_clients)
            .configure(admin_webhooks)
            .configure(admin_audit)
            .configure(admin_approvals)
            .configure(admin_connections)
            .wrap(middleware::from_fn(query::strict))
            .wrap(middleware::from_fn(authenticate)),
    );
}

/// A connection's life, for its app and in part for a browser's session.
fn connections(config: &mut web::ServiceConfig, cors_origins: &[String]) {
    config
        .service(
            at("/connections", "GET, POST")
                .route(web::get().to(connections::query::routes::read::list))
                .route(web::post().to(connections::exchange::routes::create))
                .wrap(cors(cors_origins)),
        )
        .service(
            at("/connections/import", "POST")
                .route(web::post().to(connections::import::routes::import)),
        )
        .service(
            at("/connections/{id}", "GET")
                .route(web::get().to(connections::query::routes::read::get))
                .wrap(cors(cors_origins)),
        )
        .service(
            at("/connections/{id}/token", "POST, DELETE")
                .route(web::post().to(connections::reveal::routes::token))
                .route(web::delete().to(connections::rotation::routes::release)),
        );
}

/// Calls to the provider on a connection's behalf, and what comes before one.
fn calls(config: &mut web::ServiceConfig) {
    config
        .service(
            at("/connections/{id}/dapi/{path:.*}", "POST").route(web::post().to(relay::call::dapi)),
        )
        .service(
            at("/connections/{id}/plaid/{path:.*}", "POST")
                .route(web::post().to(relay::call::plaid)),
        )
        .service(at("/plaid/link-token", "POST").route(web::post().to(relay::link::create)));
}

/// The end of a connection, and of what it needs attention for.
fn revocations(config: &mut web::ServiceConfig) {
    config
        .service(
            at("/connections/{id}/delink", "POST")
                .route(web::post().to(connections::revocation::routes::delink)),
        )
        .service(
            at("/connections/{id}/invalidate", "POST")
                .route(web::post().to(connections::revocation::routes::invalidate)),
        )
        .service(
            at("/connections/{id}/attention", "DELETE")
                .route(web::delete().to(connections::attention::routes::clear)),
        );
}

/// The authorization server: metadata, tokens, revocation, introspection.
fn oauth_endpoints(config: &mut web::ServiceConfig) {
    config
        .service(read("/.well-known/oauth-authorization-server", oauth::routes::metadata::metadata))
        .service(read("/.well-known/jwks.json", oauth::routes::metadata::jwks))
        .service(at("/oauth2/token", "POST").route(web::post().to(oauth::routes::token::token)))
        // The same endpoint, at the path that clients of a plain Basic server use.
        .service(at("/oauth/v2/token", "POST").route(web::post().to(oauth::routes::token::token)))
        .service(at("/oauth2/revoke", "POST").route(web::post().to(oauth::routes::revoke::revoke)))
        .service(
            at("/oauth2/introspect", "POST")
                .route(web::post().to(oauth::routes::introspect::introspect)),
        );
}

/// Other APIs: their use and their administration.
fn upstreams(config: &mut web::ServiceConfig) {
    config
        .service(
            at("/upstreams/{name}/token", "POST").route(web::post().to(upstream::token::token)),
        )
        .service(
            at("/upstreams/{name}/proxy/{path:.*}", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
                .route(web::get().to(upstream::proxy::get))
                .route(web::head().to(upstream::proxy::pass))
                .route(web::post().to(upstream::proxy::post))
                .route(web::put().to(upstream::proxy::put))
                .route(web::patch().to(upstream::proxy::patch))
                .route(web::delete().to(upstream::proxy::delete))
                .route(web::method(Method::OPTIONS).to(upstream::proxy::pass)),
        )
        .service(
            at("/admin/upstreams", "GET, POST")
                .route(web::get().to(upstream::admin::list))
                .route(web::post().to(upstream::admin::add)),
        )
        .service(
            at("/admin/upstreams/{name}", "GET, PATCH, DELETE")
                .route(web::get().to(upstream::admin::get))
                .route(web::patch().to(upstream::admin::change))
                .route(web::delete().to(upstream::admin::remove)),
        );
}

fn admin_clients(config: &mut web::ServiceConfig) {
    config
        .service(
            at("/admin/clients", "GET, POST")
                .route(web::get().to(admin::list))
                .route(web::post().to(admin::create)),
        )
        .service(
            at("/admin/clients/{clientID}", "GET, PATCH, DELETE")
                .route(web::get().to(admin::show))
                .route(web::patch().to(admin::change))
                .route(web::delete().to(admin::delete)),
        )
        .service(
            at("/admin/clients/{clientID}/secrets", "POST")
                .route(web::post().to(admin::add_secret)),
        )
        .service(
            at("/admin/clients/{clientID}/secrets/{secretID}", "DELETE")
                .route(web::delete().to(admin::end_secret)),
        );
}

fn admin_webhooks(config: &mut web::ServiceConfig) {
    config
        .service(
            at("/admin/webhooks", "GET, POST")
                .route(web::get().to(webhooks::list))
                .route(web::post().to(webhooks::create)),
        )
        .service(
            at("/admin/webhooks/{id}", "GET, PATCH, DELETE")
                .route(web::get().to(webhooks::get))
                .route(web::patch().to(webhooks::change))
                .route(web::delete().to(webhooks::delete)),
        )
        .service(
            at("/admin/webhooks/{id}/secrets", "POST").route(web::post().to(webhooks::add_secret)),
        )
        .service(
            at("/admin/webhooks/{id}/secrets/{secretID}", "DELETE")
                .route(web::delete().to(webhooks::end_secret)),
        )
        .service(at("/admin/webhooks/{id}/test", "POST").route(web::post().to(webhooks::test)))
        .service(at("/admin/webhooks/{id}/replay", "POST").route(web::post().to(webhooks::replay)))
        .service(
            at("/admin/webhooks/{id}/deliveries", "GET").route(web::get().to(webhooks::deliveries)),
        );
}

fn admin_audit(config: &mut web::ServiceConfig) {
    config
        .service(at("/admin/audit-events", "GET").route(web::get().to(audit::list)))
        .service(at("/admin/audit-checkpoint", "GET").route(web::get().to(audit::checkpoint)));
}

fn admin_approvals(config: &mut web::ServiceConfig) {
    config
        .service(at("/admin/approvals", "GET").route(web::get().to(approvals::list)))
        .service(at("/admin/approvals/{id}", "GET").route(web::get().to(approvals::get)))
        .service(
            at("/admin/approvals/{id}/withdraw", "POST").route(web::post().to(approvals::withdraw)),
        );
}

/// Operators' routes: every user's connections, bulk revocations, erasure.
fn admin_connections(config: &mut web::ServiceConfig) {
    config
        .service(
            at("/admin/connections", "GET")
                .route(web::get().to(connections::query::routes::search::search)),
        )
        .service(
            at("/admin/connections/{id}", "GET")
                .route(web::get().to(connections::query::routes::search::get)),
        )
        .service(
            at("/admin/stats", "GET")
                .route(web::get().to(connections::query::routes::search::stats)),
        )
        .service(
            at("/admin/revocations", "GET, POST")
                .route(web::get().to(connections::bulk_revocation::routes::list))
                .route(web::post().to(connections::bulk_revocation::routes::create)),
        )
        .service(
            at("/admin/revocations/{id}", "GET")
                .route(web::get().to(connections::bulk_revocation::routes::get)),
        )
        .service(
            at("/admin/revocations/{id}/pause", "POST")
                .route(web::post().to(connections::bulk_revocation::routes::pause)),
        )
        .service(
            at("/admin/revocations/{id}/resume", "POST")
                .route(web::post().to(connections::bulk_revocation::routes::resume)),
        )
        .service(
            at("/admin/revocations/{id}/cancel", "POST")
                .route(web::post().to(connections::bulk_revocation::routes::cancel)),
        )
        .service(
            at("/users/{clientUserID}", "DELETE").route(web::delete().to(erasure::routes::erase)),
        )
        .service(at("/users/erasures/{id}", "GET").route(web::get().to(erasure::routes::get)));
}

/// Returns a path that responds to other methods with a problem that lists its own (RFC 9110
/// §15.5.6).
fn at(path: &str, allow: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move || async move {
        let problem = Problem::new(ProblemCode::MethodNotAllowed, format!("It takes {allow}."));
        Err::<HttpResponse, _>(problem.header(ALLOW, HeaderValue::from_static(allow)))
    }))
}

/// Returns a read-only path; `HEAD` is answered as `GET` without the body (RFC 9110 §9.3.2).
fn read<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let (get, head) = (web::get().to(handler.clone()), web::head().to(handler));
    at(path, "GET, HEAD").route(get).route(head)
}

/// Responds to requests without a route.
pub(super) async fn not_found() -> Result<HttpResponse, Problem> {
    Err(Problem::new(
        ProblemCode::NotFound,
        "There is nothing at this path; /docs lists what there is.",
    ))
}

/// Allows pages of exactly these origins to hand in results and read their state. They may send any
/// header: browser tracing adds its own, and no header here grants anything but a bearer token.
fn cors(origins: &[String]) -> Cors {
    let exposed =
        [LOCATION, RETRY_AFTER, actix_web::http::header::HeaderName::from_static("x-request-id")];
    let cors = Cors::default()
        .allowed_methods(["GET", "POST"])
        .allow_any_header()
        .expose_headers(&exposed)
        .max_age(600);
    origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Authenticates the caller and stores the result in the request; the handler's extractor decides
/// whether the scope suffices.
async fn authenticate(
    req: ServiceRequest,
    next: Next<impl actix_web::body::MessageBody>,
) -> Result<ServiceResponse<impl actix_web::body::MessageBody>, Error> {
    let found = principal(&req).await.transpose();
    if let Some(found) = found {
        req.extensions_mut().insert(Authentication(found));
    }
    next.call(req).await
}

async fn principal(req: &ServiceRequest) -> Result<Option<Principal>, Problem> {
    let request = req.request();
    let Some((scheme, token)) = caller::presented(request)? else { return Ok(None) };
    if scheme == Scheme::Bearer && token.starts_with(sessions::TOKEN_PREFIX) {
        return session(req, token).await.map(Some);
    }
    let issuer = req.app_data::<web::Data<Issuer>>().zip(req.app_data::<web::Data<Proofs>>());
    let (issuer, proofs) = issuer.ok_or_else(|| Problem::internal("no issuer"))?;
    let (context, vault) = database(req)?;
    let pool = &context.pool;
    let client = oauth::verify(issuer, proofs, pool, vault, request, (scheme, token)).await?;
    Ok(Some(Principal::Client(client)))
}

fn database(req: &ServiceRequest) -> Result<(&Context, &Vault), Problem> {
    let context = req.app_data::<web::Data<Context>>();
    let vault = req.app_data::<web::Data<Vault>>();
    let both = context.zip(vault).map(|(context, vault)| (context.get_ref(), vault.get_ref()));
    both.ok_or_else(|| Problem::internal("no database or no vault"))
}

async fn session(req: &ServiceRequest, token: &str) -> Result<Principal, Problem> {
    let unknown = || Problem::invalid_token("The connect session has ended or never was");
    if !sessions::is_token(token) {
        return Err(unknown());
    }
    let (context, vault) = database(req)?;
    let mut conn = context.pool.acquire().await?;
    let session = sessions::find(&mut conn, vault, token).await?;
    let session = session.ok_or_else(unknown)?;
    let issuer = req.app_data::<web::Data<Issuer>>();
    oauth::check_fence(issuer.ok_or_else(|| Problem::internal("no issuer"))?, session.app)?;
    Ok(Principal::Session(session))
}
