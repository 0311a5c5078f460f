//! Access tokens: JWTs by RFC 9068, issued and verified here and nowhere else.

use std::sync::Arc;

use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::directory::{Client, Directory, Standing};
use super::error::{OAuthError, OAuthErrorCode};
use crate::base::clock::Clock;
use crate::base::ids::AccessTokenId;
use crate::base::scope::Scopes;
use crate::http::caller;
use crate::http::problem::Problem;

/// The media type of an access token (RFC 9068 §2.1).
const TYP: &str = "at+jwt";
/// How many verified tokens are remembered.
const REMEMBERED: u64 = 10_000;
/// For how long, in seconds. What a revocation or a disabled client means is looked at every time.
const REMEMBERED_FOR: u64 = 60;
/// How far another replica's clock may be ahead, in seconds.
const SKEW: i64 = 60;
/// Longer than any token that this service signs.
const MAX_TOKEN: usize = 4096;

/// The claims of an access token (RFC 9068 §2.2).
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    client_id: String,
    iat: i64,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    jti: Uuid,
    scope: String,
}

/// What a verified token says.
#[derive(Debug)]
struct Verified {
    client_id: Arc<str>,
    jti: Uuid,
    scopes: Scopes,
    exp: i64,
}

/// An access token and what its bearer should know of it (RFC 6749 §5.1).
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) access_token: String,
    pub(super) expires_in: u32,
    pub(super) scopes: Scopes,
}

/// Issues and verifies access tokens. Clones share what they remember.
#[derive(Clone)]
pub struct Issuer {
    public_url: Arc<str>,
    directory: Directory,
    clock: Clock,
    /// Verified tokens by their hash: a signature costs ten times what the rest of a request's check
    /// does, and does not change.
    verified: Cache<[u8; 32], Arc<Verified>>,
}

impl Issuer {
    /// An issuer of this name, which is also the audience (RFC 9068 §3).
    #[must_use]
    pub fn new(public_url: &str, directory: Directory, clock: Clock) -> Self {
        let remembered_for = std::time::Duration::from_secs(REMEMBERED_FOR);
        let verified =
            Cache::builder().max_capacity(REMEMBERED).time_to_live(remembered_for).build();
        Self { public_url: public_url.into(), directory, clock, verified }
    }

    /// The directory behind it.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(super) fn issue(&self, client: &Client, scopes: Scopes) -> Result<Issued, OAuthError> {
        let key = self.directory.signing_key();
        let now = self.clock.unix_seconds();
        let claims = Claims {
            iss: self.public_url.to_string(),
            sub: client.id.to_string(),
            aud: self.public_url.to_string(),
            client_id: client.id.to_string(),
            iat: now,
            exp: now + i64::from(client.token_lifetime),
            nbf: None,
            jti: AccessTokenId::new().uuid(),
            scope: scopes.to_string(),
        };
        let access_token = key.and_then(|key| key.sign(TYP, &claims)).ok_or_else(|| {
            tracing::error!("no key signs access tokens");
            OAuthError::new(OAuthErrorCode::ServerError, "No key signs access tokens")
        })?;
        Ok(Issued { access_token, expires_in: client.token_lifetime, scopes })
    }

    fn verified(&self, token: &str) -> Result<Arc<Verified>, &'static str> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        let hash: [u8; 32] =
            digest.as_ref().try_into().map_err(|_| "The access token is not valid")?;
        if let Some(verified) = self.verified.get(&hash) {
            return Ok(verified);
        }
        let verified = Arc::new(self.check(token).ok_or("The access token is not valid")?);
        self.verified.insert(hash, Arc::clone(&verified));
        Ok(verified)
    }

    /// RFC 9068 §4 and RFC 8725 §3: the key is chosen by `kid` among this service's own and says
    /// which algorithm counts; `typ`, `iss` and `aud` must be this service's; whatever else a header
    /// points to (`jku`, `x5u`, `jwk`) is never looked at, and a critical extension is not understood.
    fn check(&self, token: &str) -> Option<Verified> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        let typ = header.typ.as_deref()?;
        let typ = typ.strip_prefix("application/").unwrap_or(typ);
        if !typ.eq_ignore_ascii_case(TYP) || header.crit.is_some() {
            return None;
        }
        let key = self.directory.key(header.kid.as_deref()?)?;
        let mut validation = jsonwebtoken::Validation::new(key.algorithm().for_verifying());
        validation.set_issuer(&[&self.public_url]);
        validation.set_audience(&[&self.public_url]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Times are held against the clock that tests can turn, below.
        validation.validate_exp = false;
        let claims =
            jsonwebtoken::decode::<Claims>(token, key.verifying(), &validation).ok()?.claims;
        let now = self.clock.unix_seconds();
        let begun = claims.iat <= now + SKEW && claims.nbf.is_none_or(|nbf| nbf <= now + SKEW);
        let sound = begun && claims.exp > now && claims.sub == claims.client_id;
        sound.then(|| Verified {
            client_id: claims.client_id.into(),
            jti: claims.jti,
            scopes: claims.scope.parse().unwrap_or_default(),
            exp: claims.exp,
        })
    }
}

/// The client that a bearer token stands for.
///
/// # Errors
/// 401 for a token that does not count (any more), 503 where this replica cannot tell.
pub fn verify(issuer: &Issuer, token: &str) -> Result<caller::Client, Problem> {
    let verified = issuer.verified(token).map_err(Problem::invalid_token)?;
    if verified.exp <= issuer.clock.unix_seconds() {
        return Err(Problem::invalid_token("The access token has expired"));
    }
    match issuer.directory.standing(verified.jti, &verified.client_id, verified.scopes) {
        Standing::Good(app, scopes) => {
            Ok(caller::Client { app, id: Arc::clone(&verified.client_id), scopes })
        }
        Standing::Ended => Err(Problem::invalid_token("The access token was revoked")),
        Standing::Stale => Err(Problem::unavailable("revocations could not be read for too long")),
    }
}
