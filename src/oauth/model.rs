//! What the administration reads and writes: clients, their secrets without the secret, signing
//! keys without the key. No I/O, and no import of a sibling module.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::common::external_scopes::ExternalScopes;
use crate::common::ids::{AppId, ClientSecretId};
use crate::common::scope::{Scope, Scopes};
use crate::common::text;

/// What keeps an app's callers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// The app is being moved: this ends.
    Moving,
    /// The app is at another deployment.
    Moved,
}

/// The maximum length of an issuer, an audience and a subject, in bytes.
pub const MAX_CLAIM: usize = 1024;

text::text_schemas! {
    /// Where a JWK set is published: https, or http if private addresses are allowed; without credentials or fragment.
    JwksURI, "^https?://[^\\s]+$", 1 to 2048, "https://payroll.example.com/.well-known/jwks.json";
    /// The `iss` of a workload's tokens, exactly: a URL without a query or a fragment.
    WorkloadIssuer, "^https?://[^\\s?#]+$", 1 to MAX_CLAIM, "https://token.actions.githubusercontent.com";
    /// The only `aud` of a workload's tokens, exactly.
    WorkloadAudience, text::SECRET, 1 to MAX_CLAIM, "https://strongroom.example.com";
    /// The `sub` of a workload's tokens, exactly.
    WorkloadSubject, text::SECRET, 1 to MAX_CLAIM, "repo:example/payroll:ref:refs/heads/main";
}

/// A JWK set (RFC 7517 §5): public keys.
#[derive(ToSchema)]
#[schema(as = JwkSet)]
#[expect(dead_code, reason = "describes the field in the OpenAPI document")]
pub struct JwkSetShape {
    /// The keys, each a JWK with `kty` and its public members.
    #[schema(min_items = 1, max_items = 64, example = json!([{
        "kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "kid": "2026-11",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }]))]
    keys: Vec<serde_json::Map<String, Value>>,
}

/// Whose tokens a client presents: a Kubernetes service account's, a CI job's, those of any OpenID Connect issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Workload {
    /// The `iss` of the tokens.
    #[schema(value_type = WorkloadIssuer)]
    pub issuer: String,
    /// Their only `aud`.
    #[schema(value_type = WorkloadAudience)]
    pub audience: String,
    /// Their `sub`.
    #[schema(value_type = WorkloadSubject)]
    pub subject: String,
}

/// Returns the workload of three columns, which are all there or none is.
pub(super) fn workload(
    issuer: Option<String>,
    audience: Option<String>,
    subject: Option<String>,
) -> Option<Workload> {
    Some(Workload { issuer: issuer?, audience: audience?, subject: subject? })
}

/// How a client proves who it is other than by a secret, and what its tokens are bound to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Registration {
    /// Public keys: the client's own, or its workload's issuer's.
    pub jwks: Option<Value>,
    /// Where they are published, in place of `jwks`.
    pub jwks_uri: Option<String>,
    /// The workload whose tokens it presents.
    pub workload: Option<Workload>,
    /// Whether it gets tokens that are bound to a key alone (RFC 9449 §5.2).
    pub dpop_bound: bool,
}

impl Registration {
    /// Returns whether the client can authenticate without a secret.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.jwks.is_some() || self.jwks_uri.is_some() || self.workload.is_some()
    }
}

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
    /// The public keys that it proves itself with; with `workload`, its issuer's.
    #[schema(value_type = Option<JwkSetShape>)]
    pub jwks: Option<Value>,
    /// Where these keys are published, in place of `jwks`.
    #[serde(rename = "jwksURI")]
    #[schema(value_type = Option<JwksURI>)]
    pub jwks_uri: Option<String>,
    /// The workload whose tokens it presents.
    pub workload: Option<Workload>,
    /// Whether its tokens are bound to a key (RFC 9449), all of them.
    #[serde(rename = "dpopBound")]
    #[schema(example = false)]
    pub dpop_bound: bool,
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
    /// How it proves who it is other than by a secret.
    pub registration: Registration,
}

impl ClientInfo {
    /// How it proves who it is other than by a secret.
    #[must_use]
    pub fn registration(&self) -> Registration {
        Registration {
            jwks: self.jwks.clone(),
            jwks_uri: self.jwks_uri.clone(),
            workload: self.workload.clone(),
            dpop_bound: self.dpop_bound,
        }
    }
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
