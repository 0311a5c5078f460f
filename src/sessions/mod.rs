//! Connect sessions: a short-lived token that lets one browser submit one user's results and read the
//! connections that it created, and nothing else.
//!
//! May import: audit, common, database, http, users, vault.

pub mod routes;
mod store;

pub use store::find;

use crate::audit;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, UserId};
use crate::common::secret::SecretText;
use crate::database::Conn;
use crate::vault::{self, HashKey, KeyedHash, VaultError};

/// The prefix of a session token, which distinguishes it from an access token.
pub const TOKEN_PREFIX: &str = "cs_";
/// The lifetime of a session in minutes: that of an access code.
const MINUTES: i32 = 30;

/// Creates a session token.
fn new_token() -> Result<SecretText, VaultError> {
    vault::random_token(TOKEN_PREFIX)
}

/// Returns whether a token can be a session's. Others are refused without a query.
#[must_use]
pub fn is_token(token: &str) -> bool {
    vault::is_token(TOKEN_PREFIX, token)
}

fn token_hash(key: &HashKey, token: &str) -> KeyedHash {
    key.hash(&[b"connect session", token.as_bytes()])
}

/// Ends every session of a user of the app that is alive, and records it. Returns how many.
///
/// # Errors
/// The database's.
pub async fn end_of_user(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    user: UserId,
) -> sqlx::Result<u64> {
    let mut tx = conn.begin().await?;
    let ended = store::end_of_user(&mut tx, app, user).await?;
    let detail = format!("{ended} sessions");
    let event = audit::Event {
        app,
        action: "session.ended",
        outcome: "ok",
        user: Some(user),
        connection: None,
        reason: Some(&detail),
    };
    audit::record(&mut tx, actor, &event).await?;
    tx.commit().await?;
    Ok(ended)
}
