//! The tables `webhook_endpoints`, `webhook_secrets` and, for the administration, `webhook_deliveries`.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{Settings, Signature, Webhook};
use super::secret::{NewSecret, SigningSeed, WebhookSecret};
use crate::common::ids::{AppId, EventId, WebhookId, WebhookSecretId};
use crate::database::{Conn, interval};
use crate::events::kind::EventType;
use crate::vault::Sealed;

/// The longest list: endpoints are an app's own backends.
const MAX_LISTED: i64 = 100;

/// Converts what the SQL function `webhook_snapshot` returned.
fn webhook(snapshot: &Value) -> sqlx::Result<Webhook> {
    Webhook::of_snapshot(snapshot).ok_or_else(|| sqlx::Error::Decode("a webhook".into()))
}

/// Returns the app's webhooks, oldest first.
pub async fn list(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<Webhook>> {
    let rows = sqlx::query_scalar!(
        r#"SELECT webhook_snapshot(e) AS "it!" FROM webhook_endpoints e
         WHERE app_id = $1 ORDER BY id LIMIT $2"#,
        app.uuid(),
        MAX_LISTED,
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(webhook).collect()
}

/// Returns one webhook of the app.
pub async fn find(conn: &mut Conn, app: AppId, id: WebhookId) -> sqlx::Result<Option<Webhook>> {
    let row = sqlx::query_scalar!(
        r#"SELECT webhook_snapshot(e) AS "it!" FROM webhook_endpoints e WHERE app_id = $1 AND id = $2"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(webhook).transpose()
}

/// Inserts a webhook. Returns `false` if the app has as many as it may.
pub(super) async fn insert(
    conn: &mut Conn,
    app: AppId,
    id: WebhookId,
    settings: &Settings,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO webhook_endpoints (id, app_id, url, description, types, signature)
         SELECT $1, $2, $3, $4, $5, $6
         WHERE (SELECT count(*) FROM webhook_endpoints WHERE app_id = $2) < $7",
        id.uuid(),
        app.uuid(),
        settings.url,
        settings.description,
        settings.types.as_deref(),
        settings.signature.as_str(),
        MAX_LISTED,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns the settings of a webhook of the app and whether it is disabled, locked until the transaction ends. The lock
/// does not block the foreign keys of deliveries.
pub(super) async fn lock(
    conn: &mut Conn,
    app: AppId,
    id: WebhookId,
) -> sqlx::Result<Option<(Settings, bool)>> {
    let row = sqlx::query!(
        r#"SELECT url, description, types, signature, disabled_at IS NOT NULL AS "disabled!"
         FROM webhook_endpoints WHERE app_id = $1 AND id = $2 FOR NO KEY UPDATE"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let signature = Signature::parse(&row.signature);
    let signature = signature.ok_or_else(|| sqlx::Error::Decode("a webhook's signature".into()))?;
    let settings =
        Settings { url: row.url, description: row.description, types: row.types, signature };
    Ok(Some((settings, row.disabled)))
}

/// Writes changed settings, and ends the wait after failures.
pub(super) async fn change(
    conn: &mut Conn,
    id: WebhookId,
    settings: &Settings,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE webhook_endpoints
         SET url = $2, description = $3, types = $4, signature = $5, updated_at = strongroom_now(), retry_at = NULL
         WHERE id = $1",
        id.uuid(),
        settings.url,
        settings.description,
        settings.types.as_deref(),
        settings.signature.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Enables or disables a webhook. Enabling forgets its failures.
pub(super) async fn set_disabled(
    conn: &mut Conn,
    id: WebhookId,
    disabled: bool,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE webhook_endpoints
         SET disabled_at = CASE WHEN $2 THEN strongroom_now() END,
             disabled_reason = CASE WHEN $2 THEN 'requested' END,
             failures = CASE WHEN $2 THEN failures ELSE 0 END,
             failing_since = CASE WHEN $2 THEN failing_since END
         WHERE id = $1",
        id.uuid(),
        disabled,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes a webhook with its secrets and its deliveries. Returns `false` if the app has none of this id.
pub(super) async fn delete(conn: &mut Conn, app: AppId, id: WebhookId) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM webhook_endpoints WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Inserts a secret.
pub(super) async fn insert_secret(
    conn: &mut Conn,
    endpoint: WebhookId,
    new: &NewSecret,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO webhook_secrets (id, endpoint_id, secret, signing_key, public_key)
         VALUES ($1, $2, $3, $4, $5)",
        new.id.uuid(),
        endpoint.uuid(),
        new.sealed.as_bytes(),
        new.signing_key.as_bytes(),
        new.public_key,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts the live secrets of a webhook.
pub(super) async fn live_secrets(conn: &mut Conn, endpoint: WebhookId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "it!" FROM webhook_secrets
         WHERE endpoint_id = $1 AND (expires_at IS NULL OR expires_at > strongroom_now())"#,
        endpoint.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Makes the webhook's secrets expire `within` from now, or at their earlier expiry, and deletes those that expired.
pub(super) async fn end_secrets(
    conn: &mut Conn,
    endpoint: WebhookId,
    within: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE webhook_secrets SET expires_at = least(expires_at, strongroom_now() + $2::interval)
         WHERE endpoint_id = $1",
        endpoint.uuid(),
        interval(within),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM webhook_secrets WHERE endpoint_id = $1 AND expires_at <= strongroom_now()",
        endpoint.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends one live secret now. Returns `false` if the webhook has none of this id.
pub(super) async fn end_secret(
    conn: &mut Conn,
    endpoint: WebhookId,
    secret: WebhookSecretId,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM webhook_secrets
         WHERE endpoint_id = $1 AND id = $2 AND (expires_at IS NULL OR expires_at > strongroom_now())",
        endpoint.uuid(),
        secret.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A live secret, sealed.
#[derive(Debug)]
pub struct SealedSecret {
    /// The secret's id.
    pub id: WebhookSecretId,
    /// Its webhook.
    pub endpoint: WebhookId,
    /// The key for HMAC.
    pub secret: Sealed<WebhookSecret>,
    /// The key for Ed25519.
    pub signing_key: Sealed<SigningSeed>,
}

/// Returns the live secrets of webhooks, oldest first. Background work, for all apps.
pub async fn secrets(conn: &mut Conn, endpoints: &[Uuid]) -> sqlx::Result<Vec<SealedSecret>> {
    sqlx::query_as!(
        SealedSecret,
        r#"SELECT id AS "id: WebhookSecretId", endpoint_id AS "endpoint: WebhookId",
                secret AS "secret: Sealed<WebhookSecret>", signing_key AS "signing_key: Sealed<SigningSeed>"
         FROM webhook_secrets
         WHERE endpoint_id = ANY ($1) AND (expires_at IS NULL OR expires_at > strongroom_now())
         ORDER BY created_at, id"#,
        endpoints,
    )
    .fetch_all(conn)
    .await
}

/// Writes a test event for one webhook. Returns its id.
pub(super) async fn insert_test(
    conn: &mut Conn,
    app: AppId,
    id: WebhookId,
) -> sqlx::Result<Option<EventId>> {
    sqlx::query_scalar!(
        r#"INSERT INTO event_outbox (app_id, type, subject, snapshot, endpoint_id)
         SELECT app_id, $3, id::text, webhook_snapshot(e), id FROM webhook_endpoints e
         WHERE app_id = $1 AND id = $2
         RETURNING id AS "id: EventId""#,
        app.uuid(),
        id.uuid(),
        EventType::WebhookTest.as_str(),
    )
    .fetch_optional(conn)
    .await
}

/// Makes the webhook's deliveries of a range of time due again, and adds those that it never had: at most `limit`
/// events, the oldest first. Returns how many, and the time of the next event if there are more.
pub(super) async fn replay(
    conn: &mut Conn,
    app: AppId,
    id: WebhookId,
    (from, to): (OffsetDateTime, OffsetDateTime),
    limit: i64,
) -> sqlx::Result<(i64, Option<OffsetDateTime>)> {
    let row = sqlx::query!(
        r#"-- name: replay_events
         WITH chosen AS MATERIALIZED (
            SELECT v.position, v.at, row_number() OVER (ORDER BY v.position) AS n
            FROM events v JOIN webhook_endpoints e ON e.id = $2 AND e.app_id = v.app_id
            WHERE v.app_id = $1 AND v.at >= $3 AND v.at < $4 AND v.endpoint_id IS NULL
              AND (e.types IS NULL OR v.type = ANY (e.types))
            ORDER BY v.position LIMIT $5::bigint + 1),
         queued AS (
            INSERT INTO webhook_deliveries (endpoint_id, app_id, position, due_at)
            SELECT $2, $1, position, strongroom_now() FROM chosen WHERE n <= $5
            ON CONFLICT (endpoint_id, position) DO UPDATE
            SET due_at = excluded.due_at, created_at = excluded.created_at, attempts = 0, delivered_at = NULL
            RETURNING position)
         SELECT (SELECT count(*) FROM queued) AS "queued!", (SELECT at FROM chosen WHERE n > $5) AS next"#,
        app.uuid(),
        id.uuid(),
        from,
        to,
        limit,
    )
    .fetch_one(conn)
    .await?;
    Ok((row.queued, row.next))
}

/// A delivery as its log has it.
#[derive(Debug)]
pub struct Delivery {
    /// The event's position.
    pub position: i64,
    /// The event.
    pub event: EventId,
    /// The event's type.
    pub kind: String,
    /// When it was queued.
    pub created_at: OffsetDateTime,
    /// How many attempts were made.
    pub attempts: i32,
    /// When the last attempt was made.
    pub attempted_at: Option<OffsetDateTime>,
    /// The status of the last answer.
    pub status: Option<i32>,
    /// How the last attempt failed.
    pub error: Option<String>,
    /// When the next attempt is due.
    pub due_at: Option<OffsetDateTime>,
    /// When it was answered with success.
    pub delivered_at: Option<OffsetDateTime>,
}

/// Returns up to `limit` deliveries of a webhook of the app, newest event first, before a position.
pub async fn deliveries(
    conn: &mut Conn,
    app: AppId,
    id: WebhookId,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Delivery>> {
    sqlx::query_as!(
        Delivery,
        r#"SELECT d.position, v.id AS "event: EventId", v.type AS kind, d.created_at, d.attempts, d.attempted_at,
                d.status, d.error, d.due_at, d.delivered_at
         FROM webhook_deliveries d JOIN events v ON v.app_id = d.app_id AND v.position = d.position
         WHERE d.endpoint_id = $2 AND d.app_id = $1 AND d.position < $3
         ORDER BY d.position DESC LIMIT $4"#,
        app.uuid(),
        id.uuid(),
        before.unwrap_or(i64::MAX),
        limit,
    )
    .fetch_all(conn)
    .await
}
