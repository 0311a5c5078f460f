//! The table `superseded_tokens`: what is kept until the token that took its place has proven itself.
//!
//! A connection that is restored comes back from its end, as an orphan does with a late token: it holds the
//! app's arrival lock, shared, so that the marking of an order finds it, and every order that was given since it
//! came is asked (ADR 17).

use std::time::Duration;

use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, BulkRevocationId, ConnectionId};
use crate::connections::sql::interval;
use crate::database::Conn;

/// How long a superseded token is kept.
const KEPT: Duration = Duration::from_hours(1);

/// Keeps what an active connection holds, which `newer` is about to supersede.
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
        interval(KEPT),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives the connection that `newer` superseded its token back, where it is kept: it is active as it was.
/// `newer` is at its end by now. Returns the connection.
pub async fn restore_superseded(
    conn: &mut Conn,
    app: AppId,
    newer: ConnectionId,
    reason: &str,
) -> sqlx::Result<Option<ConnectionId>> {
    sqlx::query!("SELECT pg_advisory_xact_lock_shared(arrival_lock($1))", app.uuid())
        .execute(&mut *conn)
        .await?;
    sqlx::query_scalar!(
        r#"WITH kept AS (
            DELETE FROM superseded_tokens k
            WHERE k.replaced_by = $2 AND k.app_id = $1
            RETURNING k.*),
         restored AS (
            UPDATE connections c
            SET status = 'active', access_token = k.access_token, user_secret = k.user_secret,
                replaced_by = NULL
            FROM kept k
            WHERE c.app_id = $1 AND c.id = k.connection_id
              AND c.status = 'invalidated' AND c.replaced_by = $2 AND c.revocation_kind IS NULL
              AND k.ends_at > strongroom_now()
              AND NOT EXISTS (
                  SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                             c.ordinal))
              AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
            RETURNING c.app_id, c.id, c.user_id),
         bound AS (
            INSERT INTO token_bindings (connection_id, binding)
            SELECT r.id, k.binding FROM restored r JOIN kept k ON k.connection_id = r.id
            WHERE k.binding IS NOT NULL),
         noted AS (
            SELECT id, record_audit(app_id, $3, 'connection.restored', 'active', user_id, id, $4)
            FROM restored)
         SELECT id AS "id: ConnectionId" FROM noted"#,
        app.uuid(),
        newer.uuid(),
        AuditActor::from(&Actor::service()) as AuditActor,
        reason,
    )
    .fetch_optional(conn)
    .await
}

/// Destroys what is kept of a connection, and of those that it took the place of, one after the other.
pub async fn destroy_superseded(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH RECURSIVE line AS (
            SELECT connection_id FROM superseded_tokens
            WHERE app_id = $1 AND (connection_id = $2 OR replaced_by = $2)
            UNION
            SELECT k.connection_id FROM superseded_tokens k
            JOIN line l ON k.replaced_by = l.connection_id)
         DELETE FROM superseded_tokens
         WHERE app_id = $1 AND connection_id IN (SELECT connection_id FROM line)",
        app.uuid(),
        id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Destroys what is kept of connections that an order means, and of those that they took the place of.
pub async fn destroy_superseded_in_bulk(
    conn: &mut Conn,
    app: AppId,
    order: BulkRevocationId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM superseded_tokens k
         USING connections c
         CROSS JOIN LATERAL bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                           c.ordinal) o
         WHERE k.app_id = $1 AND c.id IN (k.connection_id, k.replaced_by) AND o.id = $2",
        app.uuid(),
        order.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Destroys what was kept for long enough, but for what is locked. Returns how many tokens.
pub async fn destroy_superseded_due(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "WITH due AS MATERIALIZED (
            SELECT connection_id FROM superseded_tokens WHERE ends_at <= (SELECT strongroom_now())
            FOR UPDATE SKIP LOCKED)
         DELETE FROM superseded_tokens k USING due WHERE k.connection_id = due.connection_id",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Notes that a call with an imported token succeeded. `false` where that is known already.
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
