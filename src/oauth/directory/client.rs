//! The in-memory copy of a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::common::external_scopes::ExternalScopes;
use crate::common::ids::AppId;
use crate::common::scope::Scopes;
use crate::oauth::jws::KeySet;
use crate::oauth::model::{Registration, Workload};
use crate::oauth::store::{ClientRow, SecretRow};
use crate::vault::KeyedHash;

/// When something was last used, in Unix seconds, until that is written to the database; 0 for
/// none. Clones share the value, so that it survives a reload.
#[derive(Clone, Debug, Default)]
pub(super) struct LastUse(Arc<AtomicI64>);

impl LastUse {
    pub(super) fn mark(&self, now: i64) {
        self.0.fetch_max(now, Ordering::Relaxed);
    }

    /// Takes the time that is still to be written.
    pub(super) fn take(&self) -> Option<i64> {
        Some(self.0.swap(0, Ordering::Relaxed)).filter(|at| *at > 0)
    }
}

/// A client, with what decides about its requests.
#[derive(Debug)]
pub(in crate::oauth) struct Client {
    pub(in crate::oauth) id: Arc<str>,
    pub(in crate::oauth) app: AppId,
    pub(in crate::oauth) scopes: Scopes,
    pub(in crate::oauth) external_scopes: ExternalScopes,
    /// Scopes that each token request has to name.
    pub(in crate::oauth) required_scopes: Vec<String>,
    pub(in crate::oauth) token_lifetime: u32,
    pub(in crate::oauth) reveals_per_minute: Option<u32>,
    /// The keys that its assertions are verified with, if it presents any.
    pub(in crate::oauth) keys: Option<Keys>,
    /// The workload whose tokens its assertions are, if they are not its own.
    pub(in crate::oauth) workload: Option<Workload>,
    /// Whether each of its tokens is bound to a key.
    pub(in crate::oauth) dpop_bound: bool,
    pub(super) enabled: bool,
    pub(super) used: LastUse,
    pub(super) secrets: Vec<LiveSecret>,
}

/// Where the keys are that verify a client's assertions.
#[derive(Clone, Debug)]
pub(in crate::oauth) enum Keys {
    /// In the client's row.
    Inline(Arc<KeySet>),
    /// At a URL.
    At(Arc<str>),
    /// Where an OpenID Connect issuer of this name says that they are.
    OfIssuer(Arc<str>),
}

impl Keys {
    /// Finds the keys of a registration. Stored keys were validated when they were written; a set that this release
    /// does not accept verifies nothing.
    fn of(registration: &Registration) -> Option<Self> {
        if let Some(jwks) = &registration.jwks {
            return Some(Self::Inline(Arc::new(KeySet::registered(jwks).ok()?)));
        }
        if let Some(uri) = &registration.jwks_uri {
            return Some(Self::At(uri.as_str().into()));
        }
        let workload = registration.workload.as_ref()?;
        Some(Self::OfIssuer(workload.issuer.as_str().into()))
    }
}

#[derive(Debug)]
pub(super) struct LiveSecret {
    pub(super) id: Uuid,
    hash: Vec<u8>,
    ends: Option<Instant>,
    pub(super) used: LastUse,
}

impl LiveSecret {
    fn from_row(row: SecretRow, now: Instant, before: Option<&Client>) -> Self {
        let id = row.id.uuid();
        let same = before.and_then(|client| client.secrets.iter().find(|secret| secret.id == id));
        let ends = |left: f64| now + Duration::try_from_secs_f64(left).unwrap_or_default();
        let used = same.map(|secret| secret.used.clone()).unwrap_or_default();
        Self { id, hash: row.hash, ends: row.left.map(ends), used }
    }

    fn is_live(&self, now: Instant) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }
}

impl Client {
    /// Builds a client from its row; the pending uses of `before` carry over.
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
            keys: Keys::of(&row.registration),
            workload: row.registration.workload,
            dpop_bound: row.registration.dpop_bound,
            enabled: row.enabled,
            used: before.map(|client| client.used.clone()).unwrap_or_default(),
            secrets: row.secrets.into_iter().map(secret).collect(),
        }
    }

    /// Returns the live secret of this hash if the client is enabled. Compares with every secret,
    /// so that the time does not depend on which one matches.
    pub(super) fn live_secret(&self, hash: &KeyedHash, now: Instant) -> Option<&LiveSecret> {
        let mut found = None;
        for secret in &self.secrets {
            if hash.matches(&secret.hash) & secret.is_live(now) {
                found = Some(secret);
            }
        }
        found.filter(|_| self.enabled)
    }

    pub(in crate::oauth) fn mark(&self, now: i64) {
        self.used.mark(now);
    }
}

/// Compares the secret of an unknown client with nothing, so that it takes the time of a wrong
/// secret.
pub(super) fn compare_with_nothing(hash: &KeyedHash) -> bool {
    hash.matches(&[0; 32])
}
