//! The vault: master keys from the environment, data keys in PostgreSQL wrapped by them, and
//! [`Sealed`] values that open only in their own [`AadContext`].
//!
//! There are two layers. A *master key* (KEK) never leaves this module and wraps data keys, nothing else. A
//! *data key* (DEK) belongs to one user, to one app or to the service, and seals what is held for its owner.
//! So a new master key rewraps small keys and touches no sealed value, and deleting a user's data key makes
//! everything sealed for that user unreadable.
//!
//! Keyed hashes of codes and of client secrets use random keys of their own, wrapped in the same way:
//! retiring a master key invalidates no client secret and forgets no used code.
//!
//! May import: common, database.

mod associated_data;
mod keys;
mod master;
mod seal;
mod store;
mod token;

pub use keys::{DataKey, HashKey, KeyOwner, KeyedHash, MasterKeyId, WrappedKey};
pub use master::{InvalidMasterKey, MASTER_KEY_BYTES, MasterKey, MasterKeys};
pub use seal::{AadContext, Binding, Sealed};
pub use store::{KeyUse, app_key, insert_key, key_uses, retire, rewrap_some};
pub use token::{is_token, random_token};

use crate::database::Conn;
use std::sync::Arc;

/// Why the vault failed. Carries no key and no plaintext.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A wrapped key names a master key that this process does not have.
    #[error("master key `{0}` is needed and not in STRONGROOM_MASTER_KEYS")]
    UnknownMasterKey(MasterKeyId),
    /// The key of this id differs from the one that the database first saw under it.
    #[error(
        "STRONGROOM_MASTER_KEYS holds other bytes under `{0}` than this database was sealed with; \
         give a new key a new id"
    )]
    WrongMasterKey(MasterKeyId),
    /// A ciphertext is damaged, was moved to another context, or was sealed under another key.
    #[error("a sealed value does not open: it was damaged, moved or sealed under another key")]
    DoesNotOpen,
    /// The operating system's random number generator failed.
    #[error("the operating system gave no random numbers")]
    NoRandomness,
    /// A query failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// The open vault: seals, opens and hashes.
#[derive(Clone, Debug)]
pub struct Vault {
    masters: Arc<MasterKeys>,
    service: Arc<DataKey>,
    codes: Arc<HashKey>,
    secrets: Arc<HashKey>,
}

impl Vault {
    /// Opens the vault: compares the master keys with the check values in the database, creates the service's
    /// own keys on the first start, and unwraps them.
    ///
    /// # Errors
    /// Fails if a master key has other bytes than before, if one that still wraps a key is missing, or by the
    /// database.
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

    /// Returns the data key that seals the service's own secrets.
    #[must_use]
    pub fn service_key(&self) -> &DataKey {
        &self.service
    }

    /// Returns the key that hashes access codes.
    #[must_use]
    pub fn code_hashes(&self) -> &HashKey {
        &self.codes
    }

    /// Returns the key that hashes client secrets and session tokens.
    #[must_use]
    pub fn secret_hashes(&self) -> &HashKey {
        &self.secrets
    }

    /// Unwraps a data key from the database.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> Result<DataKey, VaultError> {
        self.masters.unwrap_data_key(wrapped)
    }

    /// Generates a data key for `owner`, wrapped by the first master key.
    pub fn new_key(&self, owner: KeyOwner) -> Result<WrappedKey, VaultError> {
        self.masters.new_key(owner)
    }

    /// Returns the master keys, for their rotation.
    #[must_use]
    pub fn masters(&self) -> &MasterKeys {
        &self.masters
    }
}
