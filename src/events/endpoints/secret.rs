//! What deliveries are signed with, and the signatures (Standard Webhooks, "Signature scheme").

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::model::{Signature, public_key};
use crate::common::ids::{AppId, WebhookSecretId};
use crate::common::secret::secret_text;
use crate::vault::{AadContext, DataKey, Sealed, VaultError};

secret_text!(
    /// A webhook's secret for HMAC: `whsec_` and 32 bytes in base64.
    WebhookSecret
);
secret_text!(
    /// The seed of a webhook's key for Ed25519, in base64. Never shown.
    SigningSeed
);

/// The prefix of secrets, which is not a part of the key.
const PREFIX: &str = "whsec_";
const KEY_BYTES: usize = 32;

/// A new secret, sealed for its row.
pub(super) struct NewSecret {
    pub(super) id: WebhookSecretId,
    pub(super) secret: WebhookSecret,
    pub(super) sealed: Sealed<WebhookSecret>,
    pub(super) signing_key: Sealed<SigningSeed>,
    pub(super) public_key: Vec<u8>,
}

fn random() -> Result<Zeroizing<[u8; KEY_BYTES]>, VaultError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| VaultError::NoRandomness)?;
    Ok(bytes)
}

fn aad(app: AppId, id: WebhookSecretId, column: &'static str) -> AadContext {
    AadContext { table: "webhook_secrets", column, app: Some(app), user: None, row: id.uuid() }
}

impl NewSecret {
    /// Draws a secret and seals it under the app's key.
    pub(super) fn draw(app: AppId, key: &DataKey) -> Result<Self, VaultError> {
        let id = WebhookSecretId::new();
        let secret =
            WebhookSecret::new(format!("{PREFIX}{}", STANDARD.encode(random()?.as_slice())));
        let seed = random()?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice());
        let pair = pair.map_err(|_| VaultError::NoRandomness)?;
        let seed = SigningSeed::new(STANDARD.encode(seed.as_slice()));
        Ok(Self {
            id,
            sealed: Sealed::seal(&secret, key, &aad(app, id, "secret"))?,
            signing_key: Sealed::seal(&seed, key, &aad(app, id, "signing_key"))?,
            public_key: pair.public_key().as_ref().to_vec(),
            secret,
        })
    }

    /// The public key as Standard Webhooks writes it.
    pub(super) fn public_key(&self) -> String {
        public_key(&self.public_key)
    }
}

/// An opened key that signs.
pub enum SigningKey {
    /// For `v1`.
    Hmac(Box<hmac::Key>),
    /// For `v1a`.
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// Opens what signs deliveries of this kind. Returns `None` if the stored key is not one.
    ///
    /// # Errors
    /// The vault's.
    pub fn open(
        kind: Signature,
        app: AppId,
        key: &DataKey,
        sealed: &super::SealedSecret,
    ) -> Result<Option<Self>, VaultError> {
        Ok(match kind {
            Signature::V1 => {
                let secret = sealed.secret.open(key, &aad(app, sealed.id, "secret"))?;
                decode(secret.expose().strip_prefix(PREFIX).unwrap_or_default())
                    .map(|bytes| Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes))))
            }
            Signature::V1a => {
                let seed = sealed.signing_key.open(key, &aad(app, sealed.id, "signing_key"))?;
                decode(seed.expose())
                    .and_then(|seed| Ed25519KeyPair::from_seed_unchecked(&seed).ok())
                    .map(Self::Ed25519)
            }
        })
    }

    fn sign(&self, message: &[u8]) -> String {
        match self {
            Self::Hmac(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, message))),
            Self::Ed25519(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(message))),
        }
    }
}

fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD.decode(text).ok().map(Zeroizing::new)
}

/// Returns the header `webhook-signature`: one signature for each live secret, with a space between them, of
/// `id.timestamp.body`.
#[must_use]
pub fn signatures(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut message = format!("{id}.{timestamp}.").into_bytes();
    message.extend_from_slice(body);
    let each: Vec<_> = keys.iter().map(|key| key.sign(&message)).collect();
    each.join(" ")
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    /// The example of the specification's reference implementations.
    #[test]
    fn a_signature_by_hmac_is_that_of_the_reference_implementations() {
        let key = decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let keys = [SigningKey::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key)))];
        let header = signatures(
            &keys,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_live_secret_signs_and_a_public_key_verifies() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; KEY_BYTES]).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let other = Ed25519KeyPair::from_seed_unchecked(&[8; KEY_BYTES]).unwrap();
        let keys = [SigningKey::Ed25519(pair), SigningKey::Ed25519(other)];
        let header = signatures(&keys, "event_1", 5, b"{}");
        let each: Vec<_> = header.split(' ').collect();
        assert_eq!(each.len(), 2);
        let signature = STANDARD.decode(each[0].strip_prefix("v1a,").unwrap()).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, public);
        assert!(key.verify(b"event_1.5.{}", &signature).is_ok());
    }
}
