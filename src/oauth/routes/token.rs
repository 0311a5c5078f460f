//! `POST /oauth2/token`: client credentials for an access token (RFC 6749 §4.4).

use actix_web::http::header::{CACHE_CONTROL, PRAGMA};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use serde::Serialize;
use sqlx::PgPool;

use crate::base::scope::Scopes;
use crate::oauth::credentials;
use crate::oauth::error::{OAuthError, OAuthErrorCode};
use crate::oauth::tokens::Issuer;
use crate::vault::Vault;

/// An access token (RFC 6749 §5.1).
#[derive(Serialize, utoipa::ToSchema)]
pub struct TokenResponse {
    /// The access token, a JWT (RFC 9068).
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Its lifetime in seconds.
    #[schema(example = 3600)]
    expires_in: u32,
    /// What it allows, names with a space between them.
    #[schema(example = "connections:write connections:read")]
    scope: String,
}

/// What the endpoint takes as a form or as JSON; id and secret may come by HTTP Basic instead.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the request in the OpenAPI document")]
pub struct TokenRequest {
    /// `client_credentials`.
    #[schema(example = "client_credentials")]
    grant_type: String,
    /// What the token should allow; everything that the client may do where it is left out.
    scope: Option<String>,
    /// The client's id, where it does not come by HTTP Basic.
    client_id: Option<String>,
    /// The client's secret, where it does not come by HTTP Basic.
    client_secret: Option<String>,
}

/// Client credentials for an access token.
#[utoipa::path(
    post, path = "/oauth2/token", tag = "OAuth",
    security((), ("client_basic" = [])),
    request_body(
        description = "HTTP Basic, a form or JSON; exactly one way of authenticating",
        content((TokenRequest = "application/x-www-form-urlencoded"), (TokenRequest = "application/json")),
    ),
    responses(
        (status = 200, description = "An access token", body = TokenResponse),
        (status = 400, description = "`invalid_request`, `invalid_scope` or `unsupported_grant_type` (RFC 6749 §5.2)"),
        (status = 401, description = "`invalid_client`"),
        (status = 503, description = "`temporarily_unavailable`"),
    )
)]
pub async fn token(
    req: HttpRequest,
    payload: web::Payload,
    issuer: web::Data<Issuer>,
    pool: web::Data<PgPool>,
    vault: web::Data<Vault>,
) -> Result<HttpResponse, Error> {
    let (parameters, presented) = credentials::read(&req, payload).await?;
    let client = issuer.directory().authenticate(&pool, &vault, &presented).await?;
    check_grant(parameters.grant_type.as_deref())?;
    let scopes = grant_scopes(parameters.scope.as_deref(), client.scopes)?;
    let token = issuer.issue(&client, scopes)?;
    let body = TokenResponse {
        access_token: token.access_token,
        token_type: "Bearer",
        expires_in: token.expires_in,
        scope: token.scopes.to_string(),
    };
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "no-store")).insert_header((PRAGMA, "no-cache"));
    Ok(answer.json(body))
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

/// RFC 6749 §3.3: nothing asked for is everything allowed; more than allowed is refused whole.
fn grant_scopes(asked: Option<&str>, allowed: Scopes) -> Result<Scopes, OAuthError> {
    let refuse = |description| OAuthError::new(OAuthErrorCode::InvalidScope, description);
    let Some(asked) = asked else { return Ok(allowed) };
    let asked: Scopes = asked.parse().map_err(|_| refuse("There is no such scope"))?;
    if asked.is_empty() {
        return Err(refuse("The scope is malformed"));
    }
    if !asked.is_subset_of(allowed) {
        return Err(refuse("The client may not have this scope"));
    }
    Ok(asked)
}
