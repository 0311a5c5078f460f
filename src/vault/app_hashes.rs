//! The keys for the keyed hashes of apps that were moved here: what the deployment that they come from has hashed, client
//! secrets and the codes that were used, is known again here.
//!
//! They are opened at the start and with each change of the directory, like the service's own, and stay in memory.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::keys::{HashKey, KeyOwner, WrappedKey};
use super::master::MasterKeys;
use super::{Vault, VaultError, store};
use crate::common::ids::{AppId, DataKeyId};
use crate::database::Conn;

/// The hash keys of one app, each with the id of its row.
#[derive(Clone, Debug)]
struct Own {
    codes: (DataKeyId, Arc<HashKey>),
    secrets: (DataKeyId, Arc<HashKey>),
}

/// The hash keys of all apps that have their own.
#[derive(Debug, Default)]
pub(super) struct AppHashes(RwLock<HashMap<AppId, Own>>);

impl AppHashes {
    /// Opens those that are not known yet, and forgets those that are gone. Returns the apps of which one does not open now: nobody
    /// is to act for them here, and it is tried again.
    pub(super) async fn load(
        &self,
        conn: &mut Conn,
        masters: &MasterKeys,
    ) -> Result<Vec<AppId>, VaultError> {
        let rows = store::app_hash_keys(conn).await?;
        let mut unusable = Vec::new();
        let before = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found: HashMap<AppId, (Option<_>, Option<_>)> = HashMap::new();
        for row in rows {
            let Some(app) = row.owner.app() else { continue };
            let known = before.get(&app).into_iter().flat_map(|own| [&own.codes, &own.secrets]);
            let known =
                known.filter(|(id, _)| *id == row.id).map(|(_, key)| Arc::clone(key)).next();
            let key = match known {
                Some(key) => key,
                None => match open(masters, &row).await {
                    Ok(key) => Arc::new(key),
                    Err(error) => {
                        tracing::warn!(%app, cause = %error, "the app's hash keys cannot be opened");
                        unusable.push(app);
                        continue;
                    }
                },
            };
            let entry = found.entry(app).or_default();
            match row.owner {
                KeyOwner::AppCodeHash(_) => entry.0 = Some((row.id, key)),
                _ => entry.1 = Some((row.id, key)),
            }
        }
        let own = |(app, keys): (AppId, (Option<_>, Option<_>))| {
            let (codes, secrets) = keys.0.zip(keys.1)?;
            Some((app, Own { codes, secrets }))
        };
        let found = found.into_iter().filter_map(own).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(unusable)
    }

    fn of(&self, app: AppId) -> Option<Own> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&app).cloned()
    }
}

async fn open(masters: &MasterKeys, key: &WrappedKey) -> Result<HashKey, VaultError> {
    let bytes = masters.named(&key.master_key_id)?.open(key).await?;
    Ok(HashKey::new(&bytes))
}

impl Vault {
    /// Returns the key that hashes the access codes of an app.
    #[must_use]
    pub fn code_hashes_of(&self, app: AppId) -> Arc<HashKey> {
        let own = self.0.app_hashes.of(app).map(|own| own.codes.1);
        own.unwrap_or_else(|| Arc::clone(&self.0.codes))
    }

    /// Returns the key that hashes an app's client secrets, and whatever else of it is looked up by a hash.
    #[must_use]
    pub fn secret_hashes_of(&self, app: AppId) -> Arc<HashKey> {
        let own = self.0.app_hashes.of(app).map(|own| own.secrets.1);
        own.unwrap_or_else(|| Arc::clone(&self.0.secrets))
    }

    /// Reads which apps have hash keys of their own. Returns those whose keys cannot be opened now.
    ///
    /// # Errors
    /// The database's.
    pub async fn load_app_hashes(&self, conn: &mut Conn) -> Result<Vec<AppId>, VaultError> {
        self.0.app_hashes.load(conn, self.masters()).await
    }
}
