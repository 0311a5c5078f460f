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
            let reason = format!("the token of {id} is dead");
            store::restore_superseded(tx, app, id, &reason).await
        }
    }
}

/// Records that a call with an imported token succeeded, and destroys the token that it superseded. Does nothing at a
/// provider that names the login of a token: there a token proves itself by its login, see [`prove`].
pub async fn on_token_proven(
    context: &Context,
    app: AppId,
    id: ConnectionId,
) -> Result<(), ConnectionError> {
    retry(|| async {
        let mut tx = context.pool.begin().await?;
        if !store::names_its_login(&mut tx, app, id).await? {
            prove(&mut tx, app, id).await?;
        }
        Ok(tx.commit().await?)
    })
    .await
}

/// Records that a token works and is of the login that its connection says, and destroys the token that it superseded.
pub async fn prove(tx: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<()> {
    if store::prove_token(tx, app, id).await? {
        after(tx, app, id, PredecessorEvent::Worked).await?;
    }
    Ok(())
}
