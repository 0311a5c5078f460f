//! Places for calls that are under way, shared fairly by the apps.
//!
//! An app may have as many more as it leaves to the others (dynamic thresholds: Choudhury and Hahne, 1998):
//! alone it gets half of all, and whatever the others hold, an app that comes finds some.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::problem::{Problem, ProblemCode};
use crate::base::ids::AppId;

/// The places of one kind in one replica. Clones are the same.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: usize,
    taken: Mutex<HashMap<AppId, usize>>,
}

impl ConcurrencyLimit {
    /// This many places. An app that is alone gets half of them.
    #[must_use]
    pub fn new(all: usize) -> Self {
        Self(Arc::new(Inner { all, taken: Mutex::default() }))
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<AppId, usize>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a call of this app's.
    ///
    /// # Errors
    /// 503 while the app has as many as it may.
    pub fn take(&self, app: AppId) -> Result<ConcurrencyPermit, Problem> {
        let mut taken = self.taken();
        let left = self.0.all.saturating_sub(taken.values().sum());
        let own = taken.entry(app).or_default();
        if *own >= left {
            if *own == 0 {
                taken.remove(&app);
            }
            let detail = "As many calls of this app are under way here as may.";
            return Err(Problem::new(ProblemCode::Unavailable, detail).retry_after(1));
        }
        *own += 1;
        drop(taken);
        Ok(ConcurrencyPermit { limit: self.clone(), app })
    }
}

/// A place that is held.
#[derive(Debug)]
pub struct ConcurrencyPermit {
    limit: ConcurrencyLimit,
    app: AppId,
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        let mut taken = self.limit.taken();
        if let Some(own) = taken.get_mut(&self.app) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.app);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_many_as_go(limit: &ConcurrencyLimit, app: AppId) -> Vec<ConcurrencyPermit> {
        std::iter::from_fn(|| limit.take(app).ok()).collect()
    }

    #[test]
    fn one_apps_calls_leave_room_for_those_of_any_other() {
        let limit = ConcurrencyLimit::new(64);
        let apps: Vec<_> = (0..4).map(|_| AppId::new()).collect();
        let held: Vec<_> = apps.iter().map(|app| as_many_as_go(&limit, *app)).collect();
        let each: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(each, [32, 16, 8, 4]);
        drop(held);
        assert_eq!(as_many_as_go(&limit, AppId::new()).len(), 32, "every place came back");
    }
}
