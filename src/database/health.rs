//! Which connections of this process are suspect.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Fault, is_outage};

/// How long a statement on a suspect connection may take in all.
pub(super) const SUSPECT_WAIT: Duration = Duration::from_secs(2);

/// The health of a process's connections, shared by all its pools. Clones are the same.
///
/// A silence, a demotion or a failover rarely affects one connection only. Once one is detected, every
/// connection opened earlier is suspect: an idle one is closed at its next use, and a statement in flight on
/// one gets two seconds in all instead of its whole deadline.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<RwLock<CancellationToken>>);

impl Health {
    /// Returns the current generation for a new connection. The token is cancelled once it is suspect.
    pub(super) fn generation(&self) -> CancellationToken {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Draws the conclusions from an error on a connection of this generation. Returns whether the connection is
    /// broken.
    pub(super) fn observe(&self, error: &sqlx::Error, generation: &CancellationToken) -> bool {
        if Fault::is_contagious(error) {
            self.distrust(generation);
        }
        is_outage(error)
    }

    /// Makes connections of this and all earlier generations suspect, unless they already are.
    pub(super) fn distrust(&self, generation: &CancellationToken) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !generation.is_cancelled() {
            tracing::warn!("connections to PostgreSQL are suspect and will be replaced");
            // This cancels the current generation: earlier ones were cancelled before.
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
        // Another report about the old generation does not affect the new one.
        health.distrust(&old);
        assert!(!new.is_cancelled());
    }
}
