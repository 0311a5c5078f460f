//! Binds the tokens of earlier releases, which still open after a revocation has taken the binding away (ADR 19).

pub mod store;

use crate::connections::{ConnectionAad, ConnectionError, Context};
use crate::providers::AccessToken;
use crate::vault::{Binding, Sealed, VaultError};

/// How many tokens one transaction binds.
const PER_TRANSACTION: i64 = 100;
/// How many transactions one pass makes.
const TRANSACTIONS: usize = 10;

/// Binds up to a thousand unbound tokens. Usually there are none.
pub async fn bind_unbound(context: &Context) -> Result<(), ConnectionError> {
    // By a cursor, so that tokens which do not open do not hide those behind them.
    let mut after = uuid::Uuid::nil();
    for _ in 0..TRANSACTIONS {
        let mut tx = context.pool.begin().await?;
        let unbound = store::lock_unbound(&mut tx, after, PER_TRANSACTION).await?;
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
) -> Result<Sealed<AccessToken>, VaultError> {
    let aad = ConnectionAad { app: unbound.app, user: unbound.user, id: unbound.id }.access_token();
    let key = context.vault.unwrap(&unbound.key)?;
    Sealed::seal_bound(&unbound.token.open(&key, &aad)?, &key, &aad, binding)
}
