//! The check of an access token under `/v1`: a bearer token (RFC 6750), or one that is bound to a key, with the proof
//! of it (RFC 9449 §7).

use std::sync::Arc;

use actix_web::HttpRequest;

use super::model::Fence;
use super::proofs::{ProofError, Proofs};
use super::tokens::{Issuer, Validity, Verified};
use crate::common::ids::AppId;
use crate::database::Pool;
use crate::http::caller::{self, Scheme};
use crate::http::problem::Problem;
use crate::vault::Vault;

/// Returns the client of an access token that a request presents by `scheme`.
///
/// # Errors
/// 401 for a token or a proof that is not valid, 503 if this replica cannot decide.
pub async fn verify(
    issuer: &Issuer,
    proofs: &Proofs,
    pool: &Pool,
    vault: &Vault,
    req: &HttpRequest,
    (scheme, token): (Scheme, &str),
) -> Result<caller::Client, Problem> {
    match issuer.validate(pool, vault, token).await {
        Validity::Valid(verified, client) => {
            check_fence(issuer, client.app)?;
            check_binding(proofs, req, scheme, token, &verified).await?;
            Ok(caller::Client {
                app: client.app,
                id: Arc::clone(&client.id),
                scopes: verified.scopes.intersection(client.scopes),
                reveals_per_minute: client.reveals_per_minute,
            })
        }
        Validity::Invalid(why) => Err(match scheme {
            Scheme::Bearer => Problem::invalid_token(why),
            Scheme::Dpop => Problem::invalid_dpop("invalid_token", why),
        }),
        Validity::Unknown => {
            Err(Problem::unavailable("revocations could not be read for too long"))
        }
    }
}

/// Refuses a caller whose app is being moved to another deployment, or has moved.
///
/// # Errors
/// 503 `app_moving`, 410 `app_moved`; 503 also if this replica cannot decide.
pub fn check_fence(issuer: &Issuer, app: AppId) -> Result<(), Problem> {
    let directory = issuer.directory();
    if !directory.is_fresh() {
        return Err(Problem::unavailable("the directory could not be read for too long"));
    }
    match directory.fence(app) {
        None => Ok(()),
        Some(Fence::Moving) => Err(Problem::app_moving()),
        Some(Fence::Moved) => Err(Problem::app_moved()),
    }
}

/// Checks that a token comes as it was issued: a bound one with a proof by its key, no other with any (RFC 9449 §7.2).
async fn check_binding(
    proofs: &Proofs,
    req: &HttpRequest,
    scheme: Scheme,
    token: &str,
    verified: &Verified,
) -> Result<(), Problem> {
    match (scheme, &verified.cnf) {
        (Scheme::Bearer, None) => Ok(()),
        (Scheme::Bearer, Some(_)) => Err(Problem::invalid_dpop(
            "invalid_token",
            "The token is bound to a key: present it by the scheme DPoP, with a proof",
        )),
        (Scheme::Dpop, None) => Err(Problem::invalid_dpop(
            "invalid_token",
            "The token is not bound to a key: present it by the scheme Bearer",
        )),
        (Scheme::Dpop, Some(cnf)) => match proofs.of_request(req, token, &cnf.jkt).await {
            Ok(()) => Ok(()),
            Err(ProofError::Invalid(why)) => Err(Problem::invalid_dpop("invalid_dpop_proof", why)),
            Err(ProofError::OtherKey) => Err(Problem::invalid_dpop(
                "invalid_token",
                "The token is bound to another key than that of the proof",
            )),
            Err(ProofError::Database(error)) => Err(error.into()),
        },
    }
}
