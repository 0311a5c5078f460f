//! What the timeline reads besides the operator's view.

use super::model::{Standing, Told};
use crate::common::ids::{AppId, ConnectionId, SessionId, UserId};
use crate::database::Conn;

/// Events that are shown, the newest.
const EVENTS: i64 = 200;

/// Returns the connection's leases and its work.
pub async fn standing(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<Standing>> {
    sqlx::query_as!(
        Standing,
        r#"SELECT c.lease_epoch, c.leased_until, c.unanswered, c.due_at, c.revocation_released_at AS released_at,
                (SELECT ends_at FROM token_leases l
                 WHERE l.connection_id = c.id AND l.ends_at > strongroom_now()) AS in_call_until,
                (SELECT count(*) FROM token_lease_queue q
                 WHERE q.connection_id = c.id AND q.alive_until > strongroom_now()) AS "queued!"
         FROM connections c WHERE c.app_id = $1 AND c.id = $2"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Returns the user of a connect session that is still kept.
pub async fn user_of_session(
    conn: &mut Conn,
    app: AppId,
    id: SessionId,
) -> sqlx::Result<Option<UserId>> {
    sqlx::query_scalar!(
        r#"SELECT s.user_id AS "user: UserId" FROM connect_sessions s WHERE s.app_id = $1 AND s.id = $2"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Returns the newest events of the connection, with how their deliveries stand. They are found by its user, who has few.
pub async fn events(
    conn: &mut Conn,
    app: AppId,
    user: UserId,
    id: ConnectionId,
) -> sqlx::Result<Vec<Told>> {
    sqlx::query_as!(
        Told,
        r#"-- name: console_events_of_connection
         SELECT e.position, e.type AS kind, e.at, e.sequence,
                (SELECT count(*) FROM webhook_deliveries d
                 WHERE d.app_id = e.app_id AND d.position = e.position AND d.delivered_at IS NOT NULL) AS "delivered!",
                (SELECT count(*) FROM webhook_deliveries d
                 WHERE d.app_id = e.app_id AND d.position = e.position AND d.due_at IS NOT NULL) AS "outstanding!"
         FROM events e
         WHERE e.user_id = $2 AND e.app_id = $1 AND e.data::jsonb ->> 'id' = $3
         ORDER BY e.position DESC LIMIT $4"#,
        app.uuid(),
        user.uuid(),
        id.to_string(),
        EVENTS,
    )
    .fetch_all(conn)
    .await
}
