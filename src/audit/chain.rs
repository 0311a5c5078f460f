//! The chainer: links committed audit rows into their app's hash chain.
//!
//! Each row enters a queue in its own transaction, so a row that commits late is linked later and never
//! skipped. The cost of a round depends on what is new, not on what is stored. Only one transaction is the
//! chainer at a time: it holds the row lock of `audit_chainer`, which PostgreSQL releases when the
//! transaction ends, so a replica that dies hands over at once. Writers to the trail never wait for it.

use super::metrics::Metrics;
use super::model::Head;
use super::store::{self, NewLink};
use crate::database::{Conn, Pool};

/// The most rows that one transaction links.
const BATCH: i64 = 1000;

/// Links all queued rows, unless another replica is doing so; returns the number of rows linked.
pub async fn round(pool: &Pool) -> sqlx::Result<usize> {
    round_on(&mut pool.acquire().await?).await
}

/// The same on one connection, for a command.
pub(super) async fn round_on(conn: &mut Conn) -> sqlx::Result<usize> {
    let mut linked = 0;
    loop {
        let (taken, new) = batch(conn).await?;
        linked += new;
        if taken < usize::try_from(BATCH).unwrap_or(usize::MAX) {
            return Ok(linked);
        }
    }
}

/// Runs [`round`] and counts the result.
pub async fn counted_round(pool: &Pool, metrics: &Metrics) -> sqlx::Result<()> {
    let linked = round(pool).await?;
    metrics.linked.inc_by(linked as u64);
    Ok(())
}

/// Updates the gauge of rows that wait for their link.
pub async fn measure(pool: &Pool, metrics: &Metrics) -> sqlx::Result<()> {
    metrics.waiting.set(store::waiting(&mut pool.acquire().await?).await?);
    Ok(())
}

/// Links one batch in one transaction; returns how many rows left the queue and how many were linked.
async fn batch(conn: &mut Conn) -> sqlx::Result<(usize, usize)> {
    if !store::anything_waits(conn).await? {
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
