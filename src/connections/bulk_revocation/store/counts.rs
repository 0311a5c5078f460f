//! How far bulk revocations are: triggers append to `bulk_revocation_count_changes` whenever a connection of one is further,
//! the background work adds that to `bulk_revocation_counts`, and a read sums both in one snapshot (ADR 36).

use crate::common::ids::BulkRevocationId;
use crate::connections::bulk_revocation::ErrorCount;
use crate::connections::model::RevocationProgress;
use crate::database::Conn;

/// How many changes one statement adds to the counts.
const BATCH: i64 = 5000;
/// Of how many connections the errors are counted at most, the oldest: they are released first.
pub const ERRORS_COUNTED: i64 = 1000;

/// Adds the changes that wait to the counts.
pub async fn fold_counts(conn: &mut Conn) -> sqlx::Result<()> {
    loop {
        let file = sqlx::query_file_scalar!(
            "src/connections/bulk_revocation/store/fold_counts.sql",
            BATCH
        );
        if file.fetch_one(&mut *conn).await? < BATCH {
            return Ok(());
        }
    }
}

/// Deletes the counts of bulk revocations that have finished. Returns how many.
pub async fn delete_finished_counts(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: delete_counts_of_finished_bulk_revocations
         DELETE FROM bulk_revocation_counts k
         -- A sub-select, looked up for each of the few counts: as a join it reads all bulk revocations there ever were.
         WHERE coalesce((SELECT o.finished_at IS NOT NULL FROM bulk_revocations o
                         WHERE o.id = k.bulk_revocation_id), true)",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Returns Dapi's five most frequent answers to the oldest connections that are not confirmed.
pub async fn errors(conn: &mut Conn, id: BulkRevocationId) -> sqlx::Result<Vec<ErrorCount>> {
    let unconfirmed = RevocationProgress::UNCONFIRMED.map(RevocationProgress::as_str);
    sqlx::query_as!(
        ErrorCount,
        r#"-- name: count_errors_of_bulk_revocation
         SELECT c.revocation_last_error AS "error!", count(*) AS "count!"
         FROM (
            SELECT c.revocation_last_error
            FROM unnest($2::text[]) p (progress) CROSS JOIN LATERAL (
                -- The row comparisons leave the planner one index, and `coalesce` keeps it off others.
                SELECT c.id, c.revocation_last_error FROM connections c
                WHERE (list_key(c.bulk_revocation_id,
                                revocation_progress(c.status, c.revocation_confirmed_at, c.due_at)), c.id)
                          >= (list_key($1, p.progress), '00000000-0000-0000-0000-000000000000'::uuid)
                  AND (list_key(c.bulk_revocation_id,
                                revocation_progress(c.status, c.revocation_confirmed_at, c.due_at)), c.id)
                          <= (list_key($1, p.progress), 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                  AND c.bulk_revocation_id IS NOT NULL AND coalesce(c.bulk_revocation_id = $1
                      AND revocation_progress(c.status, c.revocation_confirmed_at, c.due_at) = p.progress, false)
                ORDER BY list_key(c.bulk_revocation_id,
                                  revocation_progress(c.status, c.revocation_confirmed_at, c.due_at)), c.id
                LIMIT $3) c
            ORDER BY c.id LIMIT $3) c
         WHERE c.revocation_last_error IS NOT NULL
         GROUP BY c.revocation_last_error ORDER BY count(*) DESC, c.revocation_last_error LIMIT 5"#,
        id.uuid(),
        &unconfirmed as &[&str],
        ERRORS_COUNTED,
    )
    .fetch_all(conn)
    .await
}
