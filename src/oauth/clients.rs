//! Clients: who they are, what they may do, and the secrets by which they are known.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::store;
use crate::audit;
use crate::base::actor::Actor;
use crate::base::ids::AppId;
use crate::base::scope::Scopes;
use crate::base::secret::SecretText;
use crate::config::BootstrapClient;
use crate::vault::{HashKey, KeyedHash, Vault, VaultError};

/// How long access tokens may live, in seconds.
pub const TOKEN_LIFETIMES: RangeInclusive<u32> = 60..=86_400;
/// How long they live where nobody says.
pub const DEFAULT_TOKEN_LIFETIME: u32 = 3600;
/// The longest name of a client, in bytes.
pub const MAX_NAME: usize = 200;

/// A client as it is shown: without secrets.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientInfo {
    /// Its id.
    #[serde(rename = "clientID")]
    pub id: String,
    /// The app that it belongs to.
    #[serde(rename = "app")]
    pub app_name: String,
    /// What people call it.
    pub name: String,
    /// The most that a token of its may allow.
    #[serde(rename = "scope")]
    pub scopes: Scopes,
    /// How long its tokens live, in seconds.
    pub token_lifetime: u32,
    /// Whether the environment made it.
    pub bootstrap: bool,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Since when it is refused.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
}

/// A client to be made.
#[derive(Debug)]
pub struct NewClient<'a> {
    /// The app that it will belong to.
    pub app: AppId,
    /// What people call it.
    pub name: &'a str,
    /// The most that a token of its may allow.
    pub scopes: Scopes,
    /// How long its tokens live.
    pub token_lifetime: Duration,
}

/// A client's id and secret, shown once.
#[derive(Debug)]
pub struct Credentials {
    /// The id.
    pub id: Arc<str>,
    /// The secret; only its hash is kept.
    pub secret: SecretText,
}

/// What cannot be done with a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing is known by this id.
    #[error("there is no client `{0}`")]
    Unknown(String),
    /// The bootstrap client's id belongs to a client that the environment did not make.
    #[error("the bootstrap client's id is another client's")]
    IdTaken,
    /// The bootstrap client has no app.
    #[error(
        "the bootstrap client belongs to the app `default`, which does not exist; \
         set DAPI_APP_KEY and DAPI_APP_SECRET"
    )]
    NoDefaultApp,
    /// The vault or the database.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<sqlx::Error> for ClientError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 43 characters of 62 hold 256 bits.
const SECRET_LENGTH: usize = 43;
/// 22 characters of 62 hold 128 bits: unguessable is not needed, unique is.
const ID_LENGTH: usize = 22;

/// Random letters and digits, each as likely as the other: bytes that would make some likelier are
/// thrown away.
fn random_text(length: usize) -> Result<String, VaultError> {
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

/// Makes a client and its first secret.
pub async fn create(
    conn: &mut PgConnection,
    vault: &Vault,
    actor: &Actor,
    new: &NewClient<'_>,
) -> Result<Credentials, ClientError> {
    let id: Arc<str> = random_text(ID_LENGTH)?.into();
    let secret = SecretText::new(random_text(SECRET_LENGTH)?);
    let mut tx = conn.begin().await?;
    store::insert_client(&mut tx, &id, new, false).await?;
    let hash = secret_hash(vault.secret_hashes(), &id, &secret);
    store::insert_secret(&mut tx, &id, &hash).await?;
    record(&mut tx, actor, new.app, "client.created", &id).await?;
    tx.commit().await?;
    Ok(Credentials { id, secret })
}

/// All clients, of one app or of all.
pub async fn list(conn: &mut PgConnection, app: Option<AppId>) -> sqlx::Result<Vec<ClientInfo>> {
    store::list_clients(conn, app).await
}

/// Refuses a client from now on, within seconds on every replica, together with its tokens.
pub async fn disable(
    conn: &mut PgConnection,
    actor: &Actor,
    app: Option<AppId>,
    id: &str,
) -> Result<(), ClientError> {
    let mut tx = conn.begin().await?;
    let app = store::disable_client(&mut tx, app, id).await?;
    let app = app.ok_or_else(|| ClientError::Unknown(id.to_owned()))?;
    record(&mut tx, actor, app, "client.disabled", id).await?;
    tx.commit().await?;
    Ok(())
}

/// Makes the bootstrap client what the environment says: it exists with exactly this secret, and
/// where the environment names none, every one that it named before is disabled.
pub async fn ensure_bootstrap(
    conn: &mut PgConnection,
    vault: &Vault,
    wanted: Option<&BootstrapClient>,
) -> Result<(), ClientError> {
    let mut tx = conn.begin().await?;
    let keep = wanted.map(|wanted| wanted.id.as_str());
    for (id, app) in store::disable_bootstraps_except(&mut tx, keep).await? {
        record(&mut tx, &Actor::service(), app, "client.disabled", &id).await?;
    }
    if let Some(wanted) = wanted {
        let app = store::default_app(&mut tx).await?.ok_or(ClientError::NoDefaultApp)?;
        let hash = secret_hash(vault.secret_hashes(), &wanted.id, &wanted.secret);
        let lifetime = Duration::from_secs(DEFAULT_TOKEN_LIFETIME.into());
        let new =
            NewClient { app, name: "bootstrap", scopes: Scopes::all(), token_lifetime: lifetime };
        if store::insert_client(&mut tx, &wanted.id, &new, true).await? {
            record(&mut tx, &Actor::service(), app, "client.created", &wanted.id).await?;
        } else if !store::enable_bootstrap(&mut tx, &wanted.id, app).await? {
            return Err(ClientError::IdTaken);
        }
        store::only_secret(&mut tx, &wanted.id, &hash).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn record(
    conn: &mut PgConnection,
    actor: &Actor,
    app: AppId,
    action: &'static str,
    client: &str,
) -> sqlx::Result<()> {
    let event = audit::Event {
        app,
        action,
        outcome: "ok",
        user: None,
        connection: None,
        reason: Some(client),
    };
    audit::record(conn, actor, &event).await
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
