//! The vault: master keys from the environment, data keys in PostgreSQL wrapped by them, and
//! [`Sealed`] values that open only in their place.
//!
//! Two layers. A *master key* (KEK) never leaves this module and wraps data keys, nothing else. A
//! *data key* (DEK) belongs to one user, to one app or to the service, and seals what is held for
//! its owner. So a new master key re-wraps small keys and touches no sealed value, and destroying a
//! user's data key destroys everything that was sealed for that user.
//!
//! Keyed hashes of codes and of client secrets use random keys of their own, wrapped in the same
//! way: retiring a master key locks nobody out and forgets no used code.
//!
//! Knows: base.

mod keys;
mod master;
mod seal;
mod store;

pub use keys::{DataKey, HashKey, KeyOwner, KeyedHash, WrappedKey};
pub use master::{InvalidMasterKey, MASTER_KEY_BYTES, MasterKey, MasterKeyId, MasterKeys};
pub use seal::{AadContext, Binding, Sealed};
pub use store::{KeyUse, app_key, insert_key, key_uses, retire, rewrap_some};

use crate::database::Conn;
use std::sync::Arc;

/// Why the vault could not do what it was asked. Carries no key and no content.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A wrapped key names a master key that this process does not have.
    #[error("master key `{0}` is needed and not in STRONGROOM_MASTER_KEYS")]
    UnknownMasterKey(MasterKeyId),
    /// The bytes under an id differ from those that the database met under it before.
    #[error(
        "STRONGROOM_MASTER_KEYS holds other bytes under `{0}` than this database was sealed with; \
         give a new key a new id"
    )]
    WrongMasterKey(MasterKeyId),
    /// A ciphertext that is damaged, moved to another place, or sealed under another key.
    #[error("a sealed value does not open: it was damaged, moved or sealed under another key")]
    DoesNotOpen,
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    NoRandomness,
    /// PostgreSQL did not answer as needed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// The open vault: everything that seals, opens and hashes.
#[derive(Clone, Debug)]
pub struct Vault {
    masters: Arc<MasterKeys>,
    service: Arc<DataKey>,
    codes: Arc<HashKey>,
    secrets: Arc<HashKey>,
}

impl Vault {
    /// Opens the vault: holds the master keys against the check values in the database, makes the
    /// service's own keys where this is the first start, and opens them.
    ///
    /// # Errors
    /// A master key with wrong bytes, a master key that is still in use and missing, or no database.
    pub async fn open(conn: &mut Conn, masters: MasterKeys) -> Result<Self, VaultError> {
        store::check_masters(conn, &masters).await?;
        let service = store::service_key(conn, &masters, KeyOwner::Service).await?;
        let codes = store::service_key(conn, &masters, KeyOwner::CodeHash).await?;
        let secrets = store::service_key(conn, &masters, KeyOwner::SecretHash).await?;
        Ok(Self {
            service: Arc::new(masters.unwrap_data_key(&service)?),
            codes: Arc::new(masters.unwrap_hash_key(&codes)?),
            secrets: Arc::new(masters.unwrap_hash_key(&secrets)?),
            masters: Arc::new(masters),
        })
    }

    /// The data key under which the service seals its own secrets.
    #[must_use]
    pub fn service_key(&self) -> &DataKey {
        &self.service
    }

    /// The key that hashes access codes.
    #[must_use]
    pub fn code_hashes(&self) -> &HashKey {
        &self.codes
    }

    /// The key that hashes client secrets and session tokens.
    #[must_use]
    pub fn secret_hashes(&self) -> &HashKey {
        &self.secrets
    }

    /// A data key as it came from the database, ready for use.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> Result<DataKey, VaultError> {
        self.masters.unwrap_data_key(wrapped)
    }

    /// A new data key for `owner`, wrapped by the first master key.
    pub fn new_key(&self, owner: KeyOwner) -> Result<WrappedKey, VaultError> {
        self.masters.new_key(owner)
    }

    /// The master keys, for their rotation.
    #[must_use]
    pub fn masters(&self) -> &MasterKeys {
        &self.masters
    }
}
