//! Access tokens: JWTs (RFC 9068), issued and verified here and nowhere else.

use std::net::IpAddr;
use std::sync::Arc;

use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::directory::{Client, Directory, Standing};
use super::error::{OAuthError, OAuthErrorCode};
use super::failed_logins::FailedLogins;
use super::metrics::Metrics;
use crate::common::clock::Clock;
use crate::common::external_scopes::ExternalScopes;
use crate::common::ids::AccessTokenId;
use crate::common::scope::{Scope, Scopes};
use crate::common::strict_json;
use crate::database::Pool;
use crate::vault::Vault;

/// The media type of an access token (RFC 9068 §2.1).
const TYP: &str = "at+jwt";
/// The media type of a receipt.
const RECEIPT_TYP: &str = "erasure-receipt+jwt";
/// How many verified tokens are cached.
const CACHE_CAPACITY: u64 = 10_000;
/// For how long, in seconds. Revocation and the client's state are checked at every use.
const CACHED_FOR: u64 = 60;
/// How far another replica's clock may be ahead, in seconds.
const SKEW: i64 = 60;
/// Longer than any token that this service signs, in bytes.
const MAX_TOKEN: usize = 8192;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
}

/// The key that a token is bound to (RFC 9449 §6.1).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Confirmation {
    /// The thumbprint of the key (RFC 7638).
    pub(super) jkt: Arc<str>,
}

#[derive(Serialize)]
struct Receipt<'a, C> {
    iss: String,
    iat: i64,
    #[serde(flatten)]
    claims: &'a C,
}

/// The claims of a verified token.
#[derive(Debug)]
pub(super) struct Verified {
    kid: Arc<str>,
    pub(super) client_id: Arc<str>,
    pub(super) jti: Uuid,
    pub(super) scopes: Scopes,
    pub(super) external_scopes: ExternalScopes,
    pub(super) iat: i64,
    pub(super) exp: i64,
    pub(super) cnf: Option<Confirmation>,
}

/// The scopes of a token: Strongroom's own, and external ones that it passes on.
#[derive(Debug, Clone, Default)]
pub(super) struct Granted {
    pub(super) own: Scopes,
    pub(super) external: ExternalScopes,
}

impl std::fmt::Display for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = self.own.iter().map(|scope| -> &str { scope.as_str() });
        let names = own.chain(self.external.iter());
        for (index, name) in names.enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// An access token and its lifetime in seconds (RFC 6749 §5.1).
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) access_token: String,
    pub(super) expires_in: u32,
}

/// Whether a token is valid at this moment.
#[derive(Debug)]
pub(super) enum Validity {
    /// It is valid, for this client.
    Valid(Arc<Verified>, Arc<Client>),
    /// It is not, for a reason that its bearer may know.
    Invalid(&'static str),
    /// This replica cannot decide.
    Unknown,
}

/// Issues and verifies access tokens. Clones share their caches.
#[derive(Clone)]
pub struct Issuer {
    public_url: Arc<str>,
    directory: Directory,
    clock: Clock,
    failed_logins: FailedLogins,
    metrics: Metrics,
    /// Verified tokens by their hash: a signature costs ten times what the rest of the check does,
    /// and its result does not change.
    verified: Cache<[u8; 32], Arc<Verified>>,
}

impl Issuer {
    /// Returns an issuer of this name, which is also the audience (RFC 9068 §3).
    #[must_use]
    pub fn new(public_url: &str, directory: Directory, clock: Clock, metrics: Metrics) -> Self {
        let cached_for = std::time::Duration::from_secs(CACHED_FOR);
        let verified =
            Cache::builder().max_capacity(CACHE_CAPACITY).time_to_live(cached_for).build();
        let failed_logins = FailedLogins::new(clock.clone());
        Self { public_url: public_url.into(), directory, clock, failed_logins, metrics, verified }
    }

    /// The directory of clients and keys that it works with.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The `iss` and `aud` of its tokens: the URL by which callers know this service.
    pub(super) fn public_url(&self) -> &str {
        &self.public_url
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a failed login and returns the error for it: `refused`, unless there were too many.
    pub(super) fn failed_login(
        &self,
        client_id: &str,
        from: Option<IpAddr>,
        refused: OAuthError,
    ) -> OAuthError {
        self.metrics.wrong_credentials.inc();
        match self.failed_logins.record(client_id, from) {
            None => refused,
            Some(seconds) => {
                self.metrics.failed_logins_refused.inc();
                OAuthError::too_many_failed_logins(seconds)
            }
        }
    }

    /// Issues a token, bound to a key if `cnf` names one.
    pub(super) fn issue(
        &self,
        client: &Client,
        granted: &Granted,
        cnf: Option<Confirmation>,
    ) -> Result<Issued, OAuthError> {
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
            scope: granted.to_string(),
            cnf,
        };
        let access_token = key.and_then(|key| key.sign(TYP, &claims)).ok_or_else(|| {
            tracing::error!("no key signs access tokens");
            OAuthError::new(OAuthErrorCode::ServerError, "No key signs access tokens")
        })?;
        self.metrics.tokens_issued.inc();
        Ok(Issued { access_token, expires_in: client.token_lifetime })
    }

    /// Signs a receipt: these claims with `iss` and `iat`, as a JWT of a type of its own (RFC 8725
    /// §3.11), so that it never passes for an access token. Anyone can verify it with the published
    /// keys. Returns `None` if no key signs.
    #[must_use]
    pub fn sign_receipt<C: Serialize>(&self, claims: &C) -> Option<String> {
        let (iss, iat) = (self.public_url.to_string(), self.clock.unix_seconds());
        self.directory.signing_key()?.sign(RECEIPT_TYP, &Receipt { iss, iat, claims })
    }

    /// How long a verified token is still valid.
    pub(super) fn time_left(&self, verified: &Verified) -> std::time::Duration {
        let left = verified.exp.saturating_sub(self.clock.unix_seconds());
        std::time::Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }

    /// Decides whether a token is valid, and for which client. In memory, except for a valid token
    /// of a client that this replica does not know: another one may have created it a moment ago.
    pub(super) async fn validate(&self, pool: &Pool, vault: &Vault, token: &str) -> Validity {
        let arrived = self.directory.now();
        let Some(verified) = self.verified(token) else {
            return Validity::Invalid("The access token is not valid");
        };
        if verified.exp <= self.clock.unix_seconds() {
            return Validity::Invalid("The access token has expired");
        }
        let mut standing = self.standing(&verified);
        if matches!(standing, Standing::UnknownClient) {
            if let Err(error) = self.directory.refresh_since(arrived, pool, vault).await {
                tracing::warn!(cause = %error, "the directory could not be refreshed");
                return Validity::Unknown;
            }
            standing = self.standing(&verified);
        }
        match standing {
            Standing::Valid(client) if client.dpop_bound && verified.cnf.is_none() => {
                Validity::Invalid("The tokens of this client have to be bound to a key")
            }
            Standing::Valid(client) => Validity::Valid(verified, client),
            Standing::Revoked | Standing::UnknownClient => {
                Validity::Invalid("The access token was revoked")
            }
            Standing::Stale => Validity::Unknown,
        }
    }

    fn standing(&self, verified: &Verified) -> Standing {
        self.directory.standing(verified.jti, &verified.client_id, &verified.kid)
    }

    /// Verifies the signature and the claims of a token; revocation and the client's state are not
    /// checked.
    pub(super) fn verified(&self, token: &str) -> Option<Arc<Verified>> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        let hash: [u8; 32] = digest.as_ref().try_into().ok()?;
        if let Some(verified) = self.verified.get(&hash) {
            return Some(verified);
        }
        let verified = Arc::new(self.check(token)?);
        self.verified.insert(hash, Arc::clone(&verified));
        Some(verified)
    }

    /// Verifies a token by RFC 9068 §4 and RFC 8725 §3: `kid` chooses among this service's own
    /// keys, and the key determines the algorithm; `typ`, `iss` and `aud` must be this service's.
    /// Keys that the header points to (`jku`, `x5u`, `jwk`) are never read, and a critical
    /// extension is refused.
    fn check(&self, token: &str) -> Option<Verified> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        let typ = header.typ.as_deref()?;
        let typ = typ.strip_prefix("application/").unwrap_or(typ);
        if !typ.eq_ignore_ascii_case(TYP) {
            return None;
        }
        let key = self.directory.key(header.kid.as_deref()?)?;
        let claims: Claims = strict_json::from_slice(&key.verifying().payload(token)?).ok()?;
        let now = self.clock.unix_seconds();
        let ours = *claims.iss == *self.public_url && *claims.aud == *self.public_url;
        let begun = claims.iat <= now + SKEW && claims.nbf.is_none_or(|nbf| nbf <= now + SKEW);
        let sound = ours && begun && claims.exp > now && claims.sub == claims.client_id;
        let names = || claims.scope.split(' ').filter(|name| !name.is_empty());
        sound.then(|| Verified {
            kid: key.kid().into(),
            jti: claims.jti,
            scopes: names().filter_map(|name| name.parse::<Scope>().ok()).collect(),
            external_scopes: ExternalScopes::from_names(names()),
            iat: claims.iat,
            exp: claims.exp,
            cnf: claims.cnf,
            client_id: claims.client_id.into(),
        })
    }
}

impl Verified {
    /// The token's scopes that its client still has. External scopes never become Strongroom's own,
    /// even if a name has become one since.
    pub(super) fn granted(&self, client: &Client) -> Granted {
        Granted {
            own: self.scopes.intersection(client.scopes),
            external: self.external_scopes.intersection(&client.external_scopes),
        }
    }
}
