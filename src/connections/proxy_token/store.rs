//! The table `proxy_tokens`.

use crate::audit::AuditActor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::connections::model::{RevocationKind, Status};
use crate::connections::proxy_token::ProxyToken;
use crate::connections::sql::parse_status;
use crate::database::Conn;
use crate::providers::Provider;
use crate::vault::{KeyedHash, Sealed, WrappedKey};

/// An active connection's proxy token, if it has one yet, and the user's key.
#[derive(Debug)]
pub struct HeldProxyToken {
    pub user: UserId,
    pub key: WrappedKey,
    pub token: Option<Sealed<ProxyToken>>,
}

/// Returns the proxy token of a connection, or `None` if the connection is not active or a bulk revocation in force
/// matches it.
pub async fn proxy_token_of(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<HeldProxyToken>> {
    sqlx::query_as!(
        HeldProxyToken,
        r#"SELECT c.user_id AS "user: UserId", key_of(k) AS "key!: WrappedKey",
                s.token AS "token?: Sealed<ProxyToken>"
         FROM connections c
         JOIN data_keys k ON k.user_id = c.user_id AND k.purpose = 'user'
         LEFT JOIN proxy_tokens s ON s.connection_id = c.id
         WHERE c.app_id = $1 AND c.id = $2 AND c.status = 'active'
           AND NOT EXISTS (
               SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by, c.ordinal) o
               WHERE o.marked_at IS NULL)"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// A proxy token to insert.
#[derive(Debug)]
pub struct NewProxyToken {
    pub app: AppId,
    pub id: ConnectionId,
    pub hash: KeyedHash,
    pub token: Sealed<ProxyToken>,
}

/// Inserts a proxy token unless the connection has one: of two that are inserted at once, the first stays.
pub async fn insert_proxy_token(
    conn: &mut Conn,
    actor: &AuditActor,
    new: &NewProxyToken,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: insert_proxy_token
         WITH added AS (
            INSERT INTO proxy_tokens (connection_id, app_id, hash, token)
            SELECT id, app_id, $3, $4 FROM connections
            WHERE app_id = $1 AND id = $2 AND status = 'active'
            ON CONFLICT (connection_id) DO NOTHING
            RETURNING connection_id)
         SELECT record_audit($1, $5, 'connection.stand_in_made', 'ok', c.user_id, c.id, NULL)
         FROM added JOIN connections c ON c.id = added.connection_id",
        new.app.uuid(),
        new.id.uuid(),
        new.hash.as_bytes(),
        new.token.as_bytes(),
        actor as &AuditActor,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A connection that was found by its proxy token.
#[derive(Debug)]
pub struct FoundByProxyToken {
    pub id: ConnectionId,
    pub provider: Provider,
    pub status: Status,
    pub revocation: Option<RevocationKind>,
    pub user: UserId,
    pub key: WrappedKey,
    /// The connection has no user secret, or an unproven one.
    pub wants_user_secret: bool,
}

/// Finds a connection of this app by the hash of its proxy token. Its status is `revoking` if a bulk revocation in
/// force matches it.
pub async fn find_by_proxy_token(
    conn: &mut Conn,
    app: AppId,
    hash: &KeyedHash,
) -> sqlx::Result<Option<FoundByProxyToken>> {
    let row = sqlx::query!(
        r#"SELECT c.id AS "id: ConnectionId", c.provider AS "provider: Provider",
                CASE WHEN o.id IS NULL THEN c.status ELSE 'revoking' END AS "status!",
                coalesce(c.revocation_kind, o.kind) AS revocation_kind, c.user_id AS "user: UserId",
                c.by_wire AND c.status IN ('active', 'revoking')
                    AND (c.user_secret IS NULL OR NOT c.user_secret_proven) AS "wants_user_secret!",
                key_of(k) AS "key!: WrappedKey"
         FROM proxy_tokens s
         JOIN connections c ON c.id = s.connection_id
         JOIN data_keys k ON k.user_id = c.user_id AND k.purpose = 'user'
         LEFT JOIN LATERAL (
            SELECT f.id, f.kind
            FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by, c.ordinal) f
            WHERE f.marked_at IS NULL ORDER BY f.id LIMIT 1) o ON c.status IN ('pending', 'active')
         WHERE s.hash = $2 AND c.app_id = $1"#,
        app.uuid(),
        hash.as_bytes(),
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(FoundByProxyToken {
        id: row.id,
        provider: row.provider,
        status: parse_status(&row.status)?,
        revocation: row.revocation_kind.as_deref().and_then(RevocationKind::parse),
        user: row.user,
        key: row.key,
        wants_user_secret: row.wants_user_secret,
    }))
}
