//! Keys: the tree from the master keys to what they wrap, and the keys that sign.

pub mod page;
pub mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::database::{self, Conn, Pool};
use crate::oauth::signing_keys::{self, KeyInfo};
use crate::vault::{self, DataKeyGroup, Estimate, KnownMasterKey, MasterKeyId, Vault};

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

/// Values up to which they are counted while a page waits.
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

impl Counted {
    /// Returns the master keys that are due, or that wrap data keys which are; `None` if the data keys are too many to be
    /// counted while a page waits.
    #[must_use]
    pub fn due(&self) -> Option<BTreeSet<MasterKeyId>> {
        let groups = self.groups.as_ref()?;
        let mut wraps: BTreeMap<&MasterKeyId, i64> = BTreeMap::new();
        for group in groups {
            *wraps.entry(&group.master_key).or_default() += group.count;
        }
        let sealed_much = groups.iter().filter(|group| group.most_seals >= DUE_AT);
        let wraps_much = wraps.iter().filter(|(_, count)| **count >= DUE_AT);
        let masters = sealed_much.map(|group| &group.master_key);
        Some(masters.chain(wraps_much.map(|(master, _)| *master)).cloned().collect())
    }
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
    if vault::estimate(&mut conn).await?.values > COUNTED {
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

    fn counted(groups: &[(&str, i64, i64)]) -> Counted {
        let at = OffsetDateTime::UNIX_EPOCH;
        let group = |&(master, count, most_seals): &(&str, i64, i64)| DataKeyGroup {
            master_key: MasterKeyId::parse(master).unwrap(),
            purpose: "user".to_owned(),
            count,
            oldest: at,
            newest: at,
            seals: most_seals,
            most_seals,
            rotating: 0,
            former_seals: 0,
            rotating_since: None,
        };
        Counted { at, groups: Some(groups.iter().map(group).collect()) }
    }

    fn due_masters(counted: &Counted) -> Option<Vec<String>> {
        Some(counted.due()?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_key_is_due_by_its_own_seals_or_by_those_of_a_key_that_it_wraps() {
        let half = DUE_AT / 2;
        let fine = counted(&[("one", half, half), ("two", half, DUE_AT - 1)]);
        assert_eq!(due_masters(&fine), Some(vec![]));
        let wraps = counted(&[("one", half, 1), ("one", half + 1, 1), ("two", 1, 1)]);
        assert_eq!(due_masters(&wraps), Some(vec!["one".to_owned()]));
        let seals = counted(&[("one", 1, 1), ("two", 1, DUE_AT)]);
        assert_eq!(due_masters(&seals), Some(vec!["two".to_owned()]));
    }

    #[test]
    fn nothing_is_said_to_be_due_or_not_before_it_was_counted() {
        assert_eq!(Counted { at: OffsetDateTime::UNIX_EPOCH, groups: None }.due(), None);
    }

    #[test]
    fn a_key_may_be_due_only_if_all_of_them_together_have_done_so_much() {
        let due = |values, data_keys| Due(Estimate { values, data_keys, rotating_since: None });
        assert_eq!(due(DUE_AT - 1, DUE_AT - 1).may_be(), None);
        assert_eq!(due(DUE_AT, 7).may_be(), Some(DUE_AT));
        assert_eq!(due(7, DUE_AT + 1).may_be(), Some(DUE_AT + 1));
    }
}
