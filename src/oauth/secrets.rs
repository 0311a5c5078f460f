//! The secrets by which clients are known: two may live at once, so that one can follow the other
//! without anybody being shut out.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::clients::{ClientError, ClientInfo, lock, record};
use super::store;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ClientSecretId};
use crate::base::secret::SecretText;
use crate::database::Conn;
use crate::vault::{HashKey, KeyedHash, Vault, VaultError};

/// How long an old secret lives on beside a new one where nobody says, in seconds: a day.
pub const DEFAULT_OVERLAP: u32 = 86_400;
/// How long it lives on at most: thirty days.
pub const MAX_OVERLAP: u32 = 30 * 86_400;
/// How many live secrets a client may have.
const MOST: usize = 2;

/// A live secret as it is shown: everything but the secret.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretInfo {
    /// Its id.
    pub id: ClientSecretId,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ends; `None` for the one that stays.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last presented, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

/// A client with its first secret, shown this once: by the API as by the command line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made<'a> {
    /// The client.
    #[serde(flatten)]
    pub client: &'a ClientInfo,
    /// The secret in the clear.
    pub client_secret: &'a str,
}

/// A client with what there is to know of its secrets.
#[derive(Serialize)]
pub struct Shown<'a> {
    /// The client.
    #[serde(flatten)]
    pub client: &'a ClientInfo,
    /// Those that live.
    pub secrets: &'a [SecretInfo],
}

/// A new secret, shown once.
#[derive(Debug)]
pub struct NewSecret {
    /// Its id.
    pub id: ClientSecretId,
    /// The secret; only its hash is kept.
    pub secret: SecretText,
    /// All live secrets, this one included.
    pub live: Vec<SecretInfo>,
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 43 characters of 62 hold 256 bits.
const SECRET_LENGTH: usize = 43;

/// Random letters and digits, each as likely as the other: bytes that would make some likelier are
/// thrown away.
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

/// The keyed hash by which a client's secret is known. The id goes in, so that equal secrets of two
/// clients do not look alike.
pub(super) fn secret_hash(key: &HashKey, client_id: &str, secret: &SecretText) -> KeyedHash {
    key.hash(&[b"client secret", client_id.as_bytes(), secret.expose().as_bytes()])
}

/// Makes a secret for this client.
pub(super) async fn insert(
    conn: &mut Conn,
    vault: &Vault,
    client: &str,
) -> Result<(ClientSecretId, SecretText), ClientError> {
    let secret = SecretText::new(random_text(SECRET_LENGTH)?);
    let hash = secret_hash(vault.secret_hashes(), client, &secret);
    Ok((store::insert_secret(conn, client, &hash).await?, secret))
}

/// The secrets of a client that have not ended, oldest first.
pub async fn live(conn: &mut Conn, client: &str) -> sqlx::Result<Vec<SecretInfo>> {
    store::live_secrets(conn, client).await
}

/// Gives a client a new secret and the old ones an end, `overlap` from now.
///
/// # Errors
/// [`ClientError::TwoSecrets`] where two would live on beside the new one.
pub async fn rotate(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    app: Option<AppId>,
    client: &str,
    overlap: Duration,
) -> Result<NewSecret, ClientError> {
    let mut tx = conn.begin().await?;
    let (app, bootstrap) = lock(&mut tx, app, client).await?;
    if bootstrap {
        return Err(ClientError::Bootstrap);
    }
    store::end_secrets(&mut tx, client, overlap).await?;
    if store::live_secrets(&mut tx, client).await?.len() >= MOST {
        return Err(ClientError::TwoSecrets);
    }
    let (id, secret) = insert(&mut tx, vault, client).await?;
    record(&mut tx, actor, app, "client.secret_created", client).await?;
    let live = store::live_secrets(&mut tx, client).await?;
    tx.commit().await?;
    Ok(NewSecret { id, secret, live })
}

/// Ends one secret now; `false` where the client has no such live secret.
pub async fn end(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    client: &str,
    secret: ClientSecretId,
) -> Result<bool, ClientError> {
    let mut tx = conn.begin().await?;
    let (app, bootstrap) = lock(&mut tx, app, client).await?;
    if bootstrap {
        return Err(ClientError::Bootstrap);
    }
    let ended = store::end_secret(&mut tx, client, secret).await?;
    if ended {
        record(&mut tx, actor, app, "client.secret_ended", client).await?;
    }
    tx.commit().await?;
    Ok(ended)
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
