//! Rows that the background work defers because they failed or were locked: in memory, with waits that double. In
//! memory, because a row that cannot be written cannot be postponed in the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// The first and the longest wait.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Rows that are remembered; beyond that, the one whose wait ends first is forgotten.
const CAPACITY: usize = 4096;

/// The reconcilers, by the names under which their failures are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reconciler {
    /// Expires codes whose window closed.
    Expiries,
    /// Marks, throttles and finishes bulk revocations.
    BulkRevocations,
    /// Advances erasures.
    Erasures,
    /// Ends exchanges that will not be attempted again.
    Ends,
    /// Activates tokens that waited for an older link of their bank login to be delinked.
    HeldTokens,
    /// Claims and begins exchanges.
    Exchanges,
    /// Claims and begins delinkings.
    Delinks,
    /// Confirms institutions and accounts.
    Details,
    /// Replaces tokens that were revealed.
    Rotations,
    /// Applies Plaid's webhooks that came before their item was known.
    Webhooks,
    /// Deletes rows that have ended.
    Housekeeping,
}

impl Reconciler {
    /// All of them, to register their metrics.
    pub const ALL: [Self; 11] = [
        Self::Expiries,
        Self::BulkRevocations,
        Self::Erasures,
        Self::Ends,
        Self::HeldTokens,
        Self::Exchanges,
        Self::Delinks,
        Self::Details,
        Self::Rotations,
        Self::Webhooks,
        Self::Housekeeping,
    ];

    /// Returns the label of its metrics.
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
            Self::Details => "details",
            Self::Rotations => "rotations",
            Self::Webhooks => "webhooks",
            Self::Housekeeping => "housekeeping",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    until: Instant,
    wait: Duration,
}

/// The deferred rows of this process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Deferred(Arc<Mutex<HashMap<(Reconciler, Uuid), Entry>>>);

impl Deferred {
    /// Defers a row for twice as long as the last time. Returns for how long.
    pub fn defer(&self, reconciler: Reconciler, row: Uuid, now: Instant) -> Duration {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rows.get(&(reconciler, row)).map(|entry| entry.wait);
        let wait = before.map_or(WAITS.0, |wait| (wait * 2).min(WAITS.1));
        if rows.len() >= CAPACITY {
            let first = rows.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| *key);
            first.and_then(|key| rows.remove(&key));
        }
        rows.insert((reconciler, row), Entry { until: now + wait, wait });
        wait
    }

    /// Returns the rows that are deferred now. Forgets a row that has not failed again within its wait after its wait.
    pub fn rows(&self, reconciler: Reconciler, now: Instant) -> Vec<Uuid> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|_, entry| entry.until + entry.wait > now);
        let deferred =
            rows.iter().filter(|((of, _), entry)| *of == reconciler && entry.until > now);
        deferred.map(|((_, row), _)| *row).collect()
    }

    /// Forgets all rows, as if their waits were over.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the time until the next deferred row is tried again.
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
    fn a_row_that_fails_again_and_again_is_deferred_for_longer_and_longer() {
        let (deferred, row, mut now) = (Deferred::default(), Uuid::from_u128(7), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = deferred.defer(Reconciler::Delinks, row, now);
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
        assert_eq!(deferred.defer(Reconciler::Delinks, row, now), WAITS.0);
    }
}
