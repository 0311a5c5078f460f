//! The data keys of connections, opened before their rows are claimed. A claim counts as an attempt that may have reached
//! the provider, so a row whose keys cannot be opened now is not claimed.

use std::time::Instant;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::common::ids::{AppId, ConnectionId};
use crate::connections::deferred::Reconciler;
use crate::connections::{ConnectionError, Context};
use crate::database::Conn;
use crate::vault::{OpenedKeys, VaultError, WrappedKey};

/// The keys of one connection.
#[derive(Debug)]
struct KeysOf {
    id: Uuid,
    user: WrappedKey,
    app: WrappedKey,
}

/// Opens the keys of these connections. Leaves those alone for a while whose master key is elsewhere and cannot be used
/// now, and removes them from `rows`.
pub async fn open_before_claim(
    context: &Context,
    reconciler: Reconciler,
    app: AppId,
    rows: &mut Vec<Uuid>,
) -> sqlx::Result<OpenedKeys> {
    let mut opened = OpenedKeys::default();
    if !context.vault.may_be_unavailable() {
        return Ok(opened);
    }
    let keys = keys_of(&mut context.pool.acquire().await?, app, rows).await?;
    let open = async |keys: KeysOf| {
        let vault = &context.vault;
        let both = futures_util::try_join!(vault.unwrap(&keys.user), vault.unwrap(&keys.app));
        (keys, both)
    };
    for (keys, both) in join_all(keys.into_iter().map(open)).await {
        match both {
            Ok((user, app)) => {
                opened.add(keys.user, user);
                opened.add(keys.app, app);
            }
            Err(VaultError::Unavailable(error)) => {
                context.deferred.defer(reconciler, keys.id, Instant::now());
                tracing::warn!(connection = %keys.id, cause = %error, "a row waits for a master key");
                rows.retain(|row| *row != keys.id);
            }
            // Its claim reports what is wrong with it.
            Err(_) => {}
        }
    }
    Ok(opened)
}

/// Opens the key of a connection's user before its secret counts as read, if that may fail for a while: what is on record
/// as revealed was revealed.
pub async fn open_before_reveal(
    context: &Context,
    app: AppId,
    id: ConnectionId,
) -> Result<OpenedKeys, ConnectionError> {
    let mut opened = OpenedKeys::default();
    if context.vault.may_be_unavailable() {
        let keys = keys_of(&mut context.pool.acquire().await?, app, &[id.uuid()]).await?;
        for keys in keys {
            let user = context.vault.unwrap(&keys.user).await?;
            opened.add(keys.user, user);
        }
    }
    Ok(opened)
}

async fn keys_of(conn: &mut Conn, app: AppId, rows: &[Uuid]) -> sqlx::Result<Vec<KeysOf>> {
    sqlx::query_as!(
        KeysOf,
        r#"SELECT c.id, key_of(uk) AS "user!: WrappedKey", key_of(ak) AS "app!: WrappedKey"
         FROM connections c
         JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
         JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'
         WHERE c.app_id = $1 AND c.id = ANY ($2)"#,
        app.uuid(),
        rows,
    )
    .fetch_all(conn)
    .await
}
