//! The table `token_rotations`, and the columns `rotation…` of `connections`.
//!
//! The columns are on the connection's row because reveals, calls and revocations lock that row and have to know: an
//! `EXISTS` in their statements would read a snapshot from before the lock.
//!
//! Lock order: the app's usage lock, connections, token leases, rotations.

use std::time::Duration;

use uuid::Uuid;

use crate::apps::SealedCredentials;
use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, TokenLeaseId, UserId};
use crate::connections::model::Status;
use crate::connections::sql::parse_status;
use crate::database::{Conn, interval};
use crate::providers::AccessToken;
use crate::vault::{Binding, Sealed, WrappedKey};

/// How long no call begins while those that use the token end; renewed until they have.
const BLOCK: Duration = Duration::from_secs(15);
/// Between two looks at whether they have.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A rotation that is due.
#[derive(Clone, Copy, Debug)]
pub struct DueRotation {
    pub app: AppId,
    pub id: ConnectionId,
}

/// Returns rotations that are due, the first of every app before the second of any. Locks nothing. Reads `limit` rows of
/// each app at most, however many are due.
pub async fn due(conn: &mut Conn, limit: i64, except: &[Uuid]) -> sqlx::Result<Vec<DueRotation>> {
    sqlx::query_file_as!(DueRotation, "src/connections/rotation/due.sql", limit, except)
        .fetch_all(conn)
        .await
}

/// A connection whose rotation is due, locked until the transaction ends.
#[derive(Debug)]
pub struct LockedRotation {
    pub status: Status,
    /// The answer to an earlier call was lost.
    pub in_doubt: bool,
    /// A bulk revocation in force covers the connection.
    pub bulk_revoked: bool,
    /// No call has succeeded with the token yet.
    pub unproven: bool,
}

/// Locks a connection whose rotation is due and not in flight. Returns `None` otherwise, or if it is locked.
pub async fn lock(conn: &mut Conn, due: DueRotation) -> sqlx::Result<Option<LockedRotation>> {
    let asks = sqlx::query_scalar!(r#"SELECT begin_use($1) AS "asks!""#, due.app.uuid())
        .fetch_one(&mut *conn)
        .await?;
    let row = sqlx::query!(
        r#"SELECT c.status, coalesce(c.rotation IN ('sent', 'unanswered'), false) AS "in_doubt!", c.unproven,
                CASE WHEN $3 THEN is_bulk_revoked(c.app_id, c.id, c.user_id, c.created_at, c.created_by, c.ordinal)
                     ELSE false END AS "bulk_revoked!"
         FROM connections c
         WHERE c.app_id = $1 AND c.id = $2
           AND (c.rotation IS NULL OR c.rotation = 'waiting' OR c.rotation_until IS NULL
                OR c.rotation_until <= strongroom_now())
           AND EXISTS (SELECT FROM token_rotations r
                       WHERE r.connection_id = c.id AND r.due_at <= strongroom_now())
         FOR UPDATE OF c SKIP LOCKED"#,
        due.app.uuid(),
        due.id.uuid(),
        asks,
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(LockedRotation {
        status: parse_status(&row.status)?,
        in_doubt: row.in_doubt,
        unproven: row.unproven,
        bulk_revoked: row.bulk_revoked,
    }))
}

/// Forgets the rotation of a connection that is not active. It waits if the connection may become active again, because
/// its token is kept while the newer one is unproven, and if a revocation has yet to know that the token is in doubt.
pub async fn forget_inactive(conn: &mut Conn, due: DueRotation) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: forget_inactive_rotations
         WITH waits AS (
            UPDATE token_rotations r SET due_at = strongroom_now() + interval '5 minutes'
            WHERE r.app_id = $1 AND r.connection_id = $2
              AND (EXISTS (SELECT FROM superseded_tokens k WHERE k.connection_id = r.connection_id)
                   OR r.doubted AND EXISTS (
                       SELECT FROM connections c WHERE c.id = r.connection_id AND c.status = 'revoking'))
            RETURNING r.connection_id)
         DELETE FROM token_rotations r
         WHERE r.app_id = $1 AND r.connection_id = $2
           AND NOT EXISTS (SELECT FROM waits w WHERE w.connection_id = r.connection_id)",
        due.app.uuid(),
        due.id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes a rotation due again after `wait`.
pub async fn put_off(conn: &mut Conn, due: DueRotation, wait: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: put_off_rotation
         UPDATE token_rotations SET due_at = strongroom_now() + $3::interval
         WHERE app_id = $1 AND connection_id = $2",
        due.app.uuid(),
        due.id.uuid(),
        interval(wait),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// If calls use the token of a locked connection, keeps others from beginning, and returns `true`. A statement of its
/// own: its snapshot has every lease that was granted before the lock.
pub async fn wait_for_calls(conn: &mut Conn, due: DueRotation) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "-- name: postpone_rotation_for_calls
         WITH blocked AS (
            UPDATE connections c
            SET rotation = CASE WHEN c.rotation IN ('sent', 'unanswered') THEN 'unanswered' ELSE 'waiting' END,
                rotation_until = strongroom_now() + $3::interval
            WHERE c.app_id = $1 AND c.id = $2 AND EXISTS (
                SELECT FROM token_leases t WHERE t.connection_id = c.id AND t.ends_at > strongroom_now())
            RETURNING c.id)
         UPDATE token_rotations r SET due_at = strongroom_now() + $4::interval
         FROM blocked b WHERE r.connection_id = b.id",
        due.app.uuid(),
        due.id.uuid(),
        interval(BLOCK),
        interval(LOOK_AGAIN),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A connection under the lease of its rotation: no call uses its token.
#[derive(Debug)]
pub struct ClaimedRotation {
    pub app: AppId,
    pub id: ConnectionId,
    pub user: UserId,
    pub login_id: String,
    pub epoch: i32,
    pub token_lease: TokenLeaseId,
    pub token: Sealed<AccessToken>,
    pub binding: Option<Binding>,
    pub user_key: WrappedKey,
    pub credentials: SealedCredentials,
    pub attempts: i32,
    /// The answer to this or an earlier attempt was lost.
    pub doubted: bool,
}

/// Takes the leases of a locked connection that no call uses: its own, and the token's. The call to `path` is on record
/// with it.
pub async fn claim(
    conn: &mut Conn,
    due: DueRotation,
    lease: Duration,
    in_doubt: bool,
    path: &str,
) -> sqlx::Result<Option<ClaimedRotation>> {
    let row = sqlx::query_file!(
        "src/connections/rotation/claim.sql",
        due.app.uuid(),
        due.id.uuid(),
        interval(lease),
        in_doubt,
        AuditActor::from(&Actor::service()) as AuditActor,
        path,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| ClaimedRotation {
        app: row.app_id,
        id: row.id,
        user: row.user_id,
        login_id: row.login_id,
        epoch: row.rotation_epoch,
        token_lease: row.lease_id,
        token: row.token,
        binding: row.binding,
        user_key: row.user_key,
        credentials: row.credentials,
        attempts: row.attempts,
        doubted: row.doubted,
    }))
}

/// Releases the leases after an attempt that brought no token, and makes the next one due after `wait`. Counts under the
/// claim's epoch alone.
pub async fn postpone(
    conn: &mut Conn,
    claimed: &ClaimedRotation,
    unanswered: bool,
    what: &str,
    wait: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: postpone_rotation
         WITH mine AS (
            UPDATE connections c
            SET rotation = CASE WHEN $4 THEN 'unanswered' END, rotation_until = NULL
            WHERE c.app_id = $1 AND c.id = $2 AND c.rotation_epoch = $3
            RETURNING c.id),
         freed AS (DELETE FROM token_leases WHERE connection_id = $2 AND lease_id = $5)
         UPDATE token_rotations r
         SET due_at = strongroom_now() + $6::interval, doubted = r.doubted OR $4, last_error = $7,
             -- Until a call succeeds, readers come to a token that stays; their time counts from the last attempt.
             revealed_at = strongroom_now()
         FROM mine WHERE r.connection_id = mine.id",
        claimed.app.uuid(),
        claimed.id.uuid(),
        claimed.epoch,
        unanswered,
        claimed.token_lease.uuid(),
        interval(wait),
        what,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records that the token is lost: the item lives on at Plaid with a token that is nowhere. Until `within` has passed, the
/// connection may get it back if it comes after all.
pub async fn record_loss(
    conn: &mut Conn,
    claimed: &ClaimedRotation,
    within: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: record_lost_token
         WITH marked AS (
            UPDATE token_rotations SET lost = true, due_at = strongroom_now() + $4::interval
            WHERE app_id = $1 AND connection_id = $2)
         SELECT record_audit(c.app_id, $3, 'token.lost', 'failed', c.user_id, c.id, c.login_id)
         FROM connections c WHERE c.app_id = $1 AND c.id = $2",
        claimed.app.uuid(),
        claimed.id.uuid(),
        AuditActor::from(&Actor::service()) as AuditActor,
        interval(within),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a reader who is done finds.
#[derive(Debug)]
pub struct Released {
    pub status: Status,
    /// The app wants its revealed tokens to be replaced.
    pub rotates: bool,
}

/// Makes the rotation of a revealed token due now, if it is not in flight. Returns `None` if the app has no such
/// connection.
pub async fn release(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<Released>> {
    let row = sqlx::query!(
        "-- name: release_rotation
         WITH found AS MATERIALIZED (
            SELECT c.app_id, c.id, c.user_id, c.status, a.rotate_after_reveal AS rotates,
                   c.status = 'active' AND coalesce(c.rotation = 'waiting', true) AS idle
            FROM connections c JOIN apps a ON a.id = c.app_id
            WHERE c.app_id = $1 AND c.id = $2 FOR SHARE OF c),
         advanced AS (
            UPDATE token_rotations r SET due_at = strongroom_now()
            FROM found f WHERE r.connection_id = f.id AND f.idle AND r.due_at > strongroom_now()
            RETURNING f.app_id, f.id, f.user_id),
         audited AS (
            SELECT id, record_audit(app_id, $3, 'token.released', 'ok', user_id, id, NULL) FROM advanced)
         SELECT f.status, f.rotates FROM found f LEFT JOIN audited a ON a.id = f.id",
        app.uuid(),
        id.uuid(),
        actor as &AuditActor,
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Released { status: parse_status(&row.status)?, rotates: row.rotates }))
}
