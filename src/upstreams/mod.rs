//! Upstreams: other APIs that an app reaches with OAuth 2.0 client credentials (RFC 6749 §4.4).
//!
//! Each has one access token, sealed in PostgreSQL and shared by all replicas. It is fetched by one
//! request for the whole fleet, a little before the old one ends; while the old one is valid it serves,
//! and after a failure nobody asks again for a while. A token can be read, or used without being seen
//! by a call through `proxy`.
//!
//! `model` holds the rules and does no I/O; `wire` reads token answers; `store` holds the SQL; `admin`,
//! `lend`, `fetch` and `proxy` are what happens; `routes` is HTTP in and out.
//!
//! Knows: base, vault, outbound, http, audit.

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

use crate::base::ids::{AppId, UpstreamId};
use crate::base::secret::secret_text;
use crate::database::Pool;
use crate::http::concurrency::ConcurrencyLimit;
use crate::outbound;
use crate::vault::{AadContext, Vault, VaultError};

secret_text!(
    /// The client secret by which an upstream knows this app.
    ClientSecret
);
secret_text!(
    /// An upstream's access token.
    UpstreamToken
);

/// Calls through upstreams under way at once in one replica, an app that is alone having half. Each holds a
/// request's body in memory.
pub const MAX_CALLS: usize = 512;

/// What the use cases work with. Every thread has a pool and a client of its own; the rest is shared.
#[derive(Clone, Debug)]
pub struct Context {
    /// PostgreSQL.
    pub pool: Pool,
    /// What seals and opens.
    pub vault: Vault,
    /// Calls to URLs that came in by API.
    pub outbound: outbound::Client,
    /// Token requests under way in this process, and who waits for them.
    pub single_flight: SingleFlight,
    /// Places for calls through upstreams.
    pub calls: ConcurrencyLimit,
    /// Work that no caller's disconnect ends; a shutdown waits for it.
    pub tasks: TaskTracker,
    /// What is counted.
    pub metrics: Metrics,
}

/// Why a use case could not be carried through.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The database.
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
