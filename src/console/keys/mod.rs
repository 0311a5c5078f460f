//! Keys: the tree from the master keys to what they wrap, and the keys that sign.

pub mod page;
pub mod routes;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::database::{Conn, Pool};
use crate::oauth::signing_keys::{self, KeyInfo};
use crate::vault::{self, DataKeyGroup, KnownMasterKey, Vault};

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
    pub async fn get(&self, pool: &Pool, now: OffsetDateTime) -> Option<Counted> {
        if self.begin() {
            let (counts, pool) = (self.clone(), pool.clone());
            let counting = tokio::spawn(async move {
                let groups = async { vault::data_key_groups(&mut pool.acquire().await?).await };
                counts.end(Counted { at: now, groups: groups.await.ok() });
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

    fn end(&self, counted: Counted) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { last: Some((Instant::now(), counted)), counting: false };
    }
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
