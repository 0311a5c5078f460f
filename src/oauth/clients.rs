//! The administration of clients: create, list, disable, delete, and the bootstrap client.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use super::model::{After, ClientInfo, NewClient, Terms};
use super::registration::{self, Change, InvalidRegistration, Registration};
use super::secret_value::{self, random_text, secret_hash};
use super::store;
use crate::audit;
use crate::common::actor::Actor;
use crate::common::ids::AppId;
use crate::common::scope::Scopes;
use crate::common::secret::SecretText;
use crate::common::text::{self, InvalidText};
use crate::config::BootstrapClient;
use crate::database::Conn;
use crate::outbound::Reach;
use crate::vault::{Vault, VaultError};

/// The lifetimes that an access token may have, in seconds.
pub const TOKEN_LIFETIMES: RangeInclusive<u32> = 60..=86_400;
/// How many tokens a client may reveal per minute.
pub const REVEALS_PER_MINUTE: RangeInclusive<u32> = 1..=1_000_000;
/// The lifetime of a client's access tokens by default, in seconds.
pub const DEFAULT_TOKEN_LIFETIME: u32 = 3600;
/// The maximum length of a client's name, in bytes.
pub const MAX_NAME: usize = 200;

/// Why a client cannot be created with these properties.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerms {
    /// The name is empty, too long, or holds control characters.
    #[error("the name {0}")]
    Name(InvalidText),
    /// It has neither a scope of Strongroom's nor an external one.
    #[error("a client needs a scope at least; there are: {}", Scopes::all())]
    NoScope,
    /// The token lifetime is outside of [`TOKEN_LIFETIMES`].
    #[error("a token lives for 60 to 86400 seconds")]
    Lifetime,
    /// A required scope is not among the client's scopes.
    #[error("`{0}` is required and not among the client's scopes")]
    RequiredIsMissing(String),
    /// The limit of reveals per minute is outside of [`REVEALS_PER_MINUTE`].
    #[error("reveals per minute are 1 to 1000000")]
    Reveals,
}

crate::common::text::text_schemas! {
    /// What people call a client, at most 200 bytes.
    ClientName, text::TEXT, 1 to MAX_NAME, "payroll";
}

/// Checks the properties of a client to be created.
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
    if terms.reveals_per_minute.is_some_and(|count| !REVEALS_PER_MINUTE.contains(&count)) {
        return Err(InvalidTerms::Reveals);
    }
    Ok(())
}

/// A new client's id and secret. The secret cannot be read again.
#[derive(Debug)]
pub struct Credentials {
    /// The client's id: random letters and digits.
    pub id: Arc<str>,
    /// The secret; the database holds its hash alone.
    pub secret: SecretText,
}

/// Why an operation on a client failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No client of the app has this id.
    #[error("there is no client `{0}`")]
    Unknown(String),
    /// The bootstrap client follows the environment and cannot be changed here.
    #[error(
        "the bootstrap client follows the environment: STRONGROOM_BOOTSTRAP_CLIENT_SECRET is its secret; unset it to \
         end the client"
    )]
    Bootstrap,
    /// The client has two live secrets already.
    #[error("the client has two live secrets already; end one, or let both end at once")]
    TwoSecrets,
    /// The bootstrap client's id belongs to a client that the environment did not create.
    #[error("the bootstrap client's id is another client's")]
    IdTaken,
    /// The app `default`, to which the bootstrap client belongs, does not exist.
    #[error(
        "the bootstrap client belongs to the app `default`, which does not exist; \
         set DAPI_APP_KEY and DAPI_APP_SECRET"
    )]
    NoDefaultApp,
    /// Its keys or its workload cannot be registered.
    #[error(transparent)]
    Registration(#[from] InvalidRegistration),
    /// The vault or the database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// 22 characters of 62 hold 128 bits: an id has to be unique, not unguessable.
const ID_LENGTH: usize = 22;

impl From<sqlx::Error> for ClientError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}

/// Creates a client with the default terms, and its first secret.
pub async fn create(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    new: &NewClient<'_>,
) -> Result<Credentials, ClientError> {
    create_on(conn, vault, actor, new, &Terms::default()).await
}

/// Creates a client with these terms, which the caller has [`check`]ed, and its first secret.
pub async fn create_on(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    new: &NewClient<'_>,
    terms: &Terms,
) -> Result<Credentials, ClientError> {
    let mut tx = conn.begin().await?;
    let id = insert(&mut tx, actor, new, terms).await?;
    let (_, secret) = secret_value::insert(&mut tx, vault, new.app, &id).await?;
    tx.commit().await?;
    Ok(Credentials { id, secret })
}

/// Creates a client with these terms, which the caller has [`check`]ed, and without a secret: it proves itself by its
/// keys or its workload. Returns its id.
pub async fn create_without_secret(
    conn: &mut Conn,
    actor: &Actor,
    new: &NewClient<'_>,
    terms: &Terms,
) -> Result<Arc<str>, ClientError> {
    let mut tx = conn.begin().await?;
    let id = insert(&mut tx, actor, new, terms).await?;
    tx.commit().await?;
    Ok(id)
}

async fn insert(
    conn: &mut Conn,
    actor: &Actor,
    new: &NewClient<'_>,
    terms: &Terms,
) -> Result<Arc<str>, ClientError> {
    let id: Arc<str> = random_text(ID_LENGTH)?.into();
    store::insert_client(conn, &id, new, terms, false).await?;
    record(conn, actor, new.app, "client.created", &id).await?;
    let nothing = Registration::default();
    record_registration(conn, actor, new.app, &id, &nothing, &terms.registration).await?;
    Ok(id)
}

/// Returns the clients of one app or of all, newest first, at most `limit` of those behind `after`.
pub async fn list(
    conn: &mut Conn,
    app: Option<AppId>,
    after: Option<&After>,
    limit: i64,
) -> sqlx::Result<Vec<ClientInfo>> {
    store::list_clients(conn, app, after, limit).await
}

/// Returns the client of this id, restricted to `app` if one is given.
pub async fn find(
    conn: &mut Conn,
    app: Option<AppId>,
    id: &str,
) -> Result<ClientInfo, ClientError> {
    let found = store::find_client(conn, app, id).await?;
    found.ok_or_else(|| ClientError::Unknown(id.to_owned()))
}

/// Disables a client and its tokens, within seconds on every replica.
pub async fn disable(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    id: &str,
) -> Result<(), ClientError> {
    change(conn, actor, app, id, Some(true), &Change::default(), Reach::Public).await
}

/// Enables a client again. Its earlier tokens, if they have not expired, are valid again as well.
pub async fn enable(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    id: &str,
) -> Result<(), ClientError> {
    change(conn, actor, app, id, Some(false), &Change::default(), Reach::Public).await
}

/// Changes how a client proves who it is, and whether it is disabled. What is left out stays. It holds within seconds
/// on every replica.
pub async fn change(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    id: &str,
    disabled: Option<bool>,
    registration: &Change,
    reach: Reach,
) -> Result<(), ClientError> {
    let mut tx = conn.begin().await?;
    let (app, bootstrap) = lock(&mut tx, app, id).await?;
    if !registration.is_empty() {
        if bootstrap {
            return Err(ClientError::Bootstrap);
        }
        register(&mut tx, actor, app, id, registration, reach).await?;
    }
    if let Some(disabled) = disabled
        && store::set_disabled(&mut tx, id, disabled).await?
    {
        let action = if disabled { "client.disabled" } else { "client.enabled" };
        record(&mut tx, actor, app, action, id).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn register(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: &str,
    change: &Change,
    reach: Reach,
) -> Result<(), ClientError> {
    let before = find(conn, Some(app), id).await?.registration();
    let after = change.applied_to(before.clone());
    registration::check(&after, reach)?;
    if after != before {
        store::set_registration(conn, id, &after).await?;
        record_registration(conn, actor, app, id, &before, &after).await?;
    }
    Ok(())
}

/// Records each part of a registration that differs.
async fn record_registration(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: &str,
    before: &Registration,
    after: &Registration,
) -> sqlx::Result<()> {
    let keys = (&before.jwks, &before.jwks_uri) != (&after.jwks, &after.jwks_uri);
    for (changed, action) in [
        (keys, "client.keys_changed"),
        (before.workload != after.workload, "client.workload_changed"),
        (before.dpop_bound != after.dpop_bound, "client.dpop_changed"),
    ] {
        if changed {
            record(conn, actor, app, action, id).await?;
        }
    }
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

/// Locks a client until the transaction ends; returns its app and whether the environment created
/// it.
pub(super) async fn lock(
    conn: &mut Conn,
    app: Option<AppId>,
    id: &str,
) -> Result<(AppId, bool), ClientError> {
    let found = store::lock_client(conn, app, id).await?;
    found.ok_or_else(|| ClientError::Unknown(id.to_owned()))
}

/// Makes the bootstrap client match the environment: it exists with exactly this secret, and every
/// other client that the environment created before is disabled.
pub async fn ensure_bootstrap(
    conn: &mut Conn,
    vault: &Vault,
    wanted: Option<&BootstrapClient>,
    app: &str,
) -> Result<(), ClientError> {
    let mut tx = conn.begin().await?;
    let keep = wanted.map(|wanted| wanted.id.as_str());
    for (id, app) in store::disable_bootstraps_except(&mut tx, keep).await? {
        record(&mut tx, &Actor::service(), app, "client.disabled", &id).await?;
    }
    if let Some(wanted) = wanted {
        let app = store::app_named(&mut tx, app).await?.ok_or(ClientError::NoDefaultApp)?;
        let hash = secret_hash(&vault.secret_hashes_of(app), &wanted.id, &wanted.secret);
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
