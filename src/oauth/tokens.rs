//! Access tokens: JWTs by RFC 9068, issued and verified here and nowhere else.

use std::net::IpAddr;
use std::sync::Arc;

use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::directory::{Client, Directory, Standing};
use super::error::{OAuthError, OAuthErrorCode};
use super::failed_logins::FailedLogins;
use super::metrics::Metrics;
use crate::base::clock::Clock;
use crate::base::external_scopes::ExternalScopes;
use crate::base::ids::AccessTokenId;
use crate::base::scope::{Scope, Scopes};
use crate::base::strict_json;
use crate::database::Pool;
use crate::http::caller;
use crate::http::problem::Problem;
use crate::vault::Vault;

/// The media type of an access token (RFC 9068 §2.1).
const TYP: &str = "at+jwt";
/// The media type of a receipt.
const RECEIPT_TYP: &str = "erasure-receipt+jwt";
/// How many verified tokens are remembered.
const REMEMBERED: u64 = 10_000;
/// For how long, in seconds. What a revocation or a disabled client means is looked at every time.
const REMEMBERED_FOR: u64 = 60;
/// How far another replica's clock may be ahead, in seconds.
const SKEW: i64 = 60;
/// Longer than any token that this service signs.
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
}

/// The claims of a receipt.
#[derive(Serialize)]
struct Receipt<'a, C> {
    iss: String,
    iat: i64,
    #[serde(flatten)]
    claims: &'a C,
}

/// What a verified token says.
#[derive(Debug)]
pub(super) struct Verified {
    kid: Arc<str>,
    pub(super) client_id: Arc<str>,
    pub(super) jti: Uuid,
    pub(super) scopes: Scopes,
    pub(super) external_scopes: ExternalScopes,
    pub(super) iat: i64,
    pub(super) exp: i64,
}

/// Scopes of a token: Strongroom's own, and names of other APIs that it passes on.
#[derive(Debug, Clone, Default)]
pub(super) struct Granted {
    pub(super) own: Scopes,
    pub(super) other: ExternalScopes,
}

impl std::fmt::Display for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = self.own.iter().map(|scope| -> &str { scope.as_str() });
        let names = own.chain(self.other.iter());
        for (index, name) in names.enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// An access token and what its bearer should know of it (RFC 6749 §5.1).
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) access_token: String,
    pub(super) expires_in: u32,
}

/// What a token is worth at this moment.
#[derive(Debug)]
pub(super) enum Worth {
    /// It counts, for this client.
    Good(Arc<Verified>, Arc<Client>),
    /// It does not, for a reason that its bearer may know.
    Nothing(&'static str),
    /// This replica cannot tell.
    Unknown,
}

/// Issues and verifies access tokens. Clones share what they remember.
#[derive(Clone)]
pub struct Issuer {
    public_url: Arc<str>,
    directory: Directory,
    clock: Clock,
    failed_logins: FailedLogins,
    metrics: Metrics,
    /// Verified tokens by their hash: a signature costs ten times what the rest of a request's check
    /// does, and does not change.
    verified: Cache<[u8; 32], Arc<Verified>>,
}

impl Issuer {
    /// An issuer of this name, which is also the audience (RFC 9068 §3).
    #[must_use]
    pub fn new(public_url: &str, directory: Directory, clock: Clock, metrics: Metrics) -> Self {
        let remembered_for = std::time::Duration::from_secs(REMEMBERED_FOR);
        let verified =
            Cache::builder().max_capacity(REMEMBERED).time_to_live(remembered_for).build();
        let failed_logins = FailedLogins::new(clock.clone());
        Self { public_url: public_url.into(), directory, clock, failed_logins, metrics, verified }
    }

    /// The directory behind it.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Its name, the URL by which callers know this service.
    pub(super) fn public_url(&self) -> &str {
        &self.public_url
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a wrong secret, and says how it is told.
    pub(super) fn wrong_secret(&self, client_id: &str, from: Option<IpAddr>) -> OAuthError {
        self.metrics.wrong_credentials.inc();
        match self.failed_logins.wrong(client_id, from) {
            None => OAuthError::invalid_client(),
            Some(seconds) => {
                self.metrics.guesses_refused.inc();
                OAuthError::too_many_guesses(seconds)
            }
        }
    }

    pub(super) fn issue(&self, client: &Client, granted: &Granted) -> Result<Issued, OAuthError> {
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
        };
        let access_token = key.and_then(|key| key.sign(TYP, &claims)).ok_or_else(|| {
            tracing::error!("no key signs access tokens");
            OAuthError::new(OAuthErrorCode::ServerError, "No key signs access tokens")
        })?;
        self.metrics.tokens_issued.inc();
        Ok(Issued { access_token, expires_in: client.token_lifetime })
    }

    /// Signs a receipt: these claims with `iss` and `iat`, as a JWT of a type of its own (RFC 8725 §3.11),
    /// so that it never passes for an access token. Anybody can check it with the published keys. `None`
    /// where no key signs.
    #[must_use]
    pub fn sign_receipt<C: Serialize>(&self, claims: &C) -> Option<String> {
        let (iss, iat) = (self.public_url.to_string(), self.clock.unix_seconds());
        self.directory.signing_key()?.sign(RECEIPT_TYP, &Receipt { iss, iat, claims })
    }

    /// How long a verified token has left.
    pub(super) fn time_left(&self, verified: &Verified) -> std::time::Duration {
        let left = verified.exp.saturating_sub(self.clock.unix_seconds());
        std::time::Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }

    /// Whether a token counts, and for whom. Decided in memory, but for a good token of a client that
    /// this replica has not heard of: another one may have issued it a moment ago.
    pub(super) async fn worth(&self, pool: &Pool, vault: &Vault, token: &str) -> Worth {
        let arrived = self.directory.now();
        let Some(verified) = self.verified(token) else {
            return Worth::Nothing("The access token is not valid");
        };
        if verified.exp <= self.clock.unix_seconds() {
            return Worth::Nothing("The access token has expired");
        }
        let mut standing = self.standing(&verified);
        if matches!(standing, Standing::Stranger) {
            if let Err(error) = self.directory.refresh_since(arrived, pool, vault).await {
                tracing::warn!(cause = %error, "the directory could not be refreshed");
                return Worth::Unknown;
            }
            standing = self.standing(&verified);
        }
        match standing {
            Standing::Good(client) => Worth::Good(verified, client),
            Standing::Ended | Standing::Stranger => Worth::Nothing("The access token was revoked"),
            Standing::Stale => Worth::Unknown,
        }
    }

    fn standing(&self, verified: &Verified) -> Standing {
        self.directory.standing(verified.jti, &verified.client_id, &verified.kid)
    }

    /// What a token of this service's says, whether or not it still counts.
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
            client_id: claims.client_id.into(),
        })
    }
}

impl Verified {
    /// What the token allows of what its client may still have. A client's scopes of other APIs never
    /// meet Strongroom's own, whatever a name has come to mean since.
    pub(super) fn granted(&self, client: &Client) -> Granted {
        Granted {
            own: self.scopes.intersection(client.scopes),
            other: self.external_scopes.intersection(&client.external_scopes),
        }
    }
}

/// The client that a bearer token stands for.
///
/// # Errors
/// 401 for a token that does not count (any more), 503 where this replica cannot tell.
pub async fn verify(
    issuer: &Issuer,
    pool: &Pool,
    vault: &Vault,
    token: &str,
) -> Result<caller::Client, Problem> {
    match issuer.worth(pool, vault, token).await {
        Worth::Good(verified, client) => Ok(caller::Client {
            app: client.app,
            id: Arc::clone(&client.id),
            scopes: verified.scopes.intersection(client.scopes),
            reveals_per_minute: client.reveals_per_minute,
        }),
        Worth::Nothing(why) => Err(Problem::invalid_token(why)),
        Worth::Unknown => Err(Problem::unavailable("revocations could not be read for too long")),
    }
}
