//! What one process knows about its connections to PostgreSQL: when they became suspect.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long a statement on a suspect connection may still take in all.
pub(super) const SUSPECT_WAIT: Duration = Duration::from_secs(2);

/// Shared by all pools of a process. Clones are the same.
///
/// A silence, a demotion or a failover seldom meets one connection alone. When one is found out, every
/// connection that was opened before counts as suspect: those that are idle are closed when their turn comes,
/// and a statement under way on one gets two seconds in all, not its whole deadline.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<RwLock<CancellationToken>>);

impl Health {
    /// The generation of a connection that is opened now; cancelled once it is suspect.
    pub(super) fn generation(&self) -> CancellationToken {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes every connection of this generation and of those before it suspect. Does nothing if they are.
    pub(super) fn distrust(&self, generation: &CancellationToken) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !generation.is_cancelled() {
            tracing::warn!("connections to PostgreSQL are suspect and will be replaced");
            // Whatever is cancelled here is the current generation: older ones were cancelled before.
            current.cancel();
            *current = CancellationToken::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_after_a_suspicion_is_not_suspect() {
        let health = Health::default();
        let old = health.generation();
        health.distrust(&old);
        let new = health.generation();
        assert!(old.is_cancelled() && !new.is_cancelled());
        // A second complaint about the old generation says nothing about the new one.
        health.distrust(&old);
        assert!(!new.is_cancelled());
    }
}
