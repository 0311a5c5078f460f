//! Metrics of connections.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why the guard ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// No request arrived in time.
    Idle,
    /// It was idle while others needed capacity.
    Crowded,
    /// A head did not arrive in time.
    SlowHead,
    /// A response was not read.
    Unread,
    /// A body arrived, or a response was read, too slowly while others needed capacity.
    Slow,
}

impl Why {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Crowded => "crowded",
            Self::SlowHead => "slow_head",
            Self::Unread => "unread",
            Self::Slow => "slow",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    why: &'static str,
}

/// Metrics of connections. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) open: Gauge,
    ended: Family<Labels, Counter>,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("http_connections_open", "Callers' connections", metrics.open.clone());
        let help = "Callers' connections that were ended, by reason";
        registry.register("http_connections_ended", help, metrics.ended.clone());
        metrics
    }

    pub(super) fn ended(&self, why: Why) {
        self.ended.get_or_create(&Labels { why: why.as_str() }).inc();
    }
}
