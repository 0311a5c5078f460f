//! ID tokens of an OpenID provider (OpenID Connect Core 1.0 §2, §3.1.3.7), with which operators sign in.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::jws::{Jws, KeySet, NumericDate, Outcome};

/// How far the provider's clock may be ahead, in seconds.
const SKEW: i64 = 60;

/// What an ID token has to say.
#[derive(Debug)]
pub struct Expected<'a> {
    /// The provider, exactly.
    pub issuer: &'a str,
    /// The audience: this service's client there.
    pub client_id: &'a str,
    /// The value of the authorization request.
    pub nonce: &'a str,
    /// Seconds since 1970.
    pub now: i64,
    /// How long ago the provider may have authenticated the person, in seconds; the `max_age` of the request.
    pub max_age: i64,
}

/// Why an ID token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdToken {
    /// Not a JWS with an algorithm of a signature.
    #[error("it is no JWT signed with a public key")]
    Form,
    /// No key of the provider signed it.
    #[error("no key of the provider signed it")]
    Signature,
    /// A claim is not what it has to be.
    #[error("its {0} is not the expected one")]
    Claim(&'static str),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    #[serde(default)]
    azp: Option<String>,
    exp: NumericDate,
    #[serde(default)]
    nbf: Option<NumericDate>,
    iat: NumericDate,
    auth_time: NumericDate,
    nonce: String,
}

/// Verifies an ID token with the JWK set of its provider; returns its subject and all its claims.
///
/// # Errors
/// [`InvalidIdToken`].
pub fn verify(
    key_set: &Value,
    token: &str,
    expected: &Expected<'_>,
) -> Result<(String, Map<String, Value>), InvalidIdToken> {
    let jws = Jws::parse(token).ok_or(InvalidIdToken::Form)?;
    let keys = KeySet::published(key_set).ok_or(InvalidIdToken::Signature)?;
    if keys.verify(&jws) != Outcome::Signed {
        return Err(InvalidIdToken::Signature);
    }
    let claims: Claims = jws.claims().ok_or(InvalidIdToken::Form)?;
    claims.check(expected)?;
    let all = jws.claims().ok_or(InvalidIdToken::Form)?;
    Ok((claims.sub, all))
}

impl Claims {
    fn check(&self, expected: &Expected<'_>) -> Result<(), InvalidIdToken> {
        let holds =
            |holds: bool, claim| if holds { Ok(()) } else { Err(InvalidIdToken::Claim(claim)) };
        let now = NumericDate(expected.now);
        let soon = NumericDate(expected.now.saturating_add(SKEW));
        holds(self.iss == expected.issuer, "iss")?;
        holds(self.is_for(expected.client_id), "aud")?;
        // With another audience beside ours, the token was not necessarily made for us.
        let alone = !matches!(&self.aud, Value::Array(list) if list.len() > 1);
        let for_us = self.azp.as_deref().map_or(alone, |azp| azp == expected.client_id);
        holds(for_us, "azp")?;
        holds(now < self.exp, "exp")?;
        holds(self.nbf.is_none_or(|nbf| nbf <= soon), "nbf")?;
        holds(self.iat <= soon, "iat")?;
        let earliest = expected.now.saturating_sub(expected.max_age).saturating_sub(SKEW);
        holds(NumericDate(earliest) <= self.auth_time, "auth_time")?;
        holds(!expected.nonce.is_empty() && self.nonce == expected.nonce, "nonce")?;
        holds(!self.sub.is_empty() && self.sub.len() <= 255, "sub")
    }

    fn is_for(&self, client_id: &str) -> bool {
        match &self.aud {
            Value::String(audience) => audience == client_id,
            Value::Array(list) => list.iter().any(|it| it.as_str() == Some(client_id)),
            _ => false,
        }
    }
}
