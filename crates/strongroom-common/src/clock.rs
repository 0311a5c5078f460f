//! The process's clock, which tests can advance.
//!
//! It determines the lifetime of Strongroom's own access tokens and the age of cached state. All times in
//! PostgreSQL (windows, leases, retries) follow the database's clock, the SQL function `strongroom_now()`, so
//! that replicas whose clocks differ agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

/// A clock that shows the system's time plus an offset. Clones share the offset.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_seconds: Arc<AtomicI64>,
}

impl Clock {
    /// Creates a clock without an offset.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns the time in UTC.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the ambient clock"
    )]
    pub fn now(&self) -> OffsetDateTime {
        let ahead = time::Duration::seconds(self.ahead_seconds.load(Ordering::Relaxed));
        OffsetDateTime::now_utc().saturating_add(ahead)
    }

    /// Returns the seconds since 1970, the `NumericDate` of RFC 7519 §2.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        self.now().unix_timestamp()
    }

    /// Returns a monotonic instant that follows the offset as well.
    #[must_use]
    pub fn instant(&self) -> Instant {
        let ahead = u64::try_from(self.ahead_seconds.load(Ordering::Relaxed)).unwrap_or(0);
        let now = Instant::now();
        now.checked_add(Duration::from_secs(ahead)).unwrap_or(now)
    }

    /// Advances this clock and all its clones. For tests.
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
