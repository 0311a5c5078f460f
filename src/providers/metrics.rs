//! Metrics of calls to providers.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Provider;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    call: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: &'static str,
}

/// Every outcome of each call, registered at the start, so that an alert has a zero to compare with.
const OUTCOMES: &[(&str, &[&str])] = &[
    ("exchange", &["token", "refused", "unsettled", "not_sent"]),
    ("delink", &["delinked", "already_gone", "failed"]),
    ("call", &["answered", "unusable", "too_large", "timeout", "unreachable", "failed"]),
];

/// Upper bounds of the latency buckets in seconds, up to Dapi's own time limit.
const BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 120.0];

/// Metrics of calls to providers. Clones share their counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    dapi: Calls,
    plaid: Calls,
}

#[derive(Clone, Debug)]
struct Calls {
    calls: Family<Labels, Counter>,
    latency: Family<Call, Histogram, fn() -> Histogram>,
}

impl Calls {
    fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let calls =
            Self { calls: Family::default(), latency: Family::new_with_constructor(histogram) };
        for (call, outcomes) in OUTCOMES {
            for outcome in *outcomes {
                drop(calls.calls.get_or_create(&Labels { call, outcome }));
            }
        }
        calls
    }
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let (dapi, plaid) = (Calls::new(), Calls::new());
        registry.register("dapi_calls", "Calls to Dapi by outcome", dapi.calls.clone());
        let help = "Time from a call to Dapi to its answer";
        registry.register("dapi_call_duration_seconds", help, dapi.latency.clone());
        registry.register("plaid_calls", "Calls to Plaid by outcome", plaid.calls.clone());
        let help = "Time from a call to Plaid to its answer";
        registry.register("plaid_call_duration_seconds", help, plaid.latency.clone());
        Self { dapi, plaid }
    }

    pub(super) fn count(
        &self,
        provider: Provider,
        call: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        let calls = match provider {
            Provider::Dapi => &self.dapi,
            Provider::Plaid => &self.plaid,
        };
        calls.calls.get_or_create(&Labels { call, outcome }).inc();
        calls.latency.get_or_create(&Call { call }).observe(took.as_secs_f64());
    }
}
