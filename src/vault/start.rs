//! Opens the vault in two steps, so that a start that fails records nothing: [`Prepared::read`] uses the master keys and
//! writes nothing, [`Prepared::register`] writes and is part of the transaction of the whole start.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use futures_util::future::{try_join, try_join_all};

use super::app_hashes::AppHashes;
use super::cache::Cache;
use super::keys::{DataKey, HashKey, KeyOwner, WrappedKey};
use super::local::KeyBytes;
use super::master::{MasterKey, MasterKeys};
use super::{Inner, Vault, VaultError, store};
use crate::database::{Conn, Inconsistent};

const OWNERS: [KeyOwner; 3] = [KeyOwner::Service, KeyOwner::CodeHash, KeyOwner::SecretHash];

/// A vault that is open, and whose new keys are not recorded yet.
#[derive(Debug)]
pub struct Prepared {
    masters: Arc<MasterKeys>,
    keys: Vec<ServiceKey>,
    app_hashes: AppHashes,
    changes: i64,
}

/// One of the service's own keys.
struct ServiceKey {
    wrapped: WrappedKey,
    bytes: KeyBytes,
    is_new: bool,
}

impl std::fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceKey({}, new: {})", self.wrapped.id, self.is_new)
    }
}

impl Prepared {
    /// Compares the master keys with the database, proves that the first can be used, and opens the service's own keys
    /// or makes them.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub async fn read(conn: &mut Conn, masters: Arc<MasterKeys>) -> Result<Self, VaultError> {
        store::check_masters(conn, &masters).await?;
        let changes = store::changes_until_now(conn).await?;
        let mut found = Vec::new();
        for owner in OWNERS {
            found.push((owner, store::find_service_key(conn, owner).await?));
        }
        let keys = found.into_iter().map(|(owner, found)| service_key(&masters, owner, found));
        let proof = async {
            match masters.first().remote() {
                Some(first) => Ok(first.probe().await?),
                None => Ok(()),
            }
        };
        let (keys, ()) = try_join(try_join_all(keys), proof).await?;
        let app_hashes = AppHashes::default();
        app_hashes.load(conn, &masters).await?;
        Ok(Self { masters, keys, app_hashes, changes })
    }

    /// Records the master keys, and the service's own keys if they are new. Replicas that start at the same moment agree
    /// on one, because the insert keeps the first.
    pub async fn register(mut self, conn: &mut Conn) -> Result<Vault, VaultError> {
        store::register_masters(conn, &self.masters).await?;
        for key in self.keys.iter_mut().filter(|key| key.is_new) {
            store::insert_key(conn, &key.wrapped).await?;
            let owner = key.wrapped.owner;
            let found = store::find_service_key(conn, owner).await?;
            let found = found.ok_or_else(|| Inconsistent::new("data_keys", owner.purpose()));
            let found = found.map_err(|error| VaultError::Database(error.into()))?;
            if found != key.wrapped {
                *key = service_key(&self.masters, owner, Some(found)).await?;
            }
        }
        self.into_vault()
    }

    /// Returns the vault without recording anything, for a command that only reads. If the database is new, nothing that
    /// it seals will ever open.
    pub fn into_vault(self) -> Result<Vault, VaultError> {
        let Self { masters, keys, app_hashes, changes } = self;
        let [service, codes, secrets] =
            <[ServiceKey; 3]>::try_from(keys).map_err(|_| VaultError::DoesNotOpen)?;
        for key in masters.iter().filter_map(MasterKey::remote) {
            masters.metrics().available(key.id(), key.kind(), true);
        }
        let cache = Cache::new(masters.keep_data_keys());
        Ok(Vault(Arc::new(Inner {
            service: DataKey::new(service.wrapped.id, &service.bytes),
            codes: Arc::new(HashKey::new(&codes.bytes)),
            secrets: Arc::new(HashKey::new(&secrets.bytes)),
            app_hashes,
            masters,
            cache,
            changes: AtomicI64::new(changes),
        })))
    }
}

/// Opens a key that was found, or makes one.
async fn service_key(
    masters: &MasterKeys,
    owner: KeyOwner,
    found: Option<WrappedKey>,
) -> Result<ServiceKey, VaultError> {
    if let Some(wrapped) = found {
        let bytes = masters.named(&wrapped.master_key_id)?.open(&wrapped).await?;
        return Ok(ServiceKey { wrapped, bytes, is_new: false });
    }
    let (wrapped, bytes) = masters.new_key(owner).await?;
    Ok(ServiceKey { wrapped, bytes, is_new: true })
}
