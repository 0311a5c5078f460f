//! The value of a client secret: how it is drawn, hashed and inserted.

use super::store;
use crate::common::ids::{AppId, ClientSecretId};
use crate::common::secret::SecretText;
use crate::database::Conn;
use crate::vault::{HashKey, KeyedHash, Vault, VaultError};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 43 characters of 62 hold 256 bits.
const SECRET_LENGTH: usize = 43;

/// Returns random letters and digits, all equally likely: bytes from 248 on, which would favour the
/// first eight of the alphabet, are discarded.
pub(super) fn random_text(length: usize) -> Result<String, VaultError> {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0_u8; 64];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| VaultError::NoRandomness)?;
        let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| usize::from(byte % 62));
        let letters =
            fair.filter_map(|index| ALPHABET.get(index)).map(|letter| char::from(*letter));
        text.extend(letters.take(length - text.len()));
    }
    Ok(text)
}

/// Returns the keyed hash that stands for a client's secret. The id is an input, so that equal
/// secrets of two clients have different hashes. The literals are frozen: stored hashes depend on
/// them.
pub(super) fn secret_hash(key: &HashKey, client_id: &str, secret: &SecretText) -> KeyedHash {
    key.hash(&[b"client secret", client_id.as_bytes(), secret.expose().as_bytes()])
}

/// Draws a secret for this client and inserts its hash.
pub(super) async fn insert(
    conn: &mut Conn,
    vault: &Vault,
    app: AppId,
    client: &str,
) -> Result<(ClientSecretId, SecretText), VaultError> {
    let secret = SecretText::new(random_text(SECRET_LENGTH)?);
    let hash = secret_hash(&vault.secret_hashes_of(app), client, &secret);
    Ok((store::insert_secret(conn, client, &hash).await?, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_secrets_are_letters_and_digits_of_full_length_and_never_the_same() {
        let secrets: Vec<_> = (0..200).map(|_| random_text(SECRET_LENGTH).unwrap()).collect();
        for secret in &secrets {
            assert_eq!(secret.len(), SECRET_LENGTH);
            assert!(secret.chars().all(|c| c.is_ascii_alphanumeric()), "{secret}");
        }
        let distinct: std::collections::HashSet<_> = secrets.iter().collect();
        assert_eq!(distinct.len(), secrets.len());
    }

    #[test]
    fn every_letter_and_digit_occurs() {
        let text = random_text(20_000).unwrap();
        assert!(ALPHABET.iter().all(|letter| text.contains(char::from(*letter))));
    }
}
