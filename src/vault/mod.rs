//! The vault: master keys, data keys in PostgreSQL wrapped by them, and
//! [`Sealed`] values that open only in their own [`AadContext`].
//!
//! There are two layers. A *master key* (KEK) wraps data keys, nothing else. It never leaves this module, or is elsewhere
//! and never comes into this process at all. A
//! *data key* (DEK) belongs to one user, to one app or to the service, and seals what is held for its owner.
//! So a new master key rewraps small keys and touches no sealed value, and deleting a user's data key makes
//! everything sealed for that user unreadable.
//!
//! Keyed hashes of codes and of client secrets use random keys of their own, wrapped in the same way:
//! retiring a master key invalidates no client secret and forgets no used code.
//!
//! May import: common, database.

mod app_hashes;
mod associated_data;
mod aws_kms;
mod bound;
mod cache;
mod data_key_rotation;
mod engine;
mod error;
mod health;
mod keys;
mod local;
mod master;
mod metrics;
mod moving;
mod opened;
mod remote;
mod seal;
mod start;
mod status;
mod store;
mod token;
mod transfer;
mod transit;
mod watch;

#[cfg(feature = "aws-kms")]
pub use aws_kms::InvalidKeyArn;
pub use aws_kms::{AwsKms, AwsSettings, InvalidAwsKms, StaticCredentials};
pub use data_key_rotation::{
    Published, Rotating, Scope, SealedAnew, count_rotating, destroy_former, is_key_destroyed,
    publish, rotating, seal_anew, switch,
};
pub use error::{Unavailable, VaultError};
pub use keys::{DataKey, HashKey, KeyOwner, KeyedHash, MasterKeyId, OtherKey, WrappedKey};
pub use local::{LocalKey, MASTER_KEY_BYTES};
pub use master::{Engines, InvalidMasterKey, KEEP_DATA_KEYS, MasterKey, MasterKeys};
pub use metrics::Metrics;
pub use moving::{UsersKeys, destroy_keys_of_users, insert_keys, keys_of_app, keys_of_users};
pub use opened::OpenedKeys;
pub use remote::RemoteKey;
pub use seal::{AadContext, Binding, Sealed};
pub use start::Prepared;
pub use status::{
    DataKeyGroup, Estimate, KnownMasterKey, Trial, data_key_groups, estimate, known_masters,
    try_key,
};
pub use store::{
    KeyUse, RewrapBatch, app_key, delete_old_changes, insert_key, key_uses, retire, rewrap_some,
};
pub use token::{is_token, random_token};
pub use transfer::{ImportPrivateKey, PUBLIC_KEY_BYTES, Transfer};
pub use transit::{
    InvalidTransit, InvalidTransitAddress, Login, SecretSource, Transit, TransitClient,
};
pub use watch::KeyOutage;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Instant;

use tokio::sync::watch::Receiver;

use self::app_hashes::AppHashes;
use self::cache::{Cache, Found, Opened};
use self::error::OpenError;
use crate::database::Conn;

/// The open vault: seals, opens and hashes. Clones share what they keep.
#[derive(Clone, Debug)]
pub struct Vault(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    masters: Arc<MasterKeys>,
    service: DataKey,
    codes: Arc<HashKey>,
    secrets: Arc<HashKey>,
    app_hashes: AppHashes,
    cache: Cache,
    /// Up to where the changes of data keys are read.
    changes: AtomicI64,
}

impl Vault {
    /// Opens the vault: compares the master keys with the check values in the database, records new ones, creates the
    /// service's own keys on the first start, and opens them.
    ///
    /// # Errors
    /// Fails if a master key is another than before, if one that still wraps a key is missing or cannot be used, or by
    /// the database.
    pub async fn open(conn: &mut Conn, masters: MasterKeys) -> Result<Self, VaultError> {
        let prepared = Prepared::read(conn, Arc::new(masters)).await?;
        let mut tx = conn.begin().await?;
        let vault = prepared.register(&mut tx).await?;
        tx.commit().await?;
        Ok(vault)
    }

    /// Returns the data key that seals the service's own secrets.
    #[must_use]
    pub fn service_key(&self) -> &DataKey {
        &self.0.service
    }

    /// Returns the key that hashes what is no app's, or is found before its app is known: session tokens, links of operators.
    #[must_use]
    pub fn secret_hashes(&self) -> &HashKey {
        &self.0.secrets
    }

    /// Opens a data key from the database, or returns it from memory. Callers who ask for the same key at the same
    /// moment share one opening. If its master key is elsewhere, hold no transaction and no connection meanwhile.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] if its master key is elsewhere and cannot be used now.
    pub async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Arc<DataKey>, VaultError> {
        let masters = &self.0.masters;
        match self.0.cache.find(wrapped, Instant::now()) {
            Found::Kept(key) => {
                masters.metrics().opened("kept");
                Ok(key)
            }
            Found::Wait(done) => self.shared(wrapped, done).await,
            Found::Open(sender) => {
                masters.metrics().opened("master_key");
                let done = sender.subscribe();
                let (inner, wrapped) = (Arc::clone(&self.0), wrapped.clone());
                let id = wrapped.master_key_id.clone();
                let (of, is_here) = (wrapped.clone(), !self.is_elsewhere(&id));
                let opening = async move {
                    let opened = inner.masters.open_data_key(&wrapped).await;
                    let opened = opened.map(Arc::new).map_err(OpenError::from);
                    inner.cache.finish(&wrapped, &sender, opened, Instant::now());
                };
                if is_here {
                    opening.await;
                } else {
                    // In a task of its own: others wait for it even if this caller gives up.
                    tokio::spawn(opening);
                }
                self.shared(&of, done).await
            }
        }
    }

    /// Waits for an opening.
    async fn shared(
        &self,
        wrapped: &WrappedKey,
        mut done: Receiver<Option<Opened>>,
    ) -> Result<Arc<DataKey>, VaultError> {
        let opened = match done.wait_for(Option::is_some).await {
            Ok(opened) => opened.clone(),
            Err(_) => None,
        };
        // None: the runtime that opened it has ended.
        let ended = || Unavailable::overloaded(&wrapped.master_key_id, "its opening was abandoned");
        Ok(opened.unwrap_or_else(|| Err(ended().into()))?)
    }

    /// Generates a data key for `owner`, wrapped by the first master key.
    pub async fn new_key(&self, owner: KeyOwner) -> Result<WrappedKey, VaultError> {
        let (wrapped, bytes) = self.0.masters.new_key(owner).await?;
        if !owner.hashes() {
            // Its first use is next.
            let key = Arc::new(DataKey::new(wrapped.id, &bytes));
            self.0.cache.keep(&wrapped, &key, Instant::now());
        }
        Ok(wrapped)
    }

    /// Returns whether the master key of this name is elsewhere: its use is a call that may fail or take long.
    fn is_elsewhere(&self, id: &MasterKeyId) -> bool {
        self.0.masters.named(id).is_ok_and(|key| key.remote().is_some())
    }

    /// Returns the master keys, for their rotation.
    #[must_use]
    pub fn masters(&self) -> &MasterKeys {
        &self.0.masters
    }
}
