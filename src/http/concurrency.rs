//! A limit on concurrent calls, shared fairly by the apps.
//!
//! An app may hold as many permits as are still free (dynamic thresholds: Choudhury and Hahne,
//! 1998): a single app gets half of them, and however many the others hold, an app that arrives
//! finds some.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::problem::{Problem, ProblemCode};
use crate::common::ids::AppId;

/// The limit on one kind of call in one replica. Clones share it.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    capacity: usize,
    in_use: Mutex<HashMap<AppId, usize>>,
}

impl ConcurrencyLimit {
    /// Returns a limit of `capacity` permits, of which a single app gets half.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Inner { capacity, in_use: Mutex::default() }))
    }

    fn in_use(&self) -> MutexGuard<'_, HashMap<AppId, usize>> {
        self.0.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit for a call of this app.
    ///
    /// # Errors
    /// 503 if the app holds as many as it may.
    pub fn take(&self, app: AppId) -> Result<ConcurrencyPermit, Problem> {
        let mut in_use = self.in_use();
        let left = self.0.capacity.saturating_sub(in_use.values().sum());
        let own = in_use.entry(app).or_default();
        if *own >= left {
            if *own == 0 {
                in_use.remove(&app);
            }
            let detail = "As many calls of this app are under way here as may.";
            return Err(Problem::new(ProblemCode::Unavailable, detail).retry_after(1));
        }
        *own += 1;
        drop(in_use);
        Ok(ConcurrencyPermit { limit: self.clone(), app })
    }
}

/// A permit, given back when it is dropped.
#[derive(Debug)]
pub struct ConcurrencyPermit {
    limit: ConcurrencyLimit,
    app: AppId,
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        let mut in_use = self.limit.in_use();
        if let Some(own) = in_use.get_mut(&self.app) {
            *own -= 1;
            if *own == 0 {
                in_use.remove(&self.app);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(limit: &ConcurrencyLimit, app: AppId) -> Vec<ConcurrencyPermit> {
        std::iter::from_fn(|| limit.take(app).ok()).collect()
    }

    #[test]
    fn one_apps_calls_leave_room_for_those_of_any_other() {
        let limit = ConcurrencyLimit::new(64);
        let apps: Vec<_> = (0..4).map(|_| AppId::new()).collect();
        let held: Vec<_> = apps.iter().map(|app| take_all(&limit, *app)).collect();
        let each: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(each, [32, 16, 8, 4]);
        drop(held);
        assert_eq!(take_all(&limit, AppId::new()).len(), 32, "every permit came back");
    }
}
