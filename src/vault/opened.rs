//! Data keys that were opened before rows are claimed that need them: a claim whose key cannot be opened would count as
//! an attempt.

use std::collections::HashMap;
use std::sync::Arc;

use super::keys::{DataKey, WrappedKey};
use super::{Vault, VaultError};
use crate::common::ids::DataKeyId;

/// Opened data keys.
#[derive(Debug, Default)]
pub struct OpenedKeys(HashMap<DataKeyId, (WrappedKey, Arc<DataKey>)>);

impl OpenedKeys {
    /// Adds a key.
    pub fn add(&mut self, wrapped: WrappedKey, key: Arc<DataKey>) {
        self.0.insert(wrapped.id, (wrapped, key));
    }

    /// Returns a key; opens it if it is not among these.
    ///
    /// # Errors
    /// As [`Vault::unwrap`].
    pub async fn of(
        &self,
        vault: &Vault,
        wrapped: &WrappedKey,
    ) -> Result<Arc<DataKey>, VaultError> {
        match self.0.get(&wrapped.id) {
            Some((known, key)) if known == wrapped => Ok(Arc::clone(key)),
            _ => vault.unwrap(wrapped).await,
        }
    }
}

impl Vault {
    /// Returns whether a master key is elsewhere, so that opening a data key may fail for a while.
    #[must_use]
    pub fn may_be_unavailable(&self) -> bool {
        self.0.masters.iter().any(|key| key.remote().is_some())
    }
}
