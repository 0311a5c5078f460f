//! The throttle of bulk revocations: which held tokens are released to the delinking, held again or given up.
//!
//! A token is held while its connection is `revoking` with `due_at` null. Each function is one statement,
//! however many connections it changes, and skips locked rows: a later round finds them.

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{BulkRevocationId, UserId};
use crate::connections::bulk_revocation::{CHECK_AGAIN, RELEASE_EVERY};
use crate::connections::model::Status;
use crate::connections::sql::WAIT_FOR_DELINKING;
use crate::database::{Conn, interval};

/// Holds the released tokens of a bulk revocation again, `limit` at most, except those whose delinking is under way. Others
/// are left to [`hold_paused`], as locked ones are; none of them is claimed while it is paused.
pub async fn hold_back(conn: &mut Conn, id: BulkRevocationId, limit: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: hold_back_delinks
         WITH free AS MATERIALIZED (
            SELECT id FROM connections
            WHERE bulk_revocation_id = $1 AND status = 'revoking' AND code IS NULL
              AND leased_until IS NULL AND due_at IS NOT NULL
            LIMIT $2 FOR UPDATE SKIP LOCKED)
         UPDATE connections c SET due_at = NULL FROM free WHERE c.id = free.id",
        id.uuid(),
        limit,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends connections whose delinking Dapi has not confirmed, `limit` at most: `invalidated`, unconfirmed, the secrets
/// destroyed. One whose delinking is under way ends with Dapi's answer, and a locked one when its delinking is claimed or in
/// a later round. Returns how many it ended.
pub async fn end_unconfirmed(
    conn: &mut Conn,
    id: BulkRevocationId,
    limit: i64,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: end_unconfirmed_delinks
         WITH free AS MATERIALIZED (
            SELECT id FROM connections
            WHERE bulk_revocation_id = $1 AND status = 'revoking' AND leased_until IS NULL
            LIMIT $3 FOR UPDATE SKIP LOCKED)
         UPDATE connections c
         SET status = $2, code = NULL, access_token = NULL, user_secret = NULL, due_at = NULL
         FROM free WHERE c.id = free.id",
        id.uuid(),
        Status::Invalidated.as_str(),
        limit,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Returns the oldest cancelled bulk revocation that has connections for [`end_unconfirmed`] left.
pub async fn find_cancelled(conn: &mut Conn) -> sqlx::Result<Option<BulkRevocationId>> {
    sqlx::query_scalar!(
        r#"-- name: find_cancelled_bulk_revocation
         SELECT o.id AS "id: BulkRevocationId" FROM bulk_revocations o
         WHERE o.finished_at IS NULL AND o.state = 'cancelled' AND o.marked_at IS NOT NULL
           AND EXISTS (SELECT FROM connections c
                       WHERE c.bulk_revocation_id = o.id AND c.status = 'revoking' AND c.leased_until IS NULL)
         ORDER BY o.id LIMIT 1"#,
    )
    .fetch_optional(conn)
    .await
}

/// Holds tokens that are due although their bulk revocation is paused: their lease ran out, or they were locked
/// when it was paused. Leaves those that a new link of the same bank login or an erasure waits for.
pub async fn hold_paused(conn: &mut Conn, limit: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: hold_paused_delinks
         WITH
         -- Reads nothing if none is paused: the sub-select is evaluated once. MATERIALIZED, so that this reads the
         -- due rows and not every connection of the paused ones.
         due AS MATERIALIZED (
            SELECT c.id, c.bulk_revocation_id FROM connections c
            WHERE (SELECT EXISTS (SELECT FROM bulk_revocations
                                  WHERE state = 'paused' AND finished_at IS NULL))
              AND c.due_at <= (SELECT strongroom_now()) AND c.bulk_revocation_id IS NOT NULL
              AND c.status = 'revoking' AND c.code IS NULL),
         -- The conditions of `due` again, under the lock.
         held AS MATERIALIZED (
            SELECT c.id FROM due
            JOIN bulk_revocations o ON o.id = due.bulk_revocation_id AND o.state = 'paused'
            JOIN connections c ON c.id = due.id
            WHERE c.due_at <= strongroom_now() AND c.status = 'revoking' AND c.code IS NULL
              AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
              AND NOT EXISTS (
                  SELECT FROM connections w
                  WHERE w.app_id = c.app_id AND w.login_id = c.login_id
                    AND w.user_id = c.user_id AND w.status = 'pending')
            LIMIT $1 FOR UPDATE OF c SKIP LOCKED)
         UPDATE connections c SET due_at = NULL, leased_until = NULL FROM held WHERE c.id = held.id",
        limit,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Releases the next tokens of the bulk revocation whose release has been due for longest. Returns its id and how
/// many tokens it released; zero if it holds none. Returns `None` if no release is due.
pub async fn release(conn: &mut Conn) -> sqlx::Result<Option<(BulkRevocationId, i64)>> {
    let row = sqlx::query!(
        r#"-- name: release_throttled_delinks
         WITH
         -- SKIP LOCKED: two replicas release for two bulk revocations, and never twice for one, which would
         -- double its rate.
         due AS MATERIALIZED (
            SELECT id, per_second FROM bulk_revocations
            WHERE finished_at IS NULL AND state <> 'paused' AND erasure_id IS NULL
              AND next_release_at <= (SELECT strongroom_now())
            ORDER BY next_release_at LIMIT 1 FOR UPDATE SKIP LOCKED),
         -- Oldest first. MATERIALIZED: a LIMIT with FOR UPDATE has to be evaluated exactly once.
         next AS MATERIALIZED (
            SELECT c.id FROM connections c
            WHERE c.bulk_revocation_id = (SELECT id FROM due) AND c.status = 'revoking' AND c.due_at IS NULL
            ORDER BY c.id LIMIT (SELECT per_second FROM due) FOR UPDATE SKIP LOCKED),
         -- `revocation_released_at` starts the time after which the delinking gives up.
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

/// Finishes a bulk revocation of which nothing is outstanding: stores its counts, because connections may be erased
/// later, and writes the audit row. Does nothing otherwise.
pub async fn finish(conn: &mut Conn, id: BulkRevocationId) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: finish_bulk_revocations
         WITH finished AS (
            UPDATE bulk_revocations o
            SET finished_at = strongroom_now(), told = p.told, failed = p.failed
            FROM progress_of_bulk_revocation($1) p
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

/// Releases tokens that a new link of the same bank login waits for: behind all other held tokens, the new code
/// would expire. Looks [`WAIT_FOR_DELINKING`] ahead, because the new link is postponed by that much each time it
/// is claimed. Returns how many it released.
pub async fn release_awaited(conn: &mut Conn, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: release_awaited_delinks
         WITH awaited AS MATERIALIZED (
            SELECT h.id
            FROM connections w
            JOIN connections h ON h.app_id = w.app_id AND h.login_id = w.login_id
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

/// Releases the held tokens of one user.
pub async fn release_of_user(conn: &mut Conn, user: UserId) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: release_delinks_of_user
         WITH held AS MATERIALIZED (
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
