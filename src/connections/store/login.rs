//! Locking a bank login: every decision about a connection that depends on others of the same login
//! is made while the login is locked, so that nobody adds or changes one meanwhile.
//!
//! The lock is PostgreSQL's advisory one, for the transaction: rows that do not exist yet cannot be
//! locked, and `FOR UPDATE` does not see those that another transaction has just added. The rows are
//! locked as well, against whoever changes one of them without looking at the login.

use time::OffsetDateTime;

use super::parse_status;
use crate::base::ids::{AppId, ConnectionId, UserId};
use crate::connections::model::{Held, Login, RevocationKind, State, Status};
use crate::database::Conn;

/// A connection that is locked until the transaction ends, with what decides about it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one row")]
pub(in crate::connections) struct Locked {
    pub(in crate::connections) app: AppId,
    pub(in crate::connections) id: ConnectionId,
    pub(in crate::connections) user: UserId,
    pub(in crate::connections) state: State,
    pub(in crate::connections) status: Status,
    pub(in crate::connections) lease_epoch: i32,
    pub(in crate::connections) settled_epoch: Option<i32>,
    pub(in crate::connections) unanswered: bool,
    pub(in crate::connections) window_open: bool,
    pub(in crate::connections) attempts: i32,
    /// Somebody has to look at it now.
    pub(in crate::connections) due: bool,
    /// Somebody's lease ran out without an outcome.
    pub(in crate::connections) lease_died: bool,
    /// Its token was imported, and no call has succeeded with it yet.
    pub(in crate::connections) unproven: bool,
    created: (OffsetDateTime, ConnectionId),
}

/// A connection and what is known of its bank login.
pub(in crate::connections) struct LockedLogin {
    pub(in crate::connections) me: Option<Locked>,
    pub(in crate::connections) login: Login,
}

/// Locks every connection of a bank login that is not at its end, and connection `id` whatever its
/// status. `user` tells whose point of view the login is seen from, where `id` is not there (yet).
pub(in crate::connections) async fn lock_login(
    conn: &mut Conn,
    app: AppId,
    connection_id: &str,
    id: Option<ConnectionId>,
    user: UserId,
) -> sqlx::Result<LockedLogin> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text || $2::text, 0))",
        app.uuid(),
        connection_id,
    )
    .execute(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        "SELECT id AS \"id: ConnectionId\", user_id AS \"user_id: UserId\", status, created_at,
                code IS NOT NULL AS \"has_code!\", lease_epoch, settled_epoch,
                unanswered, exchange_attempts, revocation_kind,
                leased_until <= strongroom_now() AS lease_died, due_at <= strongroom_now() AS due,
                code_expires_at > strongroom_now() AS window_open, unproven
         FROM connections
         WHERE app_id = $1 AND connection_id = $2 AND (status IN ('pending', 'active', 'revoking') OR id = $3)
         ORDER BY id FOR UPDATE",
        app.uuid(),
        connection_id,
        id.map(ConnectionId::uuid),
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let status = parse_status(&row.status)?;
        all.push(Locked {
            app,
            id: row.id,
            user: row.user_id,
            state: state(status, row.has_code, row.revocation_kind.as_deref()),
            status,
            lease_epoch: row.lease_epoch,
            settled_epoch: row.settled_epoch,
            unanswered: row.unanswered,
            window_open: row.window_open.unwrap_or(false),
            attempts: row.exchange_attempts,
            due: row.due.unwrap_or(false),
            lease_died: row.lease_died.unwrap_or(false),
            unproven: row.unproven,
            created: (row.created_at, row.id),
        });
    }
    let me =
        id.and_then(|id| all.iter().position(|row| row.id == id)).map(|at| all.swap_remove(at));
    let mut login = login(&all, me.as_ref(), user);
    if let Some(me) = me.as_ref().filter(|me| me.state == State::Orphaned) {
        login.newer = has_newer(conn, connection_id, me).await?;
    }
    Ok(LockedLogin { me, login })
}

fn state(status: Status, has_code: bool, kind: Option<&str>) -> State {
    let held = if has_code { Held::Code } else { Held::Token };
    // A row in `revoking` has its kind, by a CHECK constraint.
    let kind = kind.and_then(RevocationKind::parse).unwrap_or(RevocationKind::Invalidate);
    match status {
        Status::Pending => State::Pending(held),
        Status::Active => State::Active,
        Status::Revoking => State::Revoking(kind, held),
        Status::Orphaned => State::Orphaned,
        Status::Delinked | Status::Invalidated => State::Revoked,
        Status::Rejected | Status::Expired => State::Failed,
    }
}

fn login(others: &[Locked], me: Option<&Locked>, user: UserId) -> Login {
    let user = me.map_or(user, |me| me.user);
    // What is not there yet is younger than everything.
    let later = |row: &Locked| me.is_some_and(|me| row.created > me.created);
    let mut login = Login::default();
    for row in others {
        let (active, revoking) = (row.status == Status::Active, row.status == Status::Revoking);
        if row.user != user {
            login.of_another_user |= active || revoking;
            login.active_of_another_user |= active;
        } else if active && later(row) {
            login.newer_active = Some(row.id);
        } else if active {
            login.older_active = Some(row.id);
        } else {
            login.revoking |= revoking;
        }
    }
    login
}

async fn has_newer(conn: &mut Conn, connection_id: &str, me: &Locked) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        "SELECT EXISTS (
            SELECT FROM connections
            WHERE app_id = $1 AND connection_id = $2 AND user_id = $3 AND (created_at, id) > ($4, $5)
              AND status NOT IN ('rejected', 'expired', 'orphaned')) AS \"it!\"",
        me.app.uuid(),
        connection_id,
        me.user.uuid(),
        me.created.0,
        me.id.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// The bank login and the user of a connection.
pub(in crate::connections) async fn login_of(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<(String, UserId)>> {
    let row = sqlx::query!(
        "SELECT connection_id, user_id AS \"user_id: UserId\" FROM connections WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.connection_id, row.user_id)))
}
