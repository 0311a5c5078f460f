//! How a connection is stored in PostgreSQL, for the newcomer to see: no app has this access.
//!
//! May import: connection id.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::connection_id::ConnectionId;

/// The most events that are shown.
const MOST_EVENTS: i64 = 20;

/// A connection's sealed secret.
#[derive(Debug)]
pub(super) struct Lying {
    pub(super) user_id: Uuid,
    /// The column; `None` if the row holds no secret any more.
    pub(super) column: Option<String>,
    pub(super) sealed: Option<Vec<u8>>,
    pub(super) master_key_id: String,
}

/// Returns a connection's sealed token, or its sealed code before the exchange.
pub(super) async fn lying(
    conn: &mut PgConnection,
    app: &str,
    client_user_id: &str,
    id: ConnectionId,
) -> sqlx::Result<Option<Lying>> {
    sqlx::query_as!(
        Lying,
        "SELECT u.id AS user_id,
                CASE WHEN c.access_token IS NOT NULL THEN 'access_token'
                     WHEN c.code IS NOT NULL THEN 'code' END AS column,
                coalesce(c.access_token, c.code) AS sealed, k.master_key_id
         FROM connections c
         JOIN users u ON u.id = c.user_id
         JOIN apps a ON a.id = c.app_id
         JOIN data_keys k ON k.user_id = u.id AND k.purpose = 'user'
         WHERE c.id = $1 AND a.name = $2 AND u.client_user_id = $3",
        id.uuid(),
        app,
        client_user_id,
    )
    .fetch_optional(conn)
    .await
}

#[derive(Debug)]
pub(super) struct Event {
    pub(super) at: OffsetDateTime,
    pub(super) action: String,
    pub(super) actor: String,
    pub(super) reason: Option<String>,
}

/// Returns the newest events of a connection, oldest first.
pub(super) async fn events(
    conn: &mut PgConnection,
    app: &str,
    id: ConnectionId,
) -> sqlx::Result<Vec<Event>> {
    let mut events = sqlx::query_as!(
        Event,
        "SELECT e.at, e.action, e.actor, e.reason
         FROM audit_events e JOIN apps a ON a.id = e.app_id
         WHERE a.name = $1 AND e.connection_id = $2
         ORDER BY e.id DESC LIMIT $3",
        app,
        id.uuid(),
        MOST_EVENTS,
    )
    .fetch_all(conn)
    .await?;
    events.reverse();
    Ok(events)
}
