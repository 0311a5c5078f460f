//! Connections as they were when an event was written, from the columns that its trigger kept.

use uuid::Uuid;

use super::view::Row;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::model::Connection;
use crate::database::Conn;

/// Converts snapshots of the view's columns, which are JSON, by the conversion that `GET` uses. The output is `None` for
/// what is not a snapshot of the connection with the id that stands beside it.
///
/// PostgreSQL converts the columns from JSON, because it wrote them: a time or an array has one spelling for both ways.
pub async fn connections(
    conn: &mut Conn,
    ids: &[Option<Uuid>],
    snapshots: &[&str],
) -> sqlx::Result<Vec<Option<Connection>>> {
    if snapshots.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT c.app_id AS "app_id!: AppId", c.id AS "id!: ConnectionId", c.status AS "status!",
                c.client_user_id AS "client_user_id!", c.provider AS "provider!: _", c.login_id, c.dapi_user_id,
                c.dapi_token_id, c.created_at AS "created_at!", c.code_expires_at, c.activated_at,
                c.failure_type, c.failure_detail, c.revocation_kind, c.revocation_reason,
                c.revocation_requested_at, c.revocation_confirmed_at,
                c.revocation_attempts AS "revocation_attempts!", c.revocation_last_error, c.due_at,
                c.replaced_by AS "replaced_by: ConnectionId", c.attention_type, c.attention_since,
                c.last_used_at, c.institution_id, c.institution_name, c.accounts AS "accounts: _",
                c.duplicate_of AS "duplicate_of: ConnectionId"
         FROM unnest($1::text[]::jsonb[]) WITH ORDINALITY AS s (snapshot, n)
         CROSS JOIN LATERAL jsonb_to_record(CASE jsonb_typeof(s.snapshot) WHEN 'object' THEN s.snapshot
                                            ELSE '{}' END) AS c (
            app_id uuid, id uuid, status text, client_user_id text, provider text, login_id text,
            dapi_user_id text, dapi_token_id text, created_at timestamptz, code_expires_at timestamptz,
            activated_at timestamptz, failure_type text, failure_detail text, revocation_kind text,
            revocation_reason text, revocation_requested_at timestamptz, revocation_confirmed_at timestamptz,
            revocation_attempts integer, revocation_last_error text, due_at timestamptz, replaced_by uuid,
            attention_type text, attention_since timestamptz, last_used_at timestamptz, institution_id text,
            institution_name text, accounts jsonb, duplicate_of uuid)
         WHERE c.id IS NOT NULL AND c.app_id IS NOT NULL
         ORDER BY s.n"#,
        snapshots as &[&str],
    )
    .fetch_all(conn)
    .await?;
    // A row is left out only if its snapshot is none; then the others are found by their ids.
    let mut rows = rows.into_iter().peekable();
    Ok(ids
        .iter()
        .map(|id| rows.next_if(|row| *id == Some(row.id.uuid())))
        .map(|row| row.and_then(|row| Connection::try_from(row).ok()))
        .collect())
}
