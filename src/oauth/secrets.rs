//! The secrets of clients. Two may be live at once, so that a client changes from one to the other
//! without an outage.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::clients::{ClientError, ClientInfo, lock, record};
pub use super::model::SecretInfo;
use super::{secret_value, store};
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ClientSecretId};
use crate::common::secret::SecretText;
use crate::database::Conn;
use crate::vault::Vault;

/// How long an old secret stays live beside a new one by default, in seconds: a day.
pub const DEFAULT_OVERLAP: u32 = 86_400;
/// The longest that an old secret may stay live, in seconds: thirty days.
pub const MAX_OVERLAP: u32 = 30 * 86_400;
const MAX_LIVE: usize = 2;

/// A new client with its secret, if it has one, as the API and the command line return it this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CreatedClient)]
pub struct Made<'a> {
    /// The client's properties.
    #[serde(flatten)]
    pub client: &'a ClientInfo,
    /// The secret in clear text; `null` for a client that was made with keys or a workload.
    #[schema(required = true, example = "n3Vd8sK1pZ6tY0wQ4rB7mX2cJ5hG9fLa")]
    pub client_secret: Option<&'a str>,
}

/// A client with the views of its live secrets.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientWithSecrets)]
pub struct Shown<'a> {
    /// The client's properties.
    #[serde(flatten)]
    pub client: &'a ClientInfo,
    /// The live secrets, oldest first.
    pub secrets: &'a [SecretInfo],
}

/// A new secret, which cannot be read again.
#[derive(Debug)]
pub struct NewSecret {
    /// The secret's id.
    pub id: ClientSecretId,
    /// The secret; the database holds its hash alone.
    pub secret: SecretText,
    /// All live secrets of the client, this one included.
    pub live: Vec<SecretInfo>,
}

/// Returns the live secrets of a client, oldest first.
pub async fn live(conn: &mut Conn, client: &str) -> sqlx::Result<Vec<SecretInfo>> {
    store::live_secrets(conn, client).await
}

/// Creates a secret for a client and makes the old ones expire `overlap` from now.
///
/// # Errors
/// [`ClientError::TwoSecrets`] if two would stay live beside the new one.
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
    if store::live_secrets(&mut tx, client).await?.len() >= MAX_LIVE {
        return Err(ClientError::TwoSecrets);
    }
    let (id, secret) = secret_value::insert(&mut tx, vault, app, client).await?;
    record(&mut tx, actor, app, "client.secret_created", client).await?;
    let live = store::live_secrets(&mut tx, client).await?;
    tx.commit().await?;
    Ok(NewSecret { id, secret, live })
}

/// Ends one secret now. Returns `false` if the client has no such live secret.
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
