//! Metrics of upstreams. Their names are not labels: apps choose them.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::model::Failure;
use crate::http::metrics::LATENCY_BUCKETS;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The outcomes of a call; registered at the start, so that an alert has a zero to compare with.
const CALLS: [&str; 4] = ["answered", "failed", "timeout", "too_large"];

/// Metrics of upstreams. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    token_requests: Family<Outcome, Counter>,
    token_request_duration: Histogram,
    pub(super) acquired: Counter,
    pub(super) renewed: Counter,
    calls: Family<Outcome, Counter>,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self {
            token_requests: Family::default(),
            token_request_duration: Histogram::new(LATENCY_BUCKETS),
            acquired: Counter::default(),
            renewed: Counter::default(),
            calls: Family::default(),
        };
        let failures = Failure::ALL.map(Failure::as_str);
        for outcome in failures.into_iter().chain(["token"]) {
            drop(m.token_requests.get_or_create(&Outcome { outcome }));
        }
        for outcome in CALLS {
            drop(m.calls.get_or_create(&Outcome { outcome }));
        }
        let help = "Token requests to upstreams by what came of them";
        registry.register("upstream_token_requests", help, m.token_requests.clone());
        registry.register_with_unit(
            "upstream_token_request_duration",
            "Time from a token request to its answer",
            Unit::Seconds,
            m.token_request_duration.clone(),
        );
        let help = "Upstream tokens acquired, to callers and to calls";
        registry.register("upstream_tokens_lent", help, m.acquired.clone());
        let help = "Calls through upstreams whose token was refused and fetched anew";
        registry.register("upstream_tokens_renewed", help, m.renewed.clone());
        let help = "Calls through upstreams by what came of them";
        registry.register("upstream_calls", help, m.calls.clone());
        m
    }

    pub(super) fn token_request(&self, outcome: &'static str, took: Duration) {
        self.token_requests.get_or_create(&Outcome { outcome }).inc();
        self.token_request_duration.observe(took.as_secs_f64());
    }

    pub(super) fn call(&self, outcome: &'static str) {
        self.calls.get_or_create(&Outcome { outcome }).inc();
    }
}
