//! What a replica does about its keys all the time: drop kept ones that were destroyed, changed or are old, and try
//! master keys that are elsewhere.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::data_key_rotation::{self, Scope};
use super::keys::MasterKeyId;
use super::master::MasterKey;
use super::{Vault, store};
use crate::database::Conn;

/// A master key that cannot be used.
#[derive(Clone, Debug)]
pub struct KeyOutage {
    /// The key's name.
    pub key: MasterKeyId,
    /// For how long.
    pub lasts: Duration,
    /// What its engine said, or that it said nothing.
    pub cause: String,
}

impl Vault {
    /// Drops the kept data keys that were destroyed or changed since the last time, and those whose time is over.
    ///
    /// # Errors
    /// The database's.
    pub async fn evict_changed(&self, conn: &mut Conn) -> sqlx::Result<()> {
        let inner = &self.0;
        let since = inner.changes.load(Ordering::Relaxed);
        let changes = store::changes_since(conn, since).await?;
        if changes.until < since {
            // Another database than before, restored from a backup.
            inner.cache.clear();
        }
        inner.cache.evict(&changes.keys, Instant::now());
        inner.changes.store(changes.until, Ordering::Relaxed);
        Ok(())
    }

    /// Drops the kept data keys whose time is over.
    pub fn sweep_kept(&self) {
        let kept = self.0.cache.sweep(Instant::now());
        self.0.masters.metrics().kept(kept);
    }

    /// Counts the data keys that rotate, for their gauge.
    ///
    /// # Errors
    /// The database's.
    pub async fn count_rotating(&self, conn: &mut Conn) -> sqlx::Result<()> {
        let rotating = data_key_rotation::count_rotating(conn, Scope::default()).await?;
        self.0.masters.metrics().rotating(rotating);
        Ok(())
    }

    /// Tries the master keys that are elsewhere and were not used for some seconds.
    pub async fn probe_masters(&self) {
        let remote = self.0.masters.iter().filter_map(MasterKey::remote);
        futures_util::future::join_all(remote.map(super::RemoteKey::probe_if_due)).await;
    }

    /// Returns the master keys that cannot be used now.
    #[must_use]
    pub fn outages(&self) -> Vec<KeyOutage> {
        let now = Instant::now();
        let remote = self.0.masters.iter().filter_map(MasterKey::remote);
        let outage = |key: &super::RemoteKey| {
            let outage = key.health().outage(now)?;
            let lasts = now.saturating_duration_since(outage.since);
            Some(KeyOutage { key: key.id().clone(), lasts, cause: outage.cause })
        };
        remote.filter_map(outage).collect()
    }

    /// Returns for how long opened data keys are kept.
    #[must_use]
    pub fn keeps_data_keys_for(&self) -> Duration {
        self.0.masters.keep_data_keys()
    }
}
