//! The table `plaid_webhooks`.
//!
//! Lock order: the bank login, connections, webhooks; a webhook that waits is locked first, by the one transaction that
//! applies it.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::audit::AuditActor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::database::Conn;
use crate::providers::plaid::{ItemEvent, ItemWebhook};

/// A verified webhook.
#[derive(Clone, Debug)]
pub struct Kept {
    pub app: AppId,
    /// By which it is known again.
    pub digest: [u8; 32],
    pub issued_at: OffsetDateTime,
    pub webhook: ItemWebhook,
}

/// Inserts a webhook. Returns `false` if it was received before.
pub async fn insert(conn: &mut Conn, kept: &Kept) -> sqlx::Result<bool> {
    let Kept { app, digest, issued_at, webhook } = kept;
    let done = sqlx::query!(
        "INSERT INTO plaid_webhooks (app_id, digest, item_id, event, code, issued_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (digest, app_id) DO NOTHING",
        app.uuid(),
        digest.as_slice(),
        webhook.item_id,
        webhook.event.as_str(),
        webhook.code,
        issued_at,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns the connection that a webhook about this item is for: the active one, or the newest that holds a token.
pub async fn connection_of(
    conn: &mut Conn,
    app: AppId,
    item_id: &str,
) -> sqlx::Result<Option<(ConnectionId, UserId)>> {
    let row = sqlx::query!(
        r#"SELECT id AS "id: ConnectionId", user_id AS "user: UserId" FROM connections
         WHERE app_id = $1 AND login_id = $2 AND status IN ('active', 'pending')
         ORDER BY status = 'active' DESC, created_at DESC, id DESC LIMIT 1"#,
        app.uuid(),
        item_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.id, row.user)))
}

/// Returns whether a webhook about trouble is about the past of a connection's item: it was issued before the connection
/// was received, or not after the attention was cleared or a repair that was received. Plaid tells times by the second.
pub async fn is_past(conn: &mut Conn, kept: &Kept, id: ConnectionId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT c.created_at > $4::timestamptz + interval '1 minute'
                OR coalesce(c.attention_cleared_at >= $4, false) OR EXISTS (
                SELECT FROM plaid_webhooks w
                WHERE w.app_id = $1 AND w.item_id = $3 AND w.event = 'login_repaired' AND w.issued_at >= $4) AS "it!"
         FROM connections c WHERE c.app_id = $1 AND c.id = $2"#,
        kept.app.uuid(),
        id.uuid(),
        kept.webhook.item_id,
        kept.issued_at,
    )
    .fetch_one(conn)
    .await
}

/// Returns whether a webhook about a repair is about the past of a connection's item: it was issued before trouble that is
/// known.
pub async fn is_repair_past(conn: &mut Conn, kept: &Kept, id: ConnectionId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(c.attention_since >= $4::timestamptz + interval '1 second', false) OR EXISTS (
                SELECT FROM plaid_webhooks w
                WHERE w.app_id = $1 AND w.item_id = $3 AND w.event = 'login_required' AND w.issued_at > $4) AS "it!"
         FROM connections c WHERE c.app_id = $1 AND c.id = $2"#,
        kept.app.uuid(),
        id.uuid(),
        kept.webhook.item_id,
        kept.issued_at,
    )
    .fetch_one(conn)
    .await
}

/// Records in the audit trail that the login will stop to work unless its user acts.
pub async fn record_expiry(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
    code: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "SELECT record_audit(app_id, $3, 'connection.login_expiring', 'ok', user_id, id, $4)
         FROM connections WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
        actor as &AuditActor,
        code,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records that a webhook was applied.
pub async fn mark_applied(conn: &mut Conn, kept: &Kept) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE plaid_webhooks SET applied_at = strongroom_now() WHERE app_id = $1 AND digest = $2",
        kept.app.uuid(),
        kept.digest.as_slice(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the webhooks of the last hour that wait and whose item has a connection now, the first of every app before the
/// second of any, and those of an app in the order in which they were issued; each with its connection. Locks nothing.
pub async fn due(conn: &mut Conn, limit: i64, except: &[Uuid]) -> sqlx::Result<Vec<(Kept, Uuid)>> {
    let rows = sqlx::query!(
        r#"-- name: find_due_webhooks
         WITH due AS (
            SELECT w.*, c.id AS connection_id,
                   row_number() OVER (PARTITION BY w.app_id ORDER BY w.issued_at, w.digest) AS rank
            FROM plaid_webhooks w JOIN connections c ON c.app_id = w.app_id AND c.login_id = w.item_id
            WHERE w.applied_at IS NULL AND w.received_at > (SELECT strongroom_now()) - interval '1 hour'
              AND (c.status = 'active'
                   OR c.status = 'pending' AND c.access_token IS NOT NULL AND w.event = 'permission_revoked')
              AND c.id <> ALL ($2::uuid[]))
         SELECT app_id AS "app: AppId", digest, item_id, event, code, issued_at, connection_id AS id
         FROM due ORDER BY rank, issued_at LIMIT $1"#,
        limit,
        except,
    )
    .fetch_all(conn)
    .await?;
    let kept = rows.into_iter().filter_map(|row| {
        let event = ItemEvent::parse(&row.event)?;
        let webhook = ItemWebhook { item_id: row.item_id, event, code: row.code };
        let digest = row.digest.try_into().ok()?;
        Some((Kept { app: row.app, digest, issued_at: row.issued_at, webhook }, row.id))
    });
    Ok(kept.collect())
}

/// Locks a webhook that waits. Returns `false` if another transaction has applied it or is about to.
pub async fn lock_waiting(conn: &mut Conn, kept: &Kept) -> sqlx::Result<bool> {
    let row = sqlx::query!(
        "SELECT app_id FROM plaid_webhooks
         WHERE app_id = $1 AND digest = $2 AND applied_at IS NULL FOR UPDATE SKIP LOCKED",
        kept.app.uuid(),
        kept.digest.as_slice(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// Deletes webhooks of more than a day ago: long after their signature has ceased to count. Returns how many.
pub async fn delete_old(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM plaid_webhooks WHERE received_at < (SELECT strongroom_now()) - interval '1 day'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// How many confirmed keys of an app are known again after a restart: the latest.
const CONFIRMED_KEYS: i64 = 100;

/// Returns the ids of the keys that Plaid has confirmed for an app.
pub(super) async fn confirmed_keys(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "SELECT key_id FROM plaid_webhook_keys WHERE app_id = $1 ORDER BY confirmed_at DESC LIMIT $2",
        app.uuid(),
        CONFIRMED_KEYS,
    )
    .fetch_all(conn)
    .await
}

/// Records that Plaid has confirmed a key.
pub(super) async fn confirm_key(conn: &mut Conn, app: AppId, key_id: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO plaid_webhook_keys (app_id, key_id) VALUES ($1, $2)
         ON CONFLICT (app_id, key_id) DO UPDATE SET confirmed_at = excluded.confirmed_at",
        app.uuid(),
        key_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}
