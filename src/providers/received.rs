//! An answer as it arrived, before a provider's module classifies it.

use std::time::Duration;

use reqwest::StatusCode;
use zeroize::Zeroizing;

use super::{AccessToken, Unsettled, scrub};
use crate::common::lenient_json::Object;
use crate::common::text;

/// The longest text of a provider's that is kept, in bytes.
pub(super) const MAX_TEXT: usize = 500;

/// An answer as it arrived: status, `Retry-After`, decoded body.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    /// The body, up to the bound.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// Why the body is incomplete, if it is.
    pub(super) spoilt: Option<&'static str>,
}

impl Received {
    /// Explains why nothing can be read from the body.
    pub(super) fn unreadable(&self) -> &'static str {
        self.spoilt.unwrap_or("an answer that is not the provider's JSON")
    }

    /// Returns whether the body is complete and holds nothing beside `object`.
    pub(super) fn is_whole(&self, object: &Object<'_>) -> bool {
        self.spoilt.is_none() && object.is_whole()
    }

    /// Returns whether the status can be conclusive: 200 or 4xx, except 408 and 429.
    pub(super) fn may_be_conclusive(&self) -> bool {
        may_be_conclusive(self.status.as_u16())
    }

    /// An inconclusive answer to an exchange. Only a 429 proves that the code was not looked at.
    pub(super) fn unsettled(&self, what: &str) -> Unsettled {
        Unsettled {
            what: format!("{what} (HTTP {})", self.status.as_u16()),
            may_have_consumed: self.status != StatusCode::TOO_MANY_REQUESTS,
            retry_after: self.retry_after,
        }
    }
}

/// Returns whether an HTTP status can be conclusive: 200 or 4xx, except 408 and 429.
pub(super) fn may_be_conclusive(status: u16) -> bool {
    matches!(status, 200..=299 | 400..=499) && ![408, 429].contains(&status)
}

/// Returns the token in a field if it is complete and can be sent again: in a header, too.
pub(super) fn token(object: &Object<'_>, field: &str) -> Option<AccessToken> {
    let token = Zeroizing::new(object.exact(field)?);
    let token = token.trim_matches(|c: char| c.is_ascii_whitespace());
    let carried = !token.is_empty() && !token.contains(char::is_control);
    carried.then(|| AccessToken::new(token.to_owned()))
}

/// Returns a field's text without secrets, control characters, and what is too long.
pub(super) fn words(object: &Object<'_>, field: &str, secrets: &[&str]) -> Option<String> {
    object.words(field).map(|text| text::tame(&scrub(&text, secrets), MAX_TEXT))
}
