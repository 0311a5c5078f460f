//! Waiting until a connection reaches a status, by whichever replica.

use std::time::{Duration, Instant};

use crate::common::ids::{AppId, ConnectionId};
use crate::connections::model::{Connection, Status};
use crate::connections::query::store::ViewQuery;
use crate::connections::{ConnectionError, Context};

/// Interval at which a waiting request polls the database, for changes that another replica makes.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Waits until a connection's status is `done`, until `deadline`, or until this replica is about to end. Returns the
/// connection as it then is, or `None` if the app has no such connection.
pub async fn wait_until(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    deadline: Instant,
    done: fn(Status) -> bool,
) -> Result<Option<Connection>, ConnectionError> {
    wait_for(context, app, id, deadline, |connection| done(connection.status)).await
}

/// The same for any condition of a connection.
pub async fn wait_for(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    deadline: Instant,
    done: impl Fn(&Connection) -> bool,
) -> Result<Option<Connection>, ConnectionError> {
    let subscription = context.changes.subscribe(id);
    loop {
        let change = subscription.changed();
        let found = context.batch(ViewQuery { app, id }).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let over = left.is_zero() || context.changes.is_closed();
        match found {
            Some(connection) if !done(&connection) && !over => {}
            found => return Ok(found),
        }
        // A notification and a timeout are treated alike: the row decides.
        let _ = tokio::time::timeout(left.min(POLL_INTERVAL), change).await;
    }
}
