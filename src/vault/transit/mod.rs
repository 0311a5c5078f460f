//! Master keys at a Transit engine, of Vault's or OpenBao's
//! (<https://openbao.org/api-docs/secret/transit/>): data keys are encrypted and decrypted there, in batches.
//!
//! A data key is bound to its row inside the plaintext, by the hash of what a local master key takes as AAD. The
//! engine's own `associated_data` would do as well, but `transit/rewrap` refuses ciphertexts made with it.

mod client;
mod session;

pub use client::{InvalidTransitAddress, TransitClient};
pub use session::{Login, SecretSource};

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::bound::{check_value, key_of_plaintext, plaintext};
use super::engine::{Down, NewKey, tame};
use super::keys::{MasterKeyId, WrappedKey};
use super::local::KeyBytes;
use crate::common::secret::SecretText;

/// The first byte of a key that a Transit engine wrapped: the engine's ciphertext follows, as text.
const WRAPPED_TRANSIT: u8 = 2;

/// What is wrong with `MOUNT/KEY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "after transit: comes MOUNT/KEY, of letters, digits, -, _ and ., such as transit/strongroom"
)]
pub struct InvalidTransit;

/// One key of a Transit engine.
#[derive(Debug)]
pub struct Transit {
    client: Arc<TransitClient>,
    mount: String,
    key: String,
}

impl Transit {
    /// Parses `MOUNT/KEY`; a mount's path may have several segments.
    pub(super) fn new(client: Arc<TransitClient>, path: &str) -> Result<Self, InvalidTransit> {
        let (mount, key) = path.rsplit_once('/').ok_or(InvalidTransit)?;
        let sound = |segment: &str| {
            let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            (1..=128).contains(&segment.len())
                && segment.chars().all(inside)
                && !segment.starts_with('.')
        };
        if !path.split('/').all(sound) {
            return Err(InvalidTransit);
        }
        Ok(Self { client, mount: mount.to_owned(), key: key.to_owned() })
    }

    /// Hashes the place of the key. Its address is not part of it: an engine may move.
    pub(super) fn check_value(&self) -> [u8; 32] {
        check_value("transit", &format!("{}/{}", self.mount, self.key))
    }

    /// Wraps keys, in their order.
    pub(super) async fn wrap(
        &self,
        master: &MasterKeyId,
        keys: &[NewKey],
    ) -> Result<Vec<WrappedKey>, Down> {
        let inputs = keys.iter().map(|new| {
            let plain = plaintext(new.id, new.owner, master, &new.bytes);
            Zeroizing::new(STANDARD.encode(plain.as_slice()))
        });
        let results = self.batch("encrypt", "plaintext", inputs).await?;
        let results = results.into_iter().zip(keys).map(|(result, new)| {
            let ciphertext = result.ciphertext.ok_or_else(|| {
                let what = result.error.unwrap_or_else(|| "no ciphertext".to_owned());
                Down(format!("a key was not encrypted: {}", tame(&what)))
            })?;
            let mut wrapped = vec![WRAPPED_TRANSIT];
            wrapped.extend_from_slice(ciphertext.as_bytes());
            let NewKey { id, owner, .. } = *new;
            Ok(WrappedKey { id, owner, master_key_id: master.clone(), wrapped, other: None })
        });
        results.collect()
    }

    /// Opens keys, in their order; `None` for one that does not open, or not for its row.
    pub(super) async fn open(
        &self,
        master: &MasterKeyId,
        keys: &[WrappedKey],
    ) -> Result<Vec<Option<KeyBytes>>, Down> {
        let ciphertexts: Vec<_> = keys.iter().map(|key| ciphertext(&key.wrapped)).collect();
        let inputs = ciphertexts.iter().flatten().map(|text| Zeroizing::new((*text).to_owned()));
        let inputs: Vec<_> = inputs.collect();
        let results = if inputs.is_empty() {
            Vec::new()
        } else {
            self.batch("decrypt", "ciphertext", inputs.into_iter()).await?
        };
        let mut results = results.into_iter();
        let opened = keys.iter().zip(ciphertexts).map(|(key, ciphertext)| {
            ciphertext?;
            let result = results.next()?;
            if let Some(error) = &result.error {
                tracing::error!(
                    data_key = %key.id,
                    cause = tame(error),
                    "a Transit engine does not open a data key"
                );
            }
            let plain = STANDARD.decode(result.plaintext?.expose()).map(Zeroizing::new).ok()?;
            key_of_plaintext(&plain, key, master)
        });
        Ok(opened.collect())
    }

    /// Makes one call for all inputs.
    async fn batch(
        &self,
        operation: &str,
        field: &str,
        inputs: impl Iterator<Item = Zeroizing<String>>,
    ) -> Result<Vec<BatchResult>, Down> {
        // Composed by hand, so that no copy of a plaintext is left behind: base64 and ciphertexts need no escapes.
        let mut body = Zeroizing::new(String::with_capacity(64 * 1024));
        body.push_str("{\"batch_input\":[");
        let mut number = 0;
        for input in inputs {
            let comma = if number == 0 { "" } else { "," };
            body.push_str(comma);
            for part in ["{\"", field, "\":\"", input.as_str(), "\"}"] {
                body.push_str(part);
            }
            number += 1;
        }
        body.push_str("]}");
        let path = format!("{}/{operation}/{}", self.mount, self.key);
        let answer: BatchAnswer = self.client.post(&path, &body).await?;
        if answer.data.batch_results.len() != number {
            return Err(Down("an answer with another number of results".to_owned()));
        }
        Ok(answer.data.batch_results)
    }
}

/// An answer to a batch. One that failed in part, or whole for reasons of its inputs, has the same form under another
/// status.
#[derive(Deserialize)]
struct BatchAnswer {
    data: BatchData,
}

#[derive(Deserialize)]
struct BatchData {
    batch_results: Vec<BatchResult>,
}

#[derive(Deserialize)]
struct BatchResult {
    #[serde(default)]
    ciphertext: Option<String>,
    #[serde(default)]
    plaintext: Option<SecretText>,
    #[serde(default)]
    error: Option<String>,
}

/// Returns the engine's ciphertext of a stored key: printable ASCII without quotation marks and backslashes.
fn ciphertext(wrapped: &[u8]) -> Option<&str> {
    let (version, text) = wrapped.split_first()?;
    let sound = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if *version != WRAPPED_TRANSIT || text.is_empty() || !text.iter().all(sound) {
        return None;
    }
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Arc<TransitClient> {
        let login = Login::Token(SecretSource::Text(SecretText::new("token".to_owned())));
        Arc::new(TransitClient::new("http://127.0.0.1:1", login, None).unwrap())
    }

    #[test]
    fn a_place_is_a_mount_and_a_key() {
        for path in ["transit/strongroom", "teams/bank/transit/key-1", "t/k.2"] {
            assert!(Transit::new(client(), path).is_ok(), "{path}");
        }
        for path in ["", "key", "/key", "transit/", "a//b", "../sys/x", "t/k?x", "t/ k", "t/k:1"] {
            assert!(Transit::new(client(), path).is_err(), "{path}");
        }
    }

    #[test]
    fn another_place_is_another_key() {
        let value = |path| Transit::new(client(), path).unwrap().check_value();
        assert_eq!(value("transit/a"), value("transit/a"));
        assert_ne!(value("transit/a"), value("transit/b"));
    }

    #[test]
    fn only_text_that_needs_no_escape_is_sent_as_a_ciphertext() {
        let stored = |text: &str| [&[WRAPPED_TRANSIT], text.as_bytes()].concat();
        assert_eq!(ciphertext(&stored("vault:v1:AAAA+/==")), Some("vault:v1:AAAA+/=="));
        for text in ["", "a\"b", "a\\b", "a b", "ä", "a\nb"] {
            assert!(ciphertext(&stored(text)).is_none(), "{text}");
        }
        assert!(ciphertext(b"\x01vault:v1:AAAA").is_none(), "a local key's");
        assert!(ciphertext(b"").is_none());
    }
}
