//! The table `connect_sessions`.

use time::OffsetDateTime;

use crate::common::ids::{AppId, SessionId, UserId};
use crate::database::Conn;
use crate::http::caller::Session;
use crate::sessions::{MINUTES, token_hash};
use crate::vault::{KeyedHash, Vault};

/// Inserts a session; returns when it ends.
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

/// Returns the session of this token if it is valid: not expired, created by an existing and enabled client,
/// for a user who is not being erased, and not ended by a later bulk revocation of that client, of that user or
/// of everything. A bulk revocation of single connections, or of a period alone, ends no session.
pub async fn find(conn: &mut Conn, vault: &Vault, token: &str) -> sqlx::Result<Option<Session>> {
    let hash = token_hash(vault.secret_hashes(), token);
    let row = sqlx::query!(
        r#"SELECT s.id AS "id: SessionId", s.app_id AS "app_id: AppId",
                s.user_id AS "user_id: UserId", u.client_user_id
         FROM connect_sessions s
         JOIN users u ON u.id = s.user_id
         JOIN clients m ON m.id = s.created_by AND m.disabled_at IS NULL
         WHERE s.token_hash = $1 AND s.expires_at > strongroom_now()
           AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = s.user_id)
           -- The same scope as bulk_revocations_of, by the session's own time, and without the scopes that
           -- name single connections or only a period. An erasure is the condition before.
           AND NOT EXISTS (
               SELECT FROM bulk_revocations o
               WHERE o.app_id = s.app_id AND o.created_at >= s.created_at
                 AND NOT o.by_connection AND o.erasure_id IS NULL
                 AND (o.client_id IS NOT NULL OR o.by_user
                      OR (o.created_before IS NULL AND o.created_after IS NULL))
                 AND (o.created_before IS NULL OR s.created_at < o.created_before)
                 AND (o.client_id IS NULL OR o.client_id = s.created_by)
                 AND (NOT o.by_user OR EXISTS (
                     SELECT FROM bulk_revocation_targets t
                     WHERE t.bulk_revocation_id = o.id AND t.target = s.user_id)))"#,
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

/// Ends the sessions of a user of the app that are alive. Returns how many.
pub(super) async fn end_of_user(conn: &mut Conn, app: AppId, user: UserId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "UPDATE connect_sessions SET expires_at = strongroom_now()
         WHERE user_id = $2 AND app_id = $1 AND expires_at > (SELECT strongroom_now())",
        app.uuid(),
        user.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
