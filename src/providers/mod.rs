//! Dapi's vocabulary, its wire format, the client that speaks it, and the gate before it.
//!
//! Answers are classified here: conclusive or not, and whether the request can have reached Dapi at all.
//! `connections` decides what an answer means for a connection.
//!
//! May import: common, config.

mod call;
mod client;
mod gate;
mod metrics;
mod transport;
mod wire;

pub use call::{CallAnswer, CallBody, CallLost, Field};
pub use client::Client;
pub use gate::{Busy, Gate, Lane, Permit};
pub use metrics::Metrics;
pub use wire::{Said, said, scrub};

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

use crate::common::secret::{SecretText, secret_text};

secret_text!(
    /// The single-use code that Connect hands to a frontend.
    AccessCode
);
secret_text!(
    /// The permanent token of one bank login.
    AccessToken
);
secret_text!(
    /// Connect's `userSecret`, without which nothing can be read or delinked.
    UserSecret
);

impl AccessCode {
    /// Returns when the code expires if it is a JWT with an `exp` (RFC 7519 §4.1.4): a JOSE header that names an
    /// algorithm (RFC 7515 §4.1.1), and claims that are an object. Nothing is verified; this is a hint. A code
    /// of any other form is opaque.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        let mut parts = self.expose().split('.');
        let (header, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        object(header)?.get("alg")?.as_str()?;
        let exp = object(claims)?.get("exp")?.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "out of range is refused by the next call"
        )]
        OffsetDateTime::from_unix_timestamp(exp as i64).ok()
    }
}

/// Decodes a part of a JWT that holds a JSON object.
fn object(part: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    let json = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The credentials of a Dapi application, in the clear.
#[derive(Clone, Debug)]
pub struct AppCredentials {
    /// Dapi's application key, which is not a secret.
    pub app_key: String,
    /// Dapi's application secret.
    pub app_secret: SecretText,
}

/// The classified answer to an exchange.
#[derive(Debug)]
pub enum ExchangeAnswer {
    /// Dapi issued a token.
    Token(ExchangedToken),
    /// Dapi refused, conclusively.
    Refused(Refusal),
    /// The request was sent, or may have been, and no conclusive answer came.
    Unsettled(Unsettled),
    /// The request provably was not sent: no DNS, no connection, no TLS.
    NotSent(String),
}

/// A token and the ids that came with it.
#[derive(Debug, Clone)]
pub struct ExchangedToken {
    /// The permanent token.
    pub access_token: AccessToken,
    /// Dapi's id of the token.
    pub token_id: Option<String>,
    /// Dapi's id of the user.
    pub user_id: Option<String>,
}

/// A refusal as Dapi words it, scrubbed of secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Dapi's `type`, an open set.
    pub kind: String,
    /// Dapi's `msg`, cut to a bounded length.
    pub message: String,
}

/// An inconclusive answer: the code may or may not be consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// What came instead of a conclusive answer.
    pub what: String,
    /// Whether Dapi may have consumed the code. Only a 429 proves that it did not look at it.
    pub may_have_consumed: bool,
    /// Dapi's `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// The classified answer to a delinking.
#[derive(Debug)]
pub enum DelinkAnswer {
    /// Dapi delinked the token.
    Delinked,
    /// Dapi says that nothing is left to delink.
    AlreadyGone(Refusal),
    /// Neither; to be retried.
    Failed {
        /// What happened, without secrets.
        what: String,
        /// Dapi's `Retry-After`.
        retry_after: Option<Duration>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> AccessCode {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        AccessCode::new(format!("{}.{}.c2ln", part(r#"{"alg":"HS256"}"#), part(payload)))
    }

    #[test]
    fn a_code_that_is_a_jwt_tells_when_it_ends() {
        let ends = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        assert_eq!(jwt(r#"{"exp":1700000000,"jti":"x"}"#).expires_at(), Some(ends));
        assert_eq!(jwt(r#"{"exp":1700000000.9}"#).expires_at(), Some(ends));
    }

    #[test]
    fn a_code_of_another_form_has_no_end_of_its_own() {
        for code in ["", "opaque", "a.b.c", "a.b.c.d"] {
            assert_eq!(AccessCode::new(code.to_owned()).expires_at(), None, "{code}");
        }
        for payload in [
            "{}",
            r#"{"exp":"soon"}"#,
            r#"{"exp":1e300}"#,
            r#"{"exp":null}"#,
            r#"{"exp":[1]}"#,
            "[]",
            "[1]",
            "1",
        ] {
            assert_eq!(jwt(payload).expires_at(), None, "{payload}");
        }
        let past = URL_SAFE_NO_PAD.encode(r#"{"exp":1}"#);
        for header in ["x", "e30", &URL_SAFE_NO_PAD.encode(r#"["HS256"]"#)] {
            let code = AccessCode::new(format!("{header}.{past}.c2ln"));
            assert_eq!(code.expires_at(), None, "a header that is none: {header}");
        }
    }
}
