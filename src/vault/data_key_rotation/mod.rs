//! Rotation of data keys while the service runs (ADR 24): the owner gets a new key, everything under the old one is sealed
//! anew, and the old one is destroyed.
//!
//! 1. *Published*: the row holds the new key beside the old one. It opens and does not seal yet: a statement that was in
//!    flight may read a key from before this commit together with a value that is written later.
//! 2. *Switched*: the new key seals, and the old one opens. What is sealed under the old one is sealed anew, some values at
//!    a time, by comparing and swapping: a value that was changed meanwhile, or whose row is locked, waits for a later pass.
//! 3. *Destroyed*: nothing is sealed under the old key, and the row forgets it. A task that still has it in memory cannot
//!    store under it any more ([`is_key_destroyed`]).
//!
//! Each step is a short transaction that compares what it replaces. So a run can be killed anywhere and repeated, and
//! several can run at once. No transaction is open while a master key is used.

mod place;
mod store;

pub use store::{Published, Scope, count_rotating, destroy_former, publish, rotating, switch};

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;
use zeroize::Zeroizing;

use self::place::Place;
use super::keys::{KeyOwner, OtherKey, WrappedKey};
use super::seal::{Binding, Sealed};
use super::{Vault, VaultError};
use crate::common::ids::DataKeyId;
use crate::common::secret::Sealable;
use crate::database::Conn;

/// How many values one transaction seals anew.
const BATCH: i64 = 100;
/// The SQLSTATE that `hold_data_key` raises.
const KEY_DESTROYED: &str = "SR001";

/// Returns whether PostgreSQL refused a value because its data key was destroyed by a rotation: it is to be sealed anew,
/// under its owner's present key.
#[must_use]
pub fn is_key_destroyed(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == KEY_DESTROYED)
}

/// A data key that rotates.
#[derive(Debug)]
pub struct Rotating {
    /// Both keys of its row.
    pub key: WrappedKey,
    /// The id of the one that only opens.
    pub other: DataKeyId,
    /// Whether the new key seals already, so that the other is the former one.
    pub switched: bool,
    /// Since when it is in this state.
    pub lasts: Duration,
}

/// Any secret, as bytes: it is opened and sealed, and never looked at.
struct AnySecret(Zeroizing<Vec<u8>>);

impl Sealable for AnySecret {
    fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        Some(Self(bytes))
    }
}

/// A value under the former key.
struct FormerValue {
    place: Place,
    row: Uuid,
    sealed: Sealed<AnySecret>,
    binding: Option<Binding>,
}

/// What became of the values under a former key.
#[derive(Clone, Debug, Default)]
pub struct SealedAnew {
    /// How many were sealed anew.
    pub done: u64,
    /// How many were left for a later pass: their rows were locked or changed.
    pub left: u64,
    /// Those that do not open, as `table.column` and row: they keep the former key.
    pub damaged: Vec<(&'static str, Uuid)>,
}

/// Wraps a new key for the owner of each of these, beside the present one. Both are under the first master key then.
///
/// # Errors
/// As [`Vault::unwrap`].
async fn with_next(vault: &Vault, keys: &[WrappedKey]) -> Result<Vec<WrappedKey>, VaultError> {
    let masters = vault.masters();
    let both = keys.iter().map(async |old| {
        let present = async {
            if old.master_key_id == *masters.first().id() {
                return Ok(old.clone());
            }
            masters.rewrap(old).await
        };
        let (present, (next, _)) = futures_util::try_join!(present, masters.new_key(old.owner))?;
        let other = OtherKey { id: next.id, wrapped: next.wrapped };
        Ok(WrappedKey { other: Some(other), ..present })
    });
    futures_util::future::try_join_all(both).await
}

/// Seals anew what is under the former key of one owner. Skips rows that are locked.
///
/// # Errors
/// The database's, and as [`Vault::unwrap`].
pub async fn seal_anew(
    conn: &mut Conn,
    vault: &Vault,
    rotating: &Rotating,
) -> Result<SealedAnew, VaultError> {
    let mut result = SealedAnew::default();
    let (owner, former) = (rotating.key.owner, rotating.other);
    // By a cursor, so that values which do not open or are locked do not hide those behind them.
    let mut after = None;
    loop {
        let page = store::values_under(conn, owner, former, after, BATCH).await?;
        let Some(last) = page.last() else { return Ok(result) };
        after = Some((last.place, last.row));
        let key = vault.unwrap(&rotating.key).await?;
        let mut places = BTreeMap::<Place, Swaps>::new();
        for value in page {
            let FormerValue { place, row, sealed, binding } = value;
            let aad = place.aad(owner, row);
            match sealed.sealed_anew(&key, &key, &aad, binding.as_ref()) {
                Ok(new) => places.entry(place).or_default().add(row, &sealed, &new),
                Err(VaultError::DoesNotOpen) => result.damaged.push((place.as_str(), row)),
                Err(error) => return Err(error),
            }
        }
        fail::fail_point!("rotate_data::opened");
        for (place, swaps) in places {
            let done = place.swap(conn, &swaps).await?;
            result.done += done;
            result.left += (swaps.rows.len() as u64).saturating_sub(done);
            fail::fail_point!("rotate_data::sealed");
        }
    }
}

/// Values to replace, if they are still what they were.
#[derive(Default)]
struct Swaps {
    rows: Vec<Uuid>,
    before: Vec<Vec<u8>>,
    after: Vec<Vec<u8>>,
}

impl Swaps {
    fn add(&mut self, row: Uuid, before: &Sealed<AnySecret>, after: &Sealed<AnySecret>) {
        self.rows.push(row);
        self.before.push(before.as_bytes().to_vec());
        self.after.push(after.as_bytes().to_vec());
    }
}

impl KeyOwner {
    /// Returns whether the key of this owner can be rotated: those of the service cannot.
    const fn rotates(self) -> bool {
        matches!(self, Self::App(_) | Self::User { .. })
    }
}
