//! The metrics of a replica, registered in one place, so that a test can compare the list with the
//! documents.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::database::Pools;
use crate::http::connection;
use crate::{
    approvals, audit, connections, events, http, oauth, providers, relay, telemetry, upstreams,
    vault,
};

/// The handles of every feature's metrics.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) callers: connection::Metrics,
    pub(super) http: http::metrics::Metrics,
    pub(super) providers: providers::Metrics,
    pub(super) connections: connections::Metrics,
    pub(super) approvals: approvals::Metrics,
    pub(super) upstreams: upstreams::Metrics,
    pub(super) relay: relay::Metrics,
    pub(super) oauth: oauth::Metrics,
    pub(super) audit: audit::Metrics,
    pub(super) vault: vault::Metrics,
    pub(super) events: events::Metrics,
}

/// Registers every metric of `/metrics` and returns the handles.
pub(super) fn register(pools: &Arc<Pools>) -> (Registry, Metrics) {
    let mut registry = Registry::with_prefix("strongroom");
    let metrics = Metrics {
        callers: connection::Metrics::register(&mut registry),
        http: http::metrics::Metrics::register(&mut registry),
        providers: providers::Metrics::register(&mut registry),
        connections: connections::Metrics::register(&mut registry),
        approvals: approvals::Metrics::register(&mut registry),
        upstreams: upstreams::Metrics::register(&mut registry),
        relay: relay::Metrics::register(&mut registry),
        oauth: oauth::Metrics::register(&mut registry),
        audit: audit::Metrics::register(&mut registry),
        vault: vault::Metrics::register(&mut registry),
        events: events::Metrics::register(&mut registry),
    };
    telemetry::register(&mut registry);
    telemetry::register_pools(&mut registry, pools);
    (registry, metrics)
}

/// Returns every metric of a replica at zero. `/metrics` of a running service has the same names.
#[must_use]
pub fn metrics_registry(pools: &Arc<Pools>) -> Registry {
    register(pools).0
}
