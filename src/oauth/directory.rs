//! What every replica holds in memory: clients, the hashes of their secrets, signing keys, revoked
//! tokens.
//!
//! It is refreshed every second by one small query and reloaded where something changed, so that a
//! change reaches every replica within seconds without a message between them. A replica that could
//! not refresh for [`STALE_AFTER`] lets nobody in: it might be letting in somebody who was shut out.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::clients::secret_hash;
use super::credentials::Presented;
use super::error::OAuthError;
use super::signing::SigningKey;
use super::store::{self, ClientRow};
use crate::base::clock::Clock;
use crate::base::ids::AppId;
use crate::base::scope::Scopes;
use crate::vault::{KeyedHash, Vault, VaultError};

/// How long a replica trusts what it knows without having asked the database.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// A client as requests are decided by it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: Arc<str>,
    pub(super) app: AppId,
    pub(super) scopes: Scopes,
    pub(super) token_lifetime: u32,
    enabled: bool,
    secrets: Vec<LiveSecret>,
}

#[derive(Debug)]
struct LiveSecret {
    hash: Vec<u8>,
    ends: Option<Instant>,
}

impl Client {
    fn from_row(row: ClientRow, now: Instant) -> Self {
        let ends = |left: f64| now + Duration::try_from_secs_f64(left).unwrap_or_default();
        let secret =
            |(hash, left): (Vec<u8>, Option<f64>)| LiveSecret { hash, ends: left.map(ends) };
        Self {
            id: row.id.into(),
            app: row.app,
            scopes: Scopes::from_names(&row.scopes),
            token_lifetime: row.token_lifetime.unsigned_abs(),
            enabled: row.enabled,
            secrets: row.secrets.into_iter().map(secret).collect(),
        }
    }

    /// Every secret is looked at, whichever fits, so that the time tells nothing.
    fn knows(&self, hash: &KeyedHash, now: Instant) -> bool {
        let live = |secret: &LiveSecret| secret.ends.is_none_or(|ends| now < ends);
        let matches = self.secrets.iter().map(|secret| hash.matches(&secret.hash) & live(secret));
        matches.fold(false, |any, one| any | one) & self.enabled
    }
}

#[derive(Debug, Default)]
struct Snapshot {
    clients: HashMap<Arc<str>, Arc<Client>>,
    /// The one that signs comes first.
    keys: Vec<Arc<SigningKey>>,
}

#[derive(Debug)]
struct Known {
    snapshot: Arc<Snapshot>,
    directory_generation: i64,
    revocation_generation: i64,
    /// Revoked tokens by `jti`, with the moment when they run out by themselves.
    revoked: HashMap<Uuid, Instant>,
    refreshed: Instant,
}

/// The directory. Clones share it.
#[derive(Clone, Debug)]
pub struct Directory {
    known: Arc<RwLock<Known>>,
    clock: Clock,
}

/// What the directory says about a token's bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The client may go on, as far as these scopes reach.
    Good(AppId, Scopes),
    /// The token was revoked, or its client is gone or disabled.
    Ended,
    /// This replica has not heard from the database for too long to say.
    Stale,
}

impl Directory {
    /// Reads everything for the first time.
    pub async fn load(
        conn: &mut PgConnection,
        vault: &Vault,
        clock: Clock,
    ) -> Result<Self, VaultError> {
        let known = Known {
            snapshot: Arc::default(),
            directory_generation: -1,
            revocation_generation: -1,
            revoked: HashMap::new(),
            refreshed: clock.instant(),
        };
        let directory = Self { known: Arc::new(RwLock::new(known)), clock };
        directory.refresh(conn, vault).await?;
        Ok(directory)
    }

    /// Reads what changed. The generations are read before the rest, so that a change in between is
    /// read again rather than missed.
    pub async fn refresh(&self, conn: &mut PgConnection, vault: &Vault) -> Result<(), VaultError> {
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
        let ends = |left: f64| started + Duration::try_from_secs_f64(left).unwrap_or_default();
        known.revoked.extend(revoked.into_iter().map(|(jti, left)| (jti, ends(left))));
        known.revocation_generation = revocations;
        known.refreshed = started;
        Ok(())
    }

    async fn snapshot(
        &self,
        conn: &mut PgConnection,
        vault: &Vault,
    ) -> Result<Snapshot, VaultError> {
        let now = self.clock.instant();
        let clients = store::load_clients(conn, None).await?;
        let clients = clients.into_iter().map(|row| Arc::new(Client::from_row(row, now)));
        let keys = store::load_signing_keys(conn, vault).await?;
        Ok(Snapshot {
            clients: clients.map(|client| (Arc::clone(&client.id), client)).collect(),
            keys: keys.into_iter().map(Arc::new).collect(),
        })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the database was heard of lately.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.clock.instant().saturating_duration_since(self.read().refreshed) < STALE_AFTER
    }

    /// The client that presents these credentials.
    ///
    /// Whoever the memory does not let in is looked up in the database, whether the id is unknown or
    /// the secret wrong: the client or the secret may be younger than the last refresh, and the two
    /// cases take the same time.
    pub(super) async fn authenticate(
        &self,
        pool: &PgPool,
        vault: &Vault,
        presented: &Presented,
    ) -> Result<Arc<Client>, OAuthError> {
        let hash = secret_hash(vault.secret_hashes(), &presented.id, &presented.secret);
        let known = Arc::clone(&self.read().snapshot);
        let now = self.clock.instant();
        if let Some(client) = known.clients.get(presented.id.as_str())
            && client.knows(&hash, now)
            && self.is_fresh()
        {
            return Ok(Arc::clone(client));
        }
        // No client has an id of other characters, and PostgreSQL would choke on some of them.
        let sound = presented.id.chars().all(|c| c.is_ascii_alphanumeric());
        let id = if sound { presented.id.as_str() } else { "" };
        let mut rows = store::load_clients(&mut *pool.acquire().await?, Some(id)).await?;
        let client = rows.pop().map(|row| Client::from_row(row, now));
        let client = client.filter(|client| client.knows(&hash, now));
        client.map(Arc::new).ok_or_else(OAuthError::invalid_client)
    }

    /// Whether the bearer of a token that verifies may go on.
    pub(super) fn standing(&self, jti: Uuid, client_id: &str, scopes: Scopes) -> Standing {
        if !self.is_fresh() {
            return Standing::Stale;
        }
        let known = self.read();
        if known.revoked.contains_key(&jti) {
            return Standing::Ended;
        }
        match known.snapshot.clients.get(client_id) {
            Some(client) if client.enabled => {
                Standing::Good(client.app, scopes.intersection(client.scopes))
            }
            _ => Standing::Ended,
        }
    }

    /// The key that signs.
    pub(super) fn signing_key(&self) -> Option<Arc<SigningKey>> {
        self.read().snapshot.keys.first().cloned()
    }

    /// The key of this id.
    pub(super) fn key(&self, kid: &str) -> Option<Arc<SigningKey>> {
        self.read().snapshot.keys.iter().find(|key| key.kid() == kid).cloned()
    }
}
