//! An upstream as callers see it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::Auth;
use crate::common::ids::UpstreamId;
use crate::common::named::named;

/// The view of an upstream: without its secret and its token.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// Its id.
    pub id: UpstreamId,
    /// Its name.
    #[schema(example = "danaconnect")]
    pub name: String,
    /// Where tokens come from.
    #[serde(rename = "tokenURL")]
    #[schema(example = "https://auth.danaconnect.com/oauth2/token")]
    pub token_url: String,
    /// The id by which the upstream knows this app.
    #[serde(rename = "clientID")]
    #[schema(example = "9f3c2ab1")]
    pub client_id: String,
    /// How id and secret are sent.
    pub auth: Auth,
    /// The scope that is asked for.
    #[schema(example = "conversation:access2api")]
    pub scope: Option<String>,
    /// Further parameters of the token request.
    #[schema(example = json!({}))]
    pub parameters: BTreeMap<String, String>,
    /// Where calls go.
    #[serde(rename = "baseURL")]
    #[schema(example = "https://appserv.danaconnect.com/api/2.0")]
    pub base_url: Option<String>,
    /// When it was added.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its settings last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// The cached token's times; `null` if none was fetched yet.
    pub token: Option<TokenTimes>,
    /// The last token request, if it failed.
    pub failure: Option<LastFailure>,
}

/// The times of a cached token.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UpstreamTokenTimes)]
pub struct TokenTimes {
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub fetched_at: OffsetDateTime,
    /// From when on the next request fetches another.
    #[serde(with = "time::serde::rfc3339")]
    pub refresh_at: OffsetDateTime,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// A token request that failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UpstreamFailure)]
pub struct LastFailure {
    /// What kind of failure.
    pub kind: Failure,
    /// The upstream's OAuth error code (RFC 6749 §5.2).
    #[schema(example = "invalid_client")]
    pub oauth_error: Option<String>,
    /// What happened, in Strongroom's words.
    #[schema(example = "The upstream refused the client.")]
    pub detail: String,
    /// How many failed in a row.
    #[schema(minimum = 1, example = 3)]
    pub attempts: i32,
    /// The earliest time of the next token request.
    #[serde(with = "time::serde::rfc3339")]
    pub retry_at: OffsetDateTime,
}

/// How a token request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = UpstreamFailureKind)]
pub enum Failure {
    /// The upstream said no.
    Refused,
    /// An answer without a usable token.
    Unusable,
    /// No connection, or one that broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The URL leads to an address that may not be reached.
    NotAllowed,
}

named!(Failure {
    Refused => "refused",
    Unusable => "unusable",
    Unreachable => "unreachable",
    Timeout => "timeout",
    NotAllowed => "not_allowed",
}, parse);

impl Failure {
    /// Returns how long to wait after `failures` in a row, this one included. What a person has to
    /// fix is retried less often, yet often enough that a fix is noticed; a change of the settings
    /// ends the wait. An upstream's own `Retry-After` is honoured up to an hour.
    #[must_use]
    pub fn cool_down(self, failures: u32, asked: Option<Duration>) -> Duration {
        let (first, longest) = match self {
            Self::Refused | Self::NotAllowed => (30, 600),
            Self::Unusable | Self::Unreachable | Self::Timeout => (2, 60),
        };
        let doublings = failures.saturating_sub(1).min(16);
        let wait = Duration::from_secs((first << doublings).min(longest));
        asked.map_or(wait, |asked| wait.max(asked.min(Duration::from_hours(1))))
    }
}
