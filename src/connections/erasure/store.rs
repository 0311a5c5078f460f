//! The table `erasures`, and the end of what is held of a user.

use crate::base::ids::{AppId, DataKeyId, ErasureId, UserId};
use crate::connections::erasure::{Erased, Erasure};
use crate::database::Conn;
use crate::vault::KeyedHash;

/// The erasure of the user who had this name, for as long as its hash is kept.
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

/// The erasure of a user who is not erased yet.
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

/// Keeps a new erasure, with which the user's sessions end, and counts what there is to be destroyed.
/// `false` where one of this user was kept before.
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

/// One erasure of the app.
pub async fn find_erasure(
    conn: &mut Conn,
    app: AppId,
    id: ErasureId,
) -> sqlx::Result<Option<Erasure>> {
    let row = sqlx::query!(
        r#"SELECT e.id AS "id: ErasureId", e.user_id AS "user: UserId", e.requested_at, e.erased_at,
                e.data_key_id AS "data_key: DataKeyId", e.connections, e.sealed, e.sessions, e.unconfirmed,
                (SELECT count(*) FROM connections c
                 WHERE c.user_id = e.user_id AND c.status = 'revoking') AS "outstanding!"
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
            erased,
        }
    }))
}

/// Erasures that are due to be looked at.
pub async fn due_erasures(conn: &mut Conn, limit: i64) -> sqlx::Result<Vec<ErasureId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: ErasureId" FROM erasures WHERE due_at <= (SELECT strongroom_now())
         ORDER BY due_at LIMIT $1"#,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Locks an erasure that is not at its end and that nobody else is at.
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

/// Whether something of the user's is not at its end, or may be about to arrive.
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
        "WITH free AS MATERIALIZED (
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

/// Locks every connection of a user; `false` where somebody else has one locked.
pub async fn lock_connections(conn: &mut Conn, user: UserId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"WITH free AS MATERIALIZED (
            SELECT id FROM connections WHERE user_id = $1 FOR UPDATE SKIP LOCKED)
         SELECT (SELECT count(*) FROM free) = (SELECT count(*) FROM connections WHERE user_id = $1) AS "it!""#,
        user.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Puts an erasure off: by a tenth of its age, a second at least and a minute at most.
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

/// What was deleted of a user.
#[derive(Debug)]
pub struct Destroyed {
    pub connections: i64,
    /// Tokens that Dapi may still honour: it did not confirm their end, or an exchange's answer was
    /// lost. One that a newer link of its login took the place of ended with that link.
    pub unconfirmed: i64,
}

/// Deletes every connection of a user.
pub async fn delete_connections(conn: &mut Conn, user: UserId) -> sqlx::Result<Destroyed> {
    let unconfirmed = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM connections c
         WHERE c.user_id = $1 AND (
            c.status = 'orphaned'
            OR (c.status = 'expired' AND c.failure_type = 'outcome_unknown')
            OR (c.status = 'invalidated' AND c.revocation_confirmed_at IS NULL
                AND NOT (c.replaced_by IS NOT NULL AND EXISTS (
                    SELECT FROM connections n
                    WHERE n.user_id = c.user_id AND n.dapi_connection_id = c.dapi_connection_id
                      AND n.revocation_confirmed_at IS NOT NULL AND n.created_at >= c.created_at))))"#,
        user.uuid(),
    )
    .fetch_one(&mut *conn)
    .await?;
    let deleted = sqlx::query!("DELETE FROM connections WHERE user_id = $1", user.uuid());
    let connections = deleted.execute(conn).await?.rows_affected();
    Ok(Destroyed { connections: i64::try_from(connections).unwrap_or(i64::MAX), unconfirmed })
}

/// Notes that a user is erased.
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

/// Forgets by which name users were known who were erased thirty days ago.
pub async fn delete_erased_names(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "UPDATE erasures SET name_hash = NULL
         WHERE name_hash IS NOT NULL AND erased_at < (SELECT strongroom_now()) - interval '30 days'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
