//! Marking what orders in force mean: in small transactions, by whichever replica comes first.

use std::time::Instant;

use super::store::{self, Next, ToMark, Which};
use crate::base::ids::{ErasureId, RevocationOrderId};
use crate::database::{Conn, Fault};

/// What was marked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marked {
    /// How many connections.
    pub(super) connections: i64,
    /// Of these: codes that were never sent, and ended at once.
    pub(super) ended: i64,
}

/// Marks what is due until nothing is, or `until`.
pub(super) async fn mark_due(conn: &mut Conn, until: Instant) -> sqlx::Result<Marked> {
    mark(conn, Which::Due, until).await
}

/// Marks what one order means until a pass is over that left something out, or `until`.
pub(super) async fn mark_order(
    conn: &mut Conn,
    id: RevocationOrderId,
    until: Instant,
) -> sqlx::Result<Marked> {
    mark(conn, Which::Order(id), until).await
}

/// The same for the connections of a user who is being erased.
pub(super) async fn mark_erasure(
    conn: &mut Conn,
    id: ErasureId,
    until: Instant,
) -> sqlx::Result<Marked> {
    mark(conn, Which::Erasure(id), until).await
}

async fn mark(conn: &mut Conn, which: Which, until: Instant) -> sqlx::Result<Marked> {
    let mut marked = Marked::default();
    while Instant::now() < until {
        let Some(next) = step(conn, which, &mut marked).await? else { break };
        if next == Next::Pass && !matches!(which, Which::Due) {
            break;
        }
    }
    Ok(marked)
}

/// Marks one batch. `None` where nothing is to be marked, or somebody else is at it.
async fn step(conn: &mut Conn, which: Which, marked: &mut Marked) -> sqlx::Result<Option<Next>> {
    settle(conn, which).await?;
    let mut tx = conn.begin().await?;
    let Some(order) = store::lock_to_mark(&mut tx, which).await? else { return Ok(None) };
    let batch = store::mark_batch(&mut tx, &order).await?;
    let next = store::note_batch(&mut tx, &order, &batch).await?;
    if next == Next::Marked {
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

/// Waits for what was being added when the order was given, once and briefly. What is being added for
/// longer is waited for by a later pass.
async fn settle(conn: &mut Conn, which: Which) -> sqlx::Result<()> {
    let mut tx = conn.begin().await?;
    let order = store::lock_to_mark(&mut tx, which).await?;
    let Some(order) = order.filter(|order: &ToMark| !order.settled && order.is_at_start()) else {
        return Ok(());
    };
    match store::wait_for_arrivals(&mut tx, &order).await {
        Ok(()) => tx.commit().await,
        Err(error) if Fault::of(&error) == Fault::Contention => Ok(()),
        Err(error) => Err(error),
    }
}
