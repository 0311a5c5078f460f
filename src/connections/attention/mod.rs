//! Attention: Dapi refused a call in a way by which going on could lock the user's bank account, so that
//! nothing calls until they link the login again. It is set by the end of that call.

pub mod routes;
pub mod store;

use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId};
use crate::connections::model::Connection;
use crate::connections::query::store::ViewQuery;
use crate::connections::{ConnectionError, Context};

/// Whether this `type` of Dapi's answer to a call is one of `DAPI_ATTENTION_TYPES`.
#[must_use]
pub fn calls_for_attention(context: &Context, kind: &str) -> bool {
    context.dapi.settings().attention_types.iter().any(|known| known == kind)
}

/// Lets calls be made again. Repeatable; `None` where there is no such connection.
pub async fn clear(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
) -> Result<Option<Connection>, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    store::clear_attention(&mut conn, &AuditActor::from(actor), app, id).await?;
    drop(conn);
    Ok(context.batch(ViewQuery { app, id }).await?)
}
