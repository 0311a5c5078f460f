//! Metrics of the vault.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::keys::MasterKeyId;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    key: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    key: String,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

/// Counters and gauges of the vault. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    available: Family<KeyLabels, Gauge>,
    calls: Family<CallLabels, Counter>,
    seconds: Arc<Histogram>,
    opened: Family<SourceLabels, Counter>,
    kept: Gauge,
    rotating: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let buckets = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];
        Self {
            available: Family::default(),
            calls: Family::default(),
            seconds: Arc::new(Histogram::new(buckets)),
            opened: Family::default(),
            kept: Gauge::default(),
            rotating: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register(
            "master_key_available",
            "Whether a master key that is elsewhere can be used, by key and kind",
            m.available.clone(),
        );
        registry.register(
            "master_key_calls",
            "Calls to the engines of master keys, by key, operation (open, wrap) and outcome (answered, failed)",
            m.calls.clone(),
        );
        registry.register_with_unit(
            "master_key_call_duration",
            "How long those calls took",
            Unit::Seconds,
            (*m.seconds).clone(),
        );
        registry.register(
            "data_keys_opened",
            "Data keys that were needed, by source: kept in memory, or opened by their master key",
            m.opened.clone(),
        );
        registry.register("data_keys_kept", "Opened data keys in memory", m.kept.clone());
        registry.register(
            "data_keys_rotating",
            "Data keys that are being rotated, or whose rotation was left",
            m.rotating.clone(),
        );
        for source in ["kept", "master_key"] {
            let _ = m.opened.get_or_create(&SourceLabels { source });
        }
        m
    }

    pub(super) fn opened(&self, source: &'static str) {
        self.opened.get_or_create(&SourceLabels { source }).inc();
    }

    pub(super) fn kept(&self, number: usize) {
        self.kept.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    pub(super) fn rotating(&self, number: i64) {
        self.rotating.set(number);
    }

    pub(super) fn available(&self, key: &MasterKeyId, kind: &'static str, available: bool) {
        let labels = KeyLabels { key: key.to_string(), kind };
        self.available.get_or_create(&labels).set(available.into());
    }

    /// Returns the metrics of one key, with its series at zero.
    pub(super) fn of_key(&self, key: &MasterKeyId, kind: &'static str) -> KeyMetrics {
        for operation in ["open", "wrap"] {
            for outcome in ["answered", "failed"] {
                let labels = CallLabels { key: key.to_string(), operation, outcome };
                let _ = self.calls.get_or_create(&labels);
            }
        }
        KeyMetrics { all: self.clone(), key: key.clone(), kind }
    }
}

/// The metrics of one key.
#[derive(Debug)]
pub(super) struct KeyMetrics {
    all: Metrics,
    key: MasterKeyId,
    kind: &'static str,
}

impl KeyMetrics {
    pub(super) fn call(&self, operation: &'static str, answered: bool, took: Duration) {
        let outcome = if answered { "answered" } else { "failed" };
        let labels = CallLabels { key: self.key.to_string(), operation, outcome };
        self.all.calls.get_or_create(&labels).inc();
        self.all.seconds.observe(took.as_secs_f64());
        self.all.available(&self.key, self.kind, answered);
    }
}
