//! Attention: the provider refused a call in a way that further calls could lock the user's bank account, so no call is made
//! until they link the login again. The statement that releases that call's token lease sets it.

pub mod routes;
pub mod store;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::model::Connection;
use crate::connections::query::store::ViewQuery;
use crate::connections::{ConnectionError, Context};

/// Clears the attention, so that calls are made again. Idempotent. Returns `None` if there is no such connection.
pub async fn clear(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
) -> Result<Option<Connection>, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    store::clear_attention(&mut conn, &AuditActor::from(actor), app, id, None).await?;
    drop(conn);
    Ok(context.batch(ViewQuery { app, id }).await?)
}
