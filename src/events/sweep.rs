//! The sweep: deletes events that are older than they are kept.

use super::{Context, store};

/// How many events one statement deletes.
const BATCH: i64 = 2000;
/// How many apps one statement reads.
const APPS: i64 = 500;

/// Deletes every event that is older than the retention. Returns how many.
pub async fn sweep(context: &Context) -> sqlx::Result<i64> {
    let (mut deleted, mut after) = (0, None);
    loop {
        let apps = store::apps(&mut context.pool.acquire().await?, after, APPS).await?;
        after = apps.last().copied();
        if after.is_none() {
            return Ok(deleted);
        }
        for app in apps {
            loop {
                let mut conn = context.pool.acquire().await?;
                let count = store::sweep(&mut conn, app, context.retention, BATCH).await?;
                deleted += count;
                if count < BATCH {
                    break;
                }
            }
        }
    }
}
