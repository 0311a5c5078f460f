//! Metrics of events and their deliveries. Neither apps nor URLs are labels: callers choose them.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::delivery::Outcome;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: &'static str,
}

/// The outcomes of an attempt; registered at the start, so that an alert has a zero to compare with.
const OUTCOMES: [&str; 3] = ["delivered", "refused", "unanswered"];
/// From a tenth of a second, which a delivery takes as a rule, to a minute.
const DELAYS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Metrics of the dispatcher and of deliveries. Clones share their counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) dispatched: Counter,
    pub(super) waiting: Gauge,
    pub(super) failures: Counter,
    pub(super) due: Gauge,
    deliveries: Family<Labels, Counter>,
    delay: Histogram,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self {
            dispatched: Counter::default(),
            waiting: Gauge::default(),
            failures: Counter::default(),
            due: Gauge::default(),
            deliveries: Family::default(),
            delay: Histogram::new(DELAYS),
        };
        for outcome in OUTCOMES {
            drop(m.deliveries.get_or_create(&Labels { outcome }));
        }
        let help = "Events that this replica gave their position";
        registry.register("events_dispatched", help, m.dispatched.clone());
        let help = "Events that are committed and have no position yet";
        registry.register("events_waiting", help, m.waiting.clone());
        let help = "Rounds of the dispatcher that failed for an app";
        registry.register("events_dispatch_failures", help, m.failures.clone());
        let help = "Deliveries that are to be made, those that wait for another attempt included";
        registry.register("webhook_deliveries_due", help, m.due.clone());
        let help = "Attempts to deliver an event by how they ended";
        registry.register("webhook_attempts", help, m.deliveries.clone());
        registry.register_with_unit(
            "webhook_delay",
            "Time from the commit of an event to the end of an attempt that delivered it",
            Unit::Seconds,
            m.delay.clone(),
        );
        m
    }

    /// Counts an attempt at an event that was committed `age` before it.
    pub(super) fn delivery(&self, outcome: &Outcome, age: Duration) {
        let label = match (outcome.is_success(), outcome.status) {
            (true, _) => "delivered",
            (false, Some(_)) => "refused",
            (false, None) => "unanswered",
        };
        self.deliveries.get_or_create(&Labels { outcome: label }).inc();
        if outcome.is_success() {
            self.delay.observe(age.as_secs_f64());
        }
    }
}
