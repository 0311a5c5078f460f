//! Creating, changing and removing webhooks and their secrets, each in one transaction with its audit event.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::model::{Change, Draft, Invalid, Webhook};
use super::secret::{NewSecret, WebhookSecret};
use super::store;
use crate::audit;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, EventId, WebhookId, WebhookSecretId};
use crate::database::{Conn, Inconsistent};
use crate::outbound::Reach;
use crate::vault::{self, DataKey, Vault, VaultError};

/// How long old secrets stay live beside a new one by default, in seconds: a day.
pub const DEFAULT_OVERLAP: u32 = 86_400;
/// The longest that an old secret may stay live, in seconds: thirty days.
pub const MAX_OVERLAP: u32 = 30 * 86_400;
/// How many events one replay queues.
pub const MAX_REPLAY: i64 = 10_000;
const MAX_LIVE: i64 = 2;

/// Why a webhook could not be created, changed or used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// A field is missing or invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The app has as many webhooks as it may.
    #[error("an app has at most 100 webhooks")]
    TooMany,
    /// The app has no webhook of this id.
    #[error("there is no webhook of this id")]
    Unknown,
    /// Two secrets are live already.
    #[error("the webhook has two live secrets already; end one, or let both end at once")]
    TwoSecrets,
    /// The last secret cannot be ended.
    #[error("the webhook's only live secret cannot be ended; create another one first")]
    OnlySecret,
    /// Nothing is sent to the webhook.
    #[error("the webhook is disabled; enable it first")]
    Disabled,
    /// The vault or the database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<sqlx::Error> for WebhookError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}

/// A new secret, which cannot be read again.
#[derive(Debug)]
pub struct Created {
    /// The webhook as it is now.
    pub webhook: Webhook,
    /// The secret's id.
    pub id: WebhookSecretId,
    /// The secret; the database holds it sealed.
    pub secret: WebhookSecret,
    /// The public key with which `v1a` signatures are verified.
    pub public_key: String,
}

/// Creates a webhook and its first secret.
pub async fn create(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    app: AppId,
    draft: Draft,
    reach: Reach,
) -> Result<Created, WebhookError> {
    let settings = draft.checked(reach)?;
    let id = WebhookId::new();
    let key = app_key(conn, vault, app).await?;
    let mut tx = conn.begin().await?;
    if !store::insert(&mut tx, app, id, &settings).await? {
        return Err(WebhookError::TooMany);
    }
    let new = draw(&mut tx, &key, app, id).await?;
    record(&mut tx, actor, app, "webhook.created", id).await?;
    let webhook = store::find(&mut tx, app, id).await?.ok_or(WebhookError::Unknown)?;
    tx.commit().await?;
    Ok(created(webhook, new))
}

fn created(webhook: Webhook, new: NewSecret) -> Created {
    Created { webhook, id: new.id, public_key: new.public_key(), secret: new.secret }
}

/// Opens the app's key, before a transaction begins: a master key elsewhere may take its time.
async fn app_key(conn: &mut Conn, vault: &Vault, app: AppId) -> Result<Arc<DataKey>, WebhookError> {
    let key = vault::app_key(conn, app)
        .await?
        .ok_or_else(|| sqlx::Error::from(Inconsistent::new("data_keys", app)))?;
    Ok(vault.unwrap(&key).await?)
}

async fn draw(
    conn: &mut Conn,
    key: &DataKey,
    app: AppId,
    id: WebhookId,
) -> Result<NewSecret, WebhookError> {
    let new = NewSecret::draw(app, key)?;
    store::insert_secret(conn, id, &new).await?;
    Ok(new)
}

/// Changes a webhook, or enables or disables it. Ends the wait after failures.
pub async fn change(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: WebhookId,
    change: Change,
    reach: Reach,
) -> Result<Webhook, WebhookError> {
    let mut tx = conn.begin().await?;
    let (settings, was_disabled) =
        store::lock(&mut tx, app, id).await?.ok_or(WebhookError::Unknown)?;
    let switched = change.disabled.filter(|disabled| *disabled != was_disabled);
    let settings = change.applied_to(settings, reach)?;
    store::change(&mut tx, id, &settings).await?;
    match switched {
        Some(disabled) => {
            store::set_disabled(&mut tx, id, disabled).await?;
            let action = if disabled { "webhook.disabled" } else { "webhook.enabled" };
            record(&mut tx, actor, app, action, id).await?;
        }
        None => record(&mut tx, actor, app, "webhook.changed", id).await?,
    }
    let webhook = store::find(&mut tx, app, id).await?.ok_or(WebhookError::Unknown)?;
    tx.commit().await?;
    Ok(webhook)
}

/// Deletes a webhook with its secrets and deliveries.
pub async fn delete(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: WebhookId,
) -> Result<(), WebhookError> {
    let mut tx = conn.begin().await?;
    if !store::delete(&mut tx, app, id).await? {
        return Err(WebhookError::Unknown);
    }
    record(&mut tx, actor, app, "webhook.deleted", id).await?;
    tx.commit().await?;
    Ok(())
}

/// Creates a secret and makes the old ones expire `overlap` from now. Until then deliveries have a signature by each.
///
/// # Errors
/// [`WebhookError::TwoSecrets`] if two would stay live beside the new one.
pub async fn add_secret(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    app: AppId,
    id: WebhookId,
    overlap: Duration,
) -> Result<Created, WebhookError> {
    let key = app_key(conn, vault, app).await?;
    let mut tx = conn.begin().await?;
    store::lock(&mut tx, app, id).await?.ok_or(WebhookError::Unknown)?;
    store::end_secrets(&mut tx, id, overlap).await?;
    if store::live_secrets(&mut tx, id).await? >= MAX_LIVE {
        return Err(WebhookError::TwoSecrets);
    }
    let new = draw(&mut tx, &key, app, id).await?;
    record(&mut tx, actor, app, "webhook.secret_created", id).await?;
    let webhook = store::find(&mut tx, app, id).await?.ok_or(WebhookError::Unknown)?;
    tx.commit().await?;
    Ok(created(webhook, new))
}

/// Ends one secret now. Returns `false` if the webhook has no such live secret.
///
/// # Errors
/// [`WebhookError::OnlySecret`] if no other is live: deliveries are always signed.
pub async fn end_secret(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: WebhookId,
    secret: WebhookSecretId,
) -> Result<bool, WebhookError> {
    let mut tx = conn.begin().await?;
    store::lock(&mut tx, app, id).await?.ok_or(WebhookError::Unknown)?;
    if !store::end_secret(&mut tx, id, secret).await? {
        return Ok(false);
    }
    if store::live_secrets(&mut tx, id).await? == 0 {
        return Err(WebhookError::OnlySecret);
    }
    record(&mut tx, actor, app, "webhook.secret_ended", id).await?;
    tx.commit().await?;
    Ok(true)
}

/// Queues a test event for a webhook; returns the event's id.
pub async fn test(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: WebhookId,
) -> Result<EventId, WebhookError> {
    let mut tx = conn.begin().await?;
    enabled(&mut tx, app, id).await?;
    let event = store::insert_test(&mut tx, app, id).await?.ok_or(WebhookError::Unknown)?;
    record(&mut tx, actor, app, "webhook.tested", id).await?;
    tx.commit().await?;
    Ok(event)
}

/// Queues the events of a range of time for a webhook once more, at most [`MAX_REPLAY`]; returns how many, and the time
/// of the next one if there are more.
pub async fn replay(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: WebhookId,
    range: (OffsetDateTime, OffsetDateTime),
) -> Result<(i64, Option<OffsetDateTime>), WebhookError> {
    let mut tx = conn.begin().await?;
    enabled(&mut tx, app, id).await?;
    let queued = store::replay(&mut tx, app, id, range, MAX_REPLAY).await?;
    record(&mut tx, actor, app, "webhook.replayed", id).await?;
    tx.commit().await?;
    Ok(queued)
}

/// Locks a webhook to which events are sent.
async fn enabled(conn: &mut Conn, app: AppId, id: WebhookId) -> Result<(), WebhookError> {
    match store::lock(conn, app, id).await? {
        None => Err(WebhookError::Unknown),
        Some((_, true)) => Err(WebhookError::Disabled),
        Some((_, false)) => Ok(()),
    }
}

async fn record(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    action: &'static str,
    id: WebhookId,
) -> sqlx::Result<()> {
    let detail = id.to_string();
    let reason = Some(detail.as_str());
    let event = audit::Event { app, action, outcome: "ok", user: None, connection: None, reason };
    audit::record(conn, actor, &event).await
}
