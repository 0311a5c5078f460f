//! Waiting for what happens to a connection, in this replica or in another.

use std::time::{Duration, Instant};

use crate::base::ids::{AppId, ConnectionId};
use crate::connections::model::{Connection, Status};
use crate::connections::query::store::ViewQuery;
use crate::connections::{ConnectionError, Context};

/// How often somebody who waits looks at the database: news of this process come without that, news
/// of another replica do not.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Waits until a connection is `done`, or `deadline`; returns it as it then is.
pub async fn wait_until(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    deadline: Instant,
    done: fn(Status) -> bool,
) -> Result<Option<Connection>, ConnectionError> {
    let subscription = context.changes.subscribe(id);
    loop {
        let news = subscription.changed();
        let found = context.batch(ViewQuery { app, id }).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        match found {
            Some(connection) if !done(connection.status) && !left.is_zero() => {}
            found => return Ok(found),
        }
        // Whether it was news or time makes no difference: the row tells.
        let _ = tokio::time::timeout(left.min(LOOK_AGAIN), news).await;
    }
}
