//! `POST /oauth2/token`: exchanges client credentials for an access token (RFC 6749 §4.4).

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use super::responses::TokenErrors;
use super::{AssertionType, uncached};
use crate::common::external_scopes::{ExternalScopes, is_scope_token};
use crate::common::scope::Scope;
use crate::database::Pool;
use crate::oauth::credentials::{Authenticated, OAuthState};
use crate::oauth::directory::Client;
use crate::oauth::error::{OAuthError, OAuthErrorCode};
use crate::oauth::proofs::Proofs;
use crate::oauth::tokens::{Granted, Issuer};
use crate::vault::Vault;

/// An access token (RFC 6749 §5.1).
#[derive(Serialize, utoipa::ToSchema)]
pub struct TokenResponse {
    /// The access token, a JWT (RFC 9068).
    #[schema(example = "eyJhbGciOiJFUzI1NiJ9.claims.c2lnbmF0dXJl")]
    access_token: String,
    /// `Bearer`, or `DPoP` if the token is bound to a key.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Its lifetime in seconds.
    #[schema(example = 3600)]
    expires_in: u32,
    /// What it allows, names with a space between them.
    #[schema(example = "connections:write connections:read")]
    scope: String,
}

/// The one grant (RFC 6749 §4.4).
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum GrantType {
    /// By the client's own credentials.
    ClientCredentials,
}

/// What the endpoint takes as a form or as JSON; id and secret may come by HTTP Basic instead.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the request in the OpenAPI document")]
pub struct TokenRequest {
    /// `client_credentials`.
    grant_type: GrantType,
    /// What the token should allow; everything that the client may do where it is left out.
    #[schema(
        example = "connections:write connections:read",
        pattern = "^ *[!#-\\[\\]-~]+( +[!#-\\[\\]-~]+)* *$"
    )]
    scope: Option<String>,
    /// The client's id, where it does not come by HTTP Basic.
    #[schema(example = "payroll7Qm2Xv9")]
    client_id: Option<String>,
    /// The client's secret, where it does not come by HTTP Basic.
    #[schema(format = Password, example = "n3Vd8sK1pZ6tY0wQ4rB7mX2cJ5hG9fLa")]
    client_secret: Option<String>,
    /// The type of `client_assertion`.
    client_assertion_type: Option<AssertionType>,
    /// A JWT in place of a secret: signed by the client's key (RFC 7523), or its workload's token.
    #[schema(format = Password)]
    client_assertion: Option<String>,
}

/// Client credentials for an access token.
#[utoipa::path(
    post, path = "/oauth2/token", tag = "OAuth", operation_id = "issueToken",
    security((), ("client_basic" = [])),
    params(("DPoP" = Option<String>, Header, description = "A proof by the key that the token is to be bound to (RFC 9449)")),
    request_body(
        description = "HTTP Basic, or a secret or an assertion in a form or JSON; exactly one way of authenticating",
        content((TokenRequest = "application/x-www-form-urlencoded"), (TokenRequest = "application/json")),
    ),
    responses(
        (status = 200, description = "An access token", body = TokenResponse),
        TokenErrors,
    )
)]
pub async fn token(
    req: HttpRequest,
    payload: web::Payload,
    issuer: web::Data<Issuer>,
    proofs: web::Data<Proofs>,
    pool: web::Data<Pool>,
    vault: web::Data<Vault>,
) -> Result<HttpResponse, OAuthError> {
    let state = OAuthState { issuer: &issuer, proofs: &proofs, pool: &pool, vault: &vault };
    let Authenticated { client, parameters, .. } = state.receive(&req, payload).await?;
    check_grant(parameters.grant_type.as_deref())?;
    let granted = grant_scopes(parameters.scope.as_deref(), &client)?;
    let cnf = proofs.of_token_request(&req, &client).await?;
    let token_type = if cnf.is_some() { "DPoP" } else { "Bearer" };
    let token = issuer.issue(&client, &granted, cnf)?;
    let body = TokenResponse {
        access_token: token.access_token,
        token_type,
        expires_in: token.expires_in,
        scope: granted.to_string(),
    };
    Ok(uncached().json(body))
}

fn check_grant(grant_type: Option<&str>) -> Result<(), OAuthError> {
    match grant_type {
        Some("client_credentials") => Ok(()),
        Some(_) => Err(OAuthError::new(
            OAuthErrorCode::UnsupportedGrantType,
            "The only grant is client_credentials",
        )),
        None => Err(OAuthError::invalid_request("grant_type is missing")),
    }
}

/// Grants scopes (RFC 6749 §3.3): all of the client's if the request names none, unless the client
/// has required scopes; a request for more than the client has is refused as a whole.
fn grant_scopes(asked: Option<&str>, client: &Client) -> Result<Granted, OAuthError> {
    let refuse = |description| OAuthError::new(OAuthErrorCode::InvalidScope, description);
    let names: Vec<&str> = asked.unwrap_or_default().split(' ').filter(|n| !n.is_empty()).collect();
    if asked.is_some() && (names.is_empty() || !names.iter().all(|name| is_scope_token(name))) {
        return Err(refuse("The scope is malformed"));
    }
    if !client.required_scopes.iter().all(|required| names.contains(&required.as_str())) {
        return Err(refuse("This client has to name the scope that it wants"));
    }
    if asked.is_none() {
        return Ok(Granted { own: client.scopes, external: client.external_scopes.clone() });
    }
    let own = |name: &str| name.parse().ok().filter(|scope: &Scope| client.scopes.contains(*scope));
    if !names.iter().all(|name| own(name).is_some() || client.external_scopes.contains(name)) {
        return Err(refuse("There is no such scope, or the client may not have it"));
    }
    let external = names.iter().copied().filter(|name| client.external_scopes.contains(name));
    Ok(Granted {
        own: names.iter().filter_map(|name| own(name)).collect(),
        external: ExternalScopes::from_names(external),
    })
}
