//! The view of a connection: the columns that the API returns, and their conversion.

use serde::Deserialize;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::snapshot;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::model::{
    Attention, Connection, Failure, Revocation, RevocationKind, Status, is_unknown_login,
};
use crate::connections::sql::parse_status;
use crate::providers::Provider;
use crate::providers::plaid::{Account, Institution};

/// The columns of the view: of a row, or of a [`snapshot`], which lacks those of a later release.
#[derive(Deserialize)]
pub struct Row {
    #[serde(deserialize_with = "snapshot::id")]
    pub app_id: AppId,
    #[serde(deserialize_with = "snapshot::id")]
    pub id: ConnectionId,
    pub status: String,
    pub client_user_id: String,
    pub provider: Provider,
    pub login_id: Option<String>,
    pub dapi_user_id: Option<String>,
    pub dapi_token_id: Option<String>,
    #[serde(deserialize_with = "snapshot::time")]
    pub created_at: OffsetDateTime,
    #[serde(default, deserialize_with = "snapshot::optional_time")]
    pub code_expires_at: Option<OffsetDateTime>,
    #[serde(default, deserialize_with = "snapshot::optional_time")]
    pub activated_at: Option<OffsetDateTime>,
    pub failure_type: Option<String>,
    pub failure_detail: Option<String>,
    pub revocation_kind: Option<String>,
    pub revocation_reason: Option<String>,
    #[serde(default, deserialize_with = "snapshot::optional_time")]
    pub revocation_requested_at: Option<OffsetDateTime>,
    #[serde(default, deserialize_with = "snapshot::optional_time")]
    pub revocation_confirmed_at: Option<OffsetDateTime>,
    pub revocation_attempts: i32,
    pub revocation_last_error: Option<String>,
    #[serde(default, deserialize_with = "snapshot::optional_time")]
    pub due_at: Option<OffsetDateTime>,
    #[serde(default, deserialize_with = "snapshot::optional_id")]
    pub replaced_by: Option<ConnectionId>,
    pub attention_type: Option<String>,
    #[serde(default, deserialize_with = "snapshot::optional_time")]
    pub attention_since: Option<OffsetDateTime>,
    #[serde(default, deserialize_with = "snapshot::optional_time")]
    pub last_used_at: Option<OffsetDateTime>,
    pub institution_id: Option<String>,
    pub institution_name: Option<String>,
    pub accounts: Option<Json<Vec<Account>>>,
    #[serde(default, deserialize_with = "snapshot::optional_id")]
    pub duplicate_of: Option<ConnectionId>,
}

impl TryFrom<Row> for Connection {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let status = parse_status(&row.status)?;
        let failure = row
            .failure_type
            .map(|kind| Failure { kind, detail: row.failure_detail.unwrap_or_default() });
        let kind = row.revocation_kind.as_deref().and_then(RevocationKind::parse);
        let revocation =
            kind.zip(row.revocation_requested_at).map(|(kind, requested_at)| Revocation {
                kind,
                reason: row.revocation_reason,
                requested_at,
                confirmed_at: row.revocation_confirmed_at,
                attempts: row.revocation_attempts,
                last_error: row.revocation_last_error,
                next_attempt_at: row.due_at.filter(|_| status == Status::Revoking),
            });
        let attention = row.attention_type.zip(row.attention_since);
        let attention = attention.filter(|_| status == Status::Active);
        Ok(Self {
            id: row.id,
            status,
            client_user_id: row.client_user_id,
            provider: row.provider,
            login_id: row.login_id.filter(|login_id| !is_unknown_login(login_id)),
            dapi_user_id: row.dapi_user_id,
            dapi_token_id: row.dapi_token_id,
            created_at: row.created_at,
            code_expires_at: row.code_expires_at,
            activated_at: row.activated_at,
            failure,
            revocation,
            replaced_by: row.replaced_by,
            attention: attention.map(|(kind, since)| Attention { kind, since }),
            last_used_at: row.last_used_at,
            institution: row
                .institution_id
                .map(|id| Institution { id, name: row.institution_name }),
            accounts: row.accounts.map(|accounts| accounts.0),
            duplicate_of: row.duplicate_of,
        })
    }
}

/// Selects views with the effective status: a connection that a bulk revocation in force matches is `revoking`, even if
/// its row is not marked yet. The oldest match decides, as in marking.
macro_rules! select_effective_view {
    ($name:tt, $rest:tt, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            "-- name: " + $name + r#"
             SELECT c.app_id AS "app_id: AppId", c.id AS "id: ConnectionId",
                    CASE WHEN o.id IS NULL THEN c.status ELSE 'revoking' END AS "status!",
                    u.client_user_id, c.login_id, c.dapi_user_id, c.dapi_token_id, c.created_at,
                    c.code_expires_at, c.activated_at, c.failure_type, c.failure_detail,
                    coalesce(c.revocation_kind, o.kind) AS revocation_kind,
                    coalesce(c.revocation_reason, o.reason) AS revocation_reason,
                    coalesce(c.revocation_requested_at, o.created_at) AS revocation_requested_at,
                    c.revocation_confirmed_at, c.revocation_attempts, c.revocation_last_error,
                    CASE WHEN o.id IS NULL THEN c.due_at END AS due_at,
                    c.replaced_by AS "replaced_by: ConnectionId",
                    c.attention_type, c.attention_since, c.last_used_at,
                    c.provider AS "provider: _", c.institution_id, c.institution_name,
                    c.accounts AS "accounts: _", c.duplicate_of AS "duplicate_of: ConnectionId"
             FROM connections c JOIN users u ON u.id = c.user_id
             LEFT JOIN LATERAL (
                SELECT f.id, f.kind, f.reason, f.created_at
                FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by, c.ordinal) f
                WHERE f.marked_at IS NULL ORDER BY f.id LIMIT 1) o ON c.status IN ('pending', 'active') "#
             + $rest,
            $($argument),*
        )
    };
}

/// Selects views with the status of the row: from the table, or from a CTE with the rows that a statement has just
/// changed.
macro_rules! select_view {
    ($name:tt, $rest:tt, $($argument:expr),* $(,)?) => {
        select_view!($name, "", "connections", $rest; $($argument),*)
    };
    ($name:tt, $with:tt, $from:tt, $rest:tt; $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            "-- name: " + $name + "\n" + $with + r#"SELECT c.app_id AS "app_id: AppId", c.id AS "id: ConnectionId", c.status, u.client_user_id, c.login_id,
                    c.dapi_user_id, c.dapi_token_id, c.created_at, c.code_expires_at, c.activated_at,
                    c.failure_type, c.failure_detail, c.revocation_kind, c.revocation_reason,
                    c.revocation_requested_at, c.revocation_confirmed_at, c.revocation_attempts,
                    c.revocation_last_error, c.due_at, c.replaced_by AS "replaced_by: ConnectionId",
                    c.attention_type, c.attention_since, c.last_used_at,
                    c.provider AS "provider: _", c.institution_id, c.institution_name,
                    c.accounts AS "accounts: _", c.duplicate_of AS "duplicate_of: ConnectionId"
             FROM "# + $from + " c JOIN users u ON u.id = c.user_id " + $rest,
            $($argument),*
        )
    };
}

pub(crate) use {select_effective_view, select_view};
