//! Tokens that are kept until the one that took their place has proven itself.

pub mod store;

use crate::base::ids::{AppId, ConnectionId};
use crate::connections::model::{PredecessorEvent, PredecessorTransition, predecessor_transition};
use crate::connections::{ConnectionError, Context};
use crate::database::{Conn, retry};

/// Does what an event of this connection's means for what is kept of its login, in the transaction of the
/// event. After [`KeptEvent::Died`] it returns the connection that is active again.
pub async fn after(
    tx: &mut Conn,
    app: AppId,
    id: ConnectionId,
    event: PredecessorEvent,
) -> sqlx::Result<Option<ConnectionId>> {
    match predecessor_transition(event) {
        PredecessorTransition::Keep => Ok(None),
        PredecessorTransition::Destroy => {
            store::destroy_superseded(tx, app, id).await.map(|()| None)
        }
        PredecessorTransition::Restore => {
            let reason = format!("{id} is dead, says Dapi");
            store::restore_superseded(tx, app, id, &reason).await
        }
    }
}

/// A call with an imported token succeeded: what it took the place of is not needed any more.
pub async fn proven(
    context: &Context,
    app: AppId,
    id: ConnectionId,
) -> Result<(), ConnectionError> {
    retry(|| async {
        let mut tx = context.pool.begin().await?;
        if store::prove_token(&mut tx, app, id).await? {
            after(&mut tx, app, id, PredecessorEvent::Worked).await?;
        }
        Ok(tx.commit().await?)
    })
    .await
}
