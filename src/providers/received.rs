//! An answer as it arrived, before a provider's module classifies it.

use std::time::Duration;

use reqwest::StatusCode;
use zeroize::Zeroizing;

use super::Unsettled;
use crate::common::lenient_json::Object;

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
        let not_now = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        (self.status.is_success() || self.status.is_client_error())
            && !not_now.contains(&self.status)
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
