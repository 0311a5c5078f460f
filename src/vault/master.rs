//! Master keys: an id and where the key is. The first of the list wraps data keys, all of them open.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::VaultError;
use super::associated_data::random;
use super::aws_kms::{AwsKms, AwsSettings, InvalidAwsKms};
use super::keys::{DataKey, KeyOwner, MasterKeyId, OtherKey, WrappedKey};
use super::local::{KeyBytes, LocalKey, MASTER_KEY_BYTES};
use super::metrics::Metrics;
use super::remote::{Engine, RemoteKey};
use super::transit::{InvalidTransit, Transit, TransitClient};
use crate::common::ids::DataKeyId;

/// How long an opened data key is kept unless `STRONGROOM_DATA_KEY_CACHE_SECONDS` says otherwise.
pub const KEEP_DATA_KEYS: Duration = Duration::from_mins(5);

/// What is wrong with `STRONGROOM_MASTER_KEYS`; never shows a part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMasterKey {
    /// There is no entry.
    #[error("holds no key; `strongroom keys generate` makes one")]
    None,
    /// An entry has no colon, or its id has other characters than letters, digits, `-` and `_`.
    #[error(
        "entry {0} is not of the form id:base64, id:transit:MOUNT/KEY or id:awskms:ARN, with an id of 1 to 32 \
         letters, digits, - and _"
    )]
    Form(usize),
    /// The part after the colon is not base64 of 32 bytes.
    #[error("key `{0}` is not the standard base64 of {MASTER_KEY_BYTES} bytes")]
    Bytes(MasterKeyId),
    /// Two entries have the same id.
    #[error("key `{0}` is given twice")]
    Twice(MasterKeyId),
    /// The part after `transit:` does not name a key of a Transit engine.
    #[error("key `{0}`: {1}")]
    Transit(MasterKeyId, InvalidTransit),
    /// A key is at a Transit engine, and no address of one is known.
    #[error("key `{0}` is at a Transit engine, and STRONGROOM_TRANSIT_ADDR is not set")]
    NoTransit(MasterKeyId),
    /// The part after `awskms:` does not name a key of AWS KMS, or the endpoint is none for data keys.
    #[error("key `{0}`: {1}")]
    AwsKms(MasterKeyId, InvalidAwsKms),
}

/// Where the engines are that an entry may refer to.
#[derive(Debug, Default)]
pub struct Engines {
    /// The Transit engine of `id:transit:MOUNT/KEY`.
    pub transit: Option<Arc<TransitClient>>,
    /// The AWS KMS of `id:awskms:ARN`.
    pub aws: Arc<AwsSettings>,
}

/// A named master key.
pub enum MasterKey {
    /// `id:base64`: its bytes are in this process, wiped when dropped.
    Local(Box<LocalKey>),
    /// `id:transit:MOUNT/KEY`, `id:awskms:ARN`: it never leaves Vault's or OpenBao's Transit engine, or AWS KMS.
    Remote(RemoteKey),
}

impl MasterKey {
    /// Returns the key's name.
    #[must_use]
    pub fn id(&self) -> &MasterKeyId {
        match self {
            Self::Local(key) => key.id(),
            Self::Remote(key) => key.id(),
        }
    }

    /// Returns where the key is: `local`, `transit` or `awskms`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::Remote(key) => key.kind(),
        }
    }

    /// Returns a value that shows whether two keys of one name are the same, and reveals nothing about the key.
    #[must_use]
    pub fn check_value(&self) -> &[u8; 32] {
        match self {
            Self::Local(key) => key.check_value(),
            Self::Remote(key) => key.check_value(),
        }
    }

    /// Returns the key if it is elsewhere.
    pub(super) fn remote(&self) -> Option<&RemoteKey> {
        match self {
            Self::Local(_) => None,
            Self::Remote(key) => Some(key),
        }
    }

    pub(super) async fn wrap(
        &self,
        id: DataKeyId,
        owner: KeyOwner,
        bytes: &KeyBytes,
    ) -> Result<WrappedKey, VaultError> {
        match self {
            Self::Local(key) => key.wrap(id, owner, bytes),
            Self::Remote(key) => Ok(key.wrap(id, owner, bytes.clone()).await?),
        }
    }

    pub(super) async fn open(&self, key: &WrappedKey) -> Result<KeyBytes, VaultError> {
        match self {
            Self::Local(local) => local.open(key),
            Self::Remote(remote) => Ok(remote.open(key.clone()).await?),
        }
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({}, {})", self.id(), self.kind())
    }
}

/// The master keys of this process: the first wraps, all open.
#[derive(Debug)]
pub struct MasterKeys {
    first: MasterKey,
    others: Vec<MasterKey>,
    keep_data_keys: Duration,
    metrics: Metrics,
}

impl MasterKeys {
    /// Parses `id:base64,id:base64` and ignores white space around the entries.
    pub fn parse(text: &str) -> Result<Self, InvalidMasterKey> {
        Self::parse_with(text, &Engines::default())
    }

    /// The same, with the engines that `id:transit:MOUNT/KEY` and `id:awskms:ARN` refer to.
    pub fn parse_with(text: &str, engines: &Engines) -> Result<Self, InvalidMasterKey> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let mut keys = Vec::new();
        for (index, entry) in entries.enumerate() {
            let key = parse_entry(index + 1, entry, engines)?;
            if keys.iter().any(|other: &MasterKey| other.id() == key.id()) {
                return Err(InvalidMasterKey::Twice(key.id().clone()));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(InvalidMasterKey::None)?;
        let (keep_data_keys, metrics) = (KEEP_DATA_KEYS, Metrics::default());
        Ok(Self { first, others: keys.collect(), keep_data_keys, metrics })
    }

    /// Sets for how long an opened data key is kept; zero keeps none.
    #[must_use]
    pub fn keeping_data_keys(self, keep_data_keys: Duration) -> Self {
        Self { keep_data_keys, ..self }
    }

    /// Sets the metrics that count the use of the keys.
    #[must_use]
    pub fn counted_by(self, metrics: Metrics) -> Self {
        for key in self.iter().filter_map(MasterKey::remote) {
            key.count_by(&metrics);
        }
        Self { metrics, ..self }
    }

    pub(super) fn keep_data_keys(&self) -> Duration {
        self.keep_data_keys
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
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

    /// Returns the key that wraps.
    #[must_use]
    pub fn first(&self) -> &MasterKey {
        &self.first
    }

    pub(super) fn named(&self, id: &MasterKeyId) -> Result<&MasterKey, VaultError> {
        let found = self.iter().find(|key| key.id() == id);
        found.ok_or_else(|| VaultError::UnknownMasterKey(id.clone()))
    }

    pub(super) async fn open_data_key(&self, wrapped: &WrappedKey) -> Result<DataKey, VaultError> {
        if wrapped.owner.hashes() {
            return Err(VaultError::DoesNotOpen);
        }
        let (master, other) = (self.named(&wrapped.master_key_id)?, wrapped.other());
        // At once, so that they are one trip to a master key that is elsewhere.
        let other = async {
            let Some(other) = &other else { return Ok(None) };
            let bytes = master.open(other).await?;
            Ok(Some(DataKey::new(other.id, &bytes)))
        };
        let (bytes, other) = futures_util::try_join!(master.open(wrapped), other)?;
        Ok(DataKey::new(wrapped.id, &bytes).with_other(other))
    }

    /// Generates a key for `owner`. Returns it wrapped by the first master key, and its bytes.
    pub(super) async fn new_key(
        &self,
        owner: KeyOwner,
    ) -> Result<(WrappedKey, KeyBytes), VaultError> {
        let bytes: KeyBytes = Zeroizing::new(random()?);
        let wrapped = self.first.wrap(DataKeyId::new(), owner, &bytes).await?;
        Ok((wrapped, bytes))
    }

    /// Wraps the same data key under the first master key, and the other one of its row with it.
    pub(super) async fn rewrap(&self, wrapped: &WrappedKey) -> Result<WrappedKey, VaultError> {
        let (master, other) = (self.named(&wrapped.master_key_id)?, wrapped.other());
        let rewrap = async |key: &WrappedKey| {
            let bytes = master.open(key).await?;
            self.first.wrap(key.id, key.owner, &bytes).await
        };
        let other = async {
            let Some(other) = &other else { return Ok(None) };
            let WrappedKey { id, wrapped, .. } = rewrap(other).await?;
            Ok(Some(OtherKey { id, wrapped }))
        };
        let (key, other) = futures_util::try_join!(rewrap(wrapped), other)?;
        Ok(WrappedKey { other, ..key })
    }
}

fn parse_entry(
    number: usize,
    entry: &str,
    engines: &Engines,
) -> Result<MasterKey, InvalidMasterKey> {
    let (id, place) = entry.split_once(':').ok_or(InvalidMasterKey::Form(number))?;
    let id = MasterKeyId::parse(id).ok_or(InvalidMasterKey::Form(number))?;
    match place.split_once(':') {
        None => Ok(MasterKey::Local(Box::new(parse_local(id, place)?))),
        Some(("transit", path)) => {
            let client = engines.transit.as_ref();
            let client = client.ok_or_else(|| InvalidMasterKey::NoTransit(id.clone()))?;
            let engine = Transit::new(Arc::clone(client), path);
            let engine = engine.map_err(|what| InvalidMasterKey::Transit(id.clone(), what))?;
            Ok(MasterKey::Remote(RemoteKey::new(id, Engine::Transit(engine))))
        }
        Some(("awskms", arn)) => {
            let engine = AwsKms::new(Arc::clone(&engines.aws), arn);
            let engine = engine.map_err(|what| InvalidMasterKey::AwsKms(id.clone(), what))?;
            Ok(MasterKey::Remote(RemoteKey::new(id, Engine::AwsKms(engine))))
        }
        Some(_) => Err(InvalidMasterKey::Form(number)),
    }
}

fn parse_local(id: MasterKeyId, encoded: &str) -> Result<LocalKey, InvalidMasterKey> {
    let decoded = STANDARD.decode(encoded).map(Zeroizing::new);
    let bytes = decoded.map_err(|_| InvalidMasterKey::Bytes(id.clone()))?;
    let bytes = <[u8; MASTER_KEY_BYTES]>::try_from(bytes.as_slice()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| InvalidMasterKey::Bytes(id.clone()))?;
    Ok(LocalKey::new(id, &bytes))
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

    /// Local keys never wait.
    fn now<T>(ready: impl Future<Output = T>) -> T {
        futures_util::FutureExt::now_or_never(ready).unwrap()
    }

    fn new_key(masters: &MasterKeys, owner: KeyOwner) -> WrappedKey {
        now(masters.new_key(owner)).unwrap().0
    }

    #[test]
    fn the_first_key_wraps_and_all_unwrap() {
        let old = masters(&format!("old:{KEY}"));
        let owner = KeyOwner::User { app: AppId::new(), user: UserId::new() };
        let wrapped = new_key(&old, owner);
        let rotated = masters(&format!("new:{OTHER}, old:{KEY}"));
        assert!(now(rotated.open_data_key(&wrapped)).is_ok());
        assert_eq!(new_key(&rotated, owner).master_key_id.as_str(), "new");
        let rewrapped = now(rotated.rewrap(&wrapped)).unwrap();
        assert_eq!(rewrapped.id, wrapped.id);
        assert!(now(masters(&format!("new:{OTHER}")).open_data_key(&rewrapped)).is_ok());
    }

    #[test]
    fn a_wrapped_key_opens_for_its_owner_alone() {
        let masters = masters(&format!("k:{KEY}"));
        let (app, user) = (AppId::new(), UserId::new());
        let wrapped = new_key(&masters, KeyOwner::User { app, user });
        let other_owners = [
            KeyOwner::Service,
            KeyOwner::App(app),
            KeyOwner::User { app, user: UserId::new() },
            KeyOwner::User { app: AppId::new(), user },
        ];
        for owner in other_owners {
            let moved = WrappedKey { owner, ..wrapped.clone() };
            assert!(
                matches!(now(masters.open_data_key(&moved)), Err(VaultError::DoesNotOpen)),
                "{owner:?}"
            );
        }
        let renamed = WrappedKey { id: DataKeyId::new(), ..wrapped };
        assert!(matches!(now(masters.open_data_key(&renamed)), Err(VaultError::DoesNotOpen)));
    }

    #[test]
    fn a_hash_key_never_serves_as_a_data_key() {
        let masters = masters(&format!("k:{KEY}"));
        let hash_key = new_key(&masters, KeyOwner::CodeHash);
        assert!(now(masters.open_data_key(&hash_key)).is_err());
    }

    #[test]
    fn a_damaged_or_shortened_wrapped_key_is_refused_without_a_panic() {
        let masters = masters(&format!("k:{KEY}"));
        let wrapped = new_key(&masters, KeyOwner::Service);
        for length in 0..wrapped.wrapped.len() {
            let short =
                WrappedKey { wrapped: wrapped.wrapped[..length].to_vec(), ..wrapped.clone() };
            assert!(now(masters.open_data_key(&short)).is_err());
        }
        for index in 0..wrapped.wrapped.len() {
            let mut damaged = wrapped.clone();
            damaged.wrapped[index] ^= 1;
            assert!(now(masters.open_data_key(&damaged)).is_err());
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
