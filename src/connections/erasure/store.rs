//! The table `erasures`, and the deletion of a user's rows.

use crate::common::ids::{AppId, DataKeyId, ErasureId, UserId};
use crate::connections::erasure::{Erased, Erasure};
use crate::database::Conn;
use crate::vault::KeyedHash;

/// Returns the latest erasure of a user with this name, as long as its hash is kept (thirty days).
pub async fn erasure_of_name(
    conn: &mut Conn,
    app: AppId,
    name: &KeyedHash,
) -> sqlx::Result<Option<ErasureId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: ErasureId" FROM erasures WHERE name_hash = $1 AND app_id = $2
         ORDER BY id DESC LIMIT 1"#,
        name.as_bytes(),
        app.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Returns the pending erasure of a user.
pub async fn erasure_of_user(
    conn: &mut Conn,
    app: AppId,
    user: UserId,
) -> sqlx::Result<Option<ErasureId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: ErasureId" FROM erasures WHERE user_id = $1 AND app_id = $2"#,
        user.uuid(),
        app.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Inserts an erasure, which ends the user's sessions, and counts what there is to destroy. Returns `false` if the user
/// has one already.
pub async fn insert_erasure(
    conn: &mut Conn,
    id: ErasureId,
    app: AppId,
    user: UserId,
    name: &KeyedHash,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO erasures (id, app_id, user_id, name_hash, sessions, sealed)
         SELECT $1, $2, $3, $4, (SELECT count(*) FROM connect_sessions WHERE user_id = $3),
                (SELECT coalesce(sum(num_nonnulls(code, access_token, user_secret)), 0)
                 FROM connections WHERE user_id = $3)
                + (SELECT coalesce(sum(num_nonnulls(k.access_token, k.user_secret)), 0)
                   FROM superseded_tokens k JOIN connections c ON c.id = k.connection_id
                   WHERE c.user_id = $3)
         ON CONFLICT (user_id) DO NOTHING",
        id.uuid(),
        app.uuid(),
        user.uuid(),
        name.as_bytes(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns one erasure of the app.
pub async fn find_erasure(
    conn: &mut Conn,
    app: AppId,
    id: ErasureId,
) -> sqlx::Result<Option<Erasure>> {
    let row = sqlx::query!(
        r#"SELECT e.id AS "id: ErasureId", e.user_id AS "user: UserId", e.requested_at, e.erased_at,
                e.data_key_id AS "data_key: DataKeyId", e.connections, e.sealed, e.sessions, e.unconfirmed,
                (SELECT count(*) FROM connections c
                 WHERE c.user_id = e.user_id AND c.status = 'revoking') AS "outstanding!",
                (SELECT c.revocation_last_error FROM connections c
                 WHERE c.user_id = e.user_id AND c.status = 'revoking'
                   AND c.revocation_last_error IS NOT NULL
                 ORDER BY c.due_at DESC NULLS LAST LIMIT 1) AS last_error
         FROM erasures e WHERE e.app_id = $1 AND e.id = $2"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let erased = row.erased_at.zip(row.data_key).map(|(at, data_key)| Erased {
            at,
            data_key,
            connections: row.connections.unwrap_or_default(),
            sealed: row.sealed,
            sessions: row.sessions,
            unconfirmed: row.unconfirmed.unwrap_or_default(),
        });
        Erasure {
            id: row.id,
            user: row.user,
            requested_at: row.requested_at,
            outstanding: row.outstanding,
            last_error: row.last_error,
            erased,
        }
    }))
}

/// Returns pending erasures that are due, the longest due first. Locks nothing.
pub async fn due_erasures(conn: &mut Conn, limit: i64) -> sqlx::Result<Vec<ErasureId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: ErasureId" FROM erasures WHERE due_at <= (SELECT strongroom_now())
         ORDER BY due_at LIMIT $1"#,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Locks a pending erasure. Returns `None` if it has ended or another transaction has it locked.
pub async fn lock_erasure(conn: &mut Conn, id: ErasureId) -> sqlx::Result<Option<(AppId, UserId)>> {
    let row = sqlx::query!(
        r#"SELECT app_id AS "app: AppId", user_id AS "user: UserId" FROM erasures
         WHERE id = $1 AND erased_at IS NULL FOR UPDATE SKIP LOCKED"#,
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.app, row.user)))
}

/// Returns whether a connection of the user has not ended, or one may still arrive: the bulk revocation of the erasure
/// exists until every insert that had begun before has committed and is marked.
pub async fn is_outstanding(conn: &mut Conn, id: ErasureId, user: UserId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM connections WHERE user_id = $2
                        AND status IN ('pending', 'active', 'revoking'))
             OR EXISTS (SELECT FROM bulk_revocations WHERE erasure_id = $1) AS "it!""#,
        id.uuid(),
        user.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Deletes up to `limit` sessions of a user; returns whether none is left.
pub async fn delete_sessions(conn: &mut Conn, user: UserId, limit: i64) -> sqlx::Result<bool> {
    sqlx::query!(
        "-- name: delete_sessions_of_user
         WITH free AS MATERIALIZED (
            SELECT id FROM connect_sessions WHERE user_id = $1 LIMIT $2 FOR UPDATE SKIP LOCKED)
         DELETE FROM connect_sessions s USING free WHERE s.id = free.id",
        user.uuid(),
        limit,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (SELECT FROM connect_sessions WHERE user_id = $1) AS "it!""#,
        user.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Locks every connection of a user. Returns `false` if another transaction has one locked.
pub async fn lock_connections(conn: &mut Conn, user: UserId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"-- name: lock_connections_of_user
         WITH free AS MATERIALIZED (
            SELECT id FROM connections WHERE user_id = $1 FOR UPDATE SKIP LOCKED)
         SELECT (SELECT count(*) FROM free) = (SELECT count(*) FROM connections WHERE user_id = $1) AS "it!""#,
        user.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Postpones an erasure by a tenth of its age, at least a second and at most a minute.
pub async fn postpone_erasure(conn: &mut Conn, id: ErasureId) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE erasures SET due_at = strongroom_now() + greatest(interval '1 second',
            least(interval '1 minute', (strongroom_now() - requested_at) / 10))
         WHERE id = $1",
        id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts of a user's deleted connections.
#[derive(Debug)]
pub struct Destroyed {
    pub connections: i64,
    /// Tokens that Dapi may still honour: it did not confirm their end, or the answer of an exchange was lost. A
    /// superseded token does not count if the end of a newer token of its bank login was confirmed.
    pub unconfirmed: i64,
}

/// Deletes every connection of a user. Counts the unconfirmed ones before.
pub async fn delete_connections(conn: &mut Conn, user: UserId) -> sqlx::Result<Destroyed> {
    let unconfirmed = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM connections c
         WHERE c.user_id = $1 AND (
            c.status = 'orphaned'
            OR (c.status = 'expired' AND c.failure_type = 'outcome_unknown')
            OR (c.status = 'invalidated' AND c.revocation_confirmed_at IS NULL
                AND NOT (c.replaced_by IS NOT NULL AND EXISTS (
                    SELECT FROM connections n
                    WHERE n.user_id = c.user_id AND n.login_id = c.login_id
                      AND n.revocation_confirmed_at IS NOT NULL AND n.created_at >= c.created_at))))"#,
        user.uuid(),
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM plaid_webhooks w USING connections c
         WHERE c.user_id = $1 AND w.item_id = c.login_id AND w.app_id = c.app_id",
        user.uuid(),
    )
    .execute(&mut *conn)
    .await?;
    let deleted = sqlx::query!("DELETE FROM connections WHERE user_id = $1", user.uuid());
    let connections = deleted.execute(conn).await?.rows_affected();
    Ok(Destroyed { connections: i64::try_from(connections).unwrap_or(i64::MAX), unconfirmed })
}

/// Records the end of an erasure and its counts.
pub async fn end_erasure(
    conn: &mut Conn,
    id: ErasureId,
    key: DataKeyId,
    destroyed: &Destroyed,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE erasures SET erased_at = strongroom_now(), due_at = NULL, data_key_id = $2,
                connections = $3, unconfirmed = $4
         WHERE id = $1",
        id.uuid(),
        key.uuid(),
        destroyed.connections,
        destroyed.unconfirmed,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes the name hashes of erasures that ended thirty days ago. Returns how many.
pub async fn delete_erased_names(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "UPDATE erasures SET name_hash = NULL
         WHERE name_hash IS NOT NULL AND erased_at < (SELECT strongroom_now()) - interval '30 days'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
