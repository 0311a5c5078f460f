//! The table `connect_sessions`.

use time::OffsetDateTime;

use super::{MINUTES, token_hash};
use crate::base::ids::{AppId, SessionId, UserId};
use crate::database::Conn;
use crate::http::caller::Session;
use crate::vault::{KeyedHash, Vault};

/// Keeps a session; returns when it ends.
pub(super) async fn insert(
    conn: &mut Conn,
    id: SessionId,
    app: AppId,
    user: UserId,
    hash: &KeyedHash,
    created_by: &str,
) -> sqlx::Result<OffsetDateTime> {
    sqlx::query_scalar!(
        "INSERT INTO connect_sessions (id, app_id, user_id, token_hash, created_by, expires_at)
         VALUES ($1, $2, $3, $4, $5, strongroom_now() + make_interval(mins => $6))
         RETURNING expires_at",
        id.uuid(),
        app.uuid(),
        user.uuid(),
        hash.as_bytes(),
        created_by,
        MINUTES,
    )
    .fetch_one(conn)
    .await
}

/// The session of this token, as long as it lives.
pub async fn find(conn: &mut Conn, vault: &Vault, token: &str) -> sqlx::Result<Option<Session>> {
    let hash = token_hash(vault.secret_hashes(), token);
    let row = sqlx::query!(
        "SELECT s.id AS \"id: SessionId\", s.app_id AS \"app_id: AppId\",
                s.user_id AS \"user_id: UserId\", u.client_user_id
         FROM connect_sessions s JOIN users u ON u.id = s.user_id
         WHERE s.token_hash = $1 AND s.expires_at > strongroom_now()",
        hash.as_bytes(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Session {
        id: row.id,
        app: row.app_id,
        user: row.user_id,
        client_user_id: row.client_user_id,
    }))
}
