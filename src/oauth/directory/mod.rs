//! What every replica holds in memory: clients, the hashes of their secrets, signing keys, revoked
//! tokens.
//!
//! A small query each second finds out whether something changed and reloads it, so that a change
//! reaches every replica within seconds without messages between them. A replica that could not
//! refresh for [`STALE_AFTER`] authenticates no client: it may have missed a revocation.

mod client;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use uuid::Uuid;

pub(super) use client::{Client, Keys};

use super::error::{OAuthError, OAuthErrorCode};
use super::model::Fence;
use super::secret_value::secret_hash;
use super::signing::SigningKey;
use super::store;
use crate::common::clock::Clock;
use crate::common::ids::AppId;
use crate::common::secret::SecretText;
use crate::database::{Conn, Pool};
use crate::vault::{HashKey, Vault, VaultError};

/// How long a replica trusts its memory without having reached the database.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// How far this process's clock, which decides when tokens expire, and the database's may differ: a
/// revoked token is remembered for this much longer than it would have lived.
const CLOCKS_DIFFER: Duration = Duration::from_hours(1);

#[derive(Debug)]
struct KnownKey {
    key: Arc<SigningKey>,
    /// When it starts to sign, if that is still to come.
    begins: Option<Instant>,
}

#[derive(Debug, Default)]
struct Snapshot {
    clients: HashMap<Arc<str>, Arc<Client>>,
    fences: HashMap<AppId, Fence>,
    /// Whether all could be read: what could not is tried again with the next refresh.
    is_whole: bool,
    /// Ordered by the start of signing, latest first.
    keys: Vec<KnownKey>,
}

#[derive(Debug)]
struct Known {
    snapshot: Arc<Snapshot>,
    directory_generation: i64,
    revocation_generation: i64,
    /// Revoked tokens by `jti`, each with the moment at which it has expired by every clock.
    revoked: HashMap<Uuid, Instant>,
    refreshed: Instant,
}

/// The directory. Clones share its state.
#[derive(Clone, Debug)]
pub struct Directory {
    known: Arc<RwLock<Known>>,
    /// Serializes refreshes, so that an older view never replaces a newer one.
    refreshing: Arc<Mutex<()>>,
    /// Held by the one request that refreshes on behalf of all that the memory does not accept:
    /// however many wrong secrets arrive at once, they use one connection of the replica.
    on_demand: Arc<Mutex<()>>,
    clock: Clock,
}

/// An id and a secret as a caller presents them.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) id: String,
    pub(super) secret: SecretText,
}

/// The state of a token's client.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// The client is enabled.
    Valid(Arc<Client>),
    /// The token was revoked, its key was deleted, or its client is disabled.
    Revoked,
    /// The client was deleted, or created after the last refresh.
    UnknownClient,
    /// This replica has not reached the database for too long to decide.
    Stale,
}

impl Directory {
    /// Loads the directory for the first time.
    pub async fn load(conn: &mut Conn, vault: &Vault, clock: Clock) -> Result<Self, VaultError> {
        let known = Known {
            snapshot: Arc::default(),
            directory_generation: -1,
            revocation_generation: -1,
            revoked: HashMap::new(),
            refreshed: clock.instant(),
        };
        let known = Arc::new(RwLock::new(known));
        let directory =
            Self { known, refreshing: Arc::default(), on_demand: Arc::default(), clock };
        directory.refresh(conn, vault).await?;
        Ok(directory)
    }

    /// Loads what changed.
    pub async fn refresh(&self, conn: &mut Conn, vault: &Vault) -> Result<(), VaultError> {
        let _refreshing = self.refreshing.lock().await;
        self.read_changes(conn, vault).await
    }

    /// Loads what changed, unless another request has done so since `moment`. Gives up after
    /// [`STALE_AFTER`], when the view would be stale anyway.
    pub(super) async fn refresh_since(
        &self,
        moment: Instant,
        pool: &Pool,
        vault: &Vault,
    ) -> Result<(), VaultError> {
        let refresh = async {
            let _on_demand = self.on_demand.lock().await;
            if self.read().refreshed >= moment {
                return Ok(());
            }
            // Wait for a connection outside of `refreshing`: the background refresh must not wait
            // behind it.
            let mut conn = pool.acquire().await?;
            self.refresh(&mut conn, vault).await
        };
        let done = tokio::time::timeout(STALE_AFTER, refresh).await;
        done.unwrap_or(Err(VaultError::Database(sqlx::Error::PoolTimedOut)))
    }

    /// Reads the generations before the rest, so that a change in between is read twice rather than
    /// missed.
    async fn read_changes(&self, conn: &mut Conn, vault: &Vault) -> Result<(), VaultError> {
        let started = self.clock.instant();
        let (directory, revocations) = store::generations(conn).await?;
        let (known_directory, known_revocations) = {
            let known = self.read();
            (known.directory_generation, known.revocation_generation)
        };
        let snapshot = if directory == known_directory {
            None
        } else {
            Some(Arc::new(self.snapshot(conn, vault).await?))
        };
        let revoked = if revocations == known_revocations {
            Vec::new()
        } else {
            store::revoked_since(conn, known_revocations).await?
        };

        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = snapshot {
            known.directory_generation = if snapshot.is_whole { directory } else { -1 };
            known.snapshot = snapshot;
        }
        known.revoked.retain(|_, ends| *ends > started);
        let ends = |left: f64| {
            started + Duration::try_from_secs_f64(left).unwrap_or_default() + CLOCKS_DIFFER
        };
        known.revoked.extend(revoked.into_iter().map(|(jti, left)| (jti, ends(left))));
        known.revocation_generation = revocations;
        known.refreshed = started;
        Ok(())
    }

    async fn snapshot(&self, conn: &mut Conn, vault: &Vault) -> Result<Snapshot, VaultError> {
        let now = self.clock.instant();
        let before = Arc::clone(&self.read().snapshot);
        let rows = store::load_clients(conn).await?;
        let clients = rows.into_iter().map(|row| {
            let same = before.clients.get(row.id.as_str()).map(Arc::as_ref);
            let client = Arc::new(Client::from_row(row, now, same));
            (Arc::clone(&client.id), client)
        });
        let clients = clients.collect();
        // After the clients: who knows those of an app that was moved here knows its hash keys and its fence too.
        let unusable = vault.load_app_hashes(conn).await?;
        let mut fences = store::load_fences(conn).await?;
        let is_whole = unusable.is_empty();
        fences.extend(unusable.into_iter().map(|app| (app, Fence::Moving)));
        let begins = |until: f64| now + Duration::try_from_secs_f64(until).unwrap_or_default();
        let keys = store::load_signing_keys(conn, vault).await?;
        let keys = keys
            .into_iter()
            .map(|(key, until)| KnownKey { key: Arc::new(key), begins: until.map(begins) });
        Ok(Snapshot { clients, fences, is_whole, keys: keys.collect() })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.read().snapshot)
    }

    /// Returns whether the last refresh is younger than [`STALE_AFTER`].
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.clock.instant().saturating_duration_since(self.read().refreshed) < STALE_AFTER
    }

    /// Authenticates a client.
    ///
    /// A caller that the memory does not accept is checked against a view of the database that is
    /// younger than the request: the client or its secret may have been created since the last
    /// refresh. An unknown id and a wrong secret take this same path, so that their timing does not
    /// differ.
    pub(super) async fn authenticate(
        &self,
        pool: &Pool,
        vault: &Vault,
        presented: &Presented,
    ) -> Result<Arc<Client>, OAuthError> {
        let arrived = self.now();
        if self.is_fresh()
            && let Some(client) = self.accept(vault, presented)
        {
            return Ok(client);
        }
        self.refresh_since(arrived, pool, vault).await?;
        self.accept(vault, presented).ok_or_else(OAuthError::invalid_client)
    }

    fn accept(&self, vault: &Vault, presented: &Presented) -> Option<Arc<Client>> {
        let known = self.current();
        let hash = |key: &HashKey| secret_hash(key, &presented.id, &presented.secret);
        let Some(client) = known.clients.get(presented.id.as_str()) else {
            client::compare_with_nothing(&hash(vault.secret_hashes()));
            return None;
        };
        let hash = hash(&vault.secret_hashes_of(client.app));
        let secret = client.live_secret(&hash, self.clock.instant())?;
        let now = self.clock.unix_seconds();
        secret.used.mark(now);
        client.mark(now);
        Some(Arc::clone(client))
    }

    /// Returns the state of the client of a token whose signature is valid.
    pub(super) fn standing(&self, jti: Uuid, client_id: &str, kid: &str) -> Standing {
        if !self.is_fresh() {
            return Standing::Stale;
        }
        let known = self.read();
        let key_is_there = known.snapshot.keys.iter().any(|known| known.key.kid() == kid);
        if known.revoked.contains_key(&jti) || !key_is_there {
            return Standing::Revoked;
        }
        match known.snapshot.clients.get(client_id) {
            Some(client) if client.enabled => {
                client.mark(self.clock.unix_seconds());
                Standing::Valid(Arc::clone(client))
            }
            Some(_) => Standing::Revoked,
            None => Standing::UnknownClient,
        }
    }

    /// Returns what keeps the callers of an app out, if anything does.
    #[must_use]
    pub fn fence(&self, app: AppId) -> Option<Fence> {
        self.read().snapshot.fences.get(&app).copied()
    }

    /// The current moment, for [`refresh_since`](Self::refresh_since).
    pub(super) fn now(&self) -> Instant {
        self.clock.instant()
    }

    /// Returns an enabled client, if this replica may decide by its memory.
    pub(super) fn fresh_client(&self, id: &str) -> Option<Arc<Client>> {
        if self.is_fresh() { self.client(id) } else { None }
    }

    /// Returns an enabled client.
    pub(super) fn client(&self, id: &str) -> Option<Arc<Client>> {
        self.current().clients.get(id).filter(|client| client.enabled).cloned()
    }

    /// Marks a token as revoked on this replica. Others read it from the database.
    pub(super) fn revoke(&self, jti: Uuid, ends_in: Duration) {
        let ends = self.clock.instant() + ends_in + CLOCKS_DIFFER;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.revoked.insert(jti, ends);
    }

    /// Returns the key that signs now.
    pub(super) fn signing_key(&self) -> Option<Arc<SigningKey>> {
        let now = self.clock.instant();
        let known = self.current();
        let signs = |known: &&KnownKey| known.begins.is_none_or(|begins| begins <= now);
        known.keys.iter().find(signs).map(|known| Arc::clone(&known.key))
    }

    /// Returns the key of this id.
    pub(super) fn key(&self, kid: &str) -> Option<Arc<SigningKey>> {
        let known = self.current();
        known.keys.iter().find(|known| known.key.kid() == kid).map(|known| Arc::clone(&known.key))
    }

    /// Returns all keys, those that only verify and the next one included.
    pub(crate) fn keys(&self) -> Vec<Arc<SigningKey>> {
        self.current().keys.iter().map(|known| Arc::clone(&known.key)).collect()
    }

    /// Writes when clients and secrets were last used since the previous call: once for all
    /// requests in between, and to half a minute.
    pub async fn note_uses(&self, conn: &mut Conn) -> sqlx::Result<()> {
        let (known, now) = (self.current(), self.clock.unix_seconds());
        #[expect(clippy::cast_precision_loss, reason = "seconds since a use are few")]
        let ago = |at: i64| now.saturating_sub(at).max(0) as f64;
        let (mut clients, mut clients_ago) = (Vec::new(), Vec::new());
        let (mut secrets, mut secrets_ago) = (Vec::new(), Vec::new());
        for client in known.clients.values() {
            if let Some(at) = client.used.take() {
                clients.push(client.id.to_string());
                clients_ago.push(ago(at));
            }
            for (secret, at) in client.secrets.iter().filter_map(|s| Some((s, s.used.take()?))) {
                secrets.push(secret.id);
                secrets_ago.push(ago(at));
            }
        }
        if !clients.is_empty() {
            store::note_client_uses(conn, &clients, &clients_ago).await?;
        }
        if !secrets.is_empty() {
            store::note_secret_uses(conn, &secrets, &secrets_ago).await?;
        }
        Ok(())
    }
}

impl From<VaultError> for OAuthError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Database(error) => error.into(),
            VaultError::Unavailable(error) => {
                tracing::warn!(cause = %error, "a key is unavailable");
                Self::new(OAuthErrorCode::TemporarilyUnavailable, "Try again in a moment")
            }
            error => {
                tracing::error!(cause = %error, "internal error");
                Self::new(OAuthErrorCode::ServerError, "The log has details under this request id")
            }
        }
    }
}
