//! The statements behind each transition of a connection.
//!
//! Every statement that changes a connection's status records it in the audit trail itself, so there is no
//! transition without its event. The caller holds the bank login's lock, except for [`Activation`] and
//! [`delink_failed`], which check the lease's epoch themselves.

use std::collections::HashMap;
use std::time::Duration;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::bank_login::{LockedConnection, RevocationInForce};
use crate::connections::model::{Connection, Failure, RevocationKind, Status};
use crate::connections::query::store::view::{Row, select_view};
use crate::connections::sql::column;
use crate::database::{BatchQuery, Conn, interval};
use crate::providers::{AccessToken, UserSecret};
use crate::vault::Sealed;

/// A token that Dapi returned, sealed for its connection, with the ids that came with it.
#[derive(Debug, Clone)]
pub struct SealedToken {
    pub access_token: Sealed<AccessToken>,
    /// Sealed as it was received: if the token is late, the row's copy is already destroyed.
    pub user_secret: Option<Sealed<UserSecret>>,
    /// The bank login, if the exchange brought it.
    pub login_id: Option<String>,
    pub dapi_token_id: Option<String>,
    pub dapi_user_id: Option<String>,
}

/// How long the task of an exchange has to ask for the item's institution and accounts before the background work does.
const DETAILS_DELAY: Duration = Duration::from_mins(1);

/// Activates a pending connection under its lease: the ordinary case, in one statement that waits for no lock.
///
/// The output is `None` unless the lease is current, no other connection of the login is active or revoking, and no
/// bulk revocation in force has the connection in its scope. The caller then decides under the login's lock. Because
/// this statement does not take that lock, the unique index on active logins can refuse it (SQLSTATE 23505), and it
/// can make the index refuse an import.
#[derive(Debug)]
pub struct Activation {
    pub app: AppId,
    pub id: ConnectionId,
    pub epoch: i32,
    pub token: SealedToken,
}

impl BatchQuery for Activation {
    const NAME: &'static str = "activate_under_lease";

    type Output = Option<Connection>;

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<Self::Output>> {
        let changed = select_view!(
            "activate_under_lease",
            "WITH tokens AS MATERIALIZED (
                -- Locks what can be activated, ordered by login, so that two batches cannot deadlock. A locked
                -- row is skipped: its holder may be revoking it. MATERIALIZED, so that the rows are locked once.
                SELECT c.id, i.epoch, i.access_token, i.dapi_token_id, i.dapi_user_id,
                       coalesce(i.login_id, c.login_id) AS login_id
                FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::bytea[], $5::text[], $6::text[], $7::text[])
                     AS i (app_id, id, epoch, access_token, dapi_token_id, dapi_user_id, login_id)
                JOIN connections c ON c.app_id = i.app_id AND c.id = i.id
                WHERE c.status = 'pending' AND c.code IS NOT NULL AND c.lease_epoch = i.epoch
                  AND NOT EXISTS (
                      SELECT FROM connections o
                      WHERE o.app_id = c.app_id AND o.login_id = coalesce(i.login_id, c.login_id)
                        AND o.id <> c.id AND o.status IN ('active', 'revoking'))
                  AND NOT EXISTS (
                      SELECT FROM bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                                 c.ordinal) r WHERE r.marked_at IS NULL)
                ORDER BY coalesce(i.login_id, c.login_id)
                FOR UPDATE OF c SKIP LOCKED),
             changed AS (
                -- `settled_epoch` lets a writer whose COMMIT went unanswered recognise its own outcome.
                UPDATE connections c
                SET status = 'active', access_token = t.access_token, code = NULL,
                    activated_at = strongroom_now(), login_id = t.login_id,
                    details_due_at = CASE c.provider WHEN 'plaid' THEN strongroom_now() + $8::interval END,
                    dapi_token_id = coalesce(t.dapi_token_id, c.dapi_token_id),
                    dapi_user_id = coalesce(t.dapi_user_id, c.dapi_user_id),
                    leased_until = NULL, due_at = NULL, settled_epoch = t.epoch
                FROM tokens t
                WHERE c.id = t.id
                RETURNING c.*),
             audited AS (
                -- One event for each row that changed.
                INSERT INTO audit_events (app_id, action, outcome, actor, user_id, connection_id)
                SELECT app_id, 'connection.activated', 'active', 'service', user_id, id FROM changed)
             ",
            "changed",
            "";
            &column(inputs, |input| input.app.uuid()),
            &column(inputs, |input| input.id.uuid()),
            &column(inputs, |input| input.epoch),
            column(inputs, |input| input.token.access_token.as_bytes()) as Vec<&[u8]>,
            column(inputs, |input| input.token.dapi_token_id.as_deref()) as Vec<Option<&str>>,
            column(inputs, |input| input.token.dapi_user_id.as_deref()) as Vec<Option<&str>>,
            column(inputs, |input| input.token.login_id.as_deref()) as Vec<Option<&str>>,
            interval(DETAILS_DELAY),
        )
        .fetch_all(conn)
        .await?;
        let mut active = HashMap::new();
        for row in changed {
            active.insert(row.id, Connection::try_from(row)?);
        }
        Ok(column(inputs, |input| active.remove(&input.id)))
    }
}

/// Activates a locked connection, with this token or, if it is `None`, with the one that the row holds.
pub async fn activate(
    conn: &mut Conn,
    me: &LockedConnection,
    epoch: Option<i32>,
    token: Option<&SealedToken>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: activate_connection
         WITH changed AS (
            UPDATE connections
            SET status = 'active', access_token = coalesce($3, access_token),
                user_secret = coalesce(user_secret, $4), code = NULL,
                dapi_token_id = coalesce($5, dapi_token_id), dapi_user_id = coalesce($6, dapi_user_id),
                activated_at = strongroom_now(), leased_until = NULL, due_at = NULL,
                failure_type = NULL, failure_detail = NULL, settled_epoch = coalesce($7, settled_epoch),
                login_id = coalesce($10, login_id),
                details_due_at = CASE provider WHEN 'plaid' THEN strongroom_now() END
            WHERE app_id = $1 AND id = $2
            RETURNING app_id, id, user_id)
         SELECT record_audit(app_id, $8, 'connection.activated', 'active', user_id, id, $9) FROM changed",
        me.app.uuid(),
        me.id.uuid(),
        token.map(|token| token.access_token.as_bytes()),
        token.and_then(|token| token.user_secret.as_ref()).map(Sealed::as_bytes),
        token.and_then(|token| token.dapi_token_id.as_deref()),
        token.and_then(|token| token.dapi_user_id.as_deref()),
        epoch,
        AuditActor::from(&Actor::service()) as AuditActor,
        (me.status == Status::Orphaned).then_some("a late answer"),
        token.and_then(|token| token.login_id.as_deref()),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores the token of a connection that does not become active now; it is due after `wait`.
///
/// A revoking connection whose bulk revocation is paused has no due time, unless its user is being erased or a
/// pending connection of the login waits for the delinking.
pub async fn store_token(
    conn: &mut Conn,
    me: &LockedConnection,
    epoch: i32,
    token: &SealedToken,
    wait: Duration,
) -> sqlx::Result<()> {
    sqlx::query_file!(
        "src/connections/transitions/store_token.sql",
        me.app.uuid(),
        me.id.uuid(),
        token.access_token.as_bytes(),
        token.dapi_token_id,
        token.dapi_user_id,
        interval(wait),
        epoch,
        AuditActor::from(&Actor::service()) as AuditActor,
        token.login_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores the late token of an orphan that was revoked while it had none, so that the token is delinked.
pub async fn store_revoked_token(
    conn: &mut Conn,
    me: &LockedConnection,
    epoch: i32,
    token: &SealedToken,
    in_force: &RevocationInForce,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: store_revoked_token
         WITH changed AS (
            UPDATE connections
            SET status = 'revoking', access_token = $3, user_secret = coalesce(user_secret, $4),
                dapi_token_id = coalesce($5, dapi_token_id), dapi_user_id = coalesce($6, dapi_user_id),
                failure_type = NULL, failure_detail = NULL, due_at = strongroom_now(), settled_epoch = $7,
                revocation_kind = $8, revocation_reason = $9, revocation_requested_at = $10,
                login_id = coalesce($12, login_id)
            WHERE app_id = $1 AND id = $2
            RETURNING app_id, id, user_id)
         SELECT record_audit(app_id, $11, 'connection.' || $8, 'revoking', user_id, id, $9) FROM changed",
        me.app.uuid(),
        me.id.uuid(),
        token.access_token.as_bytes(),
        token.user_secret.as_ref().map(Sealed::as_bytes),
        token.dapi_token_id,
        token.dapi_user_id,
        epoch,
        in_force.kind.as_str(),
        in_force.reason,
        in_force.decided_at,
        AuditActor::from(&Actor::service()) as AuditActor,
        token.login_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets that a replica which lost its work may still have a token for this connection: it has come, whatever became of it.
pub async fn forget_awaited_token(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections SET answer_until = NULL WHERE app_id = $1 AND id = $2 AND answer_until IS NOT NULL",
        app.uuid(),
        id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Releases the lease of a locked connection, which is due again after `wait`.
pub async fn postpone(conn: &mut Conn, me: &LockedConnection, wait: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections SET leased_until = NULL, due_at = strongroom_now() + $3::interval
         WHERE app_id = $1 AND id = $2",
        me.app.uuid(),
        me.id.uuid(),
        interval(wait),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Releases the lease after an attempt without an outcome. The row is due after `wait` or when the window closes,
/// whichever comes first.
pub async fn schedule_retry(
    conn: &mut Conn,
    me: &LockedConnection,
    unanswered: bool,
    what: &str,
    wait: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections
         SET unanswered = $3, leased_until = NULL,
             due_at = least(strongroom_now() + $4::interval, greatest(code_expires_at, strongroom_now())),
             revocation_last_error = CASE WHEN status = 'revoking' THEN $5 ELSE revocation_last_error END
         WHERE app_id = $1 AND id = $2",
        me.app.uuid(),
        me.id.uuid(),
        unanswered,
        interval(wait),
        what,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a connection in a terminal status records.
#[derive(Debug)]
pub struct End<'a> {
    pub status: Status,
    pub failure: Option<&'a Failure>,
    /// Whether it is certain that Dapi holds nothing usable. Only of a revocation.
    pub confirmed: bool,
    /// What the last attempt left open; kept from the row if `None`.
    pub last_error: Option<&'a str>,
    pub replaced_by: Option<ConnectionId>,
    /// The caller's own reason, for the audit trail.
    pub reason: Option<&'a str>,
}

impl End<'_> {
    /// An end in this status without any details.
    pub const fn new(status: Status) -> Self {
        Self {
            status,
            failure: None,
            confirmed: false,
            last_error: None,
            replaced_by: None,
            reason: None,
        }
    }
}

/// Ends a connection: destroys its secrets and clears its due time. Pending connections of the login, which may have
/// waited for this one's delinking, become due at once.
pub async fn end(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
    end: &End<'_>,
) -> sqlx::Result<()> {
    let status = end.status.as_str();
    let replaced = end.replaced_by.map(|newer| format!("replaced by {newer}"));
    let error = end.failure.map(|failure| failure.kind.as_str()).or(end.last_error);
    let reason = end.reason.or(error).or(replaced.as_deref());
    sqlx::query_file!(
        "src/connections/transitions/end.sql",
        app.uuid(),
        id.uuid(),
        status,
        end.failure.map(|failure| failure.kind.as_str()),
        end.failure.map(|failure| failure.detail.as_str()),
        end.replaced_by.map(ConnectionId::uuid),
        end.confirmed,
        end.last_error,
        actor as &AuditActor,
        reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A revocation as it is requested.
#[derive(Debug)]
pub struct NewRevocation<'a> {
    pub kind: RevocationKind,
    pub reason: Option<&'a str>,
}

/// Acknowledges a revocation: from the commit on the connection is unusable. A live lease stays, because its holder
/// may still return the token that has to be delinked; the row is due when that lease ends.
pub async fn begin_revocation(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
    new: &NewRevocation<'_>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: begin_revocation
         WITH changed AS (
            UPDATE connections
            SET status = 'revoking', revocation_kind = $3, revocation_reason = $4,
                revocation_requested_at = strongroom_now(),
                due_at = coalesce(leased_until, strongroom_now())
            WHERE app_id = $1 AND id = $2
            RETURNING app_id, id, user_id)
         SELECT record_audit(app_id, $5, 'connection.' || $3, 'revoking', user_id, id, $4) FROM changed",
        app.uuid(),
        id.uuid(),
        new.kind.as_str(),
        new.reason,
        actor as &AuditActor,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Revokes a connection at once: records the request and ends it.
pub async fn revoke(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
    new: &NewRevocation<'_>,
    end_as: &End<'_>,
) -> sqlx::Result<()> {
    record_revocation(conn, app, id, new).await?;
    end(conn, actor, app, id, end_as).await
}

/// Records the request on a connection that ends at once.
async fn record_revocation(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    new: &NewRevocation<'_>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections
         SET status = 'revoking', revocation_kind = $3,
             revocation_reason = $4,
             revocation_requested_at = coalesce(revocation_requested_at, strongroom_now()),
             due_at = coalesce(due_at, strongroom_now())
         WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
        new.kind.as_str(),
        new.reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Releases the lease after a delinking that Dapi did not confirm.
///
/// While its bulk revocation is paused there is no next attempt, unless a new link or an erasure waits for it. The
/// time after which it is given up runs from its last release, so releasing it after every failure would postpone
/// that for ever.
pub async fn delink_failed(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    epoch: i32,
    what: &str,
    wait: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections c
         SET leased_until = NULL, revocation_last_error = $5,
             due_at = CASE WHEN EXISTS (SELECT FROM bulk_revocations r
                                        WHERE r.id = c.bulk_revocation_id AND r.state = 'paused')
                             AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
                             AND NOT EXISTS (
                                 SELECT FROM connections w
                                 WHERE w.app_id = c.app_id AND w.login_id = c.login_id
                                   AND w.user_id = c.user_id AND w.status = 'pending')
                           THEN NULL ELSE strongroom_now() + $4::interval END
         WHERE app_id = $1 AND id = $2 AND status = 'revoking' AND lease_epoch = $3",
        app.uuid(),
        id.uuid(),
        epoch,
        interval(wait),
        what,
    )
    .execute(conn)
    .await?;
    Ok(())
}
