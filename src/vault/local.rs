//! Master keys that this process holds: they wrap and open data keys by AES-256-GCM.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::VaultError;
use super::associated_data::{AssociatedData, NONCE_BYTES, random};
use super::keys::{KeyOwner, MasterKeyId, WrappedKey};
use crate::common::ids::{AppId, DataKeyId, UserId};

/// The length of a master key in bytes (256 bits).
pub const MASTER_KEY_BYTES: usize = 32;

/// The first byte of a key that a local master key wrapped: nonce, ciphertext and tag follow.
const WRAPPED_V1: u8 = 1;

/// The bytes of a data key, wiped when dropped.
pub(super) type KeyBytes = Zeroizing<[u8; 32]>;

/// A master key whose bytes are in the environment; wiped when dropped.
pub struct LocalKey {
    id: MasterKeyId,
    cipher: Aes256Gcm,
    check_value: [u8; 32],
}

impl LocalKey {
    pub(super) fn new(id: MasterKeyId, bytes: &[u8; MASTER_KEY_BYTES]) -> Self {
        Self {
            id,
            cipher: Aes256Gcm::new(&Key::<Aes256Gcm>::from(*bytes)),
            check_value: check_value(bytes),
        }
    }

    pub(super) fn id(&self) -> &MasterKeyId {
        &self.id
    }

    pub(super) fn check_value(&self) -> &[u8; 32] {
        &self.check_value
    }

    pub(super) fn wrap(
        &self,
        id: DataKeyId,
        owner: KeyOwner,
        bytes: &[u8; 32],
    ) -> Result<WrappedKey, VaultError> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        let aad = wrapping_aad(id, owner, &self.id);
        let payload = Payload { msg: bytes, aad: aad.as_bytes() };
        let ciphertext =
            self.cipher.encrypt(&nonce.into(), payload).map_err(|_| VaultError::DoesNotOpen)?;
        let mut wrapped = Vec::with_capacity(1 + NONCE_BYTES + ciphertext.len());
        wrapped.push(WRAPPED_V1);
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(&ciphertext);
        Ok(WrappedKey { id, owner, master_key_id: self.id.clone(), wrapped, other: None })
    }

    pub(super) fn open(&self, key: &WrappedKey) -> Result<KeyBytes, VaultError> {
        let (version, rest) = key.wrapped.split_first().ok_or(VaultError::DoesNotOpen)?;
        let (nonce, ciphertext) =
            rest.split_first_chunk::<NONCE_BYTES>().ok_or(VaultError::DoesNotOpen)?;
        if *version != WRAPPED_V1 {
            return Err(VaultError::DoesNotOpen);
        }
        let aad = wrapping_aad(key.id, key.owner, &self.id);
        let payload = Payload { msg: ciphertext, aad: aad.as_bytes() };
        let opened = self.cipher.decrypt(&(*nonce).into(), payload).map(Zeroizing::new);
        let bytes = opened.map_err(|_| VaultError::DoesNotOpen)?;
        <[u8; 32]>::try_from(bytes.as_slice())
            .map(Zeroizing::new)
            .map_err(|_| VaultError::DoesNotOpen)
    }
}

/// Builds the AAD of a wrapped key: it opens only with this id, for this owner, under this master key.
pub(super) fn wrapping_aad(id: DataKeyId, owner: KeyOwner, master: &MasterKeyId) -> AssociatedData {
    let mut aad = AssociatedData::new("data_keys", "wrapped");
    aad.part(owner.purpose().as_bytes());
    aad.id(owner.app().map(AppId::uuid));
    aad.id(owner.user().map(UserId::uuid));
    aad.id(Some(id.uuid()));
    aad.part(master.as_str().as_bytes());
    aad
}

/// Computes HKDF-Expand's first block (RFC 5869 §2.3) under a label of its own: it reveals nothing about the
/// key and cannot be mistaken for another use of it.
fn check_value(bytes: &[u8; MASTER_KEY_BYTES]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
    let block = hmac::sign(&key, b"strongroom master key check value v1\x01");
    let mut value = [0; 32];
    value.copy_from_slice(block.as_ref());
    value
}
