//! How many tokens a client may read in the clear within a minute: a bound on what a stolen client can
//! carry away.
//!
//! The budget is one for all replicas and stands in PostgreSQL. Each replica takes portions of it, so
//! that a reading costs no further statement; together they never give out more than the budget. A
//! minute begins with its first reading. What a replica took and did not use is lost with the minute,
//! which is at most a portion for each replica.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::base::clock::Clock;
use crate::connections::reveal::store;
use crate::database::Pool;

/// Into how many portions a budget falls.
const PORTIONS: u32 = 64;

#[derive(Debug, Default)]
struct Portion {
    left: u32,
    /// When the minute ends to which it belongs.
    until: Option<Instant>,
}

type Held = Arc<tokio::sync::Mutex<Portion>>;

/// The portions that this replica holds, by client. Clones share them.
#[derive(Clone, Debug)]
pub struct Budgets {
    held: Arc<std::sync::Mutex<HashMap<Arc<str>, Held>>>,
    clock: Clock,
    rule: u32,
}

impl Budgets {
    /// Budgets of `rule` readings a minute where nothing else is said of a client.
    #[must_use]
    pub fn new(clock: Clock, rule: u32) -> Self {
        Self { held: Arc::default(), clock, rule }
    }

    fn of(&self, client: &Arc<str>) -> Held {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.entry(Arc::clone(client)).or_default())
    }

    /// Takes one reading from a client's budget; where nothing is left, in how many seconds there will
    /// be.
    pub async fn take(
        &self,
        pool: &Pool,
        client: &Arc<str>,
        agreed: Option<u32>,
    ) -> sqlx::Result<Result<(), u64>> {
        let budget = agreed.unwrap_or(self.rule);
        let held = self.of(client);
        let mut portion = held.lock().await;
        let now = self.clock.instant();
        if portion.until.is_none_or(|until| until <= now) || portion.left == 0 {
            let size = budget.div_ceil(PORTIONS);
            let mut conn = pool.acquire().await?;
            let (left, seconds) =
                store::take_portion(&mut conn, client, cap(size), cap(budget)).await?;
            let until = now + Duration::try_from_secs_f64(seconds).unwrap_or_default();
            *portion = Portion { left: left.unsigned_abs(), until: Some(until) };
        }
        if let Some(left) = portion.left.checked_sub(1) {
            portion.left = left;
            return Ok(Ok(()));
        }
        let wait =
            portion.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        Ok(Err(wait.as_secs().saturating_add(1)))
    }
}

fn cap(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
