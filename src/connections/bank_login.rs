//! Locks a bank login: a decision about a connection that depends on others of its login is made under this lock, so
//! that none is added or changed meanwhile.
//!
//! The lock is an advisory one of PostgreSQL, held until the transaction ends: rows that do not exist yet cannot be
//! locked, and `FOR UPDATE` does not see rows that a concurrent transaction inserts. The rows are locked as well,
//! against statements that change one without taking the login's lock, such as an activation or a claim.
//!
//! Lock order: the login, its rows by id, then (for an orphan) the app's arrival lock, shared.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::connections::bulk_revocation::store::mark_locked;
use crate::connections::model::{BankLogin, Held, RevocationKind, State, Status};
use crate::connections::sql::parse_status;
use crate::database::Conn;
use crate::providers::Provider;

/// A connection that is locked until the transaction ends, with what its transitions depend on.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one row")]
pub struct LockedConnection {
    pub app: AppId,
    pub id: ConnectionId,
    pub user: UserId,
    pub provider: Provider,
    /// `None` until Plaid's exchange brings it.
    pub login_id: Option<String>,
    pub state: State,
    pub status: Status,
    pub lease_epoch: i32,
    pub settled_epoch: Option<i32>,
    pub unanswered: bool,
    pub window_open: bool,
    pub attempts: i32,
    /// Its `due_at` has passed.
    pub due: bool,
    /// Its lease ran out without an outcome: the holder crashed.
    pub lease_died: bool,
    /// What revokes an orphan, if its token arrives late. Loaded for orphans only.
    pub revoked_by: Option<RevocationInForce>,
    /// Its token was imported, and no call has succeeded with it yet.
    pub unproven: bool,
    /// The order of the login's connections.
    created: (OffsetDateTime, ConnectionId),
}

/// A bulk revocation or an erasure that was requested before the token in its scope arrived.
#[derive(Debug)]
pub struct RevocationInForce {
    pub kind: RevocationKind,
    pub reason: String,
    pub decided_at: OffsetDateTime,
}

/// A locked bank login, as one of its connections sees it.
pub struct LockedBankLogin {
    /// The connection that was asked for, if it exists.
    pub me: Option<LockedConnection>,
    pub login: BankLogin,
}

/// Limits the wait for each lock of this transaction to 200 ms (SQLSTATE 55P03 after that), as for a batch: the
/// caller retries or postpones.
pub async fn wait_briefly(conn: &mut Conn) -> sqlx::Result<()> {
    sqlx::query!("SELECT set_config('lock_timeout', '200ms', true)").fetch_one(conn).await?;
    Ok(())
}

/// Locks a bank login, with its pending, active and revoking connections and connection `id` in any status.
///
/// A connection whose login is not known yet (`None`, before Plaid's exchange) has no others beside it: its row alone is
/// locked. If the exchange has brought the login meanwhile, the lock is asked for again with it.
///
/// If `id` does not exist (yet), the login is seen as `user`'s newest connection would see it. Connections in the scope
/// of a bulk revocation in force are marked first, so that no decision treats them as usable.
pub async fn lock_bank_login(
    conn: &mut Conn,
    app: AppId,
    login_id: Option<&str>,
    id: Option<ConnectionId>,
    user: UserId,
) -> sqlx::Result<LockedBankLogin> {
    if let Some(login_id) = login_id {
        lock_login(conn, app, login_id).await?;
    }
    let (mut all, in_scope) = lock_rows(conn, app, login_id, id).await?;
    let known = all.iter().find(|row| Some(row.id) == id).and_then(|row| row.login_id.clone());
    if login_id.is_none() && known.is_some() {
        return Box::pin(lock_bank_login(conn, app, known.as_deref(), id, user)).await;
    }
    if !in_scope.is_empty() && mark_locked(conn, &in_scope).await? > 0 {
        (all, _) = lock_rows(conn, app, login_id, id).await?;
    }
    let mut me =
        id.and_then(|id| all.iter().position(|row| row.id == id)).map(|at| all.swap_remove(at));
    let mut login = login(&all, me.as_ref(), user);
    if let Some(me) = me.as_mut().filter(|me| me.state == State::Orphaned) {
        login.newer = match login_id {
            Some(login_id) => has_newer(conn, login_id, me).await?,
            None => false,
        };
        me.revoked_by = revocation_in_force(conn, me).await?;
    }
    Ok(LockedBankLogin { me, login })
}

/// Takes the locks of two bank logins, in an order that every caller shares, for a connection that moves from one to the
/// other. [`lock_bank_login`] then adds the rows.
pub async fn lock_two_logins(
    conn: &mut Conn,
    app: AppId,
    mut logins: [&str; 2],
) -> sqlx::Result<()> {
    logins.sort_unstable();
    for login_id in logins {
        lock_login(conn, app, login_id).await?;
    }
    Ok(())
}

async fn lock_login(conn: &mut Conn, app: AppId, login_id: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text || $2::text, 0))",
        app.uuid(),
        login_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks the rows of a login. Returns them, and the ids of those in the scope of a bulk revocation that has not marked
/// them yet.
async fn lock_rows(
    conn: &mut Conn,
    app: AppId,
    login_id: Option<&str>,
    id: Option<ConnectionId>,
) -> sqlx::Result<(Vec<LockedConnection>, Vec<Uuid>)> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: ConnectionId", user_id AS "user_id: UserId", provider AS "provider: Provider",
                login_id, status, created_at,
                status IN ('pending', 'active') AND EXISTS (
                    SELECT FROM bulk_revocations_of(app_id, id, user_id, created_at, created_by, ordinal) r
                    WHERE r.marked_at IS NULL) AS "in_scope!",
                code IS NOT NULL AS "has_code!", lease_epoch, settled_epoch,
                unanswered, exchange_attempts, revocation_kind,
                leased_until <= strongroom_now() AS lease_died, due_at <= strongroom_now() AS due,
                code_expires_at > strongroom_now() AS window_open, unproven
         FROM connections
         WHERE app_id = $1 AND (login_id = $2 AND status IN ('pending', 'active', 'revoking') OR id = $3)
         ORDER BY id FOR UPDATE"#,
        app.uuid(),
        login_id,
        id.map(ConnectionId::uuid),
    )
    .fetch_all(conn)
    .await?;
    let mut all = Vec::with_capacity(rows.len());
    let in_scope = rows.iter().filter(|row| row.in_scope).map(|row| row.id.uuid()).collect();
    for row in rows {
        let status = parse_status(&row.status)?;
        all.push(LockedConnection {
            app,
            id: row.id,
            user: row.user_id,
            provider: row.provider,
            login_id: row.login_id,
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
    Ok((all, in_scope))
}

/// Finds the earliest bulk revocation since an orphan was received that has it in its scope, or its user's erasure.
///
/// Takes the app's arrival lock, shared: the marking of a later bulk revocation waits for this transaction and sees
/// the orphan as active again.
async fn revocation_in_force(
    conn: &mut Conn,
    me: &LockedConnection,
) -> sqlx::Result<Option<RevocationInForce>> {
    sqlx::query!("SELECT pg_advisory_xact_lock_shared(arrival_lock($1))", me.app.uuid())
        .execute(&mut *conn)
        .await?;
    let row = sqlx::query!(
        r#"SELECT r.kind AS "kind!", r.reason AS "reason!", r.created_at AS "decided_at!"
         FROM connections c
         CROSS JOIN LATERAL bulk_revocations_of(c.app_id, c.id, c.user_id, c.created_at, c.created_by,
                                           c.ordinal) r
         -- Marked ones too: the marking passes over orphans, which have nothing to revoke yet.
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
        .ok_or_else(|| sqlx::Error::Decode("the kind of a bulk revocation".into()))?;
    Ok(Some(RevocationInForce { kind, reason: row.reason, decided_at: row.decided_at }))
}

fn state(status: Status, has_code: bool, kind: Option<&str>) -> State {
    let held = if has_code { Held::Code } else { Held::Token };
    // A CHECK constraint ensures that a row in `revoking` has a kind.
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
    // A connection that does not exist yet is newer than all others.
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

/// Returns whether the user has a newer connection of the login that did not fail, in any status and not locked: its
/// result stands, so a late token of an older one is dropped.
async fn has_newer(conn: &mut Conn, login_id: &str, me: &LockedConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM connections
            WHERE app_id = $1 AND login_id = $2 AND user_id = $3 AND (created_at, id) > ($4, $5)
              AND status NOT IN ('rejected', 'expired', 'orphaned')) AS "has_newer!""#,
        me.app.uuid(),
        login_id,
        me.user.uuid(),
        me.created.0,
        me.id.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Returns the bank login and the user of a connection, without locking it. The login is `None` if it is not known yet.
pub async fn login_of(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<(Option<String>, UserId)>> {
    let row = sqlx::query!(
        r#"SELECT login_id, user_id AS "user_id: UserId" FROM connections WHERE app_id = $1 AND id = $2"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.login_id, row.user_id)))
}

/// Sets the login of a connection whose logins, both of them, are locked.
pub async fn set_login(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    login_id: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections SET login_id = $3 WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
        login_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records in the audit trail that a connection was said to be of another login.
pub async fn record_correction(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    said: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "SELECT record_audit(app_id, $3, 'connection.login_corrected', 'ok', user_id, id, $4)
         FROM connections WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
        AuditActor::from(&Actor::service()) as AuditActor,
        said,
    )
    .execute(conn)
    .await?;
    Ok(())
}
