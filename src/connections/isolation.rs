//! Isolates failures of the background work: a row or a pass that fails is counted and deferred, and stops no other.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::deferred::Reconciler;
use super::{ConnectionError, Context};
use crate::database::{Fault, MaybeDatabase as _};

/// Counts a failure of a reconciler; what it did not do is done by a later round.
pub fn failed(context: &Context, reconciler: Reconciler, error: &sqlx::Error) {
    context.metrics.reconciler_failed(reconciler);
    let reconciler = reconciler.as_str();
    tracing::warn!(reconciler, cause = %error, "a part of the background work failed");
}

/// Returns what a reconciler found due; nothing if the search failed, which is counted.
pub fn found<T>(context: &Context, reconciler: Reconciler, due: sqlx::Result<Vec<T>>) -> Vec<T> {
    due.unwrap_or_else(|error| {
        failed(context, reconciler, &error);
        Vec::new()
    })
}

/// Counts a failure with one row, and leaves the row alone for a while. Returns for how long.
pub fn row_failed(
    context: &Context,
    reconciler: Reconciler,
    row: Uuid,
    error: &sqlx::Error,
) -> Duration {
    context.metrics.reconciler_failed(reconciler);
    let wait = context.deferred.defer(reconciler, row, Instant::now());
    let (reconciler, seconds) = (reconciler.as_str(), wait.as_secs());
    tracing::warn!(reconciler, %row, seconds, cause = %error, "a row is left alone for a while");
    wait
}

/// Carries out one piece of work of a reconciler; a failure is counted and leaves the row alone for a while.
/// Returns what came of it; `None` if it failed.
pub async fn isolated<T>(
    context: &Context,
    reconciler: Reconciler,
    row: Uuid,
    work: BoxFuture<'_, Result<T, ConnectionError>>,
) -> Option<T> {
    match work.await {
        Ok(done) => Some(done),
        Err(error) => {
            match error.database() {
                Some(error) if Fault::of(error) == Fault::Outage => {
                    failed(context, reconciler, error);
                }
                Some(error) => drop(row_failed(context, reconciler, row, error)),
                None => {
                    context.metrics.reconciler_failed(reconciler);
                    context.deferred.defer(reconciler, row, Instant::now());
                    tracing::error!(%row, cause = %error, "a row is left alone for a while");
                }
            }
            None
        }
    }
}
