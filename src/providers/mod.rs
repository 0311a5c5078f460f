//! The bank links: the vocabulary that they share, the client that calls them, and the gate before them.
//!
//! A [`Provider`] is a value, not a trait (ADR 4): the verbs of [`Client`] (exchange, revoke, call, verify) match on
//! it, and its facts say in which way the life of a connection differs. `dapi` and `plaid` have the wire format of one
//! provider each and know nothing of the other.
//!
//! Answers are classified here: conclusive or not, and whether the request can have reached the provider at all.
//! `connections` decides what an answer means for a connection.
//!
//! May import: common, config.

mod answers;
mod call;
mod client;
pub mod dapi;
mod describe;
mod gate;
mod metrics;
pub mod plaid;
mod received;
mod requests;
mod transport;

pub use answers::{
    ExchangeAnswer, ExchangedToken, Refusal, RevokeAnswer, Said, Unsettled, VerifyAnswer, scrub,
};
pub use call::{Call, CallAnswer, CallLost, Field};
pub use client::{Client, said};
pub use gate::{Busy, Gate, Lane, Permit};
pub use metrics::Metrics;
pub use plaid::DetailsError;
pub use requests::{Exchange, Revoke, Verify};

use crate::common::named::named;
use crate::common::secret::{SecretText, secret_text};
use crate::common::text::{self, InvalidText};

secret_text!(
    /// The single-use code that the bank link hands to a frontend: Dapi's access code, Plaid's `public_token`.
    AccessCode
);
secret_text!(
    /// The permanent token of one bank login.
    AccessToken
);
secret_text!(
    /// Connect's `userSecret`, without which nothing can be read or delinked at Dapi. Plaid has none.
    UserSecret
);

/// A bank link.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    sqlx::Type,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Provider {
    /// Dapi (dapi.com).
    Dapi,
    /// Plaid (plaid.com).
    Plaid,
}

// The names in JSON, in the database and on the command line.
named!(Provider { Dapi => "dapi", Plaid => "plaid" }, parse);

impl Provider {
    /// The name as people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dapi => "Dapi",
            Self::Plaid => "Plaid",
        }
    }

    /// Whether the provider says which institution and accounts a token is of.
    #[must_use]
    pub const fn has_details(self) -> bool {
        matches!(self, Self::Plaid)
    }

    /// The audit trail's action for a call.
    #[must_use]
    pub const fn call_action(self) -> &'static str {
        match self {
            Self::Dapi => "dapi.call",
            Self::Plaid => "plaid.call",
        }
    }

    /// Whether the provider fails all calls that use one token at the same time, so that they are made one by one.
    #[must_use]
    pub const fn has_serial_calls(self) -> bool {
        matches!(self, Self::Dapi)
    }

    /// Checks an application's key or secret: Dapi's travel in a body, Plaid's in headers.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn check_credential(self, text: &str, max_bytes: usize) -> Result<(), InvalidText> {
        match self {
            Self::Dapi => text::check_line(text, max_bytes),
            Self::Plaid => text::check_bearer(text, max_bytes),
        }
    }

    /// Whether an answer of this HTTP status may be the provider's own word about a token. Dapi refuses with 2xx as
    /// well; a timeout, a limit and a server in trouble say nothing about the token, whatever their body says.
    #[must_use]
    pub fn may_refuse(self, status: u16) -> bool {
        received::may_be_conclusive(status)
            && match self {
                Self::Dapi => true,
                Self::Plaid => (400..500).contains(&status),
            }
    }

    /// Whether a token can be used and revoked only together with a user secret.
    #[must_use]
    pub const fn has_user_secret(self) -> bool {
        matches!(self, Self::Dapi)
    }

    /// Whether the bank login is known when a code comes in. Otherwise the exchange brings it with the token.
    #[must_use]
    pub const fn knows_login_at_intake(self) -> bool {
        matches!(self, Self::Dapi)
    }
}

/// The credentials of an app at its provider, in the clear.
#[derive(Clone, Debug)]
pub struct AppCredentials {
    /// Whose credentials they are.
    pub provider: Provider,
    /// Dapi's application key, Plaid's `client_id`; not a secret.
    pub app_key: String,
    /// Dapi's application secret, Plaid's `secret`.
    pub app_secret: SecretText,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_found_by_its_name() {
        for provider in Provider::ALL {
            assert_eq!(Provider::parse(provider.as_str()), Some(provider));
        }
        assert_eq!(Provider::parse("Plaid"), None);
    }
}
