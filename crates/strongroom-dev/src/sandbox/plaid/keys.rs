//! The keys that sign webhooks: ECDSA over P-256 with SHA-256 (ES256, RFC 7518 §3.4).
//!
//! May import: bounded, mint.

use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::sandbox::bounded::locked;
use crate::sandbox::mint::Mint;

/// The length of a P-256 coordinate, in bytes.
const COORDINATE: usize = 32;

pub(super) struct Key {
    pub(super) id: String,
    pair: EcdsaKeyPair,
    created_at: OffsetDateTime,
    expired_at: Mutex<Option<OffsetDateTime>>,
}

impl Key {
    /// Generates a key. `None` if the system has no random numbers.
    fn generate(id: String, now: OffsetDateTime) -> Option<Arc<Self>> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
        Some(Arc::new(Self { id, pair, created_at: now, expired_at: Mutex::new(None) }))
    }

    /// Signs `text`; the signature is `r || s` in base64url.
    pub(super) fn sign(&self, text: &str) -> String {
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes());
        signature.map(|signature| URL_SAFE_NO_PAD.encode(signature)).unwrap_or_default()
    }

    /// Returns the public key as a JWK (RFC 7517), with Plaid's `created_at` and `expired_at`.
    pub(super) fn to_jwk(&self) -> Value {
        // An uncompressed point: 0x04, x, y (SEC 1, §2.3.3).
        let point = self.pair.public_key().as_ref();
        let part = |from: usize| {
            let part = point.get(from..from + COORDINATE).unwrap_or_default();
            URL_SAFE_NO_PAD.encode(part)
        };
        json!({
            "alg": "ES256",
            "created_at": self.created_at.unix_timestamp(),
            "crv": "P-256",
            "expired_at": locked(&self.expired_at).map(OffsetDateTime::unix_timestamp),
            "kid": self.id,
            "kty": "EC",
            "use": "sig",
            "x": part(1),
            "y": part(1 + COORDINATE),
        })
    }
}

/// The keys of Plaid, and one that is not Plaid's.
#[derive(Default)]
pub(super) struct Keys {
    /// The last one signs.
    known: Mutex<Vec<Arc<Key>>>,
    stranger: Mutex<Option<Arc<Key>>>,
}

impl Keys {
    /// Returns the key that signs at present; generates it at the first use.
    pub(super) fn current(&self, mint: &Mint, now: OffsetDateTime) -> Option<Arc<Key>> {
        let mut known = locked(&self.known);
        if known.is_empty() {
            known.push(Key::generate(mint.uuid().to_string(), now)?);
        }
        known.last().cloned()
    }

    /// Replaces the key that signs; the old one expires and can still be looked up.
    pub(super) fn rotate(&self, mint: &Mint, now: OffsetDateTime) -> Option<Arc<Key>> {
        let old = self.current(mint, now)?;
        let new = Key::generate(mint.uuid().to_string(), now)?;
        locked(&old.expired_at).get_or_insert(now);
        locked(&self.known).push(Arc::clone(&new));
        Some(new)
    }

    /// Returns a key that Plaid does not have.
    pub(super) fn stranger(&self, mint: &Mint, now: OffsetDateTime) -> Option<Arc<Key>> {
        let mut stranger = locked(&self.stranger);
        if stranger.is_none() {
            *stranger = Key::generate(mint.uuid().to_string(), now);
        }
        stranger.clone()
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Key>> {
        locked(&self.known).iter().find(|key| key.id == id).cloned()
    }
}
