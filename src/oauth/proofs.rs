//! How callers prove that they hold a key: client assertions (RFC 7523 §2.2, workloads' tokens) and DPoP proofs
//! (RFC 9449). The rules are in `assertion` and `dpop`; here they meet the keys, and PostgreSQL, where each assertion
//! and each proof counts once at any replica.
//!
//! The row is written last, after everything else holds: a caller without the key writes none.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderName;
use aws_lc_rs::digest::{Context, SHA256};

use super::assertion::{Audiences, Claims};
use super::directory::{Client, Directory, Keys};
use super::dpop::{self, Expected, Proof};
use super::error::{OAuthError, OAuthErrorCode};
use super::jws::{Jws, KeySet, Outcome};
use super::metrics::Metrics;
use super::remote_keys::{Place, RemoteKeys, Unavailable};
use super::store::UsedJti;
use super::tokens::Confirmation;
use crate::common::clock::Clock;
use crate::common::ids::AppId;
use crate::common::secret::SecretText;
use crate::database::{Batch, Pool};
use crate::outbound::{self, Reach};
use crate::vault::Vault;

const DPOP: HeaderName = HeaderName::from_static("dpop");
/// How long an assertion's use is remembered: as long as one may be accepted by a replica whose clock is behind.
const ASSERTION_REMEMBERED: Duration = Duration::from_mins(10);

/// Verifies assertions and proofs. Clones share their caches.
#[derive(Clone)]
pub struct Proofs {
    public_url: Arc<str>,
    keys: RemoteKeys,
    used: Batch<UsedJti>,
    clock: Clock,
}

/// An assertion, and the client that presents it if it says so.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) client_id: Option<String>,
    pub(super) assertion: SecretText,
}

/// Why a request's DPoP proof does not hold.
#[derive(Debug)]
pub(super) enum ProofError {
    /// It is missing, repeated, malformed, for another request, or used before.
    Invalid(&'static str),
    /// Its key is not the one that the token is bound to.
    OtherKey,
    /// Whether it was used before cannot be found out.
    Database(sqlx::Error),
}

impl From<ProofError> for OAuthError {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::Invalid(why) => Self::invalid_dpop_proof(why),
            ProofError::OtherKey => Self::invalid_dpop_proof("The key of the proof is another"),
            ProofError::Database(error) => error.into(),
        }
    }
}

impl From<Unavailable> for OAuthError {
    fn from(_: Unavailable) -> Self {
        Self::unavailable("the keys of a client cannot be had")
    }
}

impl Presented {
    /// The client that it claims to be of, for the count of failed logins.
    pub(super) fn claimed(&self) -> String {
        self.client_id.clone().unwrap_or_else(|| {
            let claims = Jws::parse(self.assertion.expose()).and_then(|jws| jws.claims::<Claims>());
            claims.and_then(|claims| Some(claims.claimed_client()?.to_owned())).unwrap_or_default()
        })
    }
}

impl Proofs {
    /// Returns what verifies proofs for the service of this URL; keys are fetched by `outbound`, and uses recorded
    /// over `pool`.
    #[must_use]
    pub fn new(
        public_url: &str,
        outbound: outbound::Client,
        pool: &Pool,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self {
            public_url: public_url.into(),
            keys: RemoteKeys::new(outbound, clock.clone(), metrics),
            used: Batch::new(pool),
            clock,
        }
    }

    /// Which addresses keys may be fetched from.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.keys.reach()
    }

    /// Authenticates a client by its assertion, at the endpoint of this path.
    ///
    /// As with a secret, a caller that the memory does not accept is checked against a view of the database that is
    /// younger than the request. The client is the one that the request names: an assertion is never matched against
    /// the clients of a deployment.
    pub(super) async fn client_by_assertion(
        &self,
        directory: &Directory,
        pool: &Pool,
        vault: &Vault,
        presented: &Presented,
        path: &str,
    ) -> Result<Arc<Client>, OAuthError> {
        let refused = OAuthError::invalid_assertion;
        let jws = Jws::parse(presented.assertion.expose()).ok_or_else(refused)?;
        let claims: Claims = jws.claims().ok_or_else(refused)?;
        let named = presented.client_id.as_deref().or_else(|| claims.claimed_client());
        let id = named.ok_or_else(refused)?;
        let arrived = directory.now();
        let known = directory.fresh_client(id);
        let mut refusal = refused();
        if let Some(client) = &known {
            match self.verify(client, &jws, &claims, path).await {
                Ok(jti) => return self.accept(client, jti).await,
                Err(error) if error.code() == OAuthErrorCode::InvalidClient => refusal = error,
                Err(error) => return Err(error),
            }
        }
        directory.refresh_since(arrived, pool, vault).await?;
        let changed =
            |client: &Arc<Client>| known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, client));
        let client = directory.client(id).filter(changed).ok_or(refusal)?;
        let jti = self.verify(&client, &jws, &claims, path).await?;
        self.accept(&client, jti).await
    }

    /// Verifies the signature and the claims of an assertion. Returns its `jti` if it counts once.
    async fn verify<'a>(
        &self,
        client: &Client,
        jws: &Jws<'_>,
        claims: &'a Claims,
        path: &str,
    ) -> Result<Option<&'a str>, OAuthError> {
        let keys = client.keys.as_ref().ok_or_else(OAuthError::invalid_assertion)?;
        if !self.is_signed(client.app, keys, jws).await? {
            return Err(OAuthError::invalid_assertion());
        }
        let now = self.clock.unix_seconds();
        let checked = if let Some(workload) = &client.workload {
            claims.check_workload(jws, workload, now).map(|()| None)
        } else {
            let audiences = Audiences { issuer: &self.public_url, path };
            claims.check_own(jws, client, &audiences, now).map(Some)
        };
        checked.map_err(|why| OAuthError::new(OAuthErrorCode::InvalidClient, why))
    }

    async fn is_signed(&self, app: AppId, keys: &Keys, jws: &Jws<'_>) -> Result<bool, OAuthError> {
        let signed = |keys: &KeySet| keys.verify(jws) == Outcome::Signed;
        let place = match keys {
            Keys::Inline(keys) => return Ok(signed(keys)),
            Keys::At(url) => Place::Url(Arc::clone(url)),
            Keys::OfIssuer(issuer) => Place::Issuer(Arc::clone(issuer)),
        };
        let known = self.keys.get(app, &place).await?;
        match known.verify(jws) {
            Outcome::Signed => Ok(true),
            Outcome::Forged => Ok(false),
            Outcome::UnknownKey => {
                let newer = self.keys.newer(app, &place, &known).await;
                Ok(newer.is_some_and(|keys| signed(&keys)))
            }
        }
    }

    async fn accept(
        &self,
        client: &Arc<Client>,
        jti: Option<&str>,
    ) -> Result<Arc<Client>, OAuthError> {
        if let Some(jti) = jti
            && !self.is_first_use("assertion", &client.id, jti, ASSERTION_REMEMBERED).await?
        {
            let description = "The assertion has been used before";
            return Err(OAuthError::new(OAuthErrorCode::InvalidClient, description));
        }
        client.mark(self.clock.unix_seconds());
        Ok(Arc::clone(client))
    }

    /// Checks the DPoP proof of a token request (RFC 9449 §5). Returns the key that the token is to be bound to, if
    /// any.
    pub(super) async fn of_token_request(
        &self,
        req: &HttpRequest,
        client: &Client,
    ) -> Result<Option<Confirmation>, ProofError> {
        if !req.headers().contains_key(&DPOP) {
            if client.dpop_bound {
                return Err(ProofError::Invalid("This client has to send a DPoP proof"));
            }
            return Ok(None);
        }
        let proof = self.check(req, None)?;
        self.use_proof(&proof).await?;
        Ok(Some(Confirmation { jkt: proof.thumbprint.into() }))
    }

    /// Checks the DPoP proof of a request with a token that is bound to the key of this thumbprint (RFC 9449 §7).
    pub(super) async fn of_request(
        &self,
        req: &HttpRequest,
        token: &str,
        thumbprint: &str,
    ) -> Result<(), ProofError> {
        let proof = self.check(req, Some(token))?;
        if proof.thumbprint != thumbprint {
            return Err(ProofError::OtherKey);
        }
        self.use_proof(&proof).await
    }

    fn check(&self, req: &HttpRequest, token: Option<&str>) -> Result<Proof, ProofError> {
        let mut headers = req.headers().get_all(&DPOP);
        let (Some(proof), None) = (headers.next(), headers.next()) else {
            return Err(ProofError::Invalid("There has to be one DPoP header"));
        };
        let proof = proof.to_str().map_err(|_| ProofError::Invalid("The proof is no JWS"))?;
        let expected = Expected {
            method: req.method().as_str(),
            public_url: &self.public_url,
            path: req.uri().path(),
            token,
            now: self.clock.unix_seconds(),
        };
        dpop::check(proof, &expected).map_err(ProofError::Invalid)
    }

    async fn use_proof(&self, proof: &Proof) -> Result<(), ProofError> {
        let first = self.is_first_use("proof", &proof.thumbprint, &proof.jti, dpop::REMEMBERED);
        match first.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ProofError::Invalid("The proof has been used before")),
            Err(error) => Err(ProofError::Database(error)),
        }
    }

    /// Records a use and returns whether it is the first, of all replicas.
    async fn is_first_use(
        &self,
        kind: &str,
        whose: &str,
        jti: &str,
        kept_for: Duration,
    ) -> sqlx::Result<bool> {
        let mut hash = Context::new(&SHA256);
        for part in [kind, whose, jti] {
            // The length first, so that no two lists of parts are the same bytes.
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let hash = hash.finish();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        self.used.run(UsedJti { hash: bytes, kept_for }).await
    }
}
