//! Binding the tokens of earlier releases, which open without what a revocation takes away.

pub mod store;

use crate::connections::{ConnectionAad, ConnectionError, Context};
use crate::vault::{Binding, Sealed, VaultError};

/// How many tokens one transaction binds, and how many transactions one pass makes.
const PORTION: (i64, usize) = (100, 10);

/// Binds tokens that are bound to nothing, up to a thousand. As a rule there are none.
pub async fn bind_unbound(context: &Context) -> Result<(), ConnectionError> {
    // Behind what does not open come others that do.
    let mut after = uuid::Uuid::nil();
    for _ in 0..PORTION.1 {
        let mut tx = context.pool.begin().await?;
        let unbound = store::lock_unbound(&mut tx, after, PORTION.0).await?;
        let Some(last) = unbound.last() else { break };
        after = last.id.uuid();
        for unbound in unbound {
            let store::Unbound { app, id, .. } = unbound;
            let binding = Binding::new()?;
            match rebind(context, &unbound, &binding) {
                Ok(token) => store::bind(&mut tx, app, id, &token, &binding).await?,
                Err(error) => {
                    tracing::error!(connection = %id, cause = %error, "a token does not open");
                }
            }
        }
        tx.commit().await?;
    }
    Ok(())
}

fn rebind(
    context: &Context,
    unbound: &store::Unbound,
    binding: &Binding,
) -> Result<Sealed<crate::dapi::AccessToken>, VaultError> {
    let place =
        ConnectionAad { app: unbound.app, user: unbound.user, id: unbound.id }.access_token();
    let key = context.vault.unwrap(&unbound.key)?;
    Sealed::seal_bound(&unbound.token.open(&key, &place)?, &key, &place, binding)
}
