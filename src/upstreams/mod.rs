//! Upstreams: other APIs that an app reaches with OAuth 2.0 client credentials (RFC 6749 §4.4).
//!
//! Each has one access token, sealed in PostgreSQL and shared by all replicas. One request for the
//! whole fleet fetches it, a little before the old one expires, which serves until then; after a
//! failure no replica asks again for a while. A caller can read the token, or use it unseen in a
//! call through `proxy`.
//!
//! `model` holds the rules and does no I/O; `wire` reads token responses; `store` holds the SQL;
//! `admin`, `acquire`, `fetch` and `proxy` are the use cases; `routes` is HTTP.
//!
//! May import: common, vault, outbound, http, audit.

mod acquire;
pub mod admin;
mod fetch;
mod headers;
mod metrics;
pub mod model;
mod path;
mod proxy;
pub mod routes;
mod single_flight;
pub mod store;
mod wire;

pub use metrics::Metrics;
pub use single_flight::SingleFlight;

use tokio_util::task::TaskTracker;

use crate::common::ids::{AppId, UpstreamId};
use crate::common::secret::secret_text;
use crate::database::Pool;
use crate::http::concurrency::ConcurrencyLimit;
use crate::outbound;
use crate::vault::{AadContext, Vault, VaultError};

secret_text!(
    /// The client secret with which this app authenticates to an upstream.
    ClientSecret
);
secret_text!(
    /// An upstream's access token.
    UpstreamToken
);

/// Concurrent calls through upstreams in one replica, of which a single app gets half. Each holds a
/// request's body in memory.
pub const MAX_CALLS: usize = 512;

/// What the use cases work with. Each thread has its own pool and client; the rest is shared.
#[derive(Clone, Debug)]
pub struct Context {
    /// The thread's pool.
    pub pool: Pool,
    /// Opens client secrets, seals tokens.
    pub vault: Vault,
    /// The client for URLs that callers configured.
    pub outbound: outbound::Client,
    /// Token requests in flight in this process.
    pub single_flight: SingleFlight,
    /// The limit on concurrent calls.
    pub calls: ConcurrencyLimit,
    /// Work that outlives its caller's connection; a shutdown waits for it.
    pub tasks: TaskTracker,
    /// The metrics of upstreams.
    pub metrics: Metrics,
}

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

fn secret_aad(app: AppId, id: UpstreamId) -> AadContext {
    aad(app, id, "client_secret")
}

fn token_aad(app: AppId, id: UpstreamId) -> AadContext {
    aad(app, id, "access_token")
}

fn aad(app: AppId, id: UpstreamId, column: &'static str) -> AadContext {
    AadContext { table: "upstreams", column, app: Some(app), user: None, row: id.uuid() }
}
