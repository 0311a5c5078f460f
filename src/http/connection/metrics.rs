//! What is counted about connections.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing was asked for.
    Idle,
    /// Nothing was asked for, and others wanted room.
    Crowded,
    /// A head did not come in time.
    SlowHead,
    /// An answer was not taken.
    Unread,
    /// A body came, or an answer was taken, slowly, and others wanted room.
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

/// Counters of connections. Clones count together.
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
