//! The chainer: links what was committed into its app's chain.
//!
//! Rows wait in a queue that they entered in their own transaction, so one that commits late comes
//! later in the chain and is not passed over; what a round costs depends on what is new, not on what
//! is stored. One transaction is the chainer at a time: it holds the lock of a row, which ends with
//! it, so that a replica that dies hands over at once. Whoever writes to the trail waits for nobody.

use super::metrics::Metrics;
use super::model::Head;
use super::store::{self, NewLink};
use crate::database::Pool;

/// How many rows one transaction links at most.
const BATCH: i64 = 1000;

/// Links everything that waits, unless another replica is doing that; returns how many rows it linked.
pub async fn round(pool: &Pool) -> sqlx::Result<usize> {
    let mut linked = 0;
    loop {
        let (taken, new) = batch(pool).await?;
        linked += new;
        if taken < usize::try_from(BATCH).unwrap_or(usize::MAX) {
            return Ok(linked);
        }
    }
}

/// The same, counted.
pub async fn counted_round(pool: &Pool, metrics: &Metrics) -> sqlx::Result<()> {
    let linked = round(pool).await?;
    metrics.linked.inc_by(linked as u64);
    Ok(())
}

/// Brings the gauge of what waits up to date.
pub async fn measure(pool: &Pool, metrics: &Metrics) -> sqlx::Result<()> {
    metrics.waiting.set(store::waiting(&mut pool.acquire().await?).await?);
    Ok(())
}

/// One transaction, where anything waits: how many rows it took off the queue, and how many of them it linked.
async fn batch(pool: &Pool) -> sqlx::Result<(usize, usize)> {
    let mut conn = pool.acquire().await?;
    if !store::anything_waits(&mut conn).await? {
        return Ok((0, 0));
    }
    let mut tx = conn.begin().await?;
    if !store::become_chainer(&mut tx).await? {
        return Ok((0, 0));
    }
    let (taken, events) = store::take_unlinked(&mut tx, BATCH).await?;
    let mut links = Vec::with_capacity(events.len());
    let mut end: Option<(_, Head)> = None;
    for (app, event) in &events {
        let before = match end {
            Some((same, head)) if same == *app => head,
            _ => store::head(&mut tx, *app).await?,
        };
        let head = before.followed_by(*app, event);
        links.push(NewLink { app: *app, head, event });
        end = Some((*app, head));
    }
    store::insert_links(&mut tx, &links).await?;
    tx.commit().await?;
    Ok((taken, links.len()))
}
