//! Metrics of clients and their tokens.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of the OAuth endpoints. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) tokens_issued: Counter,
    pub(super) tokens_revoked: Counter,
    pub(super) wrong_credentials: Counter,
    pub(super) failed_logins_refused: Counter,
    pub(super) key_look_ups: Counter,
    pub(super) key_look_ups_failed: Counter,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("oauth_tokens_issued", "Access tokens issued", m.tokens_issued.clone());
        registry.register(
            "oauth_tokens_revoked",
            "Access tokens revoked by their clients before they ended",
            m.tokens_revoked.clone(),
        );
        registry.register(
            "oauth_wrong_credentials",
            "Requests with an unknown client, a wrong secret or a wrong assertion",
            m.wrong_credentials.clone(),
        );
        registry.register(
            "oauth_guesses_refused",
            "Those among them that were refused with a wait",
            m.failed_logins_refused.clone(),
        );
        registry.register(
            "oauth_key_look_ups",
            "Look-ups of the keys of clients and of workloads' issuers",
            m.key_look_ups.clone(),
        );
        registry.register(
            "oauth_key_look_ups_failed",
            "Those among them that brought no keys",
            m.key_look_ups_failed.clone(),
        );
        m
    }
}
