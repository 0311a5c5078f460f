//! The table `link_tokens`.
//!
//! A row serves an hour longer than its link token: a user who opened Link in time may end later, and Plaid's
//! `public_token` then lives for half an hour.

use time::OffsetDateTime;

use crate::common::ids::{AppId, LinkTokenId, UserId};
use crate::connections::link_tokens::LinkToken;
use crate::database::Conn;
use crate::vault::{KeyedHash, Sealed, WrappedKey};

/// A link token to insert.
#[derive(Debug)]
pub struct NewLinkToken {
    pub id: LinkTokenId,
    pub app: AppId,
    pub user: UserId,
    pub hash: KeyedHash,
    pub token: Sealed<LinkToken>,
    /// `None` if Plaid did not say: then four hours, as Plaid documents.
    pub expires_at: Option<OffsetDateTime>,
}

/// Inserts a link token. One that is there already keeps its user.
pub async fn insert(conn: &mut Conn, new: &NewLinkToken) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO link_tokens (id, app_id, user_id, hash, token, expires_at)
         VALUES ($1, $2, $3, $4, $5,
                 least(coalesce($6, strongroom_now() + interval '4 hours'), strongroom_now() + interval '30 days'))
         ON CONFLICT (hash) DO NOTHING",
        new.id.uuid(),
        new.app.uuid(),
        new.user.uuid(),
        new.hash.as_bytes(),
        new.token.as_bytes(),
        new.expires_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the app's name for the user of a link token.
pub async fn user_of(
    conn: &mut Conn,
    app: AppId,
    hash: &KeyedHash,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "SELECT u.client_user_id FROM link_tokens l JOIN users u ON u.id = l.user_id
         WHERE l.hash = $2 AND l.app_id = $1 AND l.expires_at > strongroom_now() - interval '1 hour'",
        app.uuid(),
        hash.as_bytes(),
    )
    .fetch_optional(conn)
    .await
}

/// A link token with what opens it.
#[derive(Debug)]
pub struct SealedLinkToken {
    pub id: LinkTokenId,
    pub user: UserId,
    pub client_user_id: String,
    pub key: WrappedKey,
    pub token: Sealed<LinkToken>,
}

/// Returns the app's newest link tokens.
pub async fn newest(conn: &mut Conn, app: AppId, limit: i64) -> sqlx::Result<Vec<SealedLinkToken>> {
    sqlx::query_as!(
        SealedLinkToken,
        r#"SELECT l.id AS "id: LinkTokenId", l.user_id AS "user: UserId", u.client_user_id,
                key_of(k) AS "key!: WrappedKey", l.token AS "token: Sealed<LinkToken>"
         FROM link_tokens l
         JOIN users u ON u.id = l.user_id
         JOIN data_keys k ON k.user_id = l.user_id AND k.purpose = 'user'
         WHERE l.app_id = $1 AND l.expires_at > strongroom_now() - interval '1 hour'
         ORDER BY l.id DESC LIMIT $2"#,
        app.uuid(),
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Deletes link tokens that ended an hour ago. Returns how many.
pub async fn delete_expired(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM link_tokens WHERE expires_at < (SELECT strongroom_now()) - interval '1 hour'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
