//! Counts of an app's connections: triggers append each change of a status to `connection_count_changes`, the background
//! work adds the changes to `connection_counts`, and a read sums both in one snapshot.

use time::OffsetDateTime;

use crate::common::ids::AppId;
use crate::connections::query::search::StatusCount;
use crate::connections::sql::parse_status;
use crate::database::Conn;

/// How many changes one statement adds to the counts.
const BATCH: i64 = 5000;

/// Counts the app's connections that need attention.
pub async fn count_needing_attention(conn: &mut Conn, app: AppId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"-- name: count_connections_needing_attention
         SELECT count(*) AS "n!" FROM connections c
         WHERE c.app_id = $1 AND c.attention_type IS NOT NULL AND c.status = 'active'"#,
        app.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Counts the app's connections by status and age. The totals are exact in the statement's snapshot; the hour is exact to
/// a minute, and the other ages to an hour.
pub async fn count_by_status(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<StatusCount>> {
    let rows = sqlx::query_file!("src/connections/query/store/count_by_status.sql", app.uuid())
        .fetch_all(conn)
        .await?;
    let counts = rows.into_iter().map(|row| {
        let within = [row.within_hour, row.within_day, row.within_week, row.within_month];
        let oldest = row.oldest.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Ok(StatusCount::new(parse_status(&row.status)?, row.total, ages(within, row.total), oldest))
    });
    counts.collect()
}

/// Returns how many are in each age, from how many are at most as old.
fn ages(within: [i64; 4], total: i64) -> [i64; 5] {
    let mut younger = 0;
    let [hour, day, week, month] = within.map(|count| {
        let count = count.clamp(younger, total.max(younger));
        let between = count - younger;
        younger = count;
        between
    });
    [hour, day, week, month, (total - younger).max(0)]
}

/// Adds the changes that wait to the counts. Returns how many.
pub async fn fold_changes(conn: &mut Conn) -> sqlx::Result<u64> {
    let mut folded = 0;
    loop {
        let taken = sqlx::query_file_scalar!("src/connections/query/store/fold_changes.sql", BATCH)
            .fetch_one(&mut *conn)
            .await?;
        folded += taken;
        if taken < BATCH {
            return Ok(folded.unsigned_abs());
        }
    }
}

/// Deletes the counts by hours and minutes that no age needs any more. Returns how many.
pub async fn delete_old_counts(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: delete_old_counts
         DELETE FROM connection_counts
         WHERE span = 'hour' AND span <> 'all' AND since < (SELECT strongroom_now()) - interval '32 days'
            OR span = 'minute' AND span <> 'all' AND since < (SELECT strongroom_now()) - interval '2 hours'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_one_age() {
        assert_eq!(ages([1, 3, 3, 10], 12), [1, 2, 0, 7, 2]);
        assert_eq!(ages([0, 0, 0, 0], 5), [0, 0, 0, 0, 5]);
    }

    #[test]
    fn counts_that_do_not_fit_each_other_make_no_negative_ages() {
        assert_eq!(ages([4, 3, 9, 2], 6), [4, 0, 2, 0, 0]);
    }
}
