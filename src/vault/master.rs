//! Master keys: read from the environment, they wrap and unwrap data keys.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::VaultError;
use super::associated_data::{AssociatedData, NONCE_BYTES, random};
use super::keys::{DataKey, HashKey, KeyOwner, MasterKeyId, WrappedKey};
use crate::common::ids::DataKeyId;

/// The length of a master key in bytes (256 bits).
pub const MASTER_KEY_BYTES: usize = 32;

/// The first byte of a wrapped key, which identifies the format of the rest.
const WRAPPED_V1: u8 = 1;

/// What is wrong with `STRONGROOM_MASTER_KEYS`; never shows a part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMasterKey {
    /// There is no entry.
    #[error("holds no key; `strongroom keys generate` makes one")]
    None,
    /// An entry has no colon, or its id has other characters than letters, digits, `-` and `_`.
    #[error(
        "entry {0} is not of the form id:base64, with an id of 1 to 32 letters, digits, - and _"
    )]
    Form(usize),
    /// The part after the colon is not base64 of 32 bytes.
    #[error("key `{0}` is not the standard base64 of {MASTER_KEY_BYTES} bytes")]
    Bytes(MasterKeyId),
    /// Two entries have the same id.
    #[error("key `{0}` is given twice")]
    Twice(MasterKeyId),
}

/// A named master key; wiped when dropped.
pub struct MasterKey {
    id: MasterKeyId,
    cipher: Aes256Gcm,
    check_value: [u8; 32],
}

impl MasterKey {
    fn new(id: MasterKeyId, bytes: &[u8; MASTER_KEY_BYTES]) -> Self {
        Self {
            id,
            cipher: Aes256Gcm::new(&Key::<Aes256Gcm>::from(*bytes)),
            check_value: check_value(bytes),
        }
    }

    /// Returns the key's name.
    #[must_use]
    pub fn id(&self) -> &MasterKeyId {
        &self.id
    }

    /// Returns a value that shows whether two keys of one name are equal, and reveals nothing about the key.
    #[must_use]
    pub fn check_value(&self) -> &[u8; 32] {
        &self.check_value
    }

    fn wrap(
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
        Ok(WrappedKey { id, owner, master_key_id: self.id.clone(), wrapped })
    }

    fn unwrap(&self, key: &WrappedKey) -> Result<Zeroizing<[u8; 32]>, VaultError> {
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

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

/// Builds the AAD of a wrapped key: it unwraps only with this id, for this owner, under this master key.
fn wrapping_aad(id: DataKeyId, owner: KeyOwner, master: &MasterKeyId) -> AssociatedData {
    let mut aad = AssociatedData::new("data_keys", "wrapped");
    aad.part(owner.purpose().as_bytes());
    aad.id(owner.app().map(super::super::common::ids::AppId::uuid));
    aad.id(owner.user().map(super::super::common::ids::UserId::uuid));
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

/// The master keys of this process: the first wraps, all unwrap.
#[derive(Debug)]
pub struct MasterKeys {
    first: MasterKey,
    others: Vec<MasterKey>,
}

impl MasterKeys {
    /// Parses `id:base64,id:base64` and ignores white space around the entries.
    pub fn parse(text: &str) -> Result<Self, InvalidMasterKey> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let mut keys = Vec::new();
        for (index, entry) in entries.enumerate() {
            let key = parse_entry(index + 1, entry)?;
            if keys.iter().any(|other: &MasterKey| other.id == key.id) {
                return Err(InvalidMasterKey::Twice(key.id));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(InvalidMasterKey::None)?;
        Ok(Self { first, others: keys.collect() })
    }

    /// Generates a random key as base64, for an operator to store.
    pub fn generate() -> Result<Zeroizing<String>, VaultError> {
        let bytes: Zeroizing<[u8; MASTER_KEY_BYTES]> = Zeroizing::new(random()?);
        Ok(Zeroizing::new(STANDARD.encode(bytes.as_slice())))
    }

    /// Iterates over all keys, the one that wraps first.
    pub fn iter(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Returns the key that wraps new data keys.
    #[must_use]
    pub fn first(&self) -> &MasterKey {
        &self.first
    }

    /// Selects by name, never by trial decryption: AES-GCM does not commit to its key.
    fn named(&self, id: &MasterKeyId) -> Result<&MasterKey, VaultError> {
        let found = self.iter().find(|key| key.id == *id);
        found.ok_or_else(|| VaultError::UnknownMasterKey(id.clone()))
    }

    pub(super) fn unwrap_data_key(&self, wrapped: &WrappedKey) -> Result<DataKey, VaultError> {
        if wrapped.owner.hashes() {
            return Err(VaultError::DoesNotOpen);
        }
        let bytes = self.named(&wrapped.master_key_id)?.unwrap(wrapped)?;
        Ok(DataKey::new(wrapped.id, &bytes))
    }

    pub(super) fn unwrap_hash_key(&self, wrapped: &WrappedKey) -> Result<HashKey, VaultError> {
        if !wrapped.owner.hashes() {
            return Err(VaultError::DoesNotOpen);
        }
        let bytes = self.named(&wrapped.master_key_id)?.unwrap(wrapped)?;
        Ok(HashKey::new(&bytes))
    }

    pub(super) fn new_key(&self, owner: KeyOwner) -> Result<WrappedKey, VaultError> {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(random()?);
        self.first.wrap(DataKeyId::new(), owner, &bytes)
    }

    /// Wraps the same data key under the first master key.
    pub(super) fn rewrap(&self, wrapped: &WrappedKey) -> Result<WrappedKey, VaultError> {
        let bytes = self.named(&wrapped.master_key_id)?.unwrap(wrapped)?;
        self.first.wrap(wrapped.id, wrapped.owner, &bytes)
    }
}

fn parse_entry(number: usize, entry: &str) -> Result<MasterKey, InvalidMasterKey> {
    let (id, encoded) = entry.split_once(':').ok_or(InvalidMasterKey::Form(number))?;
    let id = MasterKeyId::parse(id).ok_or(InvalidMasterKey::Form(number))?;
    let decoded = STANDARD.decode(encoded).map(Zeroizing::new);
    let bytes = decoded.map_err(|_| InvalidMasterKey::Bytes(id.clone()))?;
    let bytes = <[u8; MASTER_KEY_BYTES]>::try_from(bytes.as_slice()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| InvalidMasterKey::Bytes(id.clone()))?;
    Ok(MasterKey::new(id, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::ids::{AppId, UserId};

    const KEY: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";
    const OTHER: &str = "Q0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0M=";

    fn masters(text: &str) -> MasterKeys {
        MasterKeys::parse(text).unwrap()
    }

    #[test]
    fn the_first_key_wraps_and_all_unwrap() {
        let old = masters(&format!("old:{KEY}"));
        let owner = KeyOwner::User { app: AppId::new(), user: UserId::new() };
        let wrapped = old.new_key(owner).unwrap();
        let rotated = masters(&format!("new:{OTHER}, old:{KEY}"));
        assert!(rotated.unwrap_data_key(&wrapped).is_ok());
        assert_eq!(rotated.new_key(owner).unwrap().master_key_id.as_str(), "new");
        let rewrapped = rotated.rewrap(&wrapped).unwrap();
        assert_eq!(rewrapped.id, wrapped.id);
        assert!(masters(&format!("new:{OTHER}")).unwrap_data_key(&rewrapped).is_ok());
    }

    #[test]
    fn a_wrapped_key_opens_for_its_owner_alone() {
        let masters = masters(&format!("k:{KEY}"));
        let (app, user) = (AppId::new(), UserId::new());
        let wrapped = masters.new_key(KeyOwner::User { app, user }).unwrap();
        let other_owners = [
            KeyOwner::Service,
            KeyOwner::App(app),
            KeyOwner::User { app, user: UserId::new() },
            KeyOwner::User { app: AppId::new(), user },
        ];
        for owner in other_owners {
            let moved = WrappedKey { owner, ..wrapped.clone() };
            assert!(
                matches!(masters.unwrap_data_key(&moved), Err(VaultError::DoesNotOpen)),
                "{owner:?}"
            );
        }
        let renamed = WrappedKey { id: DataKeyId::new(), ..wrapped };
        assert!(matches!(masters.unwrap_data_key(&renamed), Err(VaultError::DoesNotOpen)));
    }

    #[test]
    fn a_hash_key_never_serves_as_a_data_key() {
        let masters = masters(&format!("k:{KEY}"));
        let hash_key = masters.new_key(KeyOwner::CodeHash).unwrap();
        assert!(masters.unwrap_data_key(&hash_key).is_err());
        assert!(masters.unwrap_hash_key(&hash_key).is_ok());
    }

    #[test]
    fn a_damaged_or_shortened_wrapped_key_is_refused_without_a_panic() {
        let masters = masters(&format!("k:{KEY}"));
        let wrapped = masters.new_key(KeyOwner::Service).unwrap();
        for length in 0..wrapped.wrapped.len() {
            let short =
                WrappedKey { wrapped: wrapped.wrapped[..length].to_vec(), ..wrapped.clone() };
            assert!(masters.unwrap_data_key(&short).is_err());
        }
        for index in 0..wrapped.wrapped.len() {
            let mut damaged = wrapped.clone();
            damaged.wrapped[index] ^= 1;
            assert!(masters.unwrap_data_key(&damaged).is_err());
        }
    }

    #[test]
    fn mistakes_in_master_keys_are_reported_without_showing_the_key() {
        let short = STANDARD.encode([7; 31]);
        for (text, mistake) in [
            (String::new(), InvalidMasterKey::None),
            (" , ".to_owned(), InvalidMasterKey::None),
            (KEY.to_owned(), InvalidMasterKey::Form(1)),
            (format!("a:{KEY},b c:{KEY}"), InvalidMasterKey::Form(2)),
            (format!(":{KEY}"), InvalidMasterKey::Form(1)),
            (format!("k:{short}"), InvalidMasterKey::Bytes(MasterKeyId("k".into()))),
            ("k:not base64".to_owned(), InvalidMasterKey::Bytes(MasterKeyId("k".into()))),
            (format!("k:{KEY},k:{OTHER}"), InvalidMasterKey::Twice(MasterKeyId("k".into()))),
        ] {
            let error = MasterKeys::parse(&text).unwrap_err();
            assert_eq!(error, mistake);
            assert!(!error.to_string().contains("QkJ"), "{error}");
        }
    }

    #[test]
    fn a_generated_key_is_accepted_and_never_the_same() {
        let (one, two) = (MasterKeys::generate().unwrap(), MasterKeys::generate().unwrap());
        assert_ne!(*one, *two);
        assert!(MasterKeys::parse(&format!("k:{}", *one)).is_ok());
    }
}
