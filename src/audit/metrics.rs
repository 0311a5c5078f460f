//! Metrics of the hash chain.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of the chainer. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) linked: Counter,
    pub(super) waiting: Gauge,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let help = "Rows of the audit trail that this replica linked into their chain";
        registry.register("audit_linked", help, m.linked.clone());
        let help = "Rows of the audit trail that wait for their links";
        registry.register("audit_unlinked", help, m.waiting.clone());
        m
    }
}
