//! One-time links: how an operator signs in for the first time, and again after the loss of every passkey.

use super::model::{Operator, OperatorName};
use super::{OperatorError, store};
use crate::audit::record_everywhere;
use crate::common::actor::Actor;
use crate::common::ids::OperatorId;
use crate::common::secret::{SecretText, secret_text};
use crate::database::Conn;
use crate::vault::{self, KeyedHash, Vault};

/// How long a link can be used, in minutes.
pub const LINK_MINUTES: i32 = 5;
const PREFIX: &str = "olink_";

secret_text!(
    /// What a one-time link carries, in its fragment: it reaches no log and no `Referer`.
    LinkToken
);

fn hash(vault: &Vault, token: &str) -> KeyedHash {
    vault.secret_hashes().hash(&[b"operator link", token.as_bytes()])
}

/// Creates a link for an operator; their older links end.
///
/// # Errors
/// [`OperatorError::Unknown`], [`OperatorError::Disabled`]; the database's, and that of random numbers.
pub async fn create(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    name: &OperatorName,
) -> Result<LinkToken, OperatorError> {
    let mut tx = conn.begin().await?;
    let operator = store::find(&mut tx, name).await?;
    let operator = operator.ok_or_else(|| OperatorError::Unknown(name.clone()))?;
    if operator.disabled_at.is_some() {
        return Err(OperatorError::Disabled(name.clone()));
    }
    let token: SecretText = vault::random_token(PREFIX)?;
    let hash = hash(vault, token.expose());
    sqlx::query!("DELETE FROM operator_links WHERE operator_id = $1", operator.id.uuid())
        .execute(&mut *tx)
        .await?;
    sqlx::query!(
        "INSERT INTO operator_links (hash, operator_id, expires_at)
         VALUES ($1, $2, strongroom_now() + make_interval(mins => $3))",
        hash.as_bytes(),
        operator.id.uuid(),
        LINK_MINUTES,
    )
    .execute(&mut *tx)
    .await?;
    record_everywhere(&mut tx, actor, "operator.link_created", name.as_str()).await?;
    tx.commit().await?;
    Ok(LinkToken::new(token))
}

/// Returns the link: the sign-in page of the console, with the code where browsers send it to no server.
#[must_use]
pub fn url(console: &str, token: &LinkToken) -> SecretText {
    SecretText::new(format!("{console}/sign-in#{}", token.expose()))
}

/// The operator whom a link was for.
#[derive(Debug)]
pub struct Redeemed(pub Operator);

/// Uses a link up, in the transaction that `conn` is in; returns `None` if it is unknown, used, expired, or if its
/// operator is disabled.
///
/// # Errors
/// The database's.
pub async fn redeem(conn: &mut Conn, vault: &Vault, token: &str) -> sqlx::Result<Option<Redeemed>> {
    if !vault::is_token(PREFIX, token) {
        return Ok(None);
    }
    let hash = hash(vault, token);
    let id = sqlx::query_scalar!(
        r#"UPDATE operator_links SET used_at = strongroom_now()
           WHERE hash = $1 AND used_at IS NULL AND expires_at > strongroom_now()
           RETURNING operator_id AS "id: OperatorId""#,
        hash.as_bytes(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(id) = id else { return Ok(None) };
    Ok(store::enabled(conn, id).await?.map(Redeemed))
}
