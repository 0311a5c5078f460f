//! Binds the tokens of earlier releases, which still open after a revocation has taken the binding away (ADR 19).

pub mod store;

use crate::connections::{ConnectionAad, ConnectionError, Context};
use crate::providers::AccessToken;
use crate::vault::{Binding, OpenedKeys, Sealed, VaultError};

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
        // No row is locked while a master key that is elsewhere is used.
        tx.commit().await?;
        let Some(last) = unbound.last().map(|last| last.id.uuid()) else { break };
        let keys = open_keys(context, &unbound).await?;
        let mut tx = context.pool.begin().await?;
        let unbound = store::lock_unbound(&mut tx, after, PER_TRANSACTION).await?;
        after = last;
        for unbound in unbound.into_iter().filter(|unbound| unbound.id.uuid() <= last) {
            let store::Unbound { app, id, .. } = unbound;
            let binding = Binding::new()?;
            match rebind(context, &keys, &unbound, &binding).await {
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

/// Opens the keys of these tokens; leaves out those that do not open.
async fn open_keys(
    context: &Context,
    unbound: &[store::Unbound],
) -> Result<OpenedKeys, VaultError> {
    let mut opened = OpenedKeys::default();
    let keys = unbound.iter().map(|unbound| context.vault.unwrap(&unbound.key));
    for (unbound, key) in unbound.iter().zip(futures_util::future::join_all(keys).await) {
        match key {
            Ok(key) => opened.add(unbound.key.clone(), key),
            Err(error @ VaultError::Unavailable(_)) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(opened)
}

async fn rebind(
    context: &Context,
    keys: &OpenedKeys,
    unbound: &store::Unbound,
    binding: &Binding,
) -> Result<Sealed<AccessToken>, VaultError> {
    let aad = ConnectionAad { app: unbound.app, user: unbound.user, id: unbound.id }.access_token();
    let key = keys.of(&context.vault, &unbound.key).await?;
    Sealed::seal_bound(&unbound.token.open(&key, &aad)?, &key, &aad, binding)
}
