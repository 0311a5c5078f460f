//! Locking a bank login: every decision about a connection that depends on others of the same login
//! is made while the login is locked, so that nobody adds or changes one meanwhile.
//!
//! The lock is PostgreSQL's advisory one, for the transaction: rows that do not exist yet cannot be
//! locked, and `FOR UPDATE` does not see those that another transaction has just added. The rows are
//! locked as well, against whoever changes one of them without looking at the login.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::base::ids::{AppId, ConnectionId, UserId};
use crate::connections::bulk_revocation::store::mark_locked;
use crate::connections::model::{BankLogin, Held, RevocationKind, State, Status};
use crate::connections::sql::parse_status;
use crate::database::Conn;

/// A connection that is locked until the transaction ends, with what decides about it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one row")]
pub struct LockedConnection {
    pub app: AppId,
    pub id: ConnectionId,
    pub user: UserId,
    pub state: State,
    pub status: Status,
    pub lease_epoch: i32,
    pub settled_epoch: Option<i32>,
    pub unanswered: bool,
    pub window_open: bool,
    pub attempts: i32,
    /// Somebody has to look at it now.
    pub due: bool,
    /// Somebody's lease ran out without an outcome.
    pub lease_died: bool,
    /// What revokes an orphan should its token come after all.
    pub revoked_by: Option<RevocationInForce>,
    /// Its token was imported, and no call has succeeded with it yet.
    pub unproven: bool,
    created: (OffsetDateTime, ConnectionId),
}

/// A revocation that was decided before the token came which it means.
#[derive(Debug)]
pub struct RevocationInForce {
    pub kind: RevocationKind,
    pub reason: String,
    pub decided_at: OffsetDateTime,
}

/// A connection and what is known of its bank login.
pub struct LockedBankLogin {
    pub me: Option<LockedConnection>,
    pub login: BankLogin,
}

/// Has this transaction wait for a lock no longer than a lone statement does: what is locked is put off.
pub async fn wait_briefly(conn: &mut Conn) -> sqlx::Result<()> {
    sqlx::query!("SELECT set_config('lock_timeout', '200ms', true)").fetch_one(conn).await?;
    Ok(())
}

/// Locks every connection of a bank login that is not at its end, and connection `id` whatever its
/// status. `user` tells whose point of view the login is seen from, where `id` is not there (yet). What
/// an order in force means is marked before anybody decides by it.
pub async fn lock_bank_login(
    conn: &mut Conn,
    app: AppId,
    dapi_connection_id: &str,
    id: Option<ConnectionId>,
    user: UserId,
) -> sqlx::Result<LockedBankLogin> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text || $2::text, 0))",
        app.uuid(),
        dapi_connection_id,
    )
    .execute(&mut *conn)
    .await?;
    let (mut all, meant) = lock_rows(conn, app, dapi_connection_id, id).await?;
    if !meant.is_empty() && mark_locked(conn, &meant).await? > 0 {
        (all, _) = lock_rows(conn, app, dapi_connection_id, id).await?;
    }
    let mut me =
        id.and_then(|id| all.iter().position(|row| row.id == id)).map(|at| all.swap_remove(at));
    let mut login = login(&all, me.as_ref(), user);
    if let Some(me) = me.as_mut().filter(|me| me.state == State::Orphaned) {
        login.newer = has_newer(conn, dapi_connection_id, me).await?;
        me.revoked_by = revocation_in_force(conn, me).await?;
    }
    Ok(LockedBankLogin { me, login })
}

/// Locks the rows of a login; returns them, and the ids of those that an order in force means.
async fn lock_rows(
    conn: &mut Conn,
    app: AppId,
    dapi_connection_id: &str,
    id: Option<ConnectionId>,
) -> sqlx::Result<(Vec<LockedConnection>, Vec<Uuid>)> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: ConnectionId", user_id AS "user_id: UserId", status, created_at,
                status IN ('pending', 'active') AND EXISTS (
                    SELECT FROM bulk_revocations_of(app_id, id, user_id, created_at, created_by, ordinal) o
                    WHERE o.marked_at IS NULL) AS "meant!",
                code IS NOT NULL AS "has_code!", lease_epoch, settled_epoch,
                unanswered, exchange_attempts, revocation_kind,
                leased_until <= strongroom_now() AS lease_died, due_at <= strongroom_now() AS due,
                code_expires_at > strongroom_now() AS window_open, unproven
         FROM connections
         WHERE app_id = $1 AND dapi_connection_id = $2 AND (status IN ('pending', 'active', 'revoking') OR id = $3)
         ORDER BY id FOR UPDATE"#,
        app.uuid(),
        dapi_connection_id,
        id.map(ConnectionId::uuid),
    )
    .fetch_all(conn)
    .await?;
    let mut all = Vec::with_capacity(rows.len());
    let meant = rows.iter().filter(|row| row.meant).map(|row| row.id.uuid()).collect();
    for row in rows {
        let status = parse_status(&row.status)?;
        all.push(LockedConnection {
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
            revoked_by: None,
            unproven: row.unproven,
            created: (row.created_at, row.id),
        });
    }
    Ok((all, meant))
}

/// The order that means an orphan, given at whatever time since it came, or the erasure of its user. The
/// marking of an order that is given later waits for this transaction, so that it finds the orphan back.
async fn revocation_in_force(
    conn: &mut Conn,
    me: &LockedConnection,
) -> sqlx::Result<Option<RevocationInForce>> {
    sqlx::query!("SELECT pg_advisory_xact_lock_shared(arrival_lock($1))", me.app.uuid())
        .execute(&mut *conn)
        .await?;
    let row = sqlx::query!(
        r#"SELECT o.kind AS "kind!", o.reason AS "reason!", o.created_at AS "decided_at!"
         FROM connections c
         CROSS JOIN LATERAL bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                           c.ordinal) o
         WHERE c.id = $1
         UNION ALL
         SELECT 'delink', 'the user is being erased', e.requested_at FROM erasures e WHERE e.user_id = $2
         ORDER BY 3 LIMIT 1"#,
        me.id.uuid(),
        me.user.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let kind = RevocationKind::parse(&row.kind)
        .ok_or_else(|| sqlx::Error::Decode("a revocation order".into()))?;
    Ok(Some(RevocationInForce { kind, reason: row.reason, decided_at: row.decided_at }))
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

fn login(others: &[LockedConnection], me: Option<&LockedConnection>, user: UserId) -> BankLogin {
    let user = me.map_or(user, |me| me.user);
    // What is not there yet is younger than everything.
    let later = |row: &LockedConnection| me.is_some_and(|me| row.created > me.created);
    let mut login = BankLogin::default();
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

async fn has_newer(
    conn: &mut Conn,
    dapi_connection_id: &str,
    me: &LockedConnection,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM connections
            WHERE app_id = $1 AND dapi_connection_id = $2 AND user_id = $3 AND (created_at, id) > ($4, $5)
              AND status NOT IN ('rejected', 'expired', 'orphaned')) AS "it!""#,
        me.app.uuid(),
        dapi_connection_id,
        me.user.uuid(),
        me.created.0,
        me.id.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// The bank login and the user of a connection.
pub async fn login_of(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<(String, UserId)>> {
    let row = sqlx::query!(
        r#"SELECT dapi_connection_id, user_id AS "user_id: UserId" FROM connections WHERE app_id = $1 AND id = $2"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.dapi_connection_id, row.user_id)))
}
