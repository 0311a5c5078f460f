//! The table `superseded_tokens`, which keeps superseded tokens until a call with the newer one has succeeded.
//!
//! A restored connection leaves a terminal status, as an orphan with a late token does. The transaction therefore
//! takes the app's arrival lock, shared, so that the marking of a bulk revocation finds the row, and checks every bulk
//! revocation since the connection was received (ADR 17).

use std::time::Duration;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, BulkRevocationId, ConnectionId};
use crate::database::{Conn, interval};
use crate::providers::Provider;

/// How long a superseded token is kept.
const KEEP_FOR: Duration = Duration::from_hours(1);

/// Copies the secrets of an active connection that `newer` is about to supersede.
pub async fn insert_superseded(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    newer: ConnectionId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO superseded_tokens (
            connection_id, app_id, replaced_by, access_token, user_secret, binding, ends_at)
         SELECT c.id, c.app_id, $3, c.access_token, c.user_secret, b.binding,
                strongroom_now() + $4::interval
         FROM connections c LEFT JOIN token_bindings b ON b.connection_id = c.id
         WHERE c.app_id = $1 AND c.id = $2 AND c.status = 'active'",
        app.uuid(),
        id.uuid(),
        newer.uuid(),
        interval(KEEP_FOR),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Restores the connection that `newer` superseded, if its token is still kept, and returns it. `newer` must have
/// ended in this transaction: the unique index allows one active connection per login.
pub async fn restore_superseded(
    conn: &mut Conn,
    app: AppId,
    newer: ConnectionId,
    reason: &str,
) -> sqlx::Result<Option<ConnectionId>> {
    sqlx::query!("SELECT pg_advisory_xact_lock_shared(arrival_lock($1))", app.uuid())
        .execute(&mut *conn)
        .await?;
    sqlx::query_file_scalar!(
        "src/connections/superseded/restore.sql",
        app.uuid(),
        newer.uuid(),
        AuditActor::from(&Actor::service()) as AuditActor,
        reason,
    )
    .fetch_optional(conn)
    .await
}

/// Returns whether a call was made that replaces a connection's token, or the token of one that it superseded: an exchange of
/// another code of its login may have returned the replaced one.
pub async fn was_rotated(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM connections WHERE app_id = $1 AND id = $2 AND rotation_epoch > 0) AS "it!""#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Hands the rotation of a superseded connection on to the active one that took its place. The two may hold the same
/// token: it is to be replaced, and if it may have been, the newer connection does not know it either.
pub async fn hand_on_rotation(
    conn: &mut Conn,
    app: AppId,
    older: ConnectionId,
    newer: ConnectionId,
) -> sqlx::Result<()> {
    sqlx::query_file!(
        "src/connections/superseded/hand_on_rotation.sql",
        app.uuid(),
        older.uuid(),
        newer.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Destroys the kept token of a connection and, following the chain, those of all its predecessors. A lost token that
/// comes after all does not bring the connection back either.
pub async fn destroy_superseded(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: destroy_superseded
         WITH RECURSIVE predecessors AS (
            -- UNION without ALL ends the recursion even if rows referred to each other.
            SELECT connection_id FROM superseded_tokens
            WHERE app_id = $1 AND (connection_id = $2 OR replaced_by = $2)
            UNION
            SELECT k.connection_id FROM superseded_tokens k
            JOIN predecessors p ON k.replaced_by = p.connection_id),
         lost AS (
            DELETE FROM token_rotations WHERE app_id = $1 AND connection_id = $2 AND lost)
         DELETE FROM superseded_tokens
         WHERE app_id = $1 AND connection_id IN (SELECT connection_id FROM predecessors)",
        app.uuid(),
        id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Destroys the kept tokens of connections in the scope of a bulk revocation, and of their direct predecessors.
pub async fn destroy_superseded_in_bulk(
    conn: &mut Conn,
    app: AppId,
    bulk_revocation: BulkRevocationId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM superseded_tokens k
         USING connections c
         CROSS JOIN LATERAL bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                           c.ordinal) r
         WHERE k.app_id = $1 AND c.id IN (k.connection_id, k.replaced_by) AND r.id = $2",
        app.uuid(),
        bulk_revocation.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Destroys kept tokens whose time has passed and returns how many. Skips locked rows, which a later pass destroys.
pub async fn destroy_superseded_due(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: destroy_superseded_due
         WITH due AS MATERIALIZED (
            SELECT connection_id FROM superseded_tokens WHERE ends_at <= (SELECT strongroom_now())
            FOR UPDATE SKIP LOCKED)
         DELETE FROM superseded_tokens k USING due WHERE k.connection_id = due.connection_id",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Returns whether the provider of a connection names the login of its token.
pub async fn names_its_login(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<bool> {
    let provider = sqlx::query_scalar!(
        r#"SELECT provider AS "provider: Provider" FROM connections WHERE app_id = $1 AND id = $2"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(provider.is_some_and(Provider::has_details))
}

/// Returns whether the token of an active connection would have to be kept, if this newer one superseded it: the newer
/// one is unproven, and keeps no other.
pub async fn may_keep(conn: &mut Conn, app: AppId, newer: ConnectionId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM connections c
            WHERE c.app_id = $1 AND c.id = $2 AND c.unproven
              AND NOT EXISTS (SELECT FROM superseded_tokens k WHERE k.replaced_by = c.id)) AS "it!""#,
        app.uuid(),
        newer.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Records that a call with an imported token succeeded. Returns `false` if that was known already.
pub async fn prove_token(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE connections SET unproven = false
         WHERE app_id = $1 AND id = $2 AND status = 'active' AND unproven",
        app.uuid(),
        id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
