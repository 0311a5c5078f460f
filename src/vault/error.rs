//! Why the vault failed.

use std::time::{Duration, Instant};

use super::health::{Health, Report};
use super::keys::MasterKeyId;

/// Why the vault failed. Carries no key and no plaintext.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A wrapped key names a master key that this process does not have.
    #[error("master key `{0}` is needed and not in STRONGROOM_MASTER_KEYS")]
    UnknownMasterKey(MasterKeyId),
    /// The key of this id differs from the one that the database first saw under it.
    #[error(
        "STRONGROOM_MASTER_KEYS holds another key under `{0}` than this database was sealed with; \
         give a new key a new id"
    )]
    WrongMasterKey(MasterKeyId),
    /// A ciphertext is damaged, was moved to another context, or was sealed under another key.
    #[error("a sealed value does not open: it was damaged, moved or sealed under another key")]
    DoesNotOpen,
    /// A master key that is elsewhere cannot be used at the moment. Nothing is lost: it is tried again.
    #[error(transparent)]
    Unavailable(Unavailable),
    /// The operating system's random number generator failed.
    #[error("the operating system gave no random numbers")]
    NoRandomness,
    /// A query failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A master key that cannot be used at the moment.
#[derive(Clone, Debug, thiserror::Error)]
#[error("master key `{key}` cannot be used at the moment: {cause}")]
pub struct Unavailable {
    /// The key's name.
    pub key: MasterKeyId,
    /// What its engine said, or that it said nothing.
    pub cause: String,
    /// After how long it is tried again.
    pub retry_in: Duration,
}

impl Unavailable {
    /// Returns after how many whole seconds a request is worth repeating.
    #[must_use]
    pub fn retry_after(&self) -> u64 {
        self.retry_in.as_secs() + 1
    }

    pub(super) fn of(key: &MasterKeyId, outage: &Report) -> Self {
        Self { key: key.clone(), cause: outage.cause.clone(), retry_in: outage.retry_in }
    }

    pub(super) fn now(key: &MasterKeyId, health: &Health, cause: String) -> Self {
        let outage = health.outage(Instant::now());
        let retry_in = outage.map_or(Duration::ZERO, |outage| outage.retry_in);
        Self { key: key.clone(), cause, retry_in }
    }

    pub(super) fn overloaded(key: &MasterKeyId, what: &str) -> Self {
        Self { key: key.clone(), cause: what.to_owned(), retry_in: Duration::ZERO }
    }
}

/// Why a key was not opened or wrapped: what several callers who wait for the same key are told.
#[derive(Clone, Debug)]
pub(super) enum OpenError {
    DoesNotOpen,
    UnknownMasterKey(MasterKeyId),
    Unavailable(Unavailable),
}

impl From<Unavailable> for OpenError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl From<OpenError> for VaultError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::DoesNotOpen => Self::DoesNotOpen,
            OpenError::UnknownMasterKey(id) => Self::UnknownMasterKey(id),
            OpenError::Unavailable(unavailable) => Self::Unavailable(unavailable),
        }
    }
}

impl From<VaultError> for OpenError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::UnknownMasterKey(id) | VaultError::WrongMasterKey(id) => {
                Self::UnknownMasterKey(id)
            }
            VaultError::Unavailable(unavailable) => Self::Unavailable(unavailable),
            VaultError::DoesNotOpen | VaultError::NoRandomness | VaultError::Database(_) => {
                Self::DoesNotOpen
            }
        }
    }
}
