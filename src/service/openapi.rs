//! The `OpenAPI` document, generated from the handlers' annotations.

mod complete;
mod example;
mod links;

use serde_json::Value;
use utoipa::openapi::security::{
    ClientCredentials, Flow, HttpAuthScheme, HttpBuilder, OAuth2, Scopes, SecurityScheme,
};
use utoipa::{Modify, OpenApi};

use crate::approvals::routes as approvals;
use crate::audit::routes as audit;
use crate::audit::routes::{ActorKind, AuditFilterText};
use crate::common::paging::PageCursor;
use crate::common::scope::Scope;
use crate::connections;
use crate::connections::model::{Attention, Failure, Status};
use crate::connections::query::routes::search::SearchText;
use crate::events::endpoints::routes as webhooks;
use crate::events::routes as events;
use crate::http::problem::ProblemCode;
use crate::http::responses;
use crate::oauth::routes as oauth;
use crate::oauth::routes::responses::OAuthErrorShape;
use crate::relay::routes as relay;
use crate::sessions::routes as session;
use crate::upstreams::model::Failure as UpstreamFailureKind;
use crate::upstreams::routes as upstream;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Strongroom",
        description = "The service behind a \"connect your bank\" button: it exchanges Dapi's access codes, keeps the tokens sealed, reveals them or calls Dapi with them, and revokes them with certainty.\n\nErrors are problem documents (RFC 9457) whose `code` says what kind of problem it is; the OAuth endpoints answer errors as RFC 6749 has them, and Dapi's wire as Dapi does.",
        contact(name = "The authors of Strongroom"),
        license(name = "Apache-2.0", identifier = "Apache-2.0")
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
        approvals::list,
        approvals::get,
        approvals::withdraw,
        events::list,
        webhooks::create,
        webhooks::list,
        webhooks::get,
        webhooks::change,
        webhooks::delete,
        webhooks::add_secret,
        webhooks::end_secret,
        webhooks::test,
        webhooks::replay,
        webhooks::deliveries,
        connections::erasure::routes::erase,
        connections::erasure::routes::get,
        relay::call::dapi,
        relay::call::plaid,
        relay::link::create,
        relay::wire::dapi::by_path,
        relay::wire::dapi::by_action,
        relay::wire::plaid::by_path,
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
        super::status::metrics,
    ),
    components(schemas(
        Problem,
        OAuthErrorShape,
        PageCursor,
        SearchText,
        AuditFilterText,
        ActorKind
    )),
    modifiers(&Security, &Shared),
    servers((url = "/", description = "The service that serves this document")),
    tags(
        (name = "Connections", description = "Linked bank logins: connect, import, read, use and revoke them"),
        (name = "Events", description = "What happened, to be read in the order of the commits or to be sent to webhooks"),
        (name = "Users", description = "The app's own users, and their erasure"),
        (name = "Dapi's wire", description = "For apps that use Dapi's SDKs: the same paths and shapes as Dapi's own API"),
        (name = "Webhooks", description = "What Plaid reports about bank logins"),
        (name = "Plaid's wire", description = "For apps that use Plaid's SDKs: the same paths and shapes as Plaid's own API"),
        (name = "Upstreams", description = "Other APIs' tokens, and calls with them"),
        (name = "Administration", description = "Of the caller's own app: clients, upstreams, bulk revocations, the audit trail"),
        (name = "OAuth", description = "Access tokens by client credentials"),
        (name = "Status", description = "For operators and load balancers"),
    )
)]
struct Document;

/// A problem document (RFC 9457).
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what `http::problem` writes")]
struct Problem {
    /// Leads to what the code means.
    #[schema(format = "uri-reference", example = "/problems/not_found")]
    r#type: String,
    /// What the code means, as text.
    #[schema(example = "There is no such thing here")]
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 404)]
    status: u16,
    /// What is the matter this time.
    #[schema(example = "Nothing of this id is here.")]
    detail: String,
    /// What kind of problem it is. Later releases may add codes: decide by the status for one that is unknown.
    code: ProblemCode,
    /// The request's id, under which the log has details; also in the header `X-Request-ID`.
    #[schema(rename = "requestID", format = Uuid, example = "0199f3a2-7c1e-7d3b-9a54-3f2b8c0d6e71")]
    request_id: String,
    /// The field or parameter that is wrong, with `invalid_request`.
    #[schema(nullable = false)]
    field: Option<String>,
    /// What is lacking, with `insufficient_scope`.
    #[schema(nullable = false)]
    scope: Option<String>,
    /// The connection that the problem is about.
    #[schema(nullable = false)]
    id: Option<String>,
    /// Where the connection stands, with `connection_not_active`.
    #[schema(rename = "connectionStatus")]
    connection_status: Option<Status>,
    /// Why the user has to link the login again, with `connection_needs_attention`.
    attention: Option<Attention>,
    /// How the exchange or the import failed; with an upstream's failure its kind.
    failure: Option<ProblemFailure>,
    /// The upstream's OAuth error code (RFC 6749 §5.2).
    #[schema(rename = "oauthError")]
    oauth_error: Option<String>,
}

/// How the exchange, the import or the upstream failed.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `http::problem` writes")]
enum ProblemFailure {
    /// Of an exchange or an import.
    Exchange(Failure),
    /// Of an upstream's token request.
    Upstream(UpstreamFailureKind),
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
        let proxy_token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A proxy token, from `auth/ExchangeToken` on Dapi's wire"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("proxy_token", SecurityScheme::Http(proxy_token));
        components.add_security_scheme("bearer", SecurityScheme::OAuth2(OAuth2::new([flow])));
        components.add_security_scheme("connect_session", SecurityScheme::Http(session));
        components.add_security_scheme("client_basic", SecurityScheme::Http(basic));
    }
}

/// Examples of problems.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        document.components.get_or_insert_default().examples = responses::examples();
    }
}

/// Returns the `OpenAPI` document of this release, with what no annotation can say.
#[must_use]
pub fn document() -> Value {
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    complete::complete(&mut document);
    document
}
