//! Connections: the main job.
//!
//! `model` holds the rules and does no I/O. Each use case has a folder with its statements in `store` and its
//! HTTP in `routes`: `exchange`, `import`, `reveal`, `rotation`, `revocation`, `bulk_revocation`, `erasure`, `attention`,
//! `query`, `webhooks`. `reconcile` carries on what did not end, and `retention` forgets what ended long ago. `bank_login` and `transitions` are what they share;
//! `shape` describes bodies for the `OpenAPI` document.
//!
//! May import: common, vault, providers, http, audit, approvals, apps, users; `erasure` alone oauth, which signs its receipts.

pub(crate) mod attention;
mod bank_login;
mod batches;
mod binding;
pub(crate) mod bulk_revocation;
mod claim;
mod deferred;
pub(crate) mod details;
mod effects;
pub(crate) mod erasure;
pub(crate) mod exchange;
pub(crate) mod import;
pub(crate) mod input;
mod isolation;
pub(crate) mod link_tokens;
mod metrics;
pub(crate) mod model;
mod opened_keys;
pub(crate) mod proxy_token;
pub(crate) mod query;
pub mod reconcile;
mod retention;
pub(crate) mod reveal;
pub(crate) mod revocation;
pub(crate) mod rotation;
mod shape;
mod sql;
mod superseded;
pub(crate) mod token_lease;
mod transitions;
pub(crate) mod webhooks;

pub use batches::Batches;
pub use deferred::Deferred;
pub(crate) use effects::Effects;
pub use metrics::Metrics;
pub use query::ChangeNotifier;
pub use reveal::{Budgets, LastUses};
pub use revocation::{end_dead_token, restore_predecessor};
pub use webhooks::Receiver as WebhookReceiver;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::approvals;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::config::{FourEyes, Pace};
use crate::database::{MaybeDatabase, Pool};
use crate::providers;
use crate::providers::{AccessToken, Provider};
use crate::vault::{AadContext, Binding, DataKey, Sealed, Vault, VaultError};

/// What the use cases work with. Every thread has a pool and a client of its own; the rest is shared.
#[derive(Clone, Debug)]
pub struct Context {
    /// PostgreSQL.
    pub pool: Pool,
    /// What all threads ask of it together.
    pub batches: Batches,
    /// What seals and opens.
    pub vault: Vault,
    /// The bank links.
    pub providers: providers::Client,
    /// What needs a second person.
    pub four_eyes: FourEyes,
    /// How long things wait.
    pub pace: Arc<Pace>,
    /// Calls to Dapi under way. No caller's disconnect ends them; a shutdown waits for them.
    pub tasks: TaskTracker,
    /// Tells waiting requests of what was concluded in this process.
    pub changes: ChangeNotifier,
    /// Readings whose time is to be written.
    pub uses: LastUses,
    /// Wakes the background work.
    pub wake: Arc<Notify>,
    /// What the background work leaves alone for a while.
    pub deferred: Deferred,
    /// What is counted.
    pub metrics: Metrics,
    /// What waits for a second person, as the metrics show it.
    pub approvals: approvals::Metrics,
}

impl Context {
    /// Runs a query in its batch: one statement and one commit for all callers that wait at this moment.
    ///
    /// # Errors
    /// The database's.
    async fn batch<Q: batches::Batched>(&self, query: Q) -> sqlx::Result<Q::Output> {
        self.batches.run(query).await
    }

    /// How long a lease on an exchange lives: the call's time limit and a little for the commit.
    fn exchange_lease(&self, provider: Provider) -> Duration {
        self.providers.settings(provider).exchange_timeout + LEASE_MARGIN
    }

    /// How long a lease on a delinking lives.
    fn delink_lease(&self, provider: Provider) -> Duration {
        self.providers.settings(provider).call_timeout + LEASE_MARGIN
    }

    /// The names of the providers at which an unanswered exchange is tried again.
    fn probing(&self) -> Vec<String> {
        let probes = |provider: &Provider| self.providers.settings(*provider).exchange_probe;
        let names = Provider::ALL.into_iter().filter(probes);
        names.map(|provider| provider.as_str().to_owned()).collect()
    }
}

const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// Why a use case could not be carried through.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// Others kept changing what this depends on.
    #[error("others kept changing what this depends on")]
    Contended,
}

impl MaybeDatabase for ConnectionError {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) | Self::Vault(VaultError::Database(error)) => Some(error),
            Self::Vault(_) | Self::Contended => None,
        }
    }
}

/// Where a connection's secrets are sealed for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionAad {
    pub app: AppId,
    pub user: UserId,
    pub id: ConnectionId,
}

impl ConnectionAad {
    fn code(self) -> AadContext {
        self.column("code")
    }

    fn access_token(self) -> AadContext {
        self.column("access_token")
    }

    fn user_secret(self) -> AadContext {
        self.column("user_secret")
    }

    /// Seals a token, bound unless an earlier release made the connection.
    fn seal_token(
        self,
        token: &AccessToken,
        key: &DataKey,
        binding: Option<&Binding>,
    ) -> Result<Sealed<AccessToken>, VaultError> {
        match binding {
            Some(binding) => Sealed::seal_bound(token, key, &self.access_token(), binding),
            None => Sealed::seal(token, key, &self.access_token()),
        }
    }

    fn column(self, column: &'static str) -> AadContext {
        let Self { app, user, id } = self;
        AadContext {
            table: "connections",
            column,
            app: Some(app),
            user: Some(user),
            row: id.uuid(),
        }
    }
}

/// A wait that doubles with every attempt, from `first` up to `longest`; longer where Dapi asked.
fn backoff(first: Duration, longest: Duration, attempts: i32, asked: Option<Duration>) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(20);
    let wait = first.saturating_mul(1 << doublings).min(longest);
    asked.map_or(wait, |asked| wait.max(asked.min(Duration::from_hours(1))))
}
