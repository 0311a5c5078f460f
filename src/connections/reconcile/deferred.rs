//! What the background work leaves alone for a while because it failed or was locked: kept in memory, by
//! row, with waits that double. A row that cannot be written cannot be put off in the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// The first wait, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How many rows are remembered; beyond that, those whose wait ends first are tried again first.
const REMEMBERED: usize = 4096;

/// The reconcilers, by the names under which their failures are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reconciler {
    /// Ends codes whose window closed.
    Expiries,
    /// Lets through what orders hold, and concludes orders.
    BulkRevocations,
    /// Concludes erasures.
    Erasures,
    /// Ends what no attempt will follow.
    Ends,
    /// Activates tokens that were held.
    HeldTokens,
    /// Takes exchanges up.
    Exchanges,
    /// Takes delinkings up.
    Delinks,
    /// Forgets what has ended.
    Housekeeping,
}

impl Reconciler {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Expiries,
        Self::BulkRevocations,
        Self::Erasures,
        Self::Ends,
        Self::HeldTokens,
        Self::Exchanges,
        Self::Delinks,
        Self::Housekeeping,
    ];

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expiries => "expiries",
            Self::BulkRevocations => "orders",
            Self::Erasures => "erasures",
            Self::Ends => "ends",
            Self::HeldTokens => "held_tokens",
            Self::Exchanges => "exchanges",
            Self::Delinks => "delinks",
            Self::Housekeeping => "housekeeping",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    until: Instant,
    wait: Duration,
}

/// Rows that are left alone. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Deferred(Arc<Mutex<HashMap<(Reconciler, Uuid), Entry>>>);

impl Deferred {
    /// Leaves a row alone for twice as long as the last time; returns for how long.
    pub fn leave(&self, reconciler: Reconciler, row: Uuid, now: Instant) -> Duration {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rows.get(&(reconciler, row)).map(|entry| entry.wait);
        let wait = before.map_or(WAITS.0, |wait| (wait * 2).min(WAITS.1));
        if rows.len() >= REMEMBERED {
            let first = rows.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| *key);
            first.and_then(|key| rows.remove(&key));
        }
        rows.insert((reconciler, row), Entry { until: now + wait, wait });
        wait
    }

    /// The rows that are left alone now. One that has not failed again within twice its wait is forgotten.
    pub fn rows(&self, reconciler: Reconciler, now: Instant) -> Vec<Uuid> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|_, entry| entry.until + entry.wait > now);
        let mine =
            rows.iter().filter(|((whose, _), entry)| *whose == reconciler && entry.until > now);
        mine.map(|((_, row), _)| *row).collect()
    }

    /// Leaves nothing alone any more, as if enough time had passed.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// In how long the first of them is tried again.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = rows.values().filter_map(|entry| entry.until.checked_duration_since(now));
        waits.filter(|wait| !wait.is_zero()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_fails_again_and_again_is_left_alone_for_longer_and_longer() {
        let (deferred, row, mut now) = (Deferred::default(), Uuid::from_u128(7), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = deferred.leave(Reconciler::Delinks, row, now);
            waits.push(wait.as_secs());
            assert_eq!(deferred.rows(Reconciler::Delinks, now), [row]);
            assert!(deferred.rows(Reconciler::Exchanges, now).is_empty());
            assert_eq!(deferred.next(now), Some(wait));
            now += wait;
            assert!(deferred.rows(Reconciler::Delinks, now).is_empty());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        now += Duration::from_mins(2);
        assert!(deferred.rows(Reconciler::Delinks, now).is_empty());
        assert_eq!(deferred.leave(Reconciler::Delinks, row, now), WAITS.0);
    }
}
