//! Marking: what an order in force has decided is written on the connections' rows, in batches that skip
//! what is locked.
//!
//! A pass walks over the connections that could be meant, first the pending ones, then the active ones: a
//! connection may become active meanwhile, and none goes the other way. An order whose pass left nothing
//! out is marked, and nobody has to ask it any more, provided that whatever was being added when the order
//! was given had arrived before that pass began.

use std::time::Duration;

use uuid::Uuid;

use crate::base::ids::{AppId, BulkRevocationId, ErasureId};
use crate::connections::model::Status;
use crate::connections::sql::{interval, parse_status};
use crate::database::Conn;

/// How many rows one statement looks at.
const BATCH: i64 = 1000;
/// How soon the next pass begins after one that left something out, and how late: what is locked for long
/// is not looked for all the time.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// An order in force, locked, and how far its marking has come.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one row")]
pub struct ToMark {
    pub id: BulkRevocationId,
    pub app: AppId,
    /// It is a part of an erasure rather than an operator's.
    pub of_erasure: bool,
    pub cancelled: bool,
    /// Whatever was being added when the order was given has arrived.
    pub settled: bool,
    named: bool,
    status: Status,
    after: Uuid,
    missed: bool,
}

/// Locks an order in force that nobody else is marking: this one, that of this erasure, or the next one
/// that is due.
pub async fn lock_to_mark(conn: &mut Conn, which: MarkScope<'_>) -> sqlx::Result<Option<ToMark>> {
    let (order, erasure, except) = which.ids();
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
        order,
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
        settled: row.mark_settled,
        named: row.named,
        status: parse_status(&row.mark_status)?,
        after: row.mark_after,
        missed: row.mark_missed,
    }))
}

impl ToMark {
    /// Whether a pass is about to begin.
    pub fn is_at_start(&self) -> bool {
        self.status == Status::Pending && self.after.is_nil() && !self.missed
    }
}

/// Which order is to be marked.
#[derive(Clone, Copy, Debug)]
pub enum MarkScope<'a> {
    /// This one.
    BulkRevocation(BulkRevocationId),
    /// The one that is a part of this erasure.
    Erasure(ErasureId),
    /// Whichever is due, but for these.
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

/// Whether there is such an order that is not marked yet.
pub async fn is_in_force(conn: &mut Conn, which: MarkScope<'_>) -> sqlx::Result<bool> {
    let (order, erasure, _) = which.ids();
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM bulk_revocations
                        WHERE marked_at IS NULL AND (id = $1 OR erasure_id = $2)) AS "it!""#,
        order,
        erasure,
    )
    .fetch_one(conn)
    .await
}

/// Waits for whatever is being added to the app, so that it has arrived; nothing that began before this
/// arrives after it. Keeps others from arriving until the transaction ends.
pub async fn wait_for_arrivals(conn: &mut Conn, order: &ToMark) -> sqlx::Result<()> {
    sqlx::query!("SELECT set_config('lock_timeout', '100ms', true)").fetch_one(&mut *conn).await?;
    sqlx::query!("SELECT pg_advisory_xact_lock(arrival_lock($1))", order.app.uuid())
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "UPDATE bulk_revocations
         SET mark_settled = true, mark_status = 'pending', mark_after = $2, mark_missed = false
         WHERE id = $1",
        order.id.uuid(),
        Uuid::nil(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes on the rows `chosen` (`id`, `bulk_revocation_id`) what their orders have decided, by the rules of
/// [`model::on_revocation`](crate::connections::model::on_revocation): a code that was never sent ends, a
/// lease that is alive lives on, and a token waits to be let through, but for one of a user who is being
/// erased.
macro_rules! revoke_chosen {
    ({ $($with:tt)+ }, $then:tt, $($argument:expr),* $(,)?) => {
        sqlx::query!(
            "WITH " + $($with)+ + ", decided AS (
                SELECT chosen.id, o.id AS bulk_revocation_id, o.kind, o.reason, o.created_at, o.erasure_id,
                       strongroom_now() AS now
                FROM chosen JOIN bulk_revocations o ON o.id = chosen.bulk_revocation_id),
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

/// Marks a batch of what an order means, out of the rows `seen` (id). What is locked is left out, and so is a
/// connection whose binding is: the trigger would wait for it.
macro_rules! mark_seen {
    ($seen:tt, $conn:expr, $($argument:expr),* $(,)?) => {{
        let row = revoke_chosen!(
            { "seen AS MATERIALIZED (" + $seen + " LIMIT $3),
             meant AS MATERIALIZED (
                SELECT c.id FROM seen JOIN connections c ON c.id = seen.id
                WHERE EXISTS (SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at,
                                                         c.created_by, c.ordinal) o WHERE o.id = $1)),
             unbindable AS MATERIALIZED (
                SELECT b.connection_id FROM token_bindings b WHERE b.connection_id IN (SELECT id FROM meant)
                FOR UPDATE SKIP LOCKED),
             chosen AS MATERIALIZED (
                SELECT c.id, $1::uuid AS bulk_revocation_id FROM connections c
                WHERE c.id IN (SELECT id FROM meant) AND c.status IN ('pending', 'active')
                  AND (c.id IN (SELECT connection_id FROM unbindable)
                       OR NOT EXISTS (SELECT FROM token_bindings b WHERE b.connection_id = c.id))
                ORDER BY c.id FOR UPDATE OF c SKIP LOCKED)" },
            r#"SELECT (SELECT count(*) FROM seen) AS "seen!",
                    (SELECT id FROM seen ORDER BY id DESC LIMIT 1) AS last,
                    (SELECT count(*) FROM meant) AS "meant!", (SELECT count(*) FROM changed) AS "marked!",
                    (SELECT count(*) FROM changed WHERE status <> 'revoking') AS "ended!""#,
            $($argument),*
        )
        .fetch_one($conn)
        .await?;
        Batch {
            whole: row.seen == BATCH,
            last: row.last,
            missed: row.meant > row.marked,
            marked: row.marked,
            ended: row.ended,
        }
    }};
}

/// What one statement has marked.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// There may be more rows behind the last one.
    whole: bool,
    last: Option<Uuid>,
    /// Something was left out because it was locked.
    missed: bool,
    /// How many connections are marked.
    pub marked: i64,
    /// Of these: codes that were never sent, and ended at once.
    pub ended: i64,
}

/// Marks the next batch of an order.
pub async fn mark_batch(conn: &mut Conn, order: &ToMark) -> sqlx::Result<Batch> {
    if order.named {
        // Of what is named there is as much as somebody could name.
        return Ok(mark_seen!(
            "SELECT DISTINCT c.id FROM bulk_revocation_targets t
             JOIN connections c ON c.user_id = t.target OR c.id = t.target
             WHERE t.bulk_revocation_id = $1 AND c.app_id = $4 AND c.status IN ('pending', 'active') AND c.id > $2
             ORDER BY c.id",
            conn,
            order.id.uuid(),
            order.after,
            BATCH,
            order.app.uuid(),
        ));
    }
    // Written so that no other index serves: one that knows nothing of the status reads all that has ended.
    Ok(mark_seen!(
        "SELECT c.id FROM connections c
         WHERE c.app_id::text = $4::uuid::text AND (c.status, c.id) > ($5, $2) AND c.status <= $5
         ORDER BY c.status, c.id",
        conn,
        order.id.uuid(),
        order.after,
        BATCH,
        order.app.uuid(),
        order.status.as_str(),
    ))
}

/// How a pass goes on after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkProgress {
    /// More rows have to be looked at.
    Batch,
    /// The pass is over and left something out, or began too early: another one follows.
    Pass,
    /// Nothing that the order means is usable any more.
    Marked,
}

/// Notes how far the marking has come.
pub async fn record_batch(
    conn: &mut Conn,
    order: &ToMark,
    batch: &Batch,
) -> sqlx::Result<MarkProgress> {
    let missed = order.missed || batch.missed;
    let (next, status, after) = match (batch.whole, batch.last) {
        (true, Some(last)) => (MarkProgress::Batch, order.status, last),
        _ if !order.named && order.status == Status::Pending => {
            (MarkProgress::Batch, Status::Active, Uuid::nil())
        }
        _ if missed || !order.settled => (MarkProgress::Pass, Status::Pending, Uuid::nil()),
        _ => (MarkProgress::Marked, Status::Pending, Uuid::nil()),
    };
    sqlx::query!(
        "UPDATE bulk_revocations
         SET mark_status = $2, mark_after = $3, mark_missed = $4, mark_at = strongroom_now() + CASE WHEN $5 THEN
                 greatest($6::interval, least($7::interval, (strongroom_now() - created_at) / 10))
                 ELSE interval '0' END
         WHERE id = $1",
        order.id.uuid(),
        status.as_str(),
        after,
        missed && next == MarkProgress::Batch,
        next == MarkProgress::Pass,
        interval(PAUSES.0),
        interval(PAUSES.1),
    )
    .execute(conn)
    .await?;
    Ok(next)
}

/// Takes an order out of force: its connections tell by themselves what became of them. What it met is
/// counted. One that is a part of an erasure has done its work.
pub async fn end_marking(conn: &mut Conn, order: &ToMark) -> sqlx::Result<()> {
    if order.of_erasure {
        sqlx::query!("DELETE FROM bulk_revocations WHERE id = $1", order.id.uuid())
            .execute(conn)
            .await?;
        return Ok(());
    }
    sqlx::query!(
        "UPDATE bulk_revocations
         SET marked_at = strongroom_now(), next_release_at = strongroom_now(),
             matched = (SELECT count(*) FROM connections WHERE bulk_revocation_id = $1)
         WHERE id = $1",
        order.id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks what orders in force mean of these connections, which are locked. Returns how many.
pub async fn mark_locked(conn: &mut Conn, ids: &[Uuid]) -> sqlx::Result<i64> {
    let done = revoke_chosen!(
        {
            "meant AS MATERIALIZED (
            SELECT DISTINCT ON (c.id) c.id, o.id AS bulk_revocation_id
            FROM connections c
            CROSS JOIN LATERAL bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                              c.ordinal) o
            WHERE c.id = ANY ($1) AND c.status IN ('pending', 'active') AND o.marked_at IS NULL
            ORDER BY c.id, o.id),
         held AS MATERIALIZED (
            SELECT o.id FROM bulk_revocations o
            WHERE o.id IN (SELECT bulk_revocation_id FROM meant) AND o.marked_at IS NULL
            ORDER BY o.id FOR SHARE OF o),
         chosen AS (SELECT m.id, m.bulk_revocation_id FROM meant m JOIN held h ON h.id = m.bulk_revocation_id)"
        },
        r#"SELECT count(*) AS "marked!" FROM changed"#,
        ids,
    )
    .fetch_one(conn)
    .await?;
    Ok(done.marked)
}

/// Forgets whom orders named whose last connection was marked a day ago.
pub async fn delete_targets(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM bulk_revocation_targets t USING bulk_revocations o
         WHERE o.id = t.bulk_revocation_id AND o.marked_at < (SELECT strongroom_now()) - interval '1 day'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
