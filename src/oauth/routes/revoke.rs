//! `POST /oauth2/revoke`: a client revokes a token of its own (RFC 7009).

use actix_web::{HttpRequest, HttpResponse, web};
use time::OffsetDateTime;

use super::responses::RevocationErrors;
use super::{ExistingToken, uncached};
use crate::common::actor::Actor;
use crate::database::Pool;
use crate::oauth::clients::record;
use crate::oauth::credentials::{Authenticated, OAuthState};
use crate::oauth::directory::Client;
use crate::oauth::error::{OAuthError, OAuthErrorCode};
use crate::oauth::proofs::Proofs;
use crate::oauth::store;
use crate::oauth::tokens::{Issuer, Verified};
use crate::vault::Vault;

/// An empty object.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub struct RevocationResponse {}

/// Ends an access token: refused here from now on, and within five seconds on every replica.
///
/// A token that this service does not know, or that has ended, gets the same answer (RFC 7009 §2.2).
#[utoipa::path(
    post, path = "/oauth2/revoke", tag = "OAuth", operation_id = "revokeToken",
    security((), ("client_basic" = [])),
    request_body(
        description = "HTTP Basic, or a secret or an assertion in a form or JSON; exactly one way of authenticating",
        content((ExistingToken = "application/x-www-form-urlencoded"), (ExistingToken = "application/json")),
    ),
    responses(
        (status = 200, description = "The token does not count (any more); an empty object, to be ignored", body = RevocationResponse),
        RevocationErrors,
    )
)]
pub async fn revoke(
    req: HttpRequest,
    payload: web::Payload,
    issuer: web::Data<Issuer>,
    proofs: web::Data<Proofs>,
    pool: web::Data<Pool>,
    vault: web::Data<Vault>,
) -> Result<HttpResponse, OAuthError> {
    let state = OAuthState { issuer: &issuer, proofs: &proofs, pool: &pool, vault: &vault };
    let Authenticated { client, parameters, actor } = state.receive(&req, payload).await?;
    let missing = || OAuthError::invalid_request("token is missing");
    let token = parameters.token.ok_or_else(missing)?;
    if let Some(verified) = issuer.verified(token.expose()) {
        if verified.client_id != client.id {
            let description = "The token is another client's";
            return Err(OAuthError::new(OAuthErrorCode::InvalidGrant, description));
        }
        end(&issuer, &pool, &client, &actor, &verified).await?;
    }
    // Clients ignore the body (§2.2), but simple-oauth2 accepts nothing that is not JSON.
    Ok(uncached().json(RevocationResponse {}))
}

async fn end(
    issuer: &Issuer,
    pool: &Pool,
    client: &Client,
    actor: &Actor,
    token: &Verified,
) -> Result<(), OAuthError> {
    let ends_in = issuer.time_left(token);
    if ends_in.is_zero() {
        return Ok(());
    }
    let ends_at = OffsetDateTime::from_unix_timestamp(token.exp)
        .map_err(|_| OAuthError::invalid_request("The token never ends"))?;
    let mut conn = pool.acquire().await?;
    let mut tx = conn.begin().await?;
    let new = store::insert_revoked(&mut tx, token.jti, &client.id, ends_at).await?;
    if new {
        let jti = token.jti.to_string();
        record(&mut tx, actor, client.app, "access_token.revoked", &jti).await?;
    }
    tx.commit().await?;
    issuer.directory().revoke(token.jti, ends_in);
    if new {
        issuer.metrics().tokens_revoked.inc();
    }
    Ok(())
}
