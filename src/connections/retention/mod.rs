//! Retention: forgets connections, bulk revocations and erasures a set time after they ended. What happened to them stays in
//! the audit trail.

pub(super) mod store;

use std::time::Duration;

use super::{ConnectionError, Context};

/// How many rows one statement deletes.
const BATCH: i64 = 500;
/// How many statements of a kind one pass runs: the rest has time until the next.
const STATEMENTS: usize = 20;

/// Deletes what ended longer ago than it is kept, if a time is set. Returns how many rows.
///
/// # Errors
/// The database's.
pub async fn sweep(context: &Context) -> Result<u64, ConnectionError> {
    let Some(kept) = context.pace.history_retention else { return Ok(0) };
    // Connections first, so that none names a bulk revocation that is gone.
    let mut forgotten = connections(context, kept).await?;
    forgotten += bulk_revocations(context, kept).await?;
    forgotten += erasures(context, kept).await?;
    if forgotten > 0 {
        tracing::info!(rows = forgotten, "history that is older than its retention was deleted");
    }
    Ok(forgotten)
}

async fn connections(context: &Context, kept: Duration) -> Result<u64, ConnectionError> {
    let mut all = 0;
    for _ in 0..STATEMENTS {
        let mut conn = context.pool.acquire().await?;
        let deleted = store::delete_ended_connections(&mut conn, kept, BATCH).await?;
        all += deleted;
        if deleted < BATCH.unsigned_abs() {
            break;
        }
    }
    Ok(all)
}

async fn bulk_revocations(context: &Context, kept: Duration) -> Result<u64, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    Ok(store::delete_finished_bulk_revocations(&mut conn, kept, BATCH).await?)
}

async fn erasures(context: &Context, kept: Duration) -> Result<u64, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    Ok(store::delete_finished_erasures(&mut conn, kept, BATCH).await?)
}
