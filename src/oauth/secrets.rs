//! The secrets by which clients are known: two may live at once, so that one can follow the other
//! without anybody being shut out.

use std::time::Duration;

use serde::Serialize;

use super::clients::{ClientError, ClientInfo, lock, record};
pub use super::model::SecretInfo;
use super::{secret_value, store};
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ClientSecretId};
use crate::base::secret::SecretText;
use crate::database::Conn;
use crate::vault::Vault;

/// How long an old secret lives on beside a new one where nobody says, in seconds: a day.
pub const DEFAULT_OVERLAP: u32 = 86_400;
/// How long it lives on at most: thirty days.
pub const MAX_OVERLAP: u32 = 30 * 86_400;
/// How many live secrets a client may have.
const MOST: usize = 2;

/// A client with its first secret, shown this once: by the API as by the command line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made<'a> {
    /// The client.
    #[serde(flatten)]
    pub client: &'a ClientInfo,
    /// The secret in the clear.
    pub client_secret: &'a str,
}

/// A client with what there is to know of its secrets.
#[derive(Serialize)]
pub struct Shown<'a> {
    /// The client.
    #[serde(flatten)]
    pub client: &'a ClientInfo,
    /// Those that live.
    pub secrets: &'a [SecretInfo],
}

/// A new secret, shown once.
#[derive(Debug)]
pub struct NewSecret {
    /// Its id.
    pub id: ClientSecretId,
    /// The secret; only its hash is kept.
    pub secret: SecretText,
    /// All live secrets, this one included.
    pub live: Vec<SecretInfo>,
}

/// The secrets of a client that have not ended, oldest first.
pub async fn live(conn: &mut Conn, client: &str) -> sqlx::Result<Vec<SecretInfo>> {
    store::live_secrets(conn, client).await
}

/// Gives a client a new secret and the old ones an end, `overlap` from now.
///
/// # Errors
/// [`ClientError::TwoSecrets`] where two would live on beside the new one.
pub async fn rotate(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    app: Option<AppId>,
    client: &str,
    overlap: Duration,
) -> Result<NewSecret, ClientError> {
    let mut tx = conn.begin().await?;
    let (app, bootstrap) = lock(&mut tx, app, client).await?;
    if bootstrap {
        return Err(ClientError::Bootstrap);
    }
    store::end_secrets(&mut tx, client, overlap).await?;
    if store::live_secrets(&mut tx, client).await?.len() >= MOST {
        return Err(ClientError::TwoSecrets);
    }
    let (id, secret) = secret_value::insert(&mut tx, vault, client).await?;
    record(&mut tx, actor, app, "client.secret_created", client).await?;
    let live = store::live_secrets(&mut tx, client).await?;
    tx.commit().await?;
    Ok(NewSecret { id, secret, live })
}

/// Ends one secret now; `false` where the client has no such live secret.
pub async fn end(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    client: &str,
    secret: ClientSecretId,
) -> Result<bool, ClientError> {
    let mut tx = conn.begin().await?;
    let (app, bootstrap) = lock(&mut tx, app, client).await?;
    if bootstrap {
        return Err(ClientError::Bootstrap);
    }
    let ended = store::end_secret(&mut tx, client, secret).await?;
    if ended {
        record(&mut tx, actor, app, "client.secret_ended", client).await?;
    }
    tx.commit().await?;
    Ok(ended)
}
