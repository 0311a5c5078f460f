//! The `OpenAPI` document, generated from the handlers' annotations.

use utoipa::openapi::security::{
    ClientCredentials, Flow, HttpAuthScheme, HttpBuilder, OAuth2, Scopes, SecurityScheme,
};
use utoipa::{Modify, OpenApi};

use crate::audit::routes as audit;
use crate::common::scope::Scope;
use crate::connections;
use crate::erasure::routes as erasure;
use crate::oauth::routes as oauth;
use crate::relay::routes as relay;
use crate::sessions::routes as session;
use crate::upstreams::routes as upstream;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Strongroom",
        description = "The service behind a \"connect your bank\" button: it exchanges Dapi's access codes, keeps the tokens sealed, reveals them or calls Dapi with them, and revokes them with certainty.\n\nErrors are problem documents (RFC 9457) whose `code` says what kind of problem it is; the OAuth endpoints answer errors as RFC 6749 has them."
    ),
    paths(
        oauth::token::token,
        oauth::revoke::revoke,
        oauth::introspect::introspect,
        oauth::metadata::metadata,
        oauth::metadata::jwks,
        oauth::admin::create,
        oauth::admin::list,
        oauth::admin::show,
        oauth::admin::change,
        oauth::admin::delete,
        oauth::admin::add_secret,
        oauth::admin::end_secret,
        audit::list,
        audit::checkpoint,
        session::create,
        connections::exchange::routes::create,
        connections::import::routes::import,
        connections::query::routes::read::list,
        connections::query::routes::read::get,
        connections::attention::routes::clear,
        connections::reveal::routes::token,
        connections::rotation::routes::release,
        connections::revocation::routes::delink,
        connections::revocation::routes::invalidate,
        connections::webhooks::routes::plaid,
        connections::query::routes::search::search,
        connections::query::routes::search::get,
        connections::query::routes::search::stats,
        connections::bulk_revocation::routes::create,
        connections::bulk_revocation::routes::list,
        connections::bulk_revocation::routes::get,
        connections::bulk_revocation::routes::pause,
        connections::bulk_revocation::routes::resume,
        connections::bulk_revocation::routes::cancel,
        erasure::erase,
        erasure::get,
        relay::call::call,
        relay::wire::by_path,
        relay::wire::by_action,
        upstream::token::token,
        upstream::proxy::get,
        upstream::proxy::post,
        upstream::proxy::put,
        upstream::proxy::patch,
        upstream::proxy::delete,
        upstream::admin::add,
        upstream::admin::list,
        upstream::admin::get,
        upstream::admin::change,
        upstream::admin::remove,
        super::status::healthz,
        super::status::readyz,
        super::status::problem,
    ),
    components(schemas(Problem)),
    modifiers(&Security),
    tags(
        (name = "Connections", description = "Linked bank logins"),
        (name = "Dapi's wire", description = "For apps that use Dapi's SDKs"),
        (name = "Webhooks", description = "What Plaid tells"),
        (name = "Upstreams", description = "Other APIs' tokens, and calls with them"),
        (name = "Admin", description = "Of the caller's own app"),
        (name = "OAuth", description = "Access tokens by client credentials"),
        (name = "Administration", description = "Of the caller's own app"),
        (name = "Status", description = "For operators and load balancers"),
    )
)]
struct Document;

/// A problem document (RFC 9457).
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what `http::problem` writes")]
struct Problem {
    /// Leads to what the code means.
    #[schema(example = "/problems/not_found")]
    r#type: String,
    /// What the code means, as text.
    title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What is the matter this time.
    detail: String,
    /// What kind of problem it is.
    #[schema(example = "not_found")]
    code: String,
    /// The request's id, under which the log has details; also in the header `X-Request-ID`.
    #[schema(rename = "requestID")]
    request_id: String,
}

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scopes = Scopes::from_iter(Scope::ALL.map(|scope| (scope.as_str(), scope.describe())));
        let flow = Flow::ClientCredentials(ClientCredentials::new("/oauth2/token", scopes));
        let session = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A connect session's token, from `POST /v1/connect-sessions`"))
            .build();
        let basic = HttpBuilder::new()
            .scheme(HttpAuthScheme::Basic)
            .description(Some("A client's id and secret"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::OAuth2(OAuth2::new([flow])));
        components.add_security_scheme("connect_session", SecurityScheme::Http(session));
        components.add_security_scheme("client_basic", SecurityScheme::Http(basic));
    }
}

/// Returns the `OpenAPI` document of this release.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
