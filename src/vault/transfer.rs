//! Data keys on their way to another deployment: sealed to its import key by HPKE (RFC 9180), so that no master key and no
//! unwrapped data key leaves a deployment.
//!
//! Base mode, single shot (§6.1), DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Base mode does not say who sealed: the
//! signed manifest of the export does (`moves`). A sealed value is `enc (32) ‖ ciphertext ‖ tag (16)`.

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use super::associated_data::AssociatedData;
use super::keys::{KeyOwner, WrappedKey};
use super::{Vault, VaultError};
use crate::common::ids::{AppId, DataKeyId, ExportId, ImportKeyId, UserId};
use crate::common::secret::{Sealable, SecretText};

/// The `info` of RFC 9180 §5.1: what these keys are used for, and nothing else.
const INFO: &[u8] = b"strongroom app export v1";
/// The length of an encapsulated key and of a public key of X25519 (RFC 9180 §7.1).
pub const PUBLIC_KEY_BYTES: usize = 32;

/// The private half of an import key; wiped when dropped.
pub struct ImportPrivateKey(Zeroizing<Vec<u8>>);

impl Sealable for ImportPrivateKey {
    fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        Some(Self(bytes))
    }
}

impl std::fmt::Debug for ImportPrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ImportPrivateKey")
    }
}

impl ImportPrivateKey {
    /// Generates a key pair; returns the public half first.
    ///
    /// # Errors
    /// Fails only if the operating system's random number generator does.
    pub fn generate() -> Result<([u8; PUBLIC_KEY_BYTES], Self), VaultError> {
        let (public, private) = SUITE.generate_key_pair().map_err(|_| VaultError::NoRandomness)?;
        let public = public.0.try_into().map_err(|_| VaultError::NoRandomness)?;
        Ok((public, Self(Zeroizing::new(private.secret_bytes().to_vec()))))
    }
}

/// From which export to which import key: part of the associated data, so that nothing opens in another one.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// The export.
    pub export: ExportId,
    /// The import key.
    pub import_key: ImportKeyId,
}

impl Transfer {
    fn aad(&self, what: &str, parts: &[Option<uuid::Uuid>]) -> AssociatedData {
        let mut aad = AssociatedData::new("app export", what);
        aad.id(Some(self.export.uuid()));
        aad.id(Some(self.import_key.uuid()));
        for part in parts {
            aad.id(*part);
        }
        aad
    }

    fn key_aad(&self, owner: KeyOwner, id: DataKeyId) -> AssociatedData {
        let (app, user) = (owner.app().map(AppId::uuid), owner.user().map(UserId::uuid));
        self.aad(owner.purpose(), &[app, user, Some(id.uuid())])
    }

    fn receipt_aad(&self, app: AppId) -> AssociatedData {
        self.aad("receipt", &[Some(app.uuid())])
    }

    /// Seals the receipt, by which the source will know that the import is done.
    ///
    /// # Errors
    /// [`VaultError::DoesNotOpen`] if the public key is none.
    pub fn seal_receipt(
        &self,
        app: AppId,
        receipt: &SecretText,
        to: &[u8; PUBLIC_KEY_BYTES],
    ) -> Result<Vec<u8>, VaultError> {
        seal(receipt.expose_bytes(), &self.receipt_aad(app), to)
    }

    /// Opens the receipt.
    ///
    /// # Errors
    /// [`VaultError::DoesNotOpen`].
    pub fn open_receipt(
        &self,
        app: AppId,
        sealed: &[u8],
        private: &ImportPrivateKey,
    ) -> Result<String, VaultError> {
        let opened = open(sealed, &self.receipt_aad(app), private)?;
        std::str::from_utf8(&opened).map(str::to_owned).map_err(|_| VaultError::DoesNotOpen)
    }
}

impl Vault {
    /// Unwraps a key and seals it for a deployment that will know it as `id` of `owner`.
    ///
    /// # Errors
    /// As [`Vault::unwrap`]; [`VaultError::DoesNotOpen`] also if the public key is none.
    pub async fn seal_for_transfer(
        &self,
        key: &WrappedKey,
        (id, owner): (DataKeyId, KeyOwner),
        to: &[u8; PUBLIC_KEY_BYTES],
        transfer: &Transfer,
    ) -> Result<Vec<u8>, VaultError> {
        let bytes = self.masters().named(&key.master_key_id)?.open(key).await?;
        seal(bytes.as_slice(), &transfer.key_aad(owner, id), to)
    }

    /// Opens a transferred key and wraps it under the first master key of this deployment.
    ///
    /// # Errors
    /// [`VaultError::DoesNotOpen`] if it was sealed to another import key, in another export, or as another key.
    pub async fn receive(
        &self,
        sealed: &[u8],
        (id, owner): (DataKeyId, KeyOwner),
        private: &ImportPrivateKey,
        transfer: &Transfer,
    ) -> Result<WrappedKey, VaultError> {
        let opened = open(sealed, &transfer.key_aad(owner, id), private)?;
        let bytes = <[u8; 32]>::try_from(opened.as_slice()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| VaultError::DoesNotOpen)?;
        self.masters().first().wrap(id, owner, &bytes).await
    }
}

fn seal(
    plain: &[u8],
    aad: &AssociatedData,
    to: &[u8; PUBLIC_KEY_BYTES],
) -> Result<Vec<u8>, VaultError> {
    let to = HpkePublicKey(to.to_vec());
    let sealed = SUITE.seal(INFO, aad.as_bytes(), plain, &to);
    let (EncapsulatedSecret(mut bytes), ciphertext) =
        sealed.map_err(|_| VaultError::DoesNotOpen)?;
    bytes.extend_from_slice(&ciphertext);
    Ok(bytes)
}

fn open(
    sealed: &[u8],
    aad: &AssociatedData,
    private: &ImportPrivateKey,
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let (enc, ciphertext) =
        sealed.split_first_chunk::<PUBLIC_KEY_BYTES>().ok_or(VaultError::DoesNotOpen)?;
    let (enc, private) =
        (EncapsulatedSecret(enc.to_vec()), HpkePrivateKey::from(private.0.to_vec()));
    let opened = SUITE.open(&enc, INFO, aad.as_bytes(), ciphertext, &private);
    opened.map(Zeroizing::new).map_err(|_| VaultError::DoesNotOpen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer() -> Transfer {
        Transfer { export: ExportId::new(), import_key: ImportKeyId::new() }
    }

    #[test]
    fn what_is_sealed_for_an_import_opens_there_and_nowhere_else() {
        let (transfer, app) = (transfer(), AppId::new());
        let (public, private) = ImportPrivateKey::generate().unwrap();
        let sealed =
            transfer.seal_receipt(app, &SecretText::new("receipt_1".to_owned()), &public).unwrap();
        assert_eq!(transfer.open_receipt(app, &sealed, &private).unwrap(), "receipt_1");
        let (_, other) = ImportPrivateKey::generate().unwrap();
        assert!(transfer.open_receipt(app, &sealed, &other).is_err());
        assert!(transfer.open_receipt(AppId::new(), &sealed, &private).is_err());
        for elsewhere in [
            Transfer { export: ExportId::new(), ..transfer },
            Transfer { import_key: ImportKeyId::new(), ..transfer },
        ] {
            assert!(elsewhere.open_receipt(app, &sealed, &private).is_err());
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(transfer.open_receipt(app, &changed, &private).is_err(), "byte {at}");
            assert!(transfer.open_receipt(app, &sealed[..at], &private).is_err(), "length {at}");
        }
    }

    #[test]
    fn a_key_is_bound_to_its_owner_and_id() {
        let transfer = transfer();
        let (app, user, id) = (AppId::new(), UserId::new(), DataKeyId::new());
        let aad = |owner, id| transfer.key_aad(owner, id).as_bytes().to_vec();
        let owners = [
            KeyOwner::App(app),
            KeyOwner::App(AppId::new()),
            KeyOwner::User { app, user },
            KeyOwner::User { app, user: UserId::new() },
            KeyOwner::AppCodeHash(app),
            KeyOwner::AppSecretHash(app),
        ];
        let mut seen: Vec<_> = owners.iter().map(|owner| aad(*owner, id)).collect();
        seen.push(aad(owners[0], DataKeyId::new()));
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
