//! `/.well-known`: the server's metadata (RFC 8414) and the keys that verify its tokens (RFC 7517
//! §5).

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::common::algorithm::ACCEPTED;
use crate::common::scope::Scope;
use crate::oauth::signing_keys::KEY_SET_MAX_AGE;
use crate::oauth::tokens::Issuer;

/// Authentication methods with a registered name. JSON, which is accepted as well, has none; a workload's token comes
/// as `private_key_jwt` does.
const METHODS: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];

/// What the authorization server offers (RFC 8414 §2).
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ServerMetadata)]
pub struct Metadata {
    /// The `iss` of its tokens.
    #[schema(format = "uri", example = "https://strongroom.example.com")]
    issuer: String,
    /// Where tokens are issued.
    #[schema(format = "uri", example = "https://strongroom.example.com/oauth2/token")]
    token_endpoint: String,
    /// Where they are revoked.
    #[schema(format = "uri", example = "https://strongroom.example.com/oauth2/revoke")]
    revocation_endpoint: String,
    /// Where tokens are introspected.
    #[schema(format = "uri", example = "https://strongroom.example.com/oauth2/introspect")]
    introspection_endpoint: String,
    /// Where the keys are that verify them.
    #[schema(format = "uri", example = "https://strongroom.example.com/.well-known/jwks.json")]
    jwks_uri: String,
    /// Where the documentation is.
    #[schema(format = "uri", example = "https://strongroom.example.com/docs/")]
    service_documentation: String,
    /// Strongroom's own scopes. A client may have others, of other APIs.
    #[schema(example = json!(["connections:read"]))]
    scopes_supported: Vec<&'static str>,
    /// None: there is no authorization endpoint.
    #[schema(value_type = Vec<String>, max_items = 0, example = json!([]))]
    response_types_supported: [&'static str; 0],
    /// Client credentials alone.
    #[schema(value_type = Vec<String>, example = json!(["client_credentials"]))]
    grant_types_supported: [&'static str; 1],
    /// How clients authenticate.
    #[schema(value_type = Vec<String>, example = json!(["client_secret_basic", "private_key_jwt"]))]
    token_endpoint_auth_methods_supported: [&'static str; 3],
    /// What they may sign assertions with.
    #[schema(value_type = Vec<String>, example = json!(["ES256"]))]
    token_endpoint_auth_signing_alg_values_supported: [&'static str; 10],
    /// How clients authenticate.
    #[schema(value_type = Vec<String>, example = json!(["client_secret_basic", "private_key_jwt"]))]
    revocation_endpoint_auth_methods_supported: [&'static str; 3],
    /// What they may sign assertions with.
    #[schema(value_type = Vec<String>, example = json!(["ES256"]))]
    revocation_endpoint_auth_signing_alg_values_supported: [&'static str; 10],
    /// How clients authenticate.
    #[schema(value_type = Vec<String>, example = json!(["client_secret_basic", "private_key_jwt"]))]
    introspection_endpoint_auth_methods_supported: [&'static str; 3],
    /// What they may sign assertions with.
    #[schema(value_type = Vec<String>, example = json!(["ES256"]))]
    introspection_endpoint_auth_signing_alg_values_supported: [&'static str; 10],
    /// What DPoP proofs may be signed with (RFC 9449 §5.1).
    #[schema(value_type = Vec<String>, example = json!(["ES256"]))]
    dpop_signing_alg_values_supported: [&'static str; 10],
}

/// What the authorization server offers.
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "OAuth", operation_id = "getServerMetadata", security(()),
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
        token_endpoint_auth_signing_alg_values_supported: ACCEPTED,
        revocation_endpoint_auth_methods_supported: METHODS,
        revocation_endpoint_auth_signing_alg_values_supported: ACCEPTED,
        introspection_endpoint_auth_methods_supported: METHODS,
        introspection_endpoint_auth_signing_alg_values_supported: ACCEPTED,
        dpop_signing_alg_values_supported: ACCEPTED,
    })
}

/// A JWK set (RFC 7517 §5).
#[derive(Serialize, utoipa::ToSchema)]
pub struct KeySet {
    /// The keys, each a JWK with `kid`, `use`, `alg` and its public members.
    #[schema(example = json!([{
        "kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256",
        "kid": "V1StGXR8Z5jdHi6B",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }]))]
    keys: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// The public halves of the keys that sign, have signed and will sign next.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "OAuth", operation_id = "getKeySet", security(()),
    responses((status = 200, description = "A JWK set; may be cached", body = KeySet))
)]
pub async fn jwks(issuer: web::Data<Issuer>) -> HttpResponse {
    let keys = issuer.directory().keys();
    let keys: Vec<_> = keys.iter().filter_map(|key| key.jwk().as_object().cloned()).collect();
    cached().json(KeySet { keys })
}

fn cached() -> actix_web::HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    let max_age = format!("public, max-age={}", KEY_SET_MAX_AGE.as_secs());
    answer.insert_header((CACHE_CONTROL, max_age));
    answer
}
