//! Metrics of the requests that wait for a second person.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::model::{Kind, Waiting};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

/// What waits, by its kind. Clones share the gauges.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pending: Family<OfKind, Gauge>,
    oldest: Family<OfKind, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    /// Registers the metrics, with every kind at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register(
            "approvals_pending",
            "Requests that wait for a second person, by what is to be done",
            m.pending.clone(),
        );
        registry.register_with_unit(
            "approvals_pending_oldest",
            "Age of the oldest request that waits for a second person, by what is to be done",
            Unit::Seconds,
            m.oldest.clone(),
        );
        m.set(&[]);
        m
    }

    /// Shows what waits now; a kind of which nothing does is zero.
    pub fn set(&self, waiting: &[Waiting]) {
        for kind in Kind::ALL {
            let found = waiting.iter().find(|waiting| waiting.kind == kind);
            let label = OfKind { kind: kind.as_str() };
            self.pending.get_or_create(&label).set(found.map_or(0, |it| it.count));
            self.oldest.get_or_create(&label).set(found.map_or(0.0, |it| it.oldest));
        }
    }
}
