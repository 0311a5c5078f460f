//! Keys: the tree from the master keys to what they wrap, and the keys that sign.

pub mod page;
pub mod routes;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::database::{self, Conn, Pool};
use crate::oauth::signing_keys::{self, KeyInfo};
use crate::vault::{self, DataKeyGroup, Estimate, KnownMasterKey, Vault};

/// How long a count of the data keys is shown before it is made again.
const COUNT_LASTS: Duration = Duration::from_mins(1);
/// How long a page waits for a count before it says that one is being made.
const COUNT_WITHIN: Duration = Duration::from_millis(60);

/// A count of the data keys, which reads every sealed value.
#[derive(Clone, Debug)]
pub struct Counted {
    /// When it was made.
    pub at: OffsetDateTime,
    /// The groups, or `None` if there are too many values to count them while a page waits.
    pub groups: Option<Vec<DataKeyGroup>>,
}

/// A key is due once one of its kind has made a hundredth of the 2³² encryptions that AES-GCM allows under one key.
const DUE_AT: i64 = (1 << 32) / 100;

/// Values and data keys up to which they are counted while a page waits: far fewer than make a key due.
const COUNTED: i64 = 5_000_000;

/// What is to be done about keys, without counting.
#[derive(Clone, Copy, Debug)]
pub struct Due(Estimate);

impl Due {
    /// Returns about how many values are sealed, or data keys wrapped, if one key may have made more encryptions than it should:
    /// `strongroom keys status` counts them by key. With fewer no key is due, whatever their shares are.
    #[must_use]
    pub fn may_be(&self) -> Option<i64> {
        let most = self.0.values.max(self.0.data_keys);
        (most >= DUE_AT).then_some(most)
    }

    /// Returns since when a rotation of data keys waits for its next step.
    #[must_use]
    pub const fn rotating_since(&self) -> Option<OffsetDateTime> {
        self.0.rotating_since
    }
}

/// Reads what is to be done about keys, in the same time however many there are.
pub async fn due(conn: &mut Conn) -> sqlx::Result<Due> {
    Ok(Due(vault::estimate(conn).await?))
}

/// The page's content.
#[derive(Debug)]
pub struct Tree {
    /// The master keys, oldest first.
    pub masters: Vec<Master>,
    /// The data keys under them; `None` while they are being counted.
    pub counted: Option<Counted>,
    /// The keys that sign.
    pub signing: Vec<KeyInfo>,
}

/// A master key.
#[derive(Debug)]
pub struct Master {
    /// Its name, and since when it is known.
    pub key: KnownMasterKey,
    /// `wraps`, `opens`, or `notGiven` to this process.
    pub state: &'static str,
    /// Where it is, if this process has it.
    pub kind: Option<&'static str>,
}

/// Counts of the data keys that were made. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Counted)>,
    counting: bool,
}

impl Counts {
    /// Returns the last count. Makes another in the background if it is old, and waits for it a moment.
    pub async fn get(&self, pool: &Pool) -> Option<Counted> {
        if self.begin() {
            let (counts, pool) = (self.clone(), pool.clone());
            let counting = tokio::spawn(async move {
                counts.end(count(&pool).await.ok());
            });
            // Dropped if it takes longer: the task goes on.
            let _ = tokio::time::timeout(COUNT_WITHIN, counting).await;
        }
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.as_ref().map(|(_, counted)| counted.clone())
    }

    /// Whether a count is to be made, by the caller.
    fn begin(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = state.last.as_ref().is_some_and(|(at, _)| at.elapsed() < COUNT_LASTS);
        let begins = !fresh && !state.counting;
        state.counting |= begins;
        begins
    }

    /// Keeps a count that was made; without one the last stays.
    fn end(&self, counted: Option<Counted>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.counting = false;
        if let Some(counted) = counted {
            state.last = Some((Instant::now(), counted));
        }
    }
}

async fn count(pool: &Pool) -> sqlx::Result<Counted> {
    let mut conn = pool.acquire().await?;
    let at = database::now(&mut conn).await?;
    let estimate = vault::estimate(&mut conn).await?;
    if estimate.values.max(estimate.data_keys) > COUNTED {
        return Ok(Counted { at, groups: None });
    }
    Ok(Counted { at, groups: vault::data_key_groups(&mut conn).await.ok() })
}

/// Reads the tree.
pub async fn read(conn: &mut Conn, vault: &Vault, counted: Option<Counted>) -> sqlx::Result<Tree> {
    let known = vault::known_masters(conn).await?;
    let masters = known.into_iter().map(|key| master(vault, key)).collect();
    Ok(Tree { masters, counted, signing: signing_keys::list(conn).await? })
}

fn master(vault: &Vault, key: KnownMasterKey) -> Master {
    let held = vault.masters().iter().enumerate().find(|(_, held)| *held.id() == key.id);
    let state = match held {
        Some((0, _)) => "wraps",
        Some(_) => "opens",
        None => "notGiven",
    };
    Master { key, state, kind: held.map(|(_, held)| held.kind()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_due_only_if_all_of_them_together_have_done_so_much() {
        let due = |values, data_keys| Due(Estimate { values, data_keys, rotating_since: None });
        assert_eq!(due(DUE_AT - 1, DUE_AT - 1).may_be(), None);
        assert_eq!(due(DUE_AT, 7).may_be(), Some(DUE_AT));
        assert_eq!(due(7, DUE_AT + 1).may_be(), Some(DUE_AT + 1));
    }
}
