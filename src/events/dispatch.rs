//! The dispatcher: gives committed events their positions, app by app.
//!
//! The row lock of an app's head makes a transaction the dispatcher of that app; PostgreSQL releases it when the
//! transaction ends, so a replica that dies hands over at once. Writers never wait for it, and it waits for none: what
//! is not committed is invisible to it. Each app gets an equal portion in turn, so that a hundred thousand events of one
//! app do not delay another's.

use super::store::{self, NewEvent};
use super::{Context, delivery, render};
use crate::common::ids::AppId;

/// The most events that one transaction gives positions: with a hundred webhooks they are 20,000 deliveries.
const BATCH: usize = 200;
/// The most apps that one pass serves.
const APPS: i64 = 256;

/// Dispatches all events that are committed, unless another replica is doing so. Returns how many, and how many apps
/// failed, which are left to the next round.
pub async fn round(context: &Context) -> sqlx::Result<(usize, usize)> {
    let mut apps = store::waiting_apps(&mut context.pool.acquire().await?, APPS).await?;
    let (mut dispatched, mut failed) = (0, 0);
    while !apps.is_empty() {
        let mut unfinished = Vec::new();
        for app in apps {
            match batch(context, app).await {
                Ok(count) => {
                    dispatched += count;
                    if count == BATCH {
                        unfinished.push(app);
                    }
                }
                Err(error) => {
                    tracing::warn!(cause = %error, %app, "events could not be dispatched");
                    failed += 1;
                }
            }
        }
        apps = unfinished;
    }
    context.metrics.dispatched.inc_by(dispatched as u64);
    context.metrics.failures.inc_by(failed as u64);
    Ok((dispatched, failed))
}

/// Gives positions to up to [`BATCH`] events of an app in one transaction; returns how many.
async fn batch(context: &Context, app: AppId) -> sqlx::Result<usize> {
    let mut tx = context.pool.begin().await?;
    let Some(head) = store::lock_head(&mut tx, app).await? else { return Ok(0) };
    let taken = store::take(&mut tx, app, i64::try_from(BATCH).unwrap_or(i64::MAX)).await?;
    if taken.is_empty() {
        return Ok(0);
    }
    let count = taken.len();
    let data = render::data(&mut tx, &context.issuer, app, &taken).await?;
    let positions = head + 1..;
    let events = taken.into_iter().zip(data).zip(positions);
    let events: Vec<_> =
        events.map(|((event, data), position)| NewEvent { position, event, data }).collect();
    fail::fail_point!("events::before_positions");
    store::insert(&mut tx, app, &events).await?;
    fail::fail_point!("events::before_commit");
    tx.commit().await?;
    context.feed.announce(app);
    Ok(count)
}

/// Updates the gauge of events that wait for their position.
pub async fn measure(context: &Context) -> sqlx::Result<()> {
    let waiting = store::waiting(&mut context.pool.acquire().await?).await?;
    context.metrics.waiting.set(waiting);
    context.metrics.due.set(delivery::due(context).await?);
    Ok(())
}
