//! The table `token_bindings`, without whose row a token cannot be opened.

use uuid::Uuid;

use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::database::Conn;
use crate::providers::AccessToken;
use crate::vault::{Binding, Sealed, WrappedKey};

/// A token of an earlier release, which is not bound yet.
#[derive(Debug)]
pub struct Unbound {
    pub app: AppId,
    pub id: ConnectionId,
    pub user: UserId,
    pub token: Sealed<AccessToken>,
    pub key: WrappedKey,
}

/// Locks up to `limit` active connections with unbound tokens whose ids come after `after`. Skips locked rows.
///
/// The first byte of a sealed text is its format; 1 is the one without a binding.
pub async fn lock_unbound(conn: &mut Conn, after: Uuid, limit: i64) -> sqlx::Result<Vec<Unbound>> {
    sqlx::query_as!(
        Unbound,
        r#"SELECT c.app_id AS "app: AppId", c.id AS "id: ConnectionId", c.user_id AS "user: UserId",
                c.access_token AS "token!: Sealed<AccessToken>", key_of(k) AS "key!: WrappedKey"
         FROM connections c JOIN data_keys k ON k.user_id = c.user_id AND k.purpose = 'user'
         WHERE c.access_token IS NOT NULL AND c.status = 'active' AND get_byte(c.access_token, 0) = 1
           AND c.id > $2
         ORDER BY c.id LIMIT $1 FOR UPDATE OF c SKIP LOCKED"#,
        limit,
        after,
    )
    .fetch_all(conn)
    .await
}

/// Writes a token that has been sealed again, with its binding.
pub async fn bind(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    token: &Sealed<AccessToken>,
    binding: &Binding,
) -> sqlx::Result<()> {
    let row: Uuid = id.uuid();
    sqlx::query!(
        "-- name: bind_token
         WITH bound AS (
            UPDATE connections SET access_token = $3 WHERE app_id = $1 AND id = $2 RETURNING id)
         INSERT INTO token_bindings (connection_id, binding) SELECT id, $4 FROM bound
         ON CONFLICT (connection_id) DO UPDATE SET binding = excluded.binding",
        app.uuid(),
        row,
        token.as_bytes(),
        binding.as_bytes(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
