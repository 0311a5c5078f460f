//! Calls to a provider on a connection's behalf, with a token that the caller never sees, and the providers' own wires for
//! apps that use their SDKs.
//!
//! A request passes `routes`, `paths` (the allow-list), `body`, `queue` (waits for the token's lease) and `call`, which
//! runs in its own task, takes secrets out of the answer (`redact`) and reads from it whether the token still works
//! (`verdict`). `tokenless` makes calls without a token, `link` begins links at Plaid, `wire` has the providers' formats.
//! The lease itself belongs to `connections`, whose delinkings acquire it too.
//!
//! May import: common, vault, providers, http, audit, apps, users, oauth, connections.

mod body;
mod call;
mod link;
mod metrics;
mod paths;
mod queue;
mod redact;
pub mod routes;
mod tokenless;
mod verdict;
mod wire;

pub use metrics::Metrics;
pub use queue::Line;

use std::sync::Arc;
use std::time::Duration;

use crate::connections;
use crate::http::concurrency::ConcurrencyLimit;
use paths::RelayPath;

/// Calls that may wait or be under way in one replica; a single app gets at most half. Each holds its request's body in
/// memory.
pub const MAX_CALLS: usize = 2048;

/// What calls work with. Each worker thread has its own database pool and client of Dapi in `connections`; the rest is
/// shared.
#[derive(Clone, Debug)]
pub struct Context {
    /// The context of the module `connections`.
    pub connections: connections::Context,
    /// The callers that wait in this process.
    pub line: Line,
    /// Bounds the calls that wait or are under way to [`MAX_CALLS`].
    pub limit: ConcurrencyLimit,
    /// The URL by which callers and providers know this service, without a trailing slash.
    pub public_url: Arc<str>,
    /// Metrics of the queue.
    pub metrics: Metrics,
}

impl Context {
    /// Returns the time limit of a call, to the last byte of its answer.
    fn limit(&self, path: &RelayPath) -> Duration {
        let limit = self.connections.providers.settings(path.provider).call_timeout;
        if path.slow { limit * 2 } else { limit }
    }
}
