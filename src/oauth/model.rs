//! What the administration reads and writes: clients, their secrets without the secret, signing
//! keys without the key. No I/O, and no import of a sibling module.

use std::time::Duration;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::common::external_scopes::ExternalScopes;
use crate::common::ids::{AppId, ClientSecretId};
use crate::common::scope::{Scope, Scopes};

/// The view of a client: without secrets.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Client)]
pub struct ClientInfo {
    /// The client's id.
    #[serde(rename = "clientID")]
    #[schema(example = "payroll7Qm2Xv9")]
    pub id: String,
    /// The name of the app that the client belongs to.
    #[serde(rename = "app")]
    #[schema(example = "default")]
    pub app_name: String,
    /// The name that people know it by.
    #[schema(example = "payroll")]
    pub name: String,
    /// Strongroom's scopes that its tokens may carry.
    #[serde(serialize_with = "as_names")]
    #[schema(value_type = Vec<Scope>)]
    pub scopes: Scopes,
    /// External scopes that its tokens may carry.
    #[serde(rename = "otherScopes")]
    #[schema(value_type = Vec<String>, example = json!([]))]
    pub external_scopes: ExternalScopes,
    /// Scopes that each of its token requests has to name.
    #[schema(example = json!([]))]
    pub required_scopes: Vec<String>,
    /// The lifetime of its tokens, in seconds.
    #[schema(example = 3600)]
    pub token_lifetime: u32,
    /// How many tokens it may reveal per minute, if that differs from the service's own setting.
    pub reveals_per_minute: Option<u32>,
    /// Whether it is the bootstrap client, which the environment describes.
    pub bootstrap: bool,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Since when it is disabled.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    /// When it last authenticated or used a token, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn as_names<S: Serializer>(scopes: &Scopes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(scopes.iter().map(Scope::as_str))
}

/// The position in a list of clients behind which the next page starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// When the last client of the previous page was created.
    pub created_at: OffsetDateTime,
    /// The id of that client.
    pub id: String,
}

/// A client to be created.
#[derive(Debug)]
pub struct NewClient<'a> {
    /// The app that the client will belong to.
    pub app: AppId,
    /// The name that people know it by.
    pub name: &'a str,
    /// Strongroom's scopes that its tokens may carry.
    pub scopes: Scopes,
    /// The lifetime of its tokens.
    pub token_lifetime: Duration,
}

/// The optional terms of a client.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// External scopes that its tokens may carry. Strongroom itself honours none of them.
    pub external_scopes: ExternalScopes,
    /// Scopes, Strongroom's or external, that each token request has to name. If there are none, a
    /// request without a scope is granted all.
    pub required_scopes: Vec<String>,
    /// How many tokens it may reveal per minute; `None` for the service's own setting.
    pub reveals_per_minute: Option<u32>,
}

/// The view of a live secret: everything but the secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClientSecret)]
pub struct SecretInfo {
    /// The secret's id.
    pub id: ClientSecretId,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it expires; `None` for the one that stays.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last presented, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

/// The view of a signing key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyInfo {
    /// The `kid` in the header of each token that it signs.
    pub kid: String,
    /// The `alg` of its tokens.
    pub algorithm: String,
    /// `next`, `signs` or `verifies`.
    pub state: String,
    /// When it was created and published.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// From when on it signs.
    #[serde(with = "time::serde::rfc3339")]
    pub signs_from: OffsetDateTime,
    /// When its successor starts to sign.
    #[serde(with = "time::serde::rfc3339::option")]
    pub retired_at: Option<OffsetDateTime>,
}
