//! What a replica counts, registered in one place, so that a test can hold the list against the documents.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::database::Pools;
use crate::http::connection;
use crate::{audit, connections, dapi, http, oauth, relay, telemetry, upstreams};

/// The counters of every feature.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) callers: connection::Metrics,
    pub(super) http: http::metrics::Metrics,
    pub(super) dapi: dapi::Metrics,
    pub(super) connections: connections::Metrics,
    pub(super) upstreams: upstreams::Metrics,
    pub(super) relay: relay::Metrics,
    pub(super) oauth: oauth::Metrics,
    pub(super) audit: audit::Metrics,
}

/// Everything that `/metrics` shows, and the handles by which it is counted.
pub(super) fn register(pools: &Arc<Pools>) -> (Registry, Metrics) {
    let mut registry = Registry::with_prefix("strongroom");
    let metrics = Metrics {
        callers: connection::Metrics::register(&mut registry),
        http: http::metrics::Metrics::register(&mut registry),
        dapi: dapi::Metrics::register(&mut registry),
        connections: connections::Metrics::register(&mut registry),
        upstreams: upstreams::Metrics::register(&mut registry),
        relay: relay::Metrics::register(&mut registry),
        oauth: oauth::Metrics::register(&mut registry),
        audit: audit::Metrics::register(&mut registry),
    };
    telemetry::register(&mut registry);
    telemetry::register_pools(&mut registry, pools);
    (registry, metrics)
}

/// Every metric of a replica, with nothing counted yet. `/metrics` of a running service shows the same names.
#[must_use]
pub fn metrics_registry(pools: &Arc<Pools>) -> Registry {
    register(pools).0
}
