//! Clients: who they are and what they may do.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use super::model::{After, ClientInfo, NewClient, Terms};
use super::secret_value::{self, random_text, secret_hash};
use super::store;
use crate::audit;
use crate::base::actor::Actor;
use crate::base::ids::AppId;
use crate::base::scope::Scopes;
use crate::base::secret::SecretText;
use crate::base::text::{self, InvalidText};
use crate::config::BootstrapClient;
use crate::database::Conn;
use crate::vault::{Vault, VaultError};

/// How long access tokens may live, in seconds.
pub const TOKEN_LIFETIMES: RangeInclusive<u32> = 60..=86_400;
/// How long they live where nobody says.
pub const DEFAULT_TOKEN_LIFETIME: u32 = 3600;
/// The longest name of a client, in bytes.
pub const MAX_NAME: usize = 200;

/// What cannot be agreed on with a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerms {
    /// The name.
    #[error("the name {0}")]
    Name(InvalidText),
    /// Neither a scope of Strongroom's nor of another API.
    #[error("a client needs a scope at least; there are: {}", Scopes::all())]
    NoScope,
    /// Out of bounds.
    #[error("a token lives for 60 to 86400 seconds")]
    Lifetime,
    /// What has to be asked for is not to be had.
    #[error("`{0}` is required and not among the client's scopes")]
    RequiredIsMissing(String),
    /// Out of bounds.
    #[error("reveals per minute are at least 1")]
    NoReveals,
}

/// Whether a client may be made like this.
pub fn check(new: &NewClient<'_>, terms: &Terms) -> Result<(), InvalidTerms> {
    text::check(new.name, MAX_NAME).map_err(InvalidTerms::Name)?;
    if new.scopes.is_empty() && terms.external_scopes.is_empty() {
        return Err(InvalidTerms::NoScope);
    }
    let lifetime = u32::try_from(new.token_lifetime.as_secs());
    if !lifetime.is_ok_and(|seconds| TOKEN_LIFETIMES.contains(&seconds)) {
        return Err(InvalidTerms::Lifetime);
    }
    let own = |name: &str| name.parse().is_ok_and(|scope| new.scopes.contains(scope));
    let to_be_had = |name: &String| own(name) || terms.external_scopes.contains(name);
    if let Some(missing) = terms.required_scopes.iter().find(|name| !to_be_had(name)) {
        return Err(InvalidTerms::RequiredIsMissing(missing.clone()));
    }
    if terms.reveals_per_minute == Some(0) { Err(InvalidTerms::NoReveals) } else { Ok(()) }
}

/// A client's id and secret, shown once.
#[derive(Debug)]
pub struct Credentials {
    /// The id.
    pub id: Arc<str>,
    /// The secret; only its hash is kept.
    pub secret: SecretText,
}

/// What cannot be done with a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing is known by this id.
    #[error("there is no client `{0}`")]
    Unknown(String),
    /// What the bootstrap client is follows the environment.
    #[error(
        "the bootstrap client's secret is STRONGROOM_BOOTSTRAP_CLIENT_SECRET; unset it to end the client"
    )]
    Bootstrap,
    /// There are two live secrets.
    #[error("the client has two live secrets already; end one, or let both end at once")]
    TwoSecrets,
    /// The bootstrap client's id belongs to a client that the environment did not make.
    #[error("the bootstrap client's id is another client's")]
    IdTaken,
    /// The bootstrap client has no app.
    #[error(
        "the bootstrap client belongs to the app `default`, which does not exist; \
         set DAPI_APP_KEY and DAPI_APP_SECRET"
    )]
    NoDefaultApp,
    /// The vault or the database.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// 22 characters of 62 hold 128 bits: unguessable is not needed, unique is.
const ID_LENGTH: usize = 22;

impl From<sqlx::Error> for ClientError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}

/// Makes a client on the usual terms, and its first secret.
pub async fn create(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    new: &NewClient<'_>,
) -> Result<Credentials, ClientError> {
    create_on(conn, vault, actor, new, &Terms::default()).await
}

/// Makes a client on these terms, which were [`check`]ed, and its first secret.
pub async fn create_on(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    new: &NewClient<'_>,
    terms: &Terms,
) -> Result<Credentials, ClientError> {
    let id: Arc<str> = random_text(ID_LENGTH)?.into();
    let mut tx = conn.begin().await?;
    store::insert_client(&mut tx, &id, new, terms, false).await?;
    let (_, secret) = secret_value::insert(&mut tx, vault, &id).await?;
    record(&mut tx, actor, new.app, "client.created", &id).await?;
    tx.commit().await?;
    Ok(Credentials { id, secret })
}

/// Clients of one app or of all, newest first, at most `limit` of those behind `after`.
pub async fn list(
    conn: &mut Conn,
    app: Option<AppId>,
    after: Option<&After>,
    limit: i64,
) -> sqlx::Result<Vec<ClientInfo>> {
    store::list_clients(conn, app, after, limit).await
}

/// The client of this id, if it is this app's or where no app is given.
pub async fn find(
    conn: &mut Conn,
    app: Option<AppId>,
    id: &str,
) -> Result<ClientInfo, ClientError> {
    let found = store::find_client(conn, app, id).await?;
    found.ok_or_else(|| ClientError::Unknown(id.to_owned()))
}

/// Refuses a client from now on, within seconds on every replica, together with its tokens.
pub async fn disable(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    id: &str,
) -> Result<(), ClientError> {
    set_disabled(conn, actor, app, id, true).await
}

/// Lets a client in again. Tokens that it had, if they have not ended, count again as well.
pub async fn enable(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    id: &str,
) -> Result<(), ClientError> {
    set_disabled(conn, actor, app, id, false).await
}

async fn set_disabled(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    id: &str,
    disabled: bool,
) -> Result<(), ClientError> {
    let mut tx = conn.begin().await?;
    let (app, _) = lock(&mut tx, app, id).await?;
    if store::set_disabled(&mut tx, id, disabled).await? {
        let action = if disabled { "client.disabled" } else { "client.enabled" };
        record(&mut tx, actor, app, action, id).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Deletes a client with its secrets; its tokens end within seconds on every replica.
pub async fn delete(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    id: &str,
) -> Result<(), ClientError> {
    let mut tx = conn.begin().await?;
    let (app, bootstrap) = lock(&mut tx, app, id).await?;
    if bootstrap {
        return Err(ClientError::Bootstrap);
    }
    store::delete_client(&mut tx, id).await?;
    record(&mut tx, actor, app, "client.deleted", id).await?;
    tx.commit().await?;
    Ok(())
}

/// Holds a client until the transaction ends: its app and whether the environment made it.
pub(super) async fn lock(
    conn: &mut Conn,
    app: Option<AppId>,
    id: &str,
) -> Result<(AppId, bool), ClientError> {
    let found = store::lock_client(conn, app, id).await?;
    found.ok_or_else(|| ClientError::Unknown(id.to_owned()))
}

/// Makes the bootstrap client what the environment says: it exists with exactly this secret, and
/// where the environment names none, every one that it named before is disabled.
pub async fn ensure_bootstrap(
    conn: &mut Conn,
    vault: &Vault,
    wanted: Option<&BootstrapClient>,
) -> Result<(), ClientError> {
    let mut tx = conn.begin().await?;
    let keep = wanted.map(|wanted| wanted.id.as_str());
    for (id, app) in store::disable_bootstraps_except(&mut tx, keep).await? {
        record(&mut tx, &Actor::service(), app, "client.disabled", &id).await?;
    }
    if let Some(wanted) = wanted {
        let app = store::default_app(&mut tx).await?.ok_or(ClientError::NoDefaultApp)?;
        let hash = secret_hash(vault.secret_hashes(), &wanted.id, &wanted.secret);
        let lifetime = Duration::from_secs(DEFAULT_TOKEN_LIFETIME.into());
        let new =
            NewClient { app, name: "bootstrap", scopes: Scopes::all(), token_lifetime: lifetime };
        if store::insert_client(&mut tx, &wanted.id, &new, &Terms::default(), true).await? {
            record(&mut tx, &Actor::service(), app, "client.created", &wanted.id).await?;
        } else if !store::enable_bootstrap(&mut tx, &wanted.id, app).await? {
            return Err(ClientError::IdTaken);
        }
        store::only_secret(&mut tx, &wanted.id, &hash).await?;
    }
    tx.commit().await?;
    Ok(())
}

pub(super) async fn record(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    action: &'static str,
    client: &str,
) -> sqlx::Result<()> {
    let event = audit::Event {
        app,
        action,
        outcome: "ok",
        user: None,
        connection: None,
        reason: Some(client),
    };
    audit::record(conn, actor, &event).await
}
