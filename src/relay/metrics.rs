//! Metrics of the queue for tokens. Dapi's client counts the outcomes and durations of the calls.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

/// Values of the label `why`. All are registered at the start, so that an alert on a rate has a zero to compare with.
const TURNED_AWAY: [&str; 5] =
    ["queue_full", "waited_too_long", "gate", "not_active", "needs_attention"];
/// Upper bounds in seconds, up to the time limit of a slow call.
const BUCKETS: [f64; 10] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0];

/// The metrics of the queue. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    turned_away: Family<Why, Counter>,
    waits: Histogram,
    pub(super) waiting: Gauge,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self {
            turned_away: Family::default(),
            waits: Histogram::new(BUCKETS),
            waiting: Gauge::default(),
        };
        for why in TURNED_AWAY {
            drop(m.turned_away.get_or_create(&Why { why }));
        }
        let help = "Calls on connections' behalf that got no token lease";
        registry.register("relay_turned_away", help, m.turned_away.clone());
        registry.register_with_unit(
            "relay_queue_wait",
            "Time from a call's arrival to its token lease",
            Unit::Seconds,
            m.waits.clone(),
        );
        let help = "Calls that wait for their token's lease";
        registry.register("relay_waiting", help, m.waiting.clone());
        m
    }

    pub(super) fn turned_away(&self, why: &'static str) {
        self.turned_away.get_or_create(&Why { why }).inc();
    }

    pub(super) fn waited(&self, time: Duration) {
        self.waits.observe(time.as_secs_f64());
    }
}
