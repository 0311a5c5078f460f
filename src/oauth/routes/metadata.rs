//! `/.well-known`: the server's metadata (RFC 8414) and the keys that verify its tokens (RFC 7517
//! §5).

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::json;

use crate::common::scope::Scope;
use crate::oauth::signing_keys::KEY_SET_MAX_AGE;
use crate::oauth::tokens::Issuer;

/// Authentication methods with a registered name. JSON, which is accepted as well, has none.
const METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];

/// What the authorization server offers (RFC 8414 §2).
#[derive(Serialize, utoipa::ToSchema)]
pub struct Metadata {
    /// The `iss` of its tokens.
    issuer: String,
    /// Where tokens are issued.
    token_endpoint: String,
    /// Where they are revoked.
    revocation_endpoint: String,
    /// Where tokens are introspected.
    introspection_endpoint: String,
    /// Where the keys are that verify them.
    jwks_uri: String,
    /// Where the documentation is.
    service_documentation: String,
    /// Strongroom's own scopes. A client may have others, of other APIs.
    scopes_supported: Vec<&'static str>,
    /// None: there is no authorization endpoint.
    response_types_supported: [&'static str; 0],
    /// Client credentials alone.
    grant_types_supported: [&'static str; 1],
    /// How clients authenticate.
    token_endpoint_auth_methods_supported: [&'static str; 2],
    /// How clients authenticate.
    revocation_endpoint_auth_methods_supported: [&'static str; 2],
    /// How clients authenticate.
    introspection_endpoint_auth_methods_supported: [&'static str; 2],
}

/// What the authorization server offers.
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "OAuth", security(()),
    responses((status = 200, description = "What it offers; may be cached", body = Metadata))
)]
pub async fn metadata(issuer: web::Data<Issuer>) -> HttpResponse {
    let at = |path: &str| format!("{}{path}", issuer.public_url());
    cached().json(Metadata {
        issuer: issuer.public_url().to_owned(),
        token_endpoint: at("/oauth2/token"),
        revocation_endpoint: at("/oauth2/revoke"),
        introspection_endpoint: at("/oauth2/introspect"),
        jwks_uri: at("/.well-known/jwks.json"),
        service_documentation: at("/docs/"),
        scopes_supported: Scope::ALL.map(Scope::as_str).to_vec(),
        response_types_supported: [],
        grant_types_supported: ["client_credentials"],
        token_endpoint_auth_methods_supported: METHODS,
        revocation_endpoint_auth_methods_supported: METHODS,
        introspection_endpoint_auth_methods_supported: METHODS,
    })
}

/// The public halves of the keys that sign, have signed and will sign next.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "OAuth", security(()),
    responses((status = 200, description = "A JWK set; may be cached", body = inline(serde_json::Value)))
)]
pub async fn jwks(issuer: web::Data<Issuer>) -> HttpResponse {
    let keys = issuer.directory().keys();
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    cached().json(json!({ "keys": keys }))
}

fn cached() -> actix_web::HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    let max_age = format!("public, max-age={}", KEY_SET_MAX_AGE.as_secs());
    answer.insert_header((CACHE_CONTROL, max_age));
    answer
}
