//! The tables that say what was archived: `audit_archives` and `audit_months`. All but reading takes the owner's role.

use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::ArchiveError;
use crate::audit::archived::ArchiveStatement;
use crate::audit::months::Month;
use crate::common::ids::AppId;
use crate::database::{Conn, LongWork};

/// Counts an app's rows of a month.
pub(super) async fn count_rows(conn: &mut Conn, app: AppId, month: &Month) -> sqlx::Result<i64> {
    let ids = month.ids();
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "it!" FROM audit_events WHERE app_id = $1 AND id >= $2 AND id < $3"#,
        app.uuid(),
        ids.start,
        ids.end,
    )
    .fetch_one(conn)
    .await
}

/// Whether a row of the month waits for its link.
pub(super) async fn anything_waits_in(conn: &mut Conn, month: &Month) -> sqlx::Result<bool> {
    let ids = month.ids();
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM audit_unlinked WHERE event_id >= $1 AND event_id < $2) AS "it!""#,
        ids.start,
        ids.end,
    )
    .fetch_one(conn)
    .await
}

/// Whether the last link of any chain is one of the month.
pub(super) async fn any_chain_ends_in(conn: &mut Conn, month: &Month) -> sqlx::Result<bool> {
    let ids = month.ids();
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM audit_heads h JOIN audit_links l ON l.app_id = h.app_id AND l.seq = h.seq
            WHERE l.event_id >= $1 AND l.event_id < $2) AS "it!""#,
        ids.start,
        ids.end,
    )
    .fetch_one(conn)
    .await
}

/// Returns the statement of an app's month, if it is on record.
pub(super) async fn statement(
    conn: &mut Conn,
    app: AppId,
    month: &Month,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "SELECT statement FROM audit_archives WHERE app_id = $1 AND month = $2",
        app.uuid(),
        month.name,
    )
    .fetch_optional(conn)
    .await
}

/// Records a file; returns whether it was not on record.
pub(super) async fn insert(
    conn: &mut Conn,
    app: AppId,
    month: &str,
    jws: &str,
    location: &str,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO audit_archives AS a (app_id, month, statement, location) VALUES ($1, $2, $3, $4)
         ON CONFLICT (app_id, month) DO UPDATE
         SET statement = excluded.statement, location = excluded.location, archived_at = excluded.archived_at
         WHERE a.statement <> excluded.statement",
        app.uuid(),
        month,
        jws,
        location,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Drops a month whose every row is in an archive that is on record.
pub(super) async fn drop_month(conn: &mut Conn, month: &Month) -> Result<(), ArchiveError> {
    let (events, links) =
        (format!("audit_events_{}", month.name), format!("audit_links_{}", month.name));
    let mut tx = conn.begin().await?;
    tx.allow(LongWork::AuditVerification).await?;
    tx.execute("SET LOCAL lock_timeout = '1s'").await?;
    // Nothing is inserted into the month any more; its readers are not disturbed while it is counted.
    tx.execute(AssertSqlSafe(format!("LOCK TABLE {events}, {links} IN SHARE MODE"))).await?;
    let count = format!("SELECT (SELECT count(*) FROM {events}), (SELECT count(*) FROM {links})");
    let row = tx.fetch_one(AssertSqlSafe(count)).await?;
    let (events_left, links_left): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let recorded =
        sqlx::query_scalar!("SELECT statement FROM audit_archives WHERE month = $1", month.name);
    let recorded = recorded.fetch_all(&mut *tx).await?;
    let archived = recorded.iter().filter_map(|jws| Some(ArchiveStatement::peek(jws)?.links)).sum();
    if (events_left, links_left) != (archived, archived) {
        let (month, rows, links) = (month.name.clone(), events_left, links_left);
        return Err(ArchiveError::Differs { month, rows, links, archived });
    }
    let dropped = sqlx::query!(
        "UPDATE audit_months SET dropped_at = strongroom_now() WHERE name = $1",
        month.name
    );
    dropped.execute(&mut *tx).await?;
    tx.execute(AssertSqlSafe(format!("DROP TABLE {events}, {links}"))).await?;
    fail::fail_point!("archive::dropping");
    tx.commit().await?;
    Ok(())
}
