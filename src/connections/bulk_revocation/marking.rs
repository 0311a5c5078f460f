//! Marking: writing the decision of each bulk revocation in force on the rows of its connections.
//!
//! One batch per transaction, so that no lock is held for long; any replica may take the next batch.

use std::time::{Duration, Instant};

use crate::common::ids::{BulkRevocationId, ErasureId};
use crate::connections::bulk_revocation::store::{MarkProgress, MarkScope};
use crate::connections::bulk_revocation::{CHANGED_AT_ONCE, store};
use crate::connections::deferred::Reconciler;
use crate::connections::isolation;
use crate::connections::{ConnectionError, Context, superseded};
use crate::database::{Conn, Fault, LongWork, is_outage};

/// Pause before a retry while a caller waits for rows that another transaction has locked.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// What a run of batches changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marked {
    pub connections: i64,
    /// Those among `connections` that ended at once, because their code was never sent to Dapi.
    pub ended: i64,
    /// Connections that were given up, because the bulk revocation had been cancelled before they were marked.
    pub given_up: i64,
}

/// Marks batches of the bulk revocations that are due until none is left, or until `until`. Defers one that
/// fails and goes on with the next; an outage of the database ends the run.
pub async fn mark_due(context: &Context, until: Instant) -> Result<Marked, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    let mut marked = Marked::default();
    while Instant::now() < until {
        let except = context.deferred.rows(Reconciler::BulkRevocations, Instant::now());
        let mut at = None;
        match (mark_batch(&mut conn, MarkScope::Due(&except), &mut marked, &mut at).await, at) {
            (Ok(Some(_)), _) => {}
            (Ok(None), _) => break,
            (Err(error), Some(id)) if !is_outage(&error) => {
                isolation::row_failed(context, Reconciler::BulkRevocations, id.uuid(), &error);
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    Ok(marked)
}

/// Marks the batches of one bulk revocation until it is complete, or until `until`.
pub async fn mark_one(
    conn: &mut Conn,
    id: BulkRevocationId,
    until: Instant,
) -> sqlx::Result<Marked> {
    mark(conn, MarkScope::BulkRevocation(id), until).await
}

/// Marks the connections of a user who is being erased, like [`mark_one`].
pub async fn mark_erasure(conn: &mut Conn, id: ErasureId, until: Instant) -> sqlx::Result<Marked> {
    mark(conn, MarkScope::Erasure(id), until).await
}

async fn mark(conn: &mut Conn, which: MarkScope<'_>, until: Instant) -> sqlx::Result<Marked> {
    let mut marked = Marked::default();
    while Instant::now() < until {
        match mark_batch(conn, which, &mut marked, &mut None).await? {
            None if !store::is_in_force(conn, which).await? => break,
            // Another replica marks it, or a transaction holds a row: usually until its commit.
            None | Some(MarkProgress::Pass) => tokio::time::sleep(LOCK_RETRY).await,
            _ => {}
        }
    }
    Ok(marked)
}

/// Marks one batch. Returns `None` if no bulk revocation is due, or if another replica has it locked. Sets
/// `at` to the bulk revocation as soon as it is locked, so that the caller knows which one failed.
async fn mark_batch(
    conn: &mut Conn,
    which: MarkScope<'_>,
    marked: &mut Marked,
    at: &mut Option<BulkRevocationId>,
) -> sqlx::Result<Option<MarkProgress>> {
    let mut tx = conn.begin().await?;
    let Some(mut revocation) = store::lock_to_mark(&mut tx, which).await? else { return Ok(None) };
    *at = Some(revocation.id);
    if !revocation.arrivals_complete && revocation.is_at_start() {
        match store::wait_for_arrivals(&mut tx, &revocation).await {
            Ok(()) => {
                tx.commit().await?;
                return Ok(Some(MarkProgress::Batch));
            }
            // An insert holds the lock for longer than 100 ms: wait for it before a later pass instead.
            Err(error) if Fault::of(&error) == Fault::Contention => drop(tx),
            Err(error) => return Err(error),
        }
        tx = conn.begin().await?;
        match store::lock_to_mark(&mut tx, MarkScope::BulkRevocation(revocation.id)).await? {
            Some(again) => revocation = again,
            None => return Ok(None),
        }
    }
    tx.allow(LongWork::BulkRevocation).await?;
    let batch = store::mark_batch(&mut tx, &revocation).await?;
    let next = store::record_batch(&mut tx, &revocation, &batch).await?;
    if next == MarkProgress::Marked {
        superseded::store::destroy_superseded_in_bulk(&mut tx, revocation.app, revocation.id)
            .await?;
        store::end_marking(&mut tx, &revocation).await?;
    }
    let given_up = if revocation.cancelled {
        store::end_unconfirmed(&mut tx, revocation.id, CHANGED_AT_ONCE).await?
    } else {
        0
    };
    fail::fail_point!("marking::before_commit");
    tx.commit().await?;
    marked.connections += batch.marked;
    marked.ended += batch.ended;
    marked.given_up += i64::try_from(given_up).unwrap_or(i64::MAX);
    Ok(Some(next))
}
