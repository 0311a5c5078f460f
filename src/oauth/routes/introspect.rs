//! `POST /oauth2/introspect`: whether a token is valid (RFC 7662).

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use uuid::Uuid;

use super::responses::IntrospectionErrors;
use super::{ExistingToken, uncached};
use crate::database::Pool;
use crate::oauth::credentials::{Authenticated, OAuthState};
use crate::oauth::directory::Client;
use crate::oauth::error::OAuthError;
use crate::oauth::proofs::Proofs;
use crate::oauth::tokens::{Confirmation, Issuer, Validity, Verified};
use crate::vault::Vault;

/// Whether a token is valid (RFC 7662 §2.2). An invalid one has `active` alone.
#[derive(Serialize)]
pub struct Introspection {
    active: bool,
    #[serde(flatten)]
    token: Option<ActiveToken>,
}

#[derive(Serialize)]
struct ActiveToken {
    scope: String,
    client_id: Arc<str>,
    token_type: &'static str,
    exp: i64,
    iat: i64,
    sub: Arc<str>,
    aud: String,
    iss: String,
    jti: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
}

/// Whether a token is valid (RFC 7662 §2.2). An invalid one has `active` alone.
#[derive(utoipa::ToSchema)]
#[schema(as = Introspection)]
#[expect(dead_code, reason = "describes the response in the OpenAPI document")]
pub struct IntrospectionShape {
    /// Whether it counts at this moment.
    #[schema(example = true)]
    active: bool,
    /// What it allows, as far as its client may still have it.
    #[schema(nullable = false, example = "connections:read")]
    scope: Option<String>,
    /// Whose it is.
    #[schema(nullable = false, example = "payroll7Qm2Xv9")]
    client_id: Option<String>,
    /// `Bearer`, or `DPoP` if it is bound to a key.
    #[schema(nullable = false, example = "Bearer")]
    token_type: Option<String>,
    /// When it ends, in seconds since 1970.
    #[schema(nullable = false, example = 1_764_187_200)]
    exp: Option<i64>,
    /// When it was issued, in seconds since 1970.
    #[schema(nullable = false, example = 1_764_183_600)]
    iat: Option<i64>,
    /// Its subject, the client.
    #[schema(nullable = false, example = "payroll7Qm2Xv9")]
    sub: Option<String>,
    /// For whom it is: this service.
    #[schema(nullable = false, example = "https://strongroom.example.com")]
    aud: Option<String>,
    /// Who issued it: this service.
    #[schema(nullable = false, example = "https://strongroom.example.com")]
    iss: Option<String>,
    /// Its id.
    #[schema(nullable = false, example = "0199f3a2-7c1e-7d3b-9a54-3f2b8c0d6e71")]
    jti: Option<String>,
    /// The key that it is bound to, if it is (RFC 9449 §6.2).
    #[schema(nullable = false)]
    cnf: Option<ConfirmationShape>,
}

/// The key that a token is bound to (RFC 9449 §6.1).
#[derive(utoipa::ToSchema)]
#[schema(as = Confirmation)]
#[expect(dead_code, reason = "describes the response in the OpenAPI document")]
pub struct ConfirmationShape {
    /// The key's thumbprint (RFC 7638).
    #[schema(example = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]
    jkt: String,
}

/// Whether a token is valid at this moment. A client may ask about the tokens of its own app.
#[utoipa::path(
    post, path = "/oauth2/introspect", tag = "OAuth", operation_id = "introspectToken",
    security((), ("client_basic" = [])),
    request_body(
        description = "HTTP Basic, or a secret or an assertion in a form or JSON; exactly one way of authenticating",
        content((ExistingToken = "application/x-www-form-urlencoded"), (ExistingToken = "application/json")),
    ),
    responses(
        (status = 200, description = "What it is worth; exactly `{\"active\": false}` where that is nothing", body = IntrospectionShape),
        IntrospectionErrors,
    )
)]
pub async fn introspect(
    req: HttpRequest,
    payload: web::Payload,
    issuer: web::Data<Issuer>,
    proofs: web::Data<Proofs>,
    pool: web::Data<Pool>,
    vault: web::Data<Vault>,
) -> Result<HttpResponse, OAuthError> {
    let state = OAuthState { issuer: &issuer, proofs: &proofs, pool: &pool, vault: &vault };
    let Authenticated { client: asking, parameters, .. } = state.receive(&req, payload).await?;
    let missing = || OAuthError::invalid_request("token is missing");
    let token = parameters.token.ok_or_else(missing)?;
    let token = match issuer.validate(&pool, &vault, token.expose()).await {
        // Another app's token is answered as an unknown one: nothing crosses an app (§4 warns of
        // scanning).
        Validity::Valid(verified, owner) if owner.app == asking.app => {
            Some(describe(&issuer, &verified, &owner))
        }
        Validity::Valid(..) | Validity::Invalid(_) => None,
        Validity::Unknown => {
            return Err(OAuthError::unavailable("revocations could not be read for too long"));
        }
    };
    Ok(uncached().json(Introspection { active: token.is_some(), token }))
}

fn describe(issuer: &Issuer, token: &Verified, owner: &Client) -> ActiveToken {
    ActiveToken {
        scope: token.granted(owner).to_string(),
        client_id: Arc::clone(&token.client_id),
        token_type: if token.cnf.is_some() { "DPoP" } else { "Bearer" },
        exp: token.exp,
        iat: token.iat,
        sub: Arc::clone(&token.client_id),
        aud: issuer.public_url().to_owned(),
        iss: issuer.public_url().to_owned(),
        jti: token.jti,
        cnf: token.cnf.clone(),
    }
}
