//! JWTs that others sign (RFC 7515, RFC 7519): client assertions and DPoP proofs, taken apart and verified with public
//! keys (RFC 7517). No I/O, and no import of a sibling module.

mod key;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::{DeserializeOwned, Deserializer, Error, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

pub(super) use key::{KeySet, Outcome, PublicKey};

use crate::common::algorithm::ACCEPTED;
use crate::common::strict_json;

/// Longer than any assertion or proof, certificates in its header included, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// A compact JWS (RFC 7515 §7.1), taken apart. Nothing of it is trusted before its signature is verified.
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    key_id: Option<String>,
    typ: Option<String>,
    jwk: Option<Map<String, Value>>,
    payload: Vec<u8>,
    message: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    jwk: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// Returns the algorithm of a name in `alg`, if others may sign with it.
fn algorithm(name: &str) -> Option<Algorithm> {
    if !ACCEPTED.contains(&name) {
        return None;
    }
    if name == "Ed25519" { Some(Algorithm::EdDSA) } else { name.parse().ok() }
}

impl<'a> Jws<'a> {
    /// Takes a JWS apart. Returns `None` for anything else, for an algorithm that is not [`ACCEPTED`], and for a
    /// critical extension (`crit`): none is understood here (RFC 7515 §4.1.11).
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let (message, signature) = text.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header: Header = strict_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.crit {
            return None;
        }
        Some(Self {
            algorithm: algorithm(&header.alg)?,
            key_id: header.kid,
            typ: header.typ,
            jwk: header.jwk,
            payload: URL_SAFE_NO_PAD.decode(payload).ok()?,
            message,
            signature,
        })
    }

    /// Returns whether the header's `typ` is this media type, with or without `application/` (RFC 7515 §4.1.9).
    pub(super) fn is_of_type(&self, media_type: &str) -> bool {
        let Some(typ) = self.typ.as_deref() else { return false };
        let bare = typ.get(..12).filter(|prefix| prefix.eq_ignore_ascii_case("application/"));
        typ.get(bare.map_or(0, str::len)..).is_some_and(|typ| typ.eq_ignore_ascii_case(media_type))
    }

    /// Returns whether the header has no `typ`.
    pub(super) fn has_no_type(&self) -> bool {
        self.typ.is_none()
    }

    /// The key in the header (RFC 7515 §4.1.3), which a DPoP proof is verified with.
    pub(super) fn jwk(&self) -> Option<&Map<String, Value>> {
        self.jwk.as_ref()
    }

    /// Parses the payload: a JSON object in which no member of `T` is given twice (RFC 7519 §4).
    pub(super) fn claims<T: DeserializeOwned>(&self) -> Option<T> {
        strict_json::from_slice(&self.payload).ok()
    }
}

/// Seconds since 1970, rounded down (RFC 7519 §2: `NumericDate`, which may have a fraction).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct NumericDate(pub(super) i64);

/// Beyond it a double has no exact integers (2^53), and no date of anybody's.
const LATEST: f64 = 9_007_199_254_740_992.0;

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(value)?;
        if let Some(seconds) = number.as_i64() {
            return Ok(Self(seconds));
        }
        let seconds = number.as_f64().filter(|seconds| seconds.abs() <= LATEST);
        let seconds = seconds.ok_or_else(|| D::Error::custom("not a date"))?;
        #[expect(clippy::cast_possible_truncation, reason = "within 2^53")]
        Ok(Self(seconds.floor() as i64))
    }
}

/// Returns the one audience of a JWT: a string, or an array of exactly one (RFC 7519 §4.1.3).
pub(super) fn sole_audience(aud: &Value) -> Option<&str> {
    match aud {
        Value::String(audience) => Some(audience),
        Value::Array(list) => match list.as_slice() {
            [Value::String(audience)] => Some(audience),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jws(header: &Value, payload: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(&header.to_string()), part(payload), part("signature"))
    }

    #[test]
    fn no_algorithm_is_accepted_that_is_not_a_signature() {
        for alg in
            ["none", "None", "", "HS256", "HS384", "HS512", "ES512", "ES256K", "RSA-OAEP", "es256"]
        {
            let text = jws(&json!({ "alg": alg }), "{}");
            assert!(Jws::parse(&text).is_none(), "{alg}");
        }
        for alg in ACCEPTED {
            assert!(Jws::parse(&jws(&json!({ "alg": alg }), "{}")).is_some(), "{alg}");
        }
    }

    #[test]
    fn what_is_not_a_compact_jws_is_refused() {
        let good = jws(&json!({ "alg": "ES256" }), "{}");
        assert!(Jws::parse(&good).is_some());
        let crit = jws(&json!({ "alg": "ES256", "crit": ["exp"] }), "{}");
        let null = jws(&json!({ "alg": "ES256", "crit": null }), "{}");
        let long = jws(&json!({ "alg": "ES256" }), &"x".repeat(MAX_LENGTH));
        let four = format!("{good}.x");
        for text in ["", "a.b", "a.b.c", "..", &four, &crit, &null, &long] {
            assert!(Jws::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_claim_that_is_given_twice_makes_no_claims() {
        #[derive(Deserialize)]
        struct Claims {
            #[expect(dead_code, reason = "is only read")]
            sub: String,
        }
        let claims = |payload: &str| {
            let text = jws(&json!({ "alg": "ES256" }), payload);
            Jws::parse(&text).unwrap().claims::<Claims>().is_some()
        };
        assert!(claims(r#"{"sub":"a"}"#));
        assert!(!claims(r#"{"sub":"a","sub":"b"}"#));
        assert!(!claims(r#"["a"]"#));
    }

    #[test]
    fn a_type_is_a_media_type_with_or_without_its_prefix() {
        let is = |typ: Value| {
            let text = jws(&json!({ "alg": "ES256", "typ": typ }), "{}");
            Jws::parse(&text).is_some_and(|jws| jws.is_of_type("dpop+jwt"))
        };
        for typ in ["dpop+jwt", "DPoP+JWT", "application/dpop+jwt"] {
            assert!(is(json!(typ)), "{typ}");
        }
        for typ in ["JWT", "at+jwt", "", "application/", "xdpop+jwt"] {
            assert!(!is(json!(typ)), "{typ}");
        }
    }

    #[test]
    fn a_date_may_have_a_fraction_and_is_never_a_text() {
        let date = |text: &str| serde_json::from_str::<NumericDate>(text).ok();
        assert_eq!(date("1764187200"), Some(NumericDate(1_764_187_200)));
        assert_eq!(date("1764187200.9"), Some(NumericDate(1_764_187_200)));
        assert_eq!(date("-1"), Some(NumericDate(-1)));
        for text in ["\"1764187200\"", "1e300", "-1e300", "null", "true", "[1]"] {
            assert_eq!(date(text), None, "{text}");
        }
    }

    #[test]
    fn an_audience_beside_another_is_none() {
        assert_eq!(sole_audience(&json!("a")), Some("a"));
        assert_eq!(sole_audience(&json!(["a"])), Some("a"));
        for aud in
            [json!([]), json!(["a", "b"]), json!(["a", "a"]), json!([1]), json!(null), json!({})]
        {
            assert_eq!(sole_audience(&aud), None, "{aud}");
        }
    }
}
