//! Reads of connections: one, a list, an operator's search across users, and waiting for a change.

mod notifier;
pub mod routes;
pub mod search;
pub mod store;
pub mod wait;

pub use notifier::ChangeNotifier;

use crate::common::ids::{AppId, ConnectionId};
use crate::connections::model::Connection;
use crate::connections::{ConnectionError, Context};

/// Returns a connection as callers see it, or `None` if the app has no such connection.
pub async fn find(
    context: &Context,
    app: AppId,
    id: ConnectionId,
) -> Result<Option<Connection>, ConnectionError> {
    Ok(context.batch(store::ViewQuery { app, id }).await?)
}
