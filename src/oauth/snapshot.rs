//! Clients as they were when an event was written, from the columns that its trigger kept.

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{ClientInfo, SecretInfo, workload};
use crate::common::external_scopes::ExternalScopes;
use crate::common::scope::Scopes;

#[derive(Deserialize)]
struct Snapshot {
    id: String,
    app_name: String,
    name: String,
    scopes: Vec<String>,
    external_scopes: Vec<String>,
    required_scopes: Vec<String>,
    token_lifetime: u32,
    reveals_per_minute: Option<u32>,
    // Snapshots that a release before them kept have none of these.
    #[serde(default)]
    jwks: Option<Value>,
    #[serde(default)]
    jwks_uri: Option<String>,
    #[serde(default)]
    workload_issuer: Option<String>,
    #[serde(default)]
    workload_audience: Option<String>,
    #[serde(default)]
    workload_subject: Option<String>,
    #[serde(default)]
    dpop_bound: bool,
    bootstrap: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    disabled_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
    secrets: Vec<Secret>,
}

#[derive(Deserialize)]
struct Secret {
    id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
}

/// Returns the client and its live secrets of a snapshot; `None` for what is not one.
#[must_use]
pub fn client(snapshot: &Value) -> Option<(ClientInfo, Vec<SecretInfo>)> {
    let row = Snapshot::deserialize(snapshot).ok()?;
    let secrets = row.secrets.into_iter().map(|secret| SecretInfo {
        id: secret.id.into(),
        created_at: secret.created_at,
        expires_at: secret.expires_at,
        last_used_at: secret.last_used_at,
    });
    let secrets = secrets.collect();
    let client = ClientInfo {
        id: row.id,
        app_name: row.app_name,
        name: row.name,
        scopes: Scopes::from_names(&row.scopes),
        external_scopes: ExternalScopes::from_names(row.external_scopes.iter().map(String::as_str)),
        required_scopes: row.required_scopes,
        token_lifetime: row.token_lifetime,
        reveals_per_minute: row.reveals_per_minute,
        jwks: row.jwks,
        jwks_uri: row.jwks_uri,
        workload: workload(row.workload_issuer, row.workload_audience, row.workload_subject),
        dpop_bound: row.dpop_bound,
        bootstrap: row.bootstrap,
        created_at: row.created_at,
        disabled_at: row.disabled_at,
        last_used_at: row.last_used_at,
    };
    Some((client, secrets))
}
