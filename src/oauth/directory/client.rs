//! A client in memory: what decides about its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::base::external_scopes::ExternalScopes;
use crate::base::ids::AppId;
use crate::base::scope::Scopes;
use crate::oauth::store::{ClientRow, SecretRow};
use crate::vault::KeyedHash;

/// When something was last used, in seconds since 1970, as far as that is not written down yet.
/// Clones share it, so that it survives a reload of what it belongs to.
#[derive(Clone, Debug, Default)]
pub(super) struct Used(Arc<AtomicI64>);

impl Used {
    pub(super) fn mark(&self, now: i64) {
        self.0.fetch_max(now, Ordering::Relaxed);
    }

    /// When, if not written down yet; from now on it counts as written.
    pub(super) fn take(&self) -> Option<i64> {
        Some(self.0.swap(0, Ordering::Relaxed)).filter(|at| *at > 0)
    }
}

/// A client as requests are decided by it.
#[derive(Debug)]
pub(in crate::oauth) struct Client {
    pub(in crate::oauth) id: Arc<str>,
    pub(in crate::oauth) app: AppId,
    pub(in crate::oauth) scopes: Scopes,
    /// Scopes of other APIs.
    pub(in crate::oauth) external_scopes: ExternalScopes,
    /// Scopes that a token request has to name.
    pub(in crate::oauth) required_scopes: Vec<String>,
    pub(in crate::oauth) token_lifetime: u32,
    pub(in crate::oauth) reveals_per_minute: Option<u32>,
    pub(super) enabled: bool,
    pub(super) used: Used,
    pub(super) secrets: Vec<LiveSecret>,
}

#[derive(Debug)]
pub(super) struct LiveSecret {
    pub(super) id: Uuid,
    hash: Vec<u8>,
    ends: Option<Instant>,
    pub(super) used: Used,
}

impl LiveSecret {
    fn from_row(row: SecretRow, now: Instant, before: Option<&Client>) -> Self {
        let id = row.id.uuid();
        let same = before.and_then(|client| client.secrets.iter().find(|secret| secret.id == id));
        let ends = |left: f64| now + Duration::try_from_secs_f64(left).unwrap_or_default();
        let used = same.map(|secret| secret.used.clone()).unwrap_or_default();
        Self { id, hash: row.hash, ends: row.left.map(ends), used }
    }

    fn lives(&self, now: Instant) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }
}

impl Client {
    /// The client that a row tells of; what `before` knew of its use goes on.
    pub(super) fn from_row(row: ClientRow, now: Instant, before: Option<&Self>) -> Self {
        let secret = |row| LiveSecret::from_row(row, now, before);
        Self {
            id: row.id.into(),
            app: row.app,
            scopes: row.scopes,
            external_scopes: row.external_scopes,
            required_scopes: row.required_scopes,
            token_lifetime: row.token_lifetime,
            reveals_per_minute: row.reveals_per_minute,
            enabled: row.enabled,
            used: before.map(|client| client.used.clone()).unwrap_or_default(),
            secrets: row.secrets.into_iter().map(secret).collect(),
        }
    }

    /// Whether the secret of this hash lets the client in. Every secret is looked at, whichever fits,
    /// so that the time tells nothing.
    pub(super) fn lets_in(&self, hash: &KeyedHash, now: Instant) -> Option<&LiveSecret> {
        let mut found = None;
        for secret in &self.secrets {
            if hash.matches(&secret.hash) & secret.lives(now) {
                found = Some(secret);
            }
        }
        found.filter(|_| self.enabled)
    }

    /// Notes that the client was heard of.
    pub(super) fn mark(&self, now: i64) {
        self.used.mark(now);
    }
}

/// What the secret of an unknown client is held against, so that it costs what a wrong one does.
pub(super) fn held_against_nobody(hash: &KeyedHash) -> bool {
    hash.matches(&[0; 32])
}
