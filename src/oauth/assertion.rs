//! The claims of client assertions: a client's own (RFC 7523 §3), and a workload's token. No I/O.
//!
//! A claim is checked after the signature, so that the reason of a refusal may be told: only the holder of the key
//! learns it.

use serde::Deserialize;
use serde_json::Value;

use super::directory::Client;
use super::jws::{Jws, NumericDate, sole_audience};
use super::model::Workload;

/// How far a client's own assertion may reach into the future, in seconds: five minutes.
const MAX_LIFETIME: i64 = 5 * 60;
/// How far a workload's token may, in seconds: a day.
const MAX_WORKLOAD_LIFETIME: i64 = 24 * 3600;
/// How far the clock of the assertion's issuer may be ahead, in seconds.
const SKEW: i64 = 60;
/// The longest `jti`, in bytes.
const MAX_JTI: usize = 512;

/// The claims of an assertion (RFC 7523 §3). Others are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    aud: Value,
    #[serde(default)]
    exp: Option<NumericDate>,
    #[serde(default)]
    nbf: Option<NumericDate>,
    #[serde(default)]
    iat: Option<NumericDate>,
    #[serde(default)]
    jti: Option<String>,
}

/// What a client's own assertions may name as their audience.
pub(super) struct Audiences<'a> {
    pub(super) issuer: &'a str,
    /// The path of the endpoint that was called.
    pub(super) path: &'a str,
}

/// The path of the token endpoint, whose URL assertions for the other endpoints may name as well (RFC 7523 §3).
const TOKEN_ENDPOINT: &str = "/oauth2/token";

impl Audiences<'_> {
    fn include(&self, audience: &str) -> bool {
        let Some(path) = audience.strip_prefix(self.issuer) else { return false };
        path.is_empty() || path == TOKEN_ENDPOINT || path == self.path
    }
}

impl Claims {
    /// The client that an assertion claims to be of: `iss` and `sub`, if they agree. Nothing is verified.
    pub(super) fn claimed_client(&self) -> Option<&str> {
        self.sub.as_deref().filter(|sub| self.iss.as_deref() == Some(*sub))
    }

    /// Checks a client's own assertion (RFC 7523 §3), whose signature is valid. Returns its `jti`.
    pub(super) fn check_own(
        &self,
        jws: &Jws<'_>,
        client: &Client,
        audiences: &Audiences<'_>,
        now: i64,
    ) -> Result<&str, &'static str> {
        let typed = jws.is_of_type("JWT") || jws.is_of_type("client-authentication+jwt");
        if !jws.has_no_type() && !typed {
            return Err("The typ of the assertion is neither JWT nor client-authentication+jwt");
        }
        if self.claimed_client() != Some(&*client.id) {
            return Err("The iss and the sub of the assertion are not both the client_id");
        }
        if !sole_audience(&self.aud).is_some_and(|audience| audiences.include(audience)) {
            return Err("The aud of the assertion is not the issuer alone");
        }
        self.check_times(now, MAX_LIFETIME)?;
        let jti = self.jti.as_deref().filter(|jti| (1..=MAX_JTI).contains(&jti.len()));
        jti.ok_or("The assertion has no jti of at most 512 bytes")
    }

    /// Checks a workload's token, whose signature is valid: issuer, audience and subject are those of the client,
    /// byte for byte. Such tokens are presented more than once by design, so that `jti` is not asked for.
    pub(super) fn check_workload(
        &self,
        jws: &Jws<'_>,
        workload: &Workload,
        now: i64,
    ) -> Result<(), &'static str> {
        if !jws.has_no_type() && !jws.is_of_type("JWT") {
            return Err("The typ of the token is not JWT");
        }
        let is = |claim: Option<&str>, pinned: &str| !pinned.is_empty() && claim == Some(pinned);
        if !is(self.iss.as_deref(), &workload.issuer) {
            return Err("The iss of the token is not that of the client");
        }
        if !is(sole_audience(&self.aud), &workload.audience) {
            return Err("The aud of the token is not that of the client alone");
        }
        if !is(self.sub.as_deref(), &workload.subject) {
            return Err("The sub of the token is not that of the client");
        }
        self.check_times(now, MAX_WORKLOAD_LIFETIME)
    }

    fn check_times(&self, now: i64, max_lifetime: i64) -> Result<(), &'static str> {
        let Some(NumericDate(exp)) = self.exp else { return Err("The assertion has no exp") };
        if exp <= now {
            return Err("The assertion has expired");
        }
        if exp > now + max_lifetime + SKEW {
            return Err("The exp of the assertion is too far ahead");
        }
        let is_ahead = |date: Option<NumericDate>| date.is_some_and(|date| date.0 > now + SKEW);
        if is_ahead(self.nbf) || is_ahead(self.iat) {
            return Err("The nbf or the iat of the assertion is in the future");
        }
        Ok(())
    }
}
