//! Marking what orders in force mean: in small transactions, by whichever replica comes first.

use std::time::{Duration, Instant};

use crate::base::ids::{ErasureId, RevocationOrderId};
use crate::connections::bulk_revocation::store;
use crate::connections::bulk_revocation::store::{Next, Which};
use crate::connections::reconcile::Reconciler;
use crate::connections::{Context, Failed, reconcile, superseded};
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
pub async fn mark_due(context: &Context, until: Instant) -> Result<Marked, Failed> {
    let mut conn = context.pool.acquire().await?;
    let mut marked = Marked::default();
    while Instant::now() < until {
        let except = context.deferred.rows(Reconciler::Orders, Instant::now());
        let mut at = None;
        match (step(&mut conn, Which::Due(&except), &mut marked, &mut at).await, at) {
            (Ok(Some(_)), _) => {}
            (Ok(None), _) => break,
            (Err(error), Some(order)) if !is_outage(&error) => {
                reconcile::row_failed(context, Reconciler::Orders, order.uuid(), &error);
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    Ok(marked)
}

/// Marks what one order means until all of it is, or `until`.
pub async fn mark_order(
    conn: &mut Conn,
    id: RevocationOrderId,
    until: Instant,
) -> sqlx::Result<Marked> {
    mark(conn, Which::Order(id), until).await
}

/// The same for the connections of a user who is being erased.
pub async fn mark_erasure(conn: &mut Conn, id: ErasureId, until: Instant) -> sqlx::Result<Marked> {
    mark(conn, Which::Erasure(id), until).await
}

async fn mark(conn: &mut Conn, which: Which<'_>, until: Instant) -> sqlx::Result<Marked> {
    let mut marked = Marked::default();
    while Instant::now() < until {
        match step(conn, which, &mut marked, &mut None).await? {
            None if !store::is_in_force(conn, which).await? => break,
            // Somebody else is at it, or has a row locked: as a rule for a commit.
            None | Some(Next::Pass) => tokio::time::sleep(LOCKED).await,
            _ => {}
        }
    }
    Ok(marked)
}

/// Marks one batch. `None` where nothing is to be marked, or somebody else is at it. `at` is then the order
/// that it was at, also if it failed.
async fn step(
    conn: &mut Conn,
    which: Which<'_>,
    marked: &mut Marked,
    at: &mut Option<RevocationOrderId>,
) -> sqlx::Result<Option<Next>> {
    let mut tx = conn.begin().await?;
    let Some(mut order) = store::lock_to_mark(&mut tx, which).await? else { return Ok(None) };
    *at = Some(order.id);
    if !order.settled && order.is_at_start() {
        match store::wait_for_arrivals(&mut tx, &order).await {
            Ok(()) => {
                tx.commit().await?;
                return Ok(Some(Next::Batch));
            }
            // What is being added for so long is waited for before a later pass.
            Err(error) if Fault::of(&error) == Fault::Contention => drop(tx),
            Err(error) => return Err(error),
        }
        tx = conn.begin().await?;
        match store::lock_to_mark(&mut tx, Which::Order(order.id)).await? {
            Some(again) => order = again,
            None => return Ok(None),
        }
    }
    tx.allow(LongWork::BulkRevocation).await?;
    let batch = store::mark_batch(&mut tx, &order).await?;
    let next = store::note_batch(&mut tx, &order, &batch).await?;
    if next == Next::Marked {
        superseded::store::destroy_superseded_by_order(&mut tx, order.app, order.id).await?;
        store::end_marking(&mut tx, &order).await?;
    }
    if order.cancelled {
        store::give_up_untold(&mut tx, order.id).await?;
    }
    fail::fail_point!("marking::before_commit");
    tx.commit().await?;
    marked.connections += batch.marked;
    marked.ended += batch.ended;
    Ok(Some(next))
}
