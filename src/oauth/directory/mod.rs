//! What every replica holds in memory: clients, the hashes of their secrets, signing keys, revoked
//! tokens.
//!
//! It is refreshed every second by one small query and reloaded where something changed, so that a
//! change reaches every replica within seconds without a message between them. A replica that could
//! not refresh for [`STALE_AFTER`] lets nobody in: it might be letting in somebody who was shut out.

mod client;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use uuid::Uuid;

pub(super) use client::Client;

use super::error::{OAuthError, OAuthErrorCode};
use super::secret_value::secret_hash;
use super::signing::SigningKey;
use super::store;
use crate::base::clock::Clock;
use crate::base::secret::SecretText;
use crate::database::{Conn, Pool};
use crate::vault::{KeyedHash, Vault, VaultError};

/// How long a replica trusts what it knows without having asked the database.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// By how much this process's clock, which ends tokens, and the database's may differ: a revoked token
/// is remembered for so much longer than it would have lived.
const CLOCKS_DIFFER: Duration = Duration::from_hours(1);

#[derive(Debug)]
struct KnownKey {
    key: Arc<SigningKey>,
    /// When it begins to sign, where it has not yet.
    begins: Option<Instant>,
}

#[derive(Debug, Default)]
struct Snapshot {
    clients: HashMap<Arc<str>, Arc<Client>>,
    /// The latest to sign comes first.
    keys: Vec<KnownKey>,
}

#[derive(Debug)]
struct Known {
    snapshot: Arc<Snapshot>,
    directory_generation: i64,
    revocation_generation: i64,
    /// Revoked tokens by `jti`, with the moment when they have run out by themselves on every clock.
    revoked: HashMap<Uuid, Instant>,
    refreshed: Instant,
}

/// The directory. Clones share it.
#[derive(Clone, Debug)]
pub struct Directory {
    known: Arc<RwLock<Known>>,
    /// Held by whoever is reading from the database: an older view must not follow a newer one.
    turn: Arc<Mutex<()>>,
    /// Held by the one request that looks after all those whom the memory does not let in: however many
    /// wrong secrets come at once, they take one connection of a replica's.
    looking: Arc<Mutex<()>>,
    clock: Clock,
}

/// An id and the secret that is said to belong to it.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) id: String,
    pub(super) secret: SecretText,
}

/// What the directory says about a token's bearer.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// The client may go on, as far as its scopes reach.
    Good(Arc<Client>),
    /// The token was revoked, its key is gone, or its client is disabled.
    Ended,
    /// The client is gone, or younger than the last refresh.
    Stranger,
    /// This replica has not heard from the database for too long to say.
    Stale,
}

impl Directory {
    /// Reads everything for the first time.
    pub async fn load(conn: &mut Conn, vault: &Vault, clock: Clock) -> Result<Self, VaultError> {
        let known = Known {
            snapshot: Arc::default(),
            directory_generation: -1,
            revocation_generation: -1,
            revoked: HashMap::new(),
            refreshed: clock.instant(),
        };
        let known = Arc::new(RwLock::new(known));
        let directory = Self { known, turn: Arc::default(), looking: Arc::default(), clock };
        directory.refresh(conn, vault).await?;
        Ok(directory)
    }

    /// Reads what changed.
    pub async fn refresh(&self, conn: &mut Conn, vault: &Vault) -> Result<(), VaultError> {
        let _turn = self.turn.lock().await;
        self.read_changes(conn, vault).await
    }

    /// Reads what changed, unless that was done since `moment`, for whoever came first. Gives up when
    /// the view would be stale anyway.
    pub(super) async fn refresh_since(
        &self,
        moment: Instant,
        pool: &Pool,
        vault: &Vault,
    ) -> Result<(), VaultError> {
        let refresh = async {
            let _looking = self.looking.lock().await;
            if self.read().refreshed >= moment {
                return Ok(());
            }
            // Whoever waits for a connection keeps nobody else from refreshing.
            let mut conn = pool.acquire().await?;
            self.refresh(&mut conn, vault).await
        };
        let done = tokio::time::timeout(STALE_AFTER, refresh).await;
        done.unwrap_or(Err(VaultError::Database(sqlx::Error::PoolTimedOut)))
    }

    /// The generations are read before the rest, so that a change in between is read again rather than
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
            known.snapshot = snapshot;
            known.directory_generation = directory;
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
        let begins = |until: f64| now + Duration::try_from_secs_f64(until).unwrap_or_default();
        let keys = store::load_signing_keys(conn, vault).await?;
        let keys = keys
            .into_iter()
            .map(|(key, until)| KnownKey { key: Arc::new(key), begins: until.map(begins) });
        Ok(Snapshot { clients, keys: keys.collect() })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_clients(&self) -> Arc<Snapshot> {
        Arc::clone(&self.read().snapshot)
    }

    /// Whether the database was heard of lately.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.clock.instant().saturating_duration_since(self.read().refreshed) < STALE_AFTER
    }

    /// The client that presents these credentials.
    ///
    /// Whoever the memory does not let in is held against a view of the database that is younger than
    /// the request, whether the id is unknown or the secret wrong: the client or the secret may be
    /// younger than the last refresh, and the two cases do the same work.
    pub(super) async fn authenticate(
        &self,
        pool: &Pool,
        vault: &Vault,
        presented: &Presented,
    ) -> Result<Arc<Client>, OAuthError> {
        let hash = secret_hash(vault.secret_hashes(), &presented.id, &presented.secret);
        let arrived = self.now();
        if self.is_fresh()
            && let Some(client) = self.let_in(&presented.id, &hash)
        {
            return Ok(client);
        }
        self.refresh_since(arrived, pool, vault).await?;
        self.let_in(&presented.id, &hash).ok_or_else(OAuthError::invalid_client)
    }

    fn let_in(&self, id: &str, hash: &KeyedHash) -> Option<Arc<Client>> {
        let known = self.known_clients();
        let Some(client) = known.clients.get(id) else {
            client::held_against_nobody(hash);
            return None;
        };
        let secret = client.lets_in(hash, self.clock.instant())?;
        let now = self.clock.unix_seconds();
        secret.used.mark(now);
        client.mark(now);
        Some(Arc::clone(client))
    }

    /// Whether the bearer of a token that verifies may go on.
    pub(super) fn standing(&self, jti: Uuid, client_id: &str, kid: &str) -> Standing {
        if !self.is_fresh() {
            return Standing::Stale;
        }
        let known = self.read();
        let key_is_there = known.snapshot.keys.iter().any(|known| known.key.kid() == kid);
        if known.revoked.contains_key(&jti) || !key_is_there {
            return Standing::Ended;
        }
        match known.snapshot.clients.get(client_id) {
            Some(client) if client.enabled => {
                client.mark(self.clock.unix_seconds());
                Standing::Good(Arc::clone(client))
            }
            Some(_) => Standing::Ended,
            None => Standing::Stranger,
        }
    }

    /// A moment for [`refresh_since`](Self::refresh_since).
    pub(super) fn now(&self) -> Instant {
        self.clock.instant()
    }

    /// A client that is let in, by its id.
    pub(super) fn client(&self, id: &str) -> Option<Arc<Client>> {
        self.known_clients().clients.get(id).filter(|client| client.enabled).cloned()
    }

    /// Refuses a token from now on. Other replicas hear of it from the database.
    pub(super) fn revoke(&self, jti: Uuid, ends_in: Duration) {
        let ends = self.clock.instant() + ends_in + CLOCKS_DIFFER;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.revoked.insert(jti, ends);
    }

    /// The key that signs.
    pub(super) fn signing_key(&self) -> Option<Arc<SigningKey>> {
        let now = self.clock.instant();
        let known = self.known_clients();
        let signs = |known: &&KnownKey| known.begins.is_none_or(|begins| begins <= now);
        known.keys.iter().find(signs).map(|known| Arc::clone(&known.key))
    }

    /// The key of this id.
    pub(super) fn key(&self, kid: &str) -> Option<Arc<SigningKey>> {
        let known = self.known_clients();
        known.keys.iter().find(|known| known.key.kid() == kid).map(|known| Arc::clone(&known.key))
    }

    /// All keys, those that only verify and the one that is next among them.
    pub(super) fn keys(&self) -> Vec<Arc<SigningKey>> {
        self.known_clients().keys.iter().map(|known| Arc::clone(&known.key)).collect()
    }

    /// Writes down which clients and secrets were used since the last time: once for all requests
    /// between, and rounded to half a minute.
    pub async fn note_uses(&self, conn: &mut Conn) -> sqlx::Result<()> {
        let (known, now) = (self.known_clients(), self.clock.unix_seconds());
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
            error => {
                tracing::error!(cause = %error, "internal error");
                Self::new(OAuthErrorCode::ServerError, "The log tells more under this request id")
            }
        }
    }
}
