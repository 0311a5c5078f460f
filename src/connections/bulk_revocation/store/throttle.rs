//! What orders let through to Dapi, hold back and give up: one statement each, however many connections
//! it concerns.

use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{BulkRevocationId, UserId};
use crate::connections::bulk_revocation::{CHECK_AGAIN, RELEASE_EVERY};
use crate::connections::model::Status;
use crate::connections::sql::{WAIT_FOR_DELINKING, interval};
use crate::database::Conn;

/// Takes back what an order let through and nobody is telling Dapi of at this moment. What is locked is
/// held by [`hold_paused`] when it is due.
pub async fn hold_back(conn: &mut Conn, id: BulkRevocationId) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH free AS MATERIALIZED (
            SELECT id FROM connections
            WHERE bulk_revocation_id = $1 AND status = 'revoking' AND code IS NULL
              AND leased_until IS NULL AND due_at IS NOT NULL
            FOR UPDATE SKIP LOCKED)
         UPDATE connections c SET due_at = NULL FROM free WHERE c.id = free.id",
        id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends what Dapi was not told of: `invalidated`, unconfirmed, the secrets destroyed. What is being
/// told at this moment ends with the answer, and what is locked once its turn comes. Returns how many.
pub async fn end_unconfirmed(conn: &mut Conn, id: BulkRevocationId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "WITH free AS MATERIALIZED (
            SELECT id FROM connections
            WHERE bulk_revocation_id = $1 AND status = 'revoking' AND leased_until IS NULL
            FOR UPDATE SKIP LOCKED)
         UPDATE connections c
         SET status = $2, code = NULL, access_token = NULL, user_secret = NULL, due_at = NULL
         FROM free WHERE c.id = free.id",
        id.uuid(),
        Status::Invalidated.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Holds what is due though its order is paused: its lease ran out, or it was locked when the order was
/// paused. What a new link or an erasure waits for goes on.
pub async fn hold_paused(conn: &mut Conn, limit: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH due AS MATERIALIZED (
            SELECT c.id, c.bulk_revocation_id FROM connections c
            WHERE (SELECT EXISTS (SELECT FROM bulk_revocations
                                  WHERE state = 'paused' AND finished_at IS NULL))
              AND c.due_at <= (SELECT strongroom_now()) AND c.bulk_revocation_id IS NOT NULL
              AND c.status = 'revoking' AND c.code IS NULL),
         held AS MATERIALIZED (
            SELECT c.id FROM due
            JOIN bulk_revocations o ON o.id = due.bulk_revocation_id AND o.state = 'paused'
            JOIN connections c ON c.id = due.id
            WHERE c.due_at <= strongroom_now() AND c.status = 'revoking' AND c.code IS NULL
              AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
              AND NOT EXISTS (
                  SELECT FROM connections w
                  WHERE w.app_id = c.app_id AND w.dapi_connection_id = c.dapi_connection_id
                    AND w.user_id = c.user_id AND w.status = 'pending')
            LIMIT $1 FOR UPDATE OF c SKIP LOCKED)
         UPDATE connections c SET due_at = NULL, leased_until = NULL FROM held WHERE c.id = held.id",
        limit,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets the next connections of one order through to Dapi, where an order's time has come. Returns the
/// order and how many they were.
pub async fn release(conn: &mut Conn) -> sqlx::Result<Option<(BulkRevocationId, i64)>> {
    let row = sqlx::query!(
        r#"WITH due AS MATERIALIZED (
            SELECT id, per_second FROM bulk_revocations
            WHERE finished_at IS NULL AND state <> 'paused' AND erasure_id IS NULL
              AND next_release_at <= (SELECT strongroom_now())
            ORDER BY next_release_at LIMIT 1 FOR UPDATE SKIP LOCKED),
         next AS MATERIALIZED (
            SELECT c.id FROM connections c
            WHERE c.bulk_revocation_id = (SELECT id FROM due) AND c.status = 'revoking' AND c.due_at IS NULL
            ORDER BY c.id LIMIT (SELECT per_second FROM due) FOR UPDATE SKIP LOCKED),
         released AS (
            UPDATE connections c SET due_at = t.now, revocation_released_at = t.now
            FROM next, (SELECT strongroom_now() AS now) t WHERE c.id = next.id
            RETURNING c.id)
         UPDATE bulk_revocations o
         SET next_release_at = strongroom_now()
             + CASE WHEN EXISTS (SELECT FROM released) THEN $1::interval ELSE $2::interval END
         FROM due WHERE o.id = due.id
         RETURNING o.id AS "id: BulkRevocationId", (SELECT count(*) FROM released) AS "released!""#,
        interval(RELEASE_EVERY),
        interval(CHECK_AGAIN),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.id, row.released)))
}

/// Concludes an order of which nothing is outstanding any more: its counts are kept.
pub async fn finish(conn: &mut Conn, id: BulkRevocationId) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH finished AS (
            UPDATE bulk_revocations o
            SET finished_at = strongroom_now(), told = p.told, failed = p.failed
            FROM (SELECT count(*) FILTER (WHERE revocation_confirmed_at IS NOT NULL) AS told,
                         count(*) FILTER (WHERE revocation_confirmed_at IS NULL) AS failed
                  FROM connections WHERE bulk_revocation_id = $1) p
            WHERE o.id = $1 AND o.finished_at IS NULL AND o.marked_at IS NOT NULL
              AND NOT EXISTS (SELECT FROM connections c
                              WHERE c.bulk_revocation_id = $1 AND c.status = 'revoking')
            RETURNING o.app_id, o.state, o.matched, o.told, o.failed)
         SELECT record_audit(
            app_id, $2, 'revocations.finished', CASE state WHEN 'cancelled' THEN state ELSE 'done' END,
            NULL, NULL, format('%s: %s met, %s told, %s unconfirmed', $3::text, matched, told, failed))
         FROM finished",
        id.uuid(),
        AuditActor::from(&Actor::service()) as AuditActor,
        id.to_string(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets through what a new link of the same bank login waits for: its code would run out behind all
/// the others. Also if the new link was put off a moment ago, as it is again and again. Returns how many.
pub async fn release_awaited(conn: &mut Conn, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "WITH awaited AS MATERIALIZED (
            SELECT h.id
            FROM connections w
            JOIN connections h ON h.app_id = w.app_id AND h.dapi_connection_id = w.dapi_connection_id
            WHERE w.due_at <= (SELECT strongroom_now() + $2::interval) AND w.status = 'pending'
              AND h.user_id = w.user_id AND h.status = 'revoking' AND h.due_at IS NULL
            LIMIT $1 FOR UPDATE OF h SKIP LOCKED)
         UPDATE connections c SET due_at = t.now, revocation_released_at = t.now
         FROM awaited, (SELECT strongroom_now() AS now) t WHERE c.id = awaited.id",
        limit,
        interval(WAIT_FOR_DELINKING),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Lets through what orders hold of one user's, but for what is locked.
pub async fn release_of_user(conn: &mut Conn, user: UserId) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH held AS MATERIALIZED (
            SELECT id FROM connections
            WHERE user_id = $1 AND status = 'revoking' AND due_at IS NULL
            FOR UPDATE SKIP LOCKED)
         UPDATE connections c SET due_at = strongroom_now(), revocation_released_at = strongroom_now()
         FROM held WHERE c.id = held.id",
        user.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
