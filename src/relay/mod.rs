//! Calls to Dapi on a connection's behalf, with the token that the caller never sees; and Dapi's own
//! wire, for apps that use its SDKs.
//!
//! `paths` says what may be called; `body` reads what the caller sends; `queue` waits for the token's
//! turn; `call` makes the call in a task of its own, takes the answer's secrets out by `redact` and learns from
//! it by `verdict`;
//! `tokenless` is the one call without a token; `wire` speaks Dapi's shapes; `routes` is HTTP in and out. The turns themselves belong to `connections`,
//! whose delinkings take them too.
//!
//! Knows: base, vault, dapi, http, audit, apps, users, oauth, connections.

mod body;
mod call;
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

use std::time::Duration;

use crate::connections;
use crate::http::concurrency::ConcurrencyLimit;
use paths::DapiPath;

/// Calls that wait or are under way in one replica, an app that is alone having half. Each holds a request's
/// body in memory.
pub const MAX_CALLS: usize = 2048;

/// What the use cases work with. Every thread has connections of its own; the rest is shared.
#[derive(Clone, Debug)]
pub struct Context {
    /// Connections and everything that they work with.
    pub connections: connections::Context,
    /// Who waits in this process.
    pub line: Line,
    /// Places for calls that wait or are under way.
    pub limit: ConcurrencyLimit,
    /// What is counted.
    pub metrics: Metrics,
}

impl Context {
    /// How long a call may take, to the last byte of its answer.
    fn limit(&self, path: &DapiPath) -> Duration {
        let limit = self.connections.dapi.settings().call_timeout;
        if path.slow { limit * 2 } else { limit }
    }
}
