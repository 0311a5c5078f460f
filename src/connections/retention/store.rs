//! SQL of retention.

use std::time::Duration;

use crate::database::{Conn, interval};

/// Deletes up to `limit` connections that ended longer ago than `kept`. Returns how many.
///
/// A connection with a rotation that has no end yet still has something to remove at Plaid, and stays.
pub(super) async fn delete_ended_connections(
    conn: &mut Conn,
    kept: Duration,
    limit: i64,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: delete_ended_connections
         WITH ended AS (
            SELECT c.id FROM connections c
            WHERE c.status IN ('rejected', 'expired', 'orphaned', 'delinked', 'invalidated')
              -- In the terms of the index connections_by_end.
              AND greatest(c.created_at, c.activated_at, c.code_expires_at, c.revocation_requested_at,
                           c.revocation_confirmed_at) < (SELECT strongroom_now()) - $1::interval
              AND NOT EXISTS (SELECT FROM token_rotations r WHERE r.connection_id = c.id)
            LIMIT $2
            FOR UPDATE OF c SKIP LOCKED)
         DELETE FROM connections c USING ended e WHERE c.id = e.id",
        interval(kept),
        limit,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes up to `limit` bulk revocations that finished longer ago than `kept`. Returns how many.
pub(super) async fn delete_finished_bulk_revocations(
    conn: &mut Conn,
    kept: Duration,
    limit: i64,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: delete_finished_bulk_revocations
         WITH finished AS (
            SELECT id FROM bulk_revocations
            WHERE finished_at < (SELECT strongroom_now()) - $1::interval
            LIMIT $2
            FOR UPDATE SKIP LOCKED)
         DELETE FROM bulk_revocations b USING finished f WHERE b.id = f.id",
        interval(kept),
        limit,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes up to `limit` records of erasures that ended longer ago than `kept`. Returns how many.
pub(super) async fn delete_finished_erasures(
    conn: &mut Conn,
    kept: Duration,
    limit: i64,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: delete_finished_erasures
         WITH finished AS (
            SELECT id FROM erasures
            WHERE erased_at < (SELECT strongroom_now()) - $1::interval
            LIMIT $2
            FOR UPDATE SKIP LOCKED)
         DELETE FROM erasures e USING finished f WHERE e.id = f.id",
        interval(kept),
        limit,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
