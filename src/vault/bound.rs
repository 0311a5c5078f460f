//! What a key engine outside this process encrypts: a data key with the hash of what binds it to its row. So no engine
//! has to be trusted to keep a key and its row together.

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::keys::{KeyOwner, MasterKeyId, WrappedKey};
use super::local::{KeyBytes, wrapping_aad};
use crate::common::ids::DataKeyId;

/// The first byte of the plaintext: the hash of the AAD and the data key follow.
const PLAIN_V1: u8 = 1;
pub(super) const HASH_BYTES: usize = 32;

/// Hashes the AAD of a wrapped key. It reveals nothing about the owner: the ids in it are random.
pub(super) fn row_hash(id: DataKeyId, owner: KeyOwner, master: &MasterKeyId) -> [u8; HASH_BYTES] {
    sha256(wrapping_aad(id, owner, master).as_bytes())
}

pub(super) fn plaintext(
    id: DataKeyId,
    owner: KeyOwner,
    master: &MasterKeyId,
    bytes: &KeyBytes,
) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(1 + HASH_BYTES + bytes.len()));
    plain.push(PLAIN_V1);
    plain.extend_from_slice(&row_hash(id, owner, master));
    plain.extend_from_slice(bytes.as_slice());
    plain
}

/// Returns the data key in a plaintext, if the plaintext is that of this row.
pub(super) fn key_of_plaintext(
    plain: &[u8],
    key: &WrappedKey,
    master: &MasterKeyId,
) -> Option<KeyBytes> {
    let (version, rest) = plain.split_first()?;
    let (hash, bytes) = rest.split_first_chunk::<HASH_BYTES>()?;
    if *version != PLAIN_V1 || *hash != row_hash(key.id, key.owner, master) {
        return None;
    }
    <[u8; 32]>::try_from(bytes).map(Zeroizing::new).ok()
}

/// Computes the check value of a key that is elsewhere: the hash of its place.
pub(super) fn check_value(kind: &str, place: &str) -> [u8; 32] {
    sha256(format!("strongroom master key check value v1\0{kind}\0{place}").as_bytes())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::ids::{AppId, UserId};

    #[test]
    fn a_plaintext_is_the_key_of_its_row_alone() {
        let master = MasterKeyId::parse("t1").unwrap();
        let (id, bytes) = (DataKeyId::new(), Zeroizing::new([7; 32]));
        let owner = KeyOwner::User { app: AppId::new(), user: UserId::new() };
        let plain = plaintext(id, owner, &master, &bytes);
        let row = WrappedKey {
            id,
            owner,
            master_key_id: master.clone(),
            wrapped: Vec::new(),
            other: None,
        };
        assert_eq!(key_of_plaintext(&plain, &row, &master), Some(bytes));
        let other_owner = WrappedKey { owner: KeyOwner::Service, ..row.clone() };
        let other_id = WrappedKey { id: DataKeyId::new(), ..row.clone() };
        for other in [other_owner, other_id] {
            assert!(key_of_plaintext(&plain, &other, &master).is_none(), "{other:?}");
        }
        assert!(key_of_plaintext(&plain, &row, &MasterKeyId::parse("t2").unwrap()).is_none());
        for length in 0..plain.len() {
            assert!(key_of_plaintext(&plain[..length], &row, &master).is_none());
        }
    }
}
