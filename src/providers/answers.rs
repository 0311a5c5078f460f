//! What a provider's answers say, in the words that providers share.

use std::time::Duration;

use super::AccessToken;

/// The classified answer to an exchange.
#[derive(Debug)]
pub enum ExchangeAnswer {
    /// The provider issued a token.
    Token(ExchangedToken),
    /// The provider refused the code, conclusively.
    Refused(Refusal),
    /// The request was sent, or may have been, and no conclusive answer came.
    Unsettled(Unsettled),
    /// The request provably was not sent: no DNS, no connection, no TLS.
    NotSent(String),
}

impl ExchangeAnswer {
    /// The outcome in metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Refused(_) => "refused",
            Self::Unsettled(_) => "unsettled",
            Self::NotSent(_) => "not_sent",
        }
    }
}

/// A token and the ids that came with it.
#[derive(Debug, Clone)]
pub struct ExchangedToken {
    /// The permanent token.
    pub access_token: AccessToken,
    /// The bank login, if the exchange brings it (Plaid's `item_id`).
    pub login_id: Option<String>,
    /// Dapi's id of the token.
    pub token_id: Option<String>,
    /// Dapi's id of the user.
    pub user_id: Option<String>,
}

/// A refusal as the provider words it, scrubbed of secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Dapi's `type`, Plaid's `error_code`: an open set.
    pub kind: String,
    /// Dapi's `msg`, Plaid's `error_message`, cut to a bounded length.
    pub message: String,
}

/// An inconclusive answer: the code may or may not be consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// What came instead of a conclusive answer.
    pub what: String,
    /// Whether the provider may have consumed the code.
    pub may_have_consumed: bool,
    /// The provider's `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// The classified answer to a revocation.
#[derive(Debug)]
pub enum RevokeAnswer {
    /// The provider revoked the token.
    Revoked,
    /// The provider says that nothing is left to revoke, and what is known of the token makes that certain.
    AlreadyGone(Refusal),
    /// Neither; to be retried.
    Failed {
        /// What happened, without secrets.
        what: String,
        /// The provider's `Retry-After`.
        retry_after: Option<Duration>,
    },
}

impl RevokeAnswer {
    /// The outcome in metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Revoked => "delinked",
            Self::AlreadyGone(_) => "already_gone",
            Self::Failed { .. } => "failed",
        }
    }
}

/// What an answer states about its call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Whether the call succeeded.
    pub succeeded: bool,
    /// Dapi's `type`, Plaid's `error_code`.
    pub kind: Option<String>,
    /// Whether a refusal is a question to the user.
    pub asks: bool,
}

/// What the answer to a verification says about a token.
#[derive(Debug, PartialEq, Eq)]
pub enum VerifyAnswer {
    /// The token works. Carries the provider's word for it if the user's login at the bank does not.
    Works(Option<String>),
    /// The provider refused it.
    Refused(Refusal),
    /// No conclusive answer.
    Inconclusive,
}

/// Removes secrets from a text from another system that may repeat what was sent.
#[must_use]
pub fn scrub(text: &str, secrets: &[&str]) -> String {
    let worth = secrets.iter().filter(|secret| secret.len() >= 4);
    worth.fold(text.to_owned(), |text, secret| text.replace(*secret, "(secret)"))
}
