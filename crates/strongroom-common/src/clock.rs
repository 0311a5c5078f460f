//! The process's clock, which tests can turn.
//!
//! It decides about the life of Strongroom's own access tokens, and tells how long ago what is held in
//! memory was read. Everything that stands in PostgreSQL (windows, leases, retries) follows the
//! database's clock, the SQL function `strongroom_now()`, so that replicas whose clocks differ agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

/// A clock that shows the system's time, plus however much it was advanced.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_seconds: Arc<AtomicI64>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// The time now, in UTC.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the ambient clock"
    )]
    pub fn now(&self) -> OffsetDateTime {
        let ahead = time::Duration::seconds(self.ahead_seconds.load(Ordering::Relaxed));
        OffsetDateTime::now_utc().saturating_add(ahead)
    }

    /// Seconds since 1970, the `NumericDate` of RFC 7519 §2.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        self.now().unix_timestamp()
    }

    /// A moment for measuring how long ago something was; follows the turns of this clock.
    #[must_use]
    pub fn instant(&self) -> Instant {
        let ahead = u64::try_from(self.ahead_seconds.load(Ordering::Relaxed)).unwrap_or(0);
        let now = Instant::now();
        now.checked_add(Duration::from_secs(ahead)).unwrap_or(now)
    }

    /// Turns this clock, and every clone of it, forward. For tests.
    pub fn advance(&self, by: Duration) {
        let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        self.ahead_seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_turned_together_with_its_original() {
        let clock = Clock::system();
        let clone = clock.clone();
        let before = clone.unix_seconds();
        clock.advance(Duration::from_hours(1));
        assert!(clone.unix_seconds() >= before + 3600);
    }
}
