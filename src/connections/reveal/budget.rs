//! Limits how many tokens a client may reveal per minute, and so how many a stolen client can take away.
//!
//! The budget is in PostgreSQL and shared by all replicas. Each replica takes a portion at a time, so that most reveals
//! need no further statement; all portions together never exceed the budget. A minute begins with its first reveal.
//! What a replica has not used by its end is lost: at most one portion per replica.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::common::clock::Clock;
use crate::connections::reveal::store;
use crate::database::Pool;

/// A portion is this fraction of a budget.
const PORTIONS: u32 = 64;

#[derive(Debug, Default)]
struct Portion {
    left: u32,
    /// The end of the minute that the portion was taken in.
    until: Option<Instant>,
}

type SharedPortion = Arc<tokio::sync::Mutex<Portion>>;

/// The portions that this replica holds, by client. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Budgets {
    portions: Arc<std::sync::Mutex<HashMap<Arc<str>, SharedPortion>>>,
    clock: Clock,
    default_budget: u32,
}

impl Budgets {
    /// Creates budgets of `default_budget` reveals per minute for clients without a budget of their own.
    #[must_use]
    pub fn new(clock: Clock, default_budget: u32) -> Self {
        Self { portions: Arc::default(), clock, default_budget }
    }

    /// Returns how many tokens a client may reveal in a minute unless its own terms say otherwise.
    #[must_use]
    pub const fn default_budget(&self) -> u32 {
        self.default_budget
    }

    fn portion_of(&self, client: &Arc<str>) -> SharedPortion {
        let mut portions = self.portions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(portions.entry(Arc::clone(client)).or_default())
    }

    /// Takes one reveal from a client's budget (`own`, or the default). If nothing is left, the inner error is the
    /// number of seconds until the next minute begins.
    pub async fn take(
        &self,
        pool: &Pool,
        client: &Arc<str>,
        own: Option<u32>,
    ) -> sqlx::Result<Result<(), u64>> {
        let budget = own.unwrap_or(self.default_budget);
        let shared = self.portion_of(client);
        // Held across the statement, so that concurrent reveals take one portion and not one each.
        let mut portion = shared.lock().await;
        let now = self.clock.instant();
        if portion.until.is_none_or(|until| until <= now) || portion.left == 0 {
            let size = budget.div_ceil(PORTIONS);
            let mut conn = pool.acquire().await?;
            let (left, seconds) =
                store::take_portion(&mut conn, client, saturate(size), saturate(budget)).await?;
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

fn saturate(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
