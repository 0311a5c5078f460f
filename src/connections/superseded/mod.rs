//! Keeps superseded tokens until a call with the newer token has succeeded.

pub mod store;

use crate::common::ids::{AppId, ConnectionId};
use crate::connections::model::{PredecessorEvent, PredecessorTransition, predecessor_transition};
use crate::connections::{ConnectionError, Context};
use crate::database::{Conn, retry};

/// Applies an event of a connection to the kept tokens of its login, in the event's own transaction. After
/// [`PredecessorEvent::Died`] returns the connection that is active again, if there is one.
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

/// Records that a call with an imported token succeeded, and destroys the token that it superseded.
pub async fn on_token_proven(
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
