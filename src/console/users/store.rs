//! What the page reads.

use super::model::{Goes, Session, User};
use crate::common::ids::{AppId, UserId};
use crate::database::Conn;

/// Rows of the trail that are counted at most.
pub const COUNTED: i64 = 10_000;

/// Returns a user of the app.
pub async fn user(conn: &mut Conn, app: AppId, id: UserId) -> sqlx::Result<Option<User>> {
    sqlx::query_as!(
        User,
        "SELECT client_user_id, created_at FROM users WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Returns the connect sessions of a user that are alive, newest first.
pub async fn sessions(conn: &mut Conn, app: AppId, id: UserId) -> sqlx::Result<Vec<Session>> {
    sqlx::query_as!(
        Session,
        r#"SELECT id AS "id: _", created_by, created_at, expires_at FROM connect_sessions
         WHERE user_id = $2 AND app_id = $1 AND expires_at > (SELECT strongroom_now())
         ORDER BY created_at DESC LIMIT 50"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_all(conn)
    .await
}

/// Counts what an erasure would destroy, and what would stay.
pub async fn goes(conn: &mut Conn, app: AppId, id: UserId) -> sqlx::Result<Goes> {
    sqlx::query_as!(
        Goes,
        r#"-- name: console_erasure_preview
         SELECT (SELECT count(*) FROM connections c WHERE c.user_id = $2 AND c.app_id = $1) AS "connections!",
                (SELECT count(*) FROM connections c WHERE c.user_id = $2 AND c.app_id = $1
                   AND c.status IN ('pending', 'active', 'revoking')) AS "alive!",
                (SELECT count(*) FROM connect_sessions s WHERE s.user_id = $2 AND s.app_id = $1) AS "sessions!",
                (SELECT id FROM data_keys k WHERE k.user_id = $2 AND k.app_id = $1 AND k.purpose = 'user') AS "data_key: _",
                (SELECT count(*) FROM (
                    SELECT FROM audit_links l WHERE l.user_id = $2 AND l.app_id = $1 LIMIT $3) l) AS "trail!""#,
        app.uuid(),
        id.uuid(),
        COUNTED + 1,
    )
    .fetch_one(conn)
    .await
}
