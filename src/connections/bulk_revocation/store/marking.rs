//! Marking: writes the decision of a bulk revocation in force on its connections' rows, in batches that skip
//! locked rows.
//!
//! A pass scans the candidates by `(status, id)`, pending ones before active ones: a connection may become
//! active during the pass, and none goes the other way, so that the scan misses none. A bulk revocation
//! whose pass skipped nothing is marked and leaves the set in force, provided that every insert which was under
//! way when it was created had committed before that pass began ([`wait_for_arrivals`]).

use std::time::Duration;

use uuid::Uuid;

use crate::common::ids::{AppId, BulkRevocationId, ErasureId};
use crate::connections::model::Status;
use crate::connections::sql::parse_status;
use crate::database::{Conn, interval};

/// Rows that one statement scans.
const BATCH: i64 = 1000;
/// Shortest and longest pause before the next pass if one skipped a locked row. The pause is a tenth of the
/// bulk revocation's age, so that a row that is locked for long is not polled all the time.
const PASS_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// A bulk revocation in force, locked for this transaction, with the position of its scan.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one row")]
pub struct ToMark {
    pub id: BulkRevocationId,
    pub app: AppId,
    /// Belongs to an erasure instead of an operator's request.
    pub of_erasure: bool,
    pub cancelled: bool,
    /// Every insert that was under way at its creation has committed. Column `mark_settled`.
    pub arrivals_complete: bool,
    /// Its filter lists users or connections, so that `bulk_revocation_targets` holds all candidates.
    named: bool,
    /// The scan goes on behind `(status, after)`.
    status: Status,
    after: Uuid,
    /// The pass has skipped a locked row.
    skipped: bool,
}

/// Locks the bulk revocation that is to be marked next within `which`. Returns `None` if there is none, or if
/// another transaction has it locked: at most one replica marks a bulk revocation at a time.
pub async fn lock_to_mark(conn: &mut Conn, which: MarkScope<'_>) -> sqlx::Result<Option<ToMark>> {
    let (id, erasure, except) = which.ids();
    let row = sqlx::query!(
        r#"SELECT id AS "id: BulkRevocationId", app_id AS "app: AppId", erasure_id IS NOT NULL AS "of_erasure!",
                state = 'cancelled' AS "cancelled!", mark_settled, by_user OR by_connection AS "named!",
                mark_status, mark_after, mark_missed
         FROM bulk_revocations
         WHERE marked_at IS NULL
           AND CASE WHEN $1::uuid IS NOT NULL THEN id = $1
                    WHEN $2::uuid IS NOT NULL THEN erasure_id = $2
                    ELSE mark_at <= strongroom_now() AND id <> ALL ($3::uuid[]) END
         ORDER BY mark_at LIMIT 1 FOR UPDATE SKIP LOCKED"#,
        id,
        erasure,
        except,
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(ToMark {
        id: row.id,
        app: row.app,
        of_erasure: row.of_erasure,
        cancelled: row.cancelled,
        arrivals_complete: row.mark_settled,
        named: row.named,
        status: parse_status(&row.mark_status)?,
        after: row.mark_after,
        skipped: row.mark_missed,
    }))
}

impl ToMark {
    /// Returns whether no batch of the current pass has run yet.
    pub fn is_at_start(&self) -> bool {
        self.status == Status::Pending && self.after.is_nil() && !self.skipped
    }
}

/// Which bulk revocation to mark.
#[derive(Clone, Copy, Debug)]
pub enum MarkScope<'a> {
    BulkRevocation(BulkRevocationId),
    /// The bulk revocation that belongs to this erasure.
    Erasure(ErasureId),
    /// The one that has been due for longest, except the deferred ones.
    Due(&'a [Uuid]),
}

impl<'a> MarkScope<'a> {
    fn ids(self) -> (Option<Uuid>, Option<Uuid>, &'a [Uuid]) {
        match self {
            Self::BulkRevocation(id) => (Some(id.uuid()), None, &[]),
            Self::Erasure(id) => (None, Some(id.uuid()), &[]),
            Self::Due(except) => (None, None, except),
        }
    }
}

/// Returns whether a bulk revocation of this scope is still unmarked.
pub async fn is_in_force(conn: &mut Conn, which: MarkScope<'_>) -> sqlx::Result<bool> {
    let (id, erasure, _) = which.ids();
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM bulk_revocations
                        WHERE marked_at IS NULL AND (id = $1 OR erasure_id = $2)) AS "it!""#,
        id,
        erasure,
    )
    .fetch_one(conn)
    .await
}

/// Waits until every insert of connections of the app that is under way has committed, and blocks new ones
/// until this transaction ends. Inserts hold `arrival_lock` shared; after this, no connection with an older
/// ordinal can appear. Restarts the pass.
///
/// # Errors
/// SQLSTATE 55P03 (`lock_not_available`) if the lock is not free within 100 ms: new inserts would queue behind
/// this for as long.
pub async fn wait_for_arrivals(conn: &mut Conn, revocation: &ToMark) -> sqlx::Result<()> {
    sqlx::query!("SELECT set_config('lock_timeout', '100ms', true)").fetch_one(&mut *conn).await?;
    sqlx::query!("SELECT pg_advisory_xact_lock(arrival_lock($1))", revocation.app.uuid())
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "UPDATE bulk_revocations
         SET mark_settled = true, mark_status = 'pending', mark_after = $2, mark_missed = false
         WHERE id = $1",
        revocation.id.uuid(),
        Uuid::nil(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Revokes the rows of the CTE `chosen` (`id`, `bulk_revocation_id`) by the rules of
/// [`model::on_revocation`](crate::connections::model::on_revocation): a code that was never sent ends at once,
/// a live lease keeps its time, and a token is held (`due_at` is null) until the throttle releases it. Tokens of
/// a user who is being erased are not throttled.
///
/// `$with` holds the CTEs that lead to `chosen`, `$then` selects from `changed` (`status`).
macro_rules! revoke_chosen {
    ({ $($with:tt)+ }, $then:tt, $($argument:expr),* $(,)?) => {
        sqlx::query!(
            "-- name: mark_connections
             WITH " + $($with)+ + ",
             -- One clock reading for all rows: `due_at` and `revocation_confirmed_at` are compared later.
             decided AS (
                SELECT chosen.id, o.id AS bulk_revocation_id, o.kind, o.reason, o.created_at, o.erasure_id,
                       strongroom_now() AS now
                FROM chosen JOIN bulk_revocations o ON o.id = chosen.bulk_revocation_id),
             -- `lease_epoch > 0`: the code was sent at least once, so that Dapi may have issued a token.
             changed AS (
                UPDATE connections c
                SET status = CASE WHEN c.code IS NULL OR c.lease_epoch > 0 THEN 'revoking'
                                  WHEN d.kind = 'delink' THEN 'delinked' ELSE 'invalidated' END,
                    user_secret = CASE WHEN c.code IS NULL OR c.lease_epoch > 0 THEN c.user_secret END,
                    code = CASE WHEN c.lease_epoch > 0 THEN c.code END,
                    due_at = CASE WHEN c.code IS NOT NULL AND c.lease_epoch = 0 THEN NULL
                                  WHEN c.code IS NULL AND d.erasure_id IS NULL THEN NULL
                                  ELSE coalesce(c.leased_until, d.now) END,
                    revocation_kind = d.kind, revocation_reason = d.reason,
                    bulk_revocation_id = CASE WHEN d.erasure_id IS NULL THEN d.bulk_revocation_id END,
                    revocation_requested_at = d.created_at,
                    revocation_confirmed_at =
                        CASE WHEN c.code IS NOT NULL AND c.lease_epoch = 0 THEN d.now END
                FROM decided d WHERE c.id = d.id
                RETURNING c.status) " + $then,
            $($argument),*
        )
    };
}

/// Marks those of the rows `$seen` (`id`) that the bulk revocation `$1` matches. Skips locked rows, and rows
/// whose token binding is locked: the trigger on `connections` deletes the binding and would wait for it.
/// `$2` is the scan's position, `$3` the batch size.
macro_rules! mark_seen {
    ($seen:tt, $conn:expr, $($argument:expr),* $(,)?) => {{
        let row = revoke_chosen!(
            { "
             -- The candidates of this batch; MATERIALIZED, so that it is counted and scanned once.
             seen AS MATERIALIZED (" + $seen + " LIMIT $3),
             -- Those that the filter matches, without locks: locking all candidates would stop others' work.
             matching AS MATERIALIZED (
                SELECT c.id FROM seen JOIN connections c ON c.id = seen.id
                WHERE EXISTS (SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at,
                                                         c.created_by, c.ordinal) o WHERE o.id = $1)),
             -- Bindings before connections, so that the trigger's DELETE finds them locked by this statement.
             bindings AS MATERIALIZED (
                SELECT b.connection_id FROM token_bindings b WHERE b.connection_id IN (SELECT id FROM matching)
                FOR UPDATE SKIP LOCKED),
             -- In the order of ids, as everywhere. The status is checked again under the lock. SKIP LOCKED:
             -- a skipped row brings another pass, and a waiting one would hold the whole batch.
             chosen AS MATERIALIZED (
                SELECT c.id, $1::uuid AS bulk_revocation_id FROM connections c
                WHERE c.id IN (SELECT id FROM matching) AND c.status IN ('pending', 'active')
                  AND (c.id IN (SELECT connection_id FROM bindings)
                       OR NOT EXISTS (SELECT FROM token_bindings b WHERE b.connection_id = c.id))
                ORDER BY c.id FOR UPDATE OF c SKIP LOCKED)" },
            r#"SELECT (SELECT count(*) FROM seen) AS "seen!",
                    (SELECT id FROM seen ORDER BY id DESC LIMIT 1) AS last,
                    (SELECT count(*) FROM matching) AS "matching!", (SELECT count(*) FROM changed) AS "marked!",
                    (SELECT count(*) FROM changed WHERE status <> 'revoking') AS "ended!""#,
            $($argument),*
        )
        .fetch_one($conn)
        .await?;
        Batch {
            full: row.seen == BATCH,
            last: row.last,
            skipped: row.matching > row.marked,
            marked: row.marked,
            ended: row.ended,
        }
    }};
}

/// The result of one marking statement.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// The scan found as many rows as it may: there may be more behind `last`.
    full: bool,
    last: Option<Uuid>,
    /// At least one matching row was locked and is not marked.
    skipped: bool,
    pub marked: i64,
    /// Those among `marked` that ended at once, because their code was never sent to Dapi.
    pub ended: i64,
}

/// Marks the next batch of a bulk revocation.
pub async fn mark_batch(conn: &mut Conn, revocation: &ToMark) -> sqlx::Result<Batch> {
    if revocation.named {
        // One scan over both statuses: a list of targets is as short as a request's body.
        return Ok(mark_seen!(
            "SELECT DISTINCT c.id FROM bulk_revocation_targets t
             JOIN connections c ON c.user_id = t.target OR c.id = t.target
             WHERE t.bulk_revocation_id = $1 AND c.app_id = $4 AND c.status IN ('pending', 'active') AND c.id > $2
             ORDER BY c.id",
            conn,
            revocation.id.uuid(),
            revocation.after,
            BATCH,
            revocation.app.uuid(),
        ));
    }
    // The row comparisons leave the planner one index, on `(list_key(app_id, status), id)`: any other would read the
    // app's ended connections as well.
    Ok(mark_seen!(
        "SELECT c.id FROM connections c
         WHERE (list_key(c.app_id, c.status), c.id) > (list_key($4, $5), $2)
           AND (list_key(c.app_id, c.status), c.id) <= (list_key($4, $5), $6)
           AND coalesce(c.app_id = $4 AND c.status = $5, false)
         ORDER BY list_key(c.app_id, c.status), c.id",
        conn,
        revocation.id.uuid(),
        revocation.after,
        BATCH,
        revocation.app.uuid(),
        revocation.status.as_str(),
        Uuid::max(),
    ))
}

/// How a pass goes on after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkProgress {
    /// The pass goes on: more rows have to be scanned.
    Batch,
    /// The pass is over, but skipped a row or began before all arrivals: another one follows.
    Pass,
    /// Every matching connection is revoked on its row.
    Marked,
}

/// Records the scan's position and schedules the next batch or pass.
pub async fn record_batch(
    conn: &mut Conn,
    revocation: &ToMark,
    batch: &Batch,
) -> sqlx::Result<MarkProgress> {
    let skipped = revocation.skipped || batch.skipped;
    let (next, status, after) = match (batch.full, batch.last) {
        (true, Some(last)) => (MarkProgress::Batch, revocation.status, last),
        _ if !revocation.named && revocation.status == Status::Pending => {
            (MarkProgress::Batch, Status::Active, Uuid::nil())
        }
        _ if skipped || !revocation.arrivals_complete => {
            (MarkProgress::Pass, Status::Pending, Uuid::nil())
        }
        _ => (MarkProgress::Marked, Status::Pending, Uuid::nil()),
    };
    sqlx::query!(
        "UPDATE bulk_revocations
         SET mark_status = $2, mark_after = $3, mark_missed = $4, mark_at = strongroom_now() + CASE WHEN $5 THEN
                 greatest($6::interval, least($7::interval, (strongroom_now() - created_at) / 10))
                 ELSE interval '0' END
         WHERE id = $1",
        revocation.id.uuid(),
        status.as_str(),
        after,
        skipped && next == MarkProgress::Batch,
        next == MarkProgress::Pass,
        interval(PASS_PAUSES.0),
        interval(PASS_PAUSES.1),
    )
    .execute(conn)
    .await?;
    Ok(next)
}

/// Takes a bulk revocation out of force, since its connections' rows now say `revoking` themselves, and counts
/// them. Deletes one that belongs to an erasure: nothing reads it any more.
pub async fn end_marking(conn: &mut Conn, revocation: &ToMark) -> sqlx::Result<()> {
    if revocation.of_erasure {
        sqlx::query!("DELETE FROM bulk_revocations WHERE id = $1", revocation.id.uuid())
            .execute(conn)
            .await?;
        return Ok(());
    }
    sqlx::query!(
        "UPDATE bulk_revocations
         SET marked_at = strongroom_now(), next_release_at = strongroom_now(),
             matched = (SELECT p.told + p.failed + p.telling + p.waiting FROM progress_of_bulk_revocation($1) p)
         WHERE id = $1",
        revocation.id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks those of these connections that a bulk revocation in force matches. The caller has locked them.
/// Returns how many it marked.
pub async fn mark_locked(conn: &mut Conn, ids: &[Uuid]) -> sqlx::Result<i64> {
    let done = revoke_chosen!(
        {
            "
         -- The oldest matching bulk revocation of each connection decides.
         matching AS MATERIALIZED (
            SELECT DISTINCT ON (c.id) c.id, o.id AS bulk_revocation_id
            FROM connections c
            CROSS JOIN LATERAL bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                              c.ordinal) o
            WHERE c.id = ANY ($1) AND c.status IN ('pending', 'active') AND o.marked_at IS NULL
            ORDER BY c.id, o.id),
         -- FOR SHARE waits for a marking transaction that is about to set `marked_at`, and then leaves that
         -- one out; while the lock is held, none can be marked without these connections.
         in_force AS MATERIALIZED (
            SELECT o.id FROM bulk_revocations o
            WHERE o.id IN (SELECT bulk_revocation_id FROM matching) AND o.marked_at IS NULL
            ORDER BY o.id FOR SHARE OF o),
         -- What `revoke_chosen!` revokes; the caller holds the rows' locks.
         chosen AS (SELECT m.id, m.bulk_revocation_id FROM matching m JOIN in_force h ON h.id = m.bulk_revocation_id)"
        },
        r#"SELECT count(*) AS "marked!" FROM changed"#,
        ids,
    )
    .fetch_one(conn)
    .await?;
    Ok(done.marked)
}

/// Deletes the targets of bulk revocations that were marked more than a day ago. Returns how many.
pub async fn delete_targets(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM bulk_revocation_targets t USING bulk_revocations o
         WHERE o.id = t.bulk_revocation_id AND o.marked_at < (SELECT strongroom_now()) - interval '1 day'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
