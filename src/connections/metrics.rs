//! The metrics of connections.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::connections::deferred::Reconciler;
use crate::connections::effects::RevocationEnd;
use crate::connections::exchange::outcome::ExchangeEnd;
use crate::connections::reconcile::store::Backlog;
use crate::connections::{rotation, webhooks};
use crate::http::metrics::LATENCY_BUCKETS;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailedReconciler {
    reconciler: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// The metrics of connections. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    exchanges: Family<Outcome, Counter>,
    exchange_duration: Histogram,
    revocations: Family<Outcome, Counter>,
    webhooks: Family<Outcome, Counter>,
    rotations: Family<Outcome, Counter>,
    pub(crate) tokens_dropped: Counter,
    pub(crate) answers_waiting: Gauge,
    pub(crate) answers_lost: Counter,
    pub(crate) codes_expired: Counter,
    pub(crate) rounds: Counter,
    pub(crate) rounds_failed: Counter,
    reconciler_failures: Family<FailedReconciler, Counter>,
    overdue: Seconds,
    pub(crate) reveals: Counter,
    pub(crate) reveals_refused: Counter,
    pending: Gauge,
    oldest_pending: Seconds,
    revoking: Gauge,
    oldest_revoking: Seconds,
    needing_attention: Gauge,
}

impl Metrics {
    /// Registers the metrics, with every value of their labels.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self {
            exchanges: Family::default(),
            exchange_duration: Histogram::new(LATENCY_BUCKETS),
            revocations: Family::default(),
            webhooks: Family::default(),
            rotations: Family::default(),
            tokens_dropped: Counter::default(),
            answers_waiting: Gauge::default(),
            answers_lost: Counter::default(),
            codes_expired: Counter::default(),
            rounds: Counter::default(),
            rounds_failed: Counter::default(),
            reconciler_failures: Family::default(),
            overdue: Seconds::default(),
            reveals: Counter::default(),
            reveals_refused: Counter::default(),
            pending: Gauge::default(),
            oldest_pending: Seconds::default(),
            revoking: Gauge::default(),
            oldest_revoking: Seconds::default(),
            needing_attention: Gauge::default(),
        };
        m.create_labels();
        m.register_outcomes(registry);
        m.register_rounds(registry);
        m.register_webhooks(registry);
        m.register_reveals(registry);
        m.register_backlog(registry);
        m
    }

    /// Creates every value from the start, so that an alert can compare with a zero.
    fn create_labels(&self) {
        for outcome in ExchangeEnd::ALL.map(ExchangeEnd::as_str) {
            drop(self.exchanges.get_or_create(&Outcome { outcome }));
        }
        for outcome in RevocationEnd::ALL.map(RevocationEnd::as_str) {
            drop(self.revocations.get_or_create(&Outcome { outcome }));
        }
        for outcome in webhooks::Outcome::ALL.map(webhooks::Outcome::as_str) {
            drop(self.webhooks.get_or_create(&Outcome { outcome }));
        }
        for outcome in rotation::Outcome::ALL.map(rotation::Outcome::as_str) {
            drop(self.rotations.get_or_create(&Outcome { outcome }));
        }
        for reconciler in Reconciler::ALL {
            let reconciler = reconciler.as_str();
            drop(self.reconciler_failures.get_or_create(&FailedReconciler { reconciler }));
        }
    }

    fn register_outcomes(&self, registry: &mut Registry) {
        registry.register(
            "exchanges",
            "Exchange attempts by what came of them",
            self.exchanges.clone(),
        );
        registry.register_with_unit(
            "exchange_duration",
            "Time from taking up an exchange to its committed outcome",
            Unit::Seconds,
            self.exchange_duration.clone(),
        );
        registry.register("revocations", "Revocations by how they ended", self.revocations.clone());
        registry.register(
            "tokens_dropped",
            "Tokens that Dapi minted and that no connection could take: live there, unknown here",
            self.tokens_dropped.clone(),
        );
        registry.register(
            "exchange_answers_waiting",
            "Answers of Dapi held in memory because the database does not take them",
            self.answers_waiting.clone(),
        );
        registry.register(
            "exchange_answers_lost",
            "Answers of Dapi that the database did not take in time",
            self.answers_lost.clone(),
        );
        registry.register(
            "codes_swept",
            "Codes that ended because their window closed",
            self.codes_expired.clone(),
        );
    }

    fn register_webhooks(&self, registry: &mut Registry) {
        registry.register(
            "plaid_webhooks",
            "Webhooks at Plaid's address by what became of them",
            self.webhooks.clone(),
        );
    }

    fn register_reveals(&self, registry: &mut Registry) {
        registry.register(
            "token_rotations",
            "Attempts to replace a token that was revealed, by what became of them",
            self.rotations.clone(),
        );
        registry.register("token_reveals", "Tokens read in the clear", self.reveals.clone());
        registry.register(
            "token_reveals_refused",
            "Readings refused because the client's budget for the minute was spent",
            self.reveals_refused.clone(),
        );
    }

    fn register_backlog(&self, registry: &mut Registry) {
        registry.register("connections_pending", "Connections in `pending`", self.pending.clone());
        registry.register_with_unit(
            "connections_pending_oldest",
            "Age of the oldest connection in `pending`",
            Unit::Seconds,
            self.oldest_pending.clone(),
        );
        registry.register(
            "connections_revoking",
            "Connections in `revoking`: revoked here, perhaps still live at Dapi",
            self.revoking.clone(),
        );
        registry.register_with_unit(
            "connections_revoking_oldest",
            "Age of the oldest revocation that Dapi has not confirmed",
            Unit::Seconds,
            self.oldest_revoking.clone(),
        );
        registry.register(
            "connections_needing_attention",
            "Active connections with which no call is made until the user links the login again",
            self.needing_attention.clone(),
        );
    }

    fn register_rounds(&self, registry: &mut Registry) {
        registry.register(
            "background_rounds",
            "Rounds of the background work",
            self.rounds.clone(),
        );
        registry.register(
            "background_rounds_failed",
            "Rounds of the background work that failed",
            self.rounds_failed.clone(),
        );
        registry.register(
            "reconciler_failures",
            "Rows and passes of the background work that failed and are tried again later",
            self.reconciler_failures.clone(),
        );
        registry.register_with_unit(
            "background_overdue",
            "For how long the oldest of what is due has been due",
            Unit::Seconds,
            self.overdue.clone(),
        );
    }

    pub(crate) fn exchange(&self, end: ExchangeEnd, took: std::time::Duration) {
        self.exchanges.get_or_create(&Outcome { outcome: end.as_str() }).inc();
        self.exchange_duration.observe(took.as_secs_f64());
    }

    pub(crate) fn rotation(&self, outcome: rotation::Outcome) {
        self.rotations.get_or_create(&Outcome { outcome: outcome.as_str() }).inc();
    }

    pub(crate) fn webhook(&self, outcome: webhooks::Outcome) {
        self.webhooks.get_or_create(&Outcome { outcome: outcome.as_str() }).inc();
    }

    pub(crate) fn revocation(&self, end: RevocationEnd) {
        self.revocations(end, 1);
    }

    /// Counts `count` revocations that ended in one transaction.
    pub(crate) fn revocations(&self, end: RevocationEnd, count: i64) {
        let count = u64::try_from(count).unwrap_or(0);
        self.revocations.get_or_create(&Outcome { outcome: end.as_str() }).inc_by(count);
    }

    pub(crate) fn reconciler_failed(&self, reconciler: Reconciler) {
        let reconciler = reconciler.as_str();
        self.reconciler_failures.get_or_create(&FailedReconciler { reconciler }).inc();
    }

    /// Sets for how long the oldest row has been due. Returns `true` only when that first reaches `limit`, so that it
    /// is logged once.
    #[must_use]
    pub fn overdue(&self, oldest: std::time::Duration, limit: std::time::Duration) -> bool {
        let before = self.overdue.set(oldest.as_secs_f64());
        before < limit.as_secs_f64() && oldest >= limit
    }

    pub(crate) fn backlog(&self, backlog: &Backlog) {
        self.pending.set(backlog.pending.0);
        self.oldest_pending.set(backlog.pending.1);
        self.revoking.set(backlog.revoking.0);
        self.oldest_revoking.set(backlog.revoking.1);
        self.needing_attention.set(backlog.needing_attention);
    }
}
