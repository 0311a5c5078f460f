//! What administration reads and writes: clients, their secrets without the secret, signing keys without
//! the key. No I/O; the store imports nothing else of this module's siblings.

use std::time::Duration;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use crate::base::external_scopes::ExternalScopes;
use crate::base::ids::{AppId, ClientSecretId};
use crate::base::scope::{Scope, Scopes};

/// A client as it is shown: without secrets.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientInfo {
    /// Its id.
    #[serde(rename = "clientID")]
    pub id: String,
    /// The app that it belongs to.
    #[serde(rename = "app")]
    pub app_name: String,
    /// What people call it.
    pub name: String,
    /// The most that a token of its may allow.
    #[serde(serialize_with = "as_names")]
    pub scopes: Scopes,
    /// Scopes of other APIs that its tokens may carry.
    #[serde(rename = "otherScopes")]
    pub external_scopes: ExternalScopes,
    /// Scopes that its token requests have to name.
    pub required_scopes: Vec<String>,
    /// How long its tokens live, in seconds.
    pub token_lifetime: u32,
    /// Tokens that it may read in the clear within a minute, where that differs from the service's own
    /// setting.
    pub reveals_per_minute: Option<u32>,
    /// Whether the environment made it.
    pub bootstrap: bool,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Since when it is refused.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    /// When it was last heard of, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn as_names<S: Serializer>(scopes: &Scopes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(scopes.iter().map(Scope::as_str))
}

/// The place in a list of clients behind which the next page starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// When the last client of the page before was made.
    pub created_at: OffsetDateTime,
    /// Its id.
    pub id: String,
}

/// A client to be made.
#[derive(Debug)]
pub struct NewClient<'a> {
    /// The app that it will belong to.
    pub app: AppId,
    /// What people call it.
    pub name: &'a str,
    /// The most that a token of its may allow.
    pub scopes: Scopes,
    /// How long its tokens live.
    pub token_lifetime: Duration,
}

/// What a client may have beyond the usual.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Scopes of other APIs that its tokens may carry. Strongroom itself honours none of them.
    pub external_scopes: ExternalScopes,
    /// Scopes, its own or others, that each token request has to name. Where there are none, a request
    /// without a scope is one for everything.
    pub required_scopes: Vec<String>,
    /// Tokens that it may read in the clear within a minute; the service's own setting where it is
    /// `None`.
    pub reveals_per_minute: Option<u32>,
}

/// A live secret as it is shown: everything but the secret.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretInfo {
    /// Its id.
    pub id: ClientSecretId,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ends; `None` for the one that stays.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last presented, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

/// A signing key as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyInfo {
    /// Its id, in the header of each token that it signs.
    pub kid: String,
    /// The `alg` of its tokens.
    pub algorithm: String,
    /// `next`, `signs` or `verifies`.
    pub state: String,
    /// When it was made and published.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// From when on it signs.
    #[serde(with = "time::serde::rfc3339")]
    pub signs_from: OffsetDateTime,
    /// When its successor takes over.
    #[serde(with = "time::serde::rfc3339::option")]
    pub retired_at: Option<OffsetDateTime>,
}
