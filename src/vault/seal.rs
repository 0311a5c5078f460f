//! [`Sealed`]: a secret encrypted for one column of one row.
//!
//! AES-256-GCM with a random 96-bit nonce. SP 800-38D §8.3 allows 2³² encryptions under one key; a data
//! key belongs to one user, one app or the service and stays many orders of magnitude below. The format is
//! `version (1 or 2) ‖ data key id (16) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`. The associated data binds
//! a ciphertext to its table, column, app, user, row and key: moved anywhere else, it does not open.

use std::marker::PhantomData;

use aes_gcm::aead::{Aead, Payload};
use sqlx::Postgres;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::VaultError;
use super::associated_data::{AssociatedData, NONCE_BYTES, random};
use super::keys::DataKey;
use crate::common::ids::{AppId, DataKeyId, UserId};
use crate::common::secret::Sealable;

const KEY_ID_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_BYTES;
const SEALED_V1: u8 = 1;
/// The version whose AAD contains a [`Binding`] as well.
const SEALED_V2: u8 = 2;
const BINDING_BYTES: usize = 16;

/// The AAD context of a sealed value: where it lives. It opens only with the context it was sealed for.
#[derive(Clone, Copy, Debug)]
pub struct AadContext {
    /// The table's name when the format was fixed: a literal, which a renamed table does not change.
    pub table: &'static str,
    /// The column's name, likewise a frozen literal.
    pub column: &'static str,
    /// The app; `None` for the service's own secrets.
    pub app: Option<AppId>,
    /// The user; `None` for secrets of an app or of the service.
    pub user: Option<UserId>,
    /// The primary key of the row.
    pub row: Uuid,
}

impl AadContext {
    fn associated_data(&self, key: DataKeyId) -> AssociatedData {
        let mut aad = AssociatedData::new(self.table, self.column);
        aad.id(self.app.map(AppId::uuid));
        aad.id(self.user.map(UserId::uuid));
        aad.id(Some(self.row));
        aad.id(Some(key.uuid()));
        aad
    }
}

/// Random bytes that are part of a ciphertext's AAD and stored in another table. Once they are deleted, the
/// ciphertext no longer opens, and neither does a copy of it that is put back by hand or from a backup. They
/// need not be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding([u8; BINDING_BYTES]);

impl Binding {
    /// Generates a binding.
    ///
    /// # Errors
    /// Fails only if the operating system's random number generator does.
    pub fn new() -> Result<Self, VaultError> {
        random().map(Self)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the bytes for a column.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl sqlx::Type<Postgres> for Binding {
    fn type_info() -> PgTypeInfo {
        <[u8] as sqlx::Type<Postgres>>::type_info()
    }
}

impl sqlx::Decode<'_, Postgres> for Binding {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let bytes = <&[u8] as sqlx::Decode<Postgres>>::decode(value)?;
        Self::from_bytes(bytes).ok_or_else(|| "not a binding".into())
    }
}

/// An encrypted secret of kind `T`. The only form in which a secret reaches PostgreSQL.
pub struct Sealed<T> {
    bytes: Vec<u8>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Sealable> Sealed<T> {
    /// Encrypts `secret` under `key` for the context `aad`.
    ///
    /// # Errors
    /// Fails only if the operating system's random number generator does.
    pub fn seal(secret: &T, key: &DataKey, aad: &AadContext) -> Result<Self, VaultError> {
        Self::seal_as(SEALED_V1, secret, key, &aad.associated_data(key.id()))
    }

    /// Encrypts `secret` under `key` for the context `aad`, and binds it to `binding`.
    ///
    /// # Errors
    /// Fails only if the operating system's random number generator does.
    pub fn seal_bound(
        secret: &T,
        key: &DataKey,
        aad: &AadContext,
        binding: &Binding,
    ) -> Result<Self, VaultError> {
        let mut aad = aad.associated_data(key.id());
        aad.part(&binding.0);
        Self::seal_as(SEALED_V2, secret, key, &aad)
    }

    fn seal_as(
        version: u8,
        secret: &T,
        key: &DataKey,
        aad: &AssociatedData,
    ) -> Result<Self, VaultError> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        let payload = Payload { msg: secret.expose_bytes(), aad: aad.as_bytes() };
        let ciphertext =
            key.cipher().encrypt(&nonce.into(), payload).map_err(|_| VaultError::DoesNotOpen)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + ciphertext.len());
        bytes.push(version);
        bytes.extend_from_slice(key.id().uuid().as_bytes());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&ciphertext);
        Ok(Self::from_checked(bytes))
    }

    /// Decrypts, if `key` and `aad` are those that it was sealed with.
    ///
    /// # Errors
    /// Returns [`VaultError::DoesNotOpen`], which does not say why.
    pub fn open(&self, key: &DataKey, aad: &AadContext) -> Result<T, VaultError> {
        self.open_as(SEALED_V1, key, aad, None)
    }

    /// Decrypts a value that is bound to `binding`, or one of an earlier release that is bound to nothing.
    ///
    /// # Errors
    /// Returns [`VaultError::DoesNotOpen`] also if the binding no longer exists.
    pub fn open_bound(
        &self,
        key: &DataKey,
        aad: &AadContext,
        binding: Option<&Binding>,
    ) -> Result<T, VaultError> {
        if !self.is_bound() {
            return self.open(key, aad);
        }
        let binding = binding.ok_or(VaultError::DoesNotOpen)?;
        self.open_as(SEALED_V2, key, aad, Some(binding))
    }

    fn open_as(
        &self,
        version: u8,
        key: &DataKey,
        aad: &AadContext,
        binding: Option<&Binding>,
    ) -> Result<T, VaultError> {
        let (header, ciphertext) =
            self.bytes.split_first_chunk::<HEADER_BYTES>().ok_or(VaultError::DoesNotOpen)?;
        let (_, nonce) = header.split_last_chunk::<NONCE_BYTES>().ok_or(VaultError::DoesNotOpen)?;
        if self.bytes.first() != Some(&version) {
            return Err(VaultError::DoesNotOpen);
        }
        // By the id, never by trial: GCM does not commit to its key.
        let id = self.key_id().ok_or(VaultError::DoesNotOpen)?;
        let cipher = key.opening(id).ok_or(VaultError::DoesNotOpen)?;
        let mut aad = aad.associated_data(id);
        if let Some(binding) = binding {
            aad.part(&binding.0);
        }
        let payload = Payload { msg: ciphertext, aad: aad.as_bytes() };
        let opened = cipher.decrypt(&(*nonce).into(), payload).map(Zeroizing::new);
        let plain = opened.map_err(|_| VaultError::DoesNotOpen)?;
        T::from_bytes(plain).ok_or(VaultError::DoesNotOpen)
    }

    /// Opens the value with one key and seals it with another, for the same context and binding.
    ///
    /// # Errors
    /// As [`Sealed::open_bound`].
    pub fn sealed_anew(
        &self,
        opening: &DataKey,
        sealing: &DataKey,
        aad: &AadContext,
        binding: Option<&Binding>,
    ) -> Result<Self, VaultError> {
        let secret = self.open_bound(opening, aad, binding)?;
        match binding.filter(|_| self.is_bound()) {
            Some(binding) => Self::seal_bound(&secret, sealing, aad, binding),
            None => Self::seal(&secret, sealing, aad),
        }
    }

    /// Returns whether the value is bound to a [`Binding`].
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.bytes.first() == Some(&SEALED_V2)
    }

    /// Returns the id of the data key that sealed it.
    #[must_use]
    pub fn key_id(&self) -> Option<DataKeyId> {
        let id = self.bytes.get(1..=KEY_ID_BYTES)?;
        Uuid::from_slice(id).ok().map(DataKeyId::from)
    }
}

impl<T> Sealed<T> {
    const fn from_checked(bytes: Vec<u8>) -> Self {
        Self { bytes, kind: PhantomData }
    }

    /// Accepts the bytes of a column; returns `None` if they cannot be a sealed value.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let known = matches!(bytes.first(), Some(&(SEALED_V1 | SEALED_V2)));
        let sound = bytes.len() >= HEADER_BYTES + TAG_BYTES && known;
        sound.then(|| Self::from_checked(bytes))
    }

    /// Returns the bytes for a column.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T> Clone for Sealed<T> {
    fn clone(&self) -> Self {
        Self::from_checked(self.bytes.clone())
    }
}

impl<T> std::fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.bytes.len())
    }
}

impl<T> sqlx::Type<Postgres> for Sealed<T> {
    fn type_info() -> PgTypeInfo {
        <[u8] as sqlx::Type<Postgres>>::type_info()
    }
}

impl<T> sqlx::Encode<'_, Postgres> for Sealed<T> {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <&[u8] as sqlx::Encode<Postgres>>::encode(self.as_bytes(), buf)
    }
}

impl<T> sqlx::Decode<'_, Postgres> for Sealed<T> {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let bytes = <Vec<u8> as sqlx::Decode<Postgres>>::decode(value)?;
        Self::from_bytes(bytes).ok_or_else(|| "not a sealed value".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::secret::SecretText;

    fn key() -> DataKey {
        DataKey::new(DataKeyId::new(), &random().unwrap())
    }

    fn aad() -> AadContext {
        AadContext {
            table: "connections",
            column: "access_token",
            app: Some(AppId::new()),
            user: Some(UserId::new()),
            row: AppId::new().uuid(),
        }
    }

    fn token() -> SecretText {
        SecretText::new("the token".to_owned())
    }

    #[test]
    fn what_was_sealed_opens_in_its_place() {
        let (key, aad) = (key(), aad());
        let sealed = Sealed::seal(&token(), &key, &aad).unwrap();
        assert!(sealed.open(&key, &aad).unwrap().same_as(&token()));
        assert_eq!(sealed.key_id(), Some(key.id()));
    }

    #[test]
    fn a_ciphertext_opens_in_no_other_place() {
        let (key, aad) = (key(), aad());
        let sealed = Sealed::seal(&token(), &key, &aad).unwrap();
        for other in [
            AadContext { table: "apps", ..aad },
            AadContext { column: "user_secret", ..aad },
            AadContext { app: None, ..aad },
            AadContext { app: Some(AppId::new()), ..aad },
            AadContext { user: None, ..aad },
            AadContext { user: Some(UserId::new()), ..aad },
            AadContext { row: AppId::new().uuid(), ..aad },
        ] {
            assert!(matches!(sealed.open(&key, &other), Err(VaultError::DoesNotOpen)), "{other:?}");
        }
    }

    #[test]
    fn what_is_bound_opens_with_its_binding_and_not_without() {
        let (key, aad, binding) = (key(), aad(), Binding::new().unwrap());
        let sealed = Sealed::seal_bound(&token(), &key, &aad, &binding).unwrap();
        assert!(sealed.open_bound(&key, &aad, Some(&binding)).unwrap().same_as(&token()));
        let other = Binding::new().unwrap();
        for wrong in [None, Some(&other)] {
            assert!(sealed.open_bound(&key, &aad, wrong).is_err());
        }
        assert!(sealed.open(&key, &aad).is_err(), "not as one that is bound to nothing");
        let mut disguised = sealed.as_bytes().to_vec();
        disguised[0] = SEALED_V1;
        let disguised = Sealed::<SecretText>::from_bytes(disguised).unwrap();
        assert!(disguised.open_bound(&key, &aad, None).is_err());
    }

    #[test]
    fn what_an_earlier_release_sealed_opens_without_a_binding() {
        let (key, aad) = (key(), aad());
        let sealed = Sealed::seal(&token(), &key, &aad).unwrap();
        assert!(sealed.open_bound(&key, &aad, None).unwrap().same_as(&token()));
    }

    #[test]
    fn while_a_key_rotates_both_open_and_the_first_seals() {
        let (old, new, aad) = (key(), key(), aad());
        let binding = Binding::new().unwrap();
        let bound = Sealed::seal_bound(&token(), &old, &aad, &binding).unwrap();
        let plain = Sealed::seal(&token(), &old, &aad).unwrap();
        assert!(plain.open(&new, &aad).is_err());
        let both = DataKey::new(new.id(), &[7; 32]).with_other(Some(old));
        for sealed in [bound, plain] {
            assert!(sealed.open_bound(&both, &aad, Some(&binding)).unwrap().same_as(&token()));
            let anew = sealed.sealed_anew(&both, &both, &aad, Some(&binding)).unwrap();
            assert_eq!((anew.key_id(), anew.is_bound()), (Some(new.id()), sealed.is_bound()));
            let alone = DataKey::new(new.id(), &[7; 32]);
            assert!(anew.open_bound(&alone, &aad, Some(&binding)).unwrap().same_as(&token()));
        }
    }

    #[test]
    fn another_key_does_not_open_it_even_under_the_same_id() {
        let (key, aad) = (key(), aad());
        let sealed = Sealed::seal(&token(), &key, &aad).unwrap();
        assert!(sealed.open(&self::key(), &aad).is_err());
        assert!(sealed.open(&DataKey::new(key.id(), &random().unwrap()), &aad).is_err());
    }

    #[test]
    fn a_damaged_or_shortened_ciphertext_is_refused_without_a_panic() {
        let (key, aad) = (key(), aad());
        let sealed = Sealed::seal(&token(), &key, &aad).unwrap();
        for index in 0..sealed.as_bytes().len() {
            let mut damaged = sealed.as_bytes().to_vec();
            damaged[index] ^= 1;
            let opened = Sealed::<SecretText>::from_bytes(damaged).map(|s| s.open(&key, &aad));
            assert!(opened.is_none_or(|result| result.is_err()), "byte {index}");
            let short = Sealed::<SecretText>::from_bytes(sealed.as_bytes()[..index].to_vec());
            assert!(short.is_none_or(|s| s.open(&key, &aad).is_err()), "length {index}");
        }
    }

    #[test]
    fn the_same_secret_never_looks_the_same_twice() {
        let (key, aad) = (key(), aad());
        let one = Sealed::seal(&token(), &key, &aad).unwrap();
        let two = Sealed::seal(&token(), &key, &aad).unwrap();
        assert_ne!(one.as_bytes(), two.as_bytes());
    }

    #[test]
    fn an_empty_secret_and_a_large_one_come_back_whole() {
        let (key, aad) = (key(), aad());
        for text in [String::new(), "x".repeat(1 << 20)] {
            let secret = SecretText::new(text);
            let opened = Sealed::seal(&secret, &key, &aad).unwrap().open(&key, &aad).unwrap();
            assert!(opened.same_as(&secret));
        }
    }
}
