//! What the end of a token depends on.

use crate::common::ids::{AppId, ConnectionId};
use crate::database::Conn;
use crate::providers::AccessToken;
use crate::vault::Sealed;

/// Returns whether a refusal of this token counts: not if the connection holds another one by now, nor while a rotation may
/// have replaced it, unless the refusal answers the rotation's own call, which was made under the epoch `rotation`.
pub async fn refusal_counts(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    token: &Sealed<AccessToken>,
    rotation: Option<i32>,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"-- name: refusal_counts
         SELECT EXISTS (
            SELECT FROM connections c
            WHERE c.app_id = $1 AND c.id = $2 AND c.access_token = $3
              AND CASE WHEN $4::integer IS NOT NULL THEN c.rotation_epoch = $4
                       ELSE coalesce(c.rotation NOT IN ('sent', 'unanswered'), true) AND NOT EXISTS (
                           SELECT FROM token_rotations r WHERE r.connection_id = c.id AND r.doubted)
                  END) AS "it!""#,
        app.uuid(),
        id.uuid(),
        token.as_bytes(),
        rotation,
    )
    .fetch_one(conn)
    .await
}
