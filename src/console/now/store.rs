//! What the page reads: each statement of one app, answered from an index, and bounded.

use uuid::Uuid;

use super::model::{Code, Lived, Orders, TroubledUpstream, TroubledWebhook};
use crate::common::ids::{AppId, BulkRevocationId, ConnectionId};
use crate::database::Conn;

/// Revocations whose reasons are read, the longest waiting first.
pub const REASONS_OF: i64 = 500;
/// Codes that are listed.
pub const CODES: i64 = 20;
/// Up to how many are counted.
pub const COUNTED: i64 = 10_000;

/// Returns the revocations that the provider has not confirmed, the longest waiting first.
pub async fn unconfirmed(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<Lived>> {
    sqlx::query_as!(
        Lived,
        r#"-- name: console_unconfirmed_revocations
         SELECT c.id AS "id: ConnectionId", c.revocation_requested_at AS "since!",
                c.revocation_attempts AS attempts, c.revocation_last_error AS last_error,
                coalesce(c.leased_until > strongroom_now(), false) AS "under_way!", c.due_at,
                c.user_secret IS NULL AND c.by_wire AS "lacks_user_secret!",
                b.id AS "order?: BulkRevocationId", b.state AS "order_state?"
         FROM (SELECT * FROM connections c WHERE c.app_id = $1 AND c.status = 'revoking'
               ORDER BY c.revocation_requested_at LIMIT $2) c
         LEFT JOIN bulk_revocations b ON b.id = c.bulk_revocation_id AND b.erasure_id IS NULL
         ORDER BY c.revocation_requested_at"#,
        app.uuid(),
        REASONS_OF,
    )
    .fetch_all(conn)
    .await
}

/// Returns the codes that are being exchanged, the first to expire first.
pub async fn codes(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<Code>> {
    sqlx::query_as!(
        Code,
        r#"-- name: console_codes
         SELECT c.id AS "id: ConnectionId", c.code_expires_at AS "expires_at!", c.exchange_attempts AS attempts,
                c.unanswered, c.due_at, coalesce(c.leased_until > strongroom_now(), false) AS "under_way!"
         FROM (SELECT * FROM connections c
               WHERE c.app_id = $1 AND c.due_at IS NOT NULL AND c.code IS NOT NULL AND c.status = 'pending'
               ORDER BY c.due_at LIMIT $2) c
         ORDER BY c.code_expires_at"#,
        app.uuid(),
        CODES,
    )
    .fetch_all(conn)
    .await
}

/// Counts the connections that need their user, up to one more than [`COUNTED`].
pub async fn attention(conn: &mut Conn, app: AppId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM (
             SELECT FROM connections c
             WHERE c.app_id = $1 AND c.attention_type IS NOT NULL AND c.status = 'active' LIMIT $2) c"#,
        app.uuid(),
        COUNTED + 1,
    )
    .fetch_one(conn)
    .await
}

/// Returns the app's bulk revocations that have not ended, newest first.
pub async fn orders(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<Orders>> {
    sqlx::query_as!(
        Orders,
        r#"SELECT id AS "id: BulkRevocationId", reason, state, created_at, marked_at IS NULL AS "being_counted!"
         FROM bulk_revocations
         WHERE app_id = $1 AND id > $2 AND finished_at IS NULL AND erasure_id IS NULL AND state <> 'cancelled'
         ORDER BY id DESC LIMIT 20"#,
        app.uuid(),
        Uuid::nil(),
    )
    .fetch_all(conn)
    .await
}

/// Returns the upstreams whose last token request failed.
pub async fn upstreams(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<TroubledUpstream>> {
    sqlx::query_as!(
        TroubledUpstream,
        r#"SELECT name, failure_detail AS "detail!", failures, retry_at AS "retry_at!", token_expires_at
         FROM upstreams WHERE app_id = $1 AND failures > 0 ORDER BY failures DESC, name LIMIT 20"#,
        app.uuid(),
    )
    .fetch_all(conn)
    .await
}

/// Returns the webhooks that fail or were switched off because they did.
pub async fn webhooks(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<TroubledWebhook>> {
    sqlx::query_as!(
        TroubledWebhook,
        r#"SELECT id AS "id: _", url, failing_since, disabled_reason, last_error
         FROM webhook_endpoints
         WHERE app_id = $1 AND (failing_since IS NOT NULL OR disabled_reason IN ('gone', 'failing'))
         ORDER BY failing_since NULLS LAST, id LIMIT 20"#,
        app.uuid(),
    )
    .fetch_all(conn)
    .await
}
