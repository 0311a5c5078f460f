//! Data keys and hash keys, unwrapped and wrapped.

use aes_gcm::aead::KeyInit;
use aes_gcm::{Aes256Gcm, Key};
use aws_lc_rs::hmac;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::PgRecordDecoder;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres};

use crate::common::ids::{AppId, DataKeyId, UserId};

/// The name of a master key, such as `2026-11`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type, serde::Serialize)]
#[sqlx(transparent)]
#[serde(transparent)]
pub struct MasterKeyId(pub(super) String);

impl MasterKeyId {
    /// Parses 1 to 32 letters, digits, `-` and `_`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ((1..=32).contains(&text.len()) && text.chars().all(sound)).then(|| Self(text.to_owned()))
    }

    /// Generates a name: this date and four random letters, so that two keys of one day differ.
    ///
    /// # Errors
    /// Fails only if the operating system's random number generator does.
    pub fn generate(date: time::Date) -> Result<Self, super::VaultError> {
        let letter = |byte: u8| char::from(b'a' + byte % 26);
        let letters: String = super::associated_data::random::<4>()?.map(letter).iter().collect();
        Ok(Self(format!("{date}-{letters}")))
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The owner of a key, which determines its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// Seals the service's own secrets: signing keys.
    Service,
    /// Hashes access codes.
    CodeHash,
    /// Hashes client secrets and session tokens.
    SecretHash,
    /// Hashes the access codes of an app that was moved here from another deployment.
    AppCodeHash(AppId),
    /// Hashes the client secrets of an app that was moved here, and whatever else of it is stored as a hash.
    AppSecretHash(AppId),
    /// Seals what belongs to an app: its Dapi secret, its upstreams' secrets and tokens.
    App(AppId),
    /// Seals what is held for one user: codes, tokens, user secrets.
    User {
        /// The app that the user belongs to.
        app: AppId,
        /// The user whose erasure destroys the key.
        user: UserId,
    },
}

impl KeyOwner {
    /// Returns the value of `data_keys.purpose`.
    #[must_use]
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::CodeHash | Self::AppCodeHash(_) => "code_hash",
            Self::SecretHash | Self::AppSecretHash(_) => "secret_hash",
            Self::App(_) => "app",
            Self::User { .. } => "user",
        }
    }

    /// Returns the app that the key belongs to, directly or through its user.
    #[must_use]
    pub fn app(self) -> Option<AppId> {
        match self {
            Self::App(app)
            | Self::AppCodeHash(app)
            | Self::AppSecretHash(app)
            | Self::User { app, .. } => Some(app),
            Self::Service | Self::CodeHash | Self::SecretHash => None,
        }
    }

    /// Returns the user that the key belongs to.
    #[must_use]
    pub fn user(self) -> Option<UserId> {
        match self {
            Self::User { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Returns the owner of an app's key of this purpose; `None` for a purpose that an app has no key for.
    #[must_use]
    pub fn of_app(purpose: &str, app: AppId, user: Option<UserId>) -> Option<Self> {
        Self::from_columns(purpose, Some(app), user)
    }

    /// Reads the owner from its columns; returns `None` for a combination that the CHECK constraint excludes.
    pub(super) fn from_columns(
        purpose: &str,
        app: Option<AppId>,
        user: Option<UserId>,
    ) -> Option<Self> {
        match (purpose, app, user) {
            ("service", None, None) => Some(Self::Service),
            ("code_hash", None, None) => Some(Self::CodeHash),
            ("secret_hash", None, None) => Some(Self::SecretHash),
            ("code_hash", Some(app), None) => Some(Self::AppCodeHash(app)),
            ("secret_hash", Some(app), None) => Some(Self::AppSecretHash(app)),
            ("app", Some(app), None) => Some(Self::App(app)),
            ("user", Some(app), Some(user)) => Some(Self::User { app, user }),
            _ => None,
        }
    }

    /// Returns whether the key hashes rather than seals.
    pub(super) fn hashes(self) -> bool {
        matches!(self.purpose(), "code_hash" | "secret_hash")
    }
}

/// A data key or hash key as the database stores it: useless without its master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// The id by which sealed values refer to the key.
    pub id: DataKeyId,
    /// The owner, which is part of the wrapping's AAD.
    pub owner: KeyOwner,
    /// The master key that wrapped it.
    pub master_key_id: MasterKeyId,
    /// What the master key made of it; the first byte names the format.
    pub wrapped: Vec<u8>,
    /// While the key rotates, the one that only opens: the next, or the former one.
    pub other: Option<OtherKey>,
}

/// The second key of an owner whose key rotates, wrapped for the same owner by the same master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherKey {
    /// The id by which sealed values refer to the key.
    pub id: DataKeyId,
    /// What the master key made of it.
    pub wrapped: Vec<u8>,
}

impl OtherKey {
    pub(super) fn from_columns(id: Option<DataKeyId>, wrapped: Option<Vec<u8>>) -> Option<Self> {
        id.zip(wrapped).map(|(id, wrapped)| Self { id, wrapped })
    }
}

impl WrappedKey {
    /// Returns the key that only opens, as a wrapped key of its own.
    pub(super) fn other(&self) -> Option<Self> {
        let OtherKey { id, wrapped } = self.other.clone()?;
        let (owner, master_key_id) = (self.owner, self.master_key_id.clone());
        Some(Self { id, owner, master_key_id, wrapped, other: None })
    }
}

impl sqlx::Type<Postgres> for WrappedKey {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("wrapped_key")
    }
}

/// An app's or a user's data key, as the SQL function `key_of` returns it.
impl<'r> Decode<'r, Postgres> for WrappedKey {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let mut fields = PgRecordDecoder::new(value)?;
        let id = fields.try_decode()?;
        let (app, user) = (fields.try_decode::<Option<AppId>>()?, fields.try_decode()?);
        let owner = match (app, user) {
            (Some(app), None) => KeyOwner::App(app),
            (Some(app), Some(user)) => KeyOwner::User { app, user },
            (None, _) => return Err("a data key without an app".into()),
        };
        let (master_key_id, wrapped) = (fields.try_decode()?, fields.try_decode()?);
        let other = OtherKey::from_columns(fields.try_decode()?, fields.try_decode()?);
        Ok(Self { id, owner, master_key_id, wrapped, other })
    }
}

/// An unwrapped key that seals, with the other one of its owner, which only opens, while it rotates. Wiped when dropped.
pub struct DataKey {
    id: DataKeyId,
    cipher: Aes256Gcm,
    other: Option<(DataKeyId, Aes256Gcm)>,
}

impl DataKey {
    pub(super) fn new(id: DataKeyId, bytes: &[u8; 32]) -> Self {
        Self { id, cipher: Aes256Gcm::new(&Key::<Aes256Gcm>::from(*bytes)), other: None }
    }

    /// Lets it open what is sealed under another key of the same owner.
    pub(super) fn with_other(self, other: Option<Self>) -> Self {
        Self { other: other.map(|other| (other.id, other.cipher)), ..self }
    }

    /// Returns the cipher that opens what is sealed under the key of this id.
    pub(super) fn opening(&self, id: DataKeyId) -> Option<&Aes256Gcm> {
        if self.id == id {
            return Some(&self.cipher);
        }
        self.other.as_ref().filter(|(other, _)| *other == id).map(|(_, cipher)| cipher)
    }

    /// Returns the id that values sealed under this key carry.
    #[must_use]
    pub fn id(&self) -> DataKeyId {
        self.id
    }

    pub(super) fn cipher(&self) -> &Aes256Gcm {
        &self.cipher
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataKey({})", self.id)
    }
}

/// A key for keyed hashes, HMAC-SHA-256 (RFC 2104).
pub struct HashKey(hmac::Key);

impl HashKey {
    pub(super) fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Hashes `parts`. Each part is preceded by its length, so that different lists of parts never hash alike by
    /// concatenation.
    #[must_use]
    pub fn hash(&self, parts: &[&[u8]]) -> KeyedHash {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        KeyedHash(hash)
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

/// A keyed hash: what the database stores instead of a secret.
#[derive(Clone, Copy, Debug)]
pub struct KeyedHash([u8; 32]);

impl KeyedHash {
    /// Returns the bytes for a column.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Compares with a stored hash in constant time.
    #[must_use]
    pub fn matches(&self, stored: &[u8]) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.0.as_slice(), stored).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = HashKey::new(&[1; 32]);
        let hash = |parts: &[&[u8]]| key.hash(parts).0;
        assert_eq!(hash(&[b"ab", b"c"]), hash(&[b"ab", b"c"]));
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"abc"]), hash(&[b"abc", b""]));
    }

    #[test]
    fn another_key_hashes_differently() {
        let (one, two) = (HashKey::new(&[1; 32]), HashKey::new(&[2; 32]));
        assert!(one.hash(&[b"x"]).matches(one.hash(&[b"x"]).as_bytes()));
        assert!(!one.hash(&[b"x"]).matches(two.hash(&[b"x"]).as_bytes()));
        assert!(!one.hash(&[b"x"]).matches(b"short"));
    }
}
