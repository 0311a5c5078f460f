//! The gate before Dapi: so many calls at once, and none while Dapi asked to be left alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest that one `Retry-After` closes the gate: a mistake of Dapi's must not stop everything.
const LONGEST_HOLD: Duration = Duration::from_mins(1);

/// Lets calls through. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    turned_away: Arc<AtomicBool>,
    closed_until: Arc<Mutex<Option<Instant>>>,
}

/// Leave to make one call; the place is free again when it is dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// No call may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// When to ask again, as far as that is known.
    pub retry_after: Duration,
}

impl Gate {
    /// A gate for `at_once` calls at a time.
    #[must_use]
    pub fn new(at_once: u32) -> Self {
        let at_once = usize::try_from(at_once).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS))),
            turned_away: Arc::default(),
            closed_until: Arc::default(),
        }
    }

    /// Leave for one call, or when to ask again. Never waits: what cannot be called now is safe in
    /// the database and its turn comes.
    pub fn try_enter(&self) -> Result<Permit, Busy> {
        if let Some(retry_after) = self.closed_for() {
            return Err(Busy { retry_after });
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map(Permit).map_err(|_| {
            self.turned_away.store(true, Ordering::Relaxed);
            Busy { retry_after: Duration::from_secs(1) }
        })
    }

    /// Whether somebody was turned away for want of a place since this was last asked. Whoever gives
    /// a place back asks, and lets the background work know.
    #[must_use]
    pub fn turned_away(&self) -> bool {
        self.turned_away.load(Ordering::Relaxed) && self.turned_away.swap(false, Ordering::Relaxed)
    }

    /// Lets nobody through any more: the process is about to end.
    pub fn close(&self) {
        self.permits.close();
    }

    /// Whether nobody is let through any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }

    /// How many calls could be made now.
    #[must_use]
    pub fn free(&self) -> usize {
        if self.closed_for().is_some() || self.permits.is_closed() {
            0
        } else {
            self.permits.available_permits()
        }
    }

    fn closed_for(&self) -> Option<Duration> {
        let until = *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Closes the gate for as long as Dapi asked.
    pub(super) fn hold(&self, wish: Duration) {
        let until = Instant::now() + wish.min(LONGEST_HOLD);
        let mut closed_until = self.closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        *closed_until = Some(closed_until.map_or(until, |before| before.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_calls_pass_than_the_gate_is_wide() {
        let gate = Gate::new(2);
        let (one, two) = (gate.try_enter(), gate.try_enter());
        assert!(one.is_ok() && two.is_ok() && gate.try_enter().is_err());
        assert_eq!(gate.free(), 0);
        assert!(gate.turned_away() && !gate.turned_away());
        drop(one);
        assert_eq!(gate.free(), 1);
        assert!(gate.clone().try_enter().is_ok());
    }

    #[test]
    fn the_gate_stays_closed_while_dapi_asked_for_it_but_never_long() {
        let gate = Gate::new(2);
        gate.hold(Duration::from_hours(2));
        let busy = gate.try_enter().unwrap_err();
        assert!(busy.retry_after <= LONGEST_HOLD && busy.retry_after > Duration::from_secs(50));
        assert_eq!(gate.free(), 0);
        gate.hold(Duration::ZERO);
        assert!(gate.try_enter().is_err());
    }
}
