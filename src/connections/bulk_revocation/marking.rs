//! Marking what orders in force mean: in small transactions, by whichever replica comes first.

use std::time::{Duration, Instant};

use crate::base::ids::{BulkRevocationId, ErasureId};
use crate::connections::bulk_revocation::store;
use crate::connections::bulk_revocation::store::{MarkProgress, MarkScope};
use crate::connections::reconcile::Reconciler;
use crate::connections::{ConnectionError, Context, reconcile, superseded};
use crate::database::{Conn, Fault, LongWork, is_outage};

/// How soon what is locked is looked at again while somebody waits for it.
const LOCKED: Duration = Duration::from_millis(20);

/// What was marked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marked {
    /// How many connections.
    pub connections: i64,
    /// Of these: codes that were never sent, and ended at once.
    pub ended: i64,
}

/// Marks what is due until nothing is, or `until`. An order that fails is left alone for a while, and the next
/// one follows.
pub async fn mark_due(context: &Context, until: Instant) -> Result<Marked, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    let mut marked = Marked::default();
    while Instant::now() < until {
        let except = context.deferred.rows(Reconciler::BulkRevocations, Instant::now());
        let mut at = None;
        match (transition(&mut conn, MarkScope::Due(&except), &mut marked, &mut at).await, at) {
            (Ok(Some(_)), _) => {}
            (Ok(None), _) => break,
            (Err(error), Some(order)) if !is_outage(&error) => {
                reconcile::row_failed(context, Reconciler::BulkRevocations, order.uuid(), &error);
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    Ok(marked)
}

/// Marks what one order means until all of it is, or `until`.
pub async fn mark_one(
    conn: &mut Conn,
    id: BulkRevocationId,
    until: Instant,
) -> sqlx::Result<Marked> {
    mark(conn, MarkScope::BulkRevocation(id), until).await
}

/// The same for the connections of a user who is being erased.
pub async fn mark_erasure(conn: &mut Conn, id: ErasureId, until: Instant) -> sqlx::Result<Marked> {
    mark(conn, MarkScope::Erasure(id), until).await
}

async fn mark(conn: &mut Conn, which: MarkScope<'_>, until: Instant) -> sqlx::Result<Marked> {
    let mut marked = Marked::default();
    while Instant::now() < until {
        match transition(conn, which, &mut marked, &mut None).await? {
            None if !store::is_in_force(conn, which).await? => break,
            // Somebody else is at it, or has a row locked: as a rule for a commit.
            None | Some(MarkProgress::Pass) => tokio::time::sleep(LOCKED).await,
            _ => {}
        }
    }
    Ok(marked)
}

/// Marks one batch. `None` where nothing is to be marked, or somebody else is at it. `at` is then the order
/// that it was at, also if it failed.
async fn transition(
    conn: &mut Conn,
    which: MarkScope<'_>,
    marked: &mut Marked,
    at: &mut Option<BulkRevocationId>,
) -> sqlx::Result<Option<MarkProgress>> {
    let mut tx = conn.begin().await?;
    let Some(mut order) = store::lock_to_mark(&mut tx, which).await? else { return Ok(None) };
    *at = Some(order.id);
    if !order.settled && order.is_at_start() {
        match store::wait_for_arrivals(&mut tx, &order).await {
            Ok(()) => {
                tx.commit().await?;
                return Ok(Some(MarkProgress::Batch));
            }
            // What is being added for so long is waited for before a later pass.
            Err(error) if Fault::of(&error) == Fault::Contention => drop(tx),
            Err(error) => return Err(error),
        }
        tx = conn.begin().await?;
        match store::lock_to_mark(&mut tx, MarkScope::BulkRevocation(order.id)).await? {
            Some(again) => order = again,
            None => return Ok(None),
        }
    }
    tx.allow(LongWork::BulkRevocation).await?;
    let batch = store::mark_batch(&mut tx, &order).await?;
    let next = store::record_batch(&mut tx, &order, &batch).await?;
    if next == MarkProgress::Marked {
        superseded::store::destroy_superseded_in_bulk(&mut tx, order.app, order.id).await?;
        store::end_marking(&mut tx, &order).await?;
    }
    if order.cancelled {
        store::end_unconfirmed(&mut tx, order.id).await?;
    }
    fail::fail_point!("marking::before_commit");
    tx.commit().await?;
    marked.connections += batch.marked;
    marked.ended += batch.ended;
    Ok(Some(next))
}
