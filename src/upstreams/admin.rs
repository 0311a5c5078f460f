//! Adding, changing and removing upstreams, each in one transaction with its audit event.

use std::sync::Arc;

use super::model::{Auth, Change, Draft, Invalid, Settings, Upstream};
use super::{ClientSecret, UpstreamError, secret_aad, store};
use crate::audit;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, UpstreamId};
use crate::database::{Conn, Inconsistent, Transaction};
use crate::outbound::{OutboundUrl, Reach};
use crate::vault::{self, DataKey, Sealed, Vault, VaultError};

/// Why an upstream could not be added, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A field is missing or invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Another upstream of the app has the name.
    #[error("there is an upstream named `{0}` already")]
    NameTaken(String),
    /// The app has no upstream of this name.
    #[error("there is no upstream of this name")]
    Unknown,
    /// The vault or the database failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl From<sqlx::Error> for AdminError {
    fn from(error: sqlx::Error) -> Self {
        Self::Upstream(error.into())
    }
}

impl From<VaultError> for AdminError {
    fn from(error: VaultError) -> Self {
        Self::Upstream(error.into())
    }
}

/// Adds an upstream to an app.
pub async fn add(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    app: AppId,
    draft: Draft,
    reach: Reach,
) -> Result<Upstream, AdminError> {
    let (name, settings, secret) = draft.checked(reach)?;
    let id = UpstreamId::new();
    // Before the transaction: a master key may be elsewhere.
    let sealed = seal(conn, vault, app, id, &secret).await?;
    let mut tx = conn.begin().await?;
    if !store::insert(&mut tx, app, id, &name, &settings, &sealed).await? {
        return Err(AdminError::NameTaken(name));
    }
    record(&mut tx, actor, app, "upstream.added", &name).await?;
    finish(tx, app, &name).await
}

/// Changes an upstream: drops its cached token and ends the wait after a failure.
pub async fn change(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    app: AppId,
    name: &str,
    change: Change,
    reach: Reach,
) -> Result<Upstream, AdminError> {
    // Before the transaction: a master key may be elsewhere.
    let key = key_of(conn, vault, app).await?;
    let mut tx = conn.begin().await?;
    let stored = store::lock(&mut tx, app, name).await?.ok_or(AdminError::Unknown)?;
    let (settings, secret) = change.applied_to(&stored_settings(&stored)?, reach)?;
    let seal = |secret: ClientSecret| Sealed::seal(&secret, &key, &secret_aad(app, stored.id));
    let sealed = secret.map(seal).transpose()?;
    store::change(&mut tx, app, stored.id, &settings, sealed.as_ref()).await?;
    record(&mut tx, actor, app, "upstream.changed", name).await?;
    finish(tx, app, name).await
}

/// Removes an upstream with its secret and its token.
pub async fn remove(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    name: &str,
) -> Result<(), AdminError> {
    let mut tx = conn.begin().await?;
    if !store::delete(&mut tx, app, name).await? {
        return Err(AdminError::Unknown);
    }
    record(&mut tx, actor, app, "upstream.removed", name).await?;
    tx.commit().await?;
    Ok(())
}

async fn finish(mut tx: Transaction<'_>, app: AppId, name: &str) -> Result<Upstream, AdminError> {
    let upstream = store::find(&mut tx, app, name).await?.ok_or(AdminError::Unknown)?;
    tx.commit().await?;
    Ok(upstream)
}

async fn seal(
    conn: &mut Conn,
    vault: &Vault,
    app: AppId,
    id: UpstreamId,
    secret: &ClientSecret,
) -> Result<Sealed<ClientSecret>, AdminError> {
    Ok(Sealed::seal(secret, &*key_of(conn, vault, app).await?, &secret_aad(app, id))?)
}

async fn key_of(conn: &mut Conn, vault: &Vault, app: AppId) -> Result<Arc<DataKey>, AdminError> {
    let key = vault::app_key(conn, app)
        .await?
        .ok_or_else(|| sqlx::Error::from(Inconsistent::new("data_keys", app)))?;
    Ok(vault.unwrap(&key).await?)
}

/// Parses stored settings. They were validated when they were written; a URL that the service's
/// present settings do not allow is refused when it is used.
fn stored_settings(stored: &store::StoredSettings) -> Result<Settings, AdminError> {
    let defect = || sqlx::Error::Decode("an upstream's settings".into());
    let url = |text: &str| OutboundUrl::parse(text, Reach::Anywhere).map_err(|_| defect());
    Ok(Settings {
        token_url: url(&stored.token_url)?,
        client_id: stored.client_id.clone(),
        auth: Auth::parse(&stored.auth).ok_or_else(defect)?,
        scope: stored.scope.clone(),
        parameters: serde_json::from_str(&stored.parameters).map_err(|_| defect())?,
        base_url: stored.base_url.as_deref().map(url).transpose()?,
    })
}

async fn record(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    action: &'static str,
    name: &str,
) -> sqlx::Result<()> {
    let reason = Some(name);
    let event = audit::Event { app, action, outcome: "ok", user: None, connection: None, reason };
    audit::record(conn, actor, &event).await
}
