//! The lifecycle of the keys that sign access tokens: published, signing, verifying, deleted.
//!
//! A successor is published before it signs, so that every replica and everyone who caches the key
//! set knows it when its first token arrives. A retired key verifies until the last token that it
//! signed has expired.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::clients::TOKEN_LIFETIMES;
pub use super::model::KeyInfo;
use super::signing::SigningKey;
use super::store;
use crate::audit;
use crate::common::actor::Actor;
use crate::common::algorithm::Algorithm;
use crate::config::OauthConfig;
use crate::database::Conn;
use crate::vault::{Vault, VaultError};

/// How long others may cache the key set.
pub const KEY_SET_MAX_AGE: Duration = Duration::from_mins(5);
/// How long a key is published before it signs: twice the cache lifetime.
const AHEAD: Duration = Duration::from_mins(10);
/// The least that a key is published ahead. Replicas stop accepting tokens once they have not read
/// the keys for half as long ([`STALE_AFTER`](super::STALE_AFTER)), so none meets a key that it
/// does not know.
const AHEAD_AT_LEAST: Duration = Duration::from_secs(10);
/// How far clocks may differ.
const SLACK: Duration = Duration::from_hours(1);

/// A new key, published and not yet signing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Successor {
    /// The key's `kid`.
    pub kid: String,
    /// The `alg` of its tokens.
    pub algorithm: &'static str,
    /// From when on it signs.
    #[serde(with = "time::serde::rfc3339")]
    pub signs_from: OffsetDateTime,
}

/// When a successor starts to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// When every cache of the key set has been refreshed.
    Ahead,
    /// As soon as every replica knows it, for when the old key may be compromised. Others that
    /// verify tokens have to fetch the key set again when they meet an unknown `kid`.
    AtOnce,
}

/// Returns all signing keys, newest first.
pub async fn list(conn: &mut Conn) -> sqlx::Result<Vec<KeyInfo>> {
    store::list_signing_keys(conn).await
}

/// Ensures that a key signs, and that one of the configured algorithm does or will. Replicas that
/// start at the same moment agree on one, by a lock on the table.
pub async fn ensure(
    conn: &mut Conn,
    vault: &Vault,
    algorithm: Algorithm,
) -> Result<(), VaultError> {
    let is_current = |newest: &Option<(String, f64)>| {
        newest.as_ref().is_some_and(|(held, _)| held == algorithm.as_str())
    };
    if is_current(&store::newest_signing_key(conn).await?) {
        return Ok(());
    }
    let mut tx = conn.begin().await?;
    store::lock_signing_keys(&mut tx).await?;
    let newest = store::newest_signing_key(&mut tx).await?;
    if !is_current(&newest) {
        match newest {
            Some(_) => succeed(&mut tx, vault, &Actor::service(), algorithm, AHEAD).await?,
            None => make(&mut tx, vault, algorithm, Duration::ZERO).await?,
        };
    }
    tx.commit().await?;
    Ok(())
}

/// Creates a successor to the newest key.
pub async fn rotate(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    algorithm: Algorithm,
    begin: Begin,
) -> Result<Successor, VaultError> {
    let ahead = match begin {
        Begin::Ahead => AHEAD,
        Begin::AtOnce => AHEAD_AT_LEAST,
    };
    let mut tx = conn.begin().await?;
    store::lock_signing_keys(&mut tx).await?;
    let successor = succeed(&mut tx, vault, actor, algorithm, ahead).await?;
    tx.commit().await?;
    Ok(successor)
}

/// Creates a key that signs in `ahead` from now, and records the rotation.
async fn succeed(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    algorithm: Algorithm,
    ahead: Duration,
) -> Result<Successor, VaultError> {
    let successor = make(conn, vault, algorithm, ahead).await?;
    // One set of keys signs for all apps, so the rotation is in every app's trail.
    audit::record_everywhere(conn, actor, "signing_key.rotated", &successor.kid).await?;
    Ok(successor)
}

async fn make(
    conn: &mut Conn,
    vault: &Vault,
    algorithm: Algorithm,
    ahead: Duration,
) -> Result<Successor, VaultError> {
    let private = SigningKey::generate(algorithm).ok_or(VaultError::NoRandomness)?;
    let key = SigningKey::from_private(algorithm, &private).ok_or(VaultError::DoesNotOpen)?;
    let signs_from = store::succeed_signing_key(conn, vault, &private, &key, ahead).await?;
    Ok(Successor { kid: key.kid().to_owned(), algorithm: algorithm.as_str(), signs_from })
}

/// Rotates the newest key if it has signed for its configured lifetime, and deletes keys whose last
/// token has expired. Safe to run on every replica.
pub async fn reconcile(
    conn: &mut Conn,
    vault: &Vault,
    config: &OauthConfig,
) -> Result<(), VaultError> {
    let due = |newest: Option<(String, f64)>| {
        // A successor is published `AHEAD` before it signs, so it is created that much earlier.
        let until = config.signing_key_lifetime.map(|lifetime| lifetime.saturating_sub(AHEAD));
        until.zip(newest).is_some_and(|(until, (_, age))| age >= until.as_secs_f64())
    };
    if due(store::newest_signing_key(conn).await?) {
        let mut tx = conn.begin().await?;
        store::lock_signing_keys(&mut tx).await?;
        if due(store::newest_signing_key(&mut tx).await?) {
            let service = Actor::service();
            succeed(&mut tx, vault, &service, config.signing_algorithm, AHEAD).await?;
        }
        tx.commit().await?;
    }
    let lifetime = Duration::from_secs((*TOKEN_LIFETIMES.end()).into()) + SLACK;
    for kid in store::delete_spent_keys(conn, lifetime).await? {
        tracing::info!(kid, "a signing key whose last token has ended is gone");
    }
    Ok(())
}

/// Deletes a retired key now: the tokens that it signed end within seconds on every replica.
/// Returns `false` if no retired key has this id; the one that signs needs a successor first.
pub async fn revoke(conn: &mut Conn, actor: &Actor, kid: &str) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    let gone = store::delete_retired_key(&mut tx, kid).await?;
    if gone {
        audit::record_everywhere(&mut tx, actor, "signing_key.revoked", kid).await?;
    }
    tx.commit().await?;
    Ok(gone)
}
