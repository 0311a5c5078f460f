//! The fence of an app at the source: who may still do what, held by the database (the migration that makes `app_fences` has what
//! looks into it), and the steps by which it closes.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::PgQueryResult;
use tokio::time::{Instant, sleep};

use super::model::{InFlight, State};
use super::{MoveError, before, in_flight, receipt};
use crate::audit::{self, Event};
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ExportId, ImportKeyId};
use crate::common::secret::SecretText;
use crate::database::{Conn, Fault, LongWork};
use crate::vault::{self, Vault};

/// How often it is looked whether what is waited for has ended.
const POLL: Duration = Duration::from_millis(100);
/// How long transactions may last that began before the fence. The service's own end within seconds.
const STRAGGLERS: Duration = Duration::from_mins(1);
/// How many data keys one transaction destroys: replicas read the changes of each second.
const DESTROYED_AT_ONCE: i64 = 1000;

/// A fence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fence {
    pub(super) state: State,
    pub(super) export: ExportId,
    import_key: Option<ImportKeyId>,
    pub(super) parked: bool,
    pub(super) exported: bool,
}

/// Returns the fences that there are.
///
/// # Errors
/// The database's.
pub async fn states(conn: &mut Conn) -> sqlx::Result<HashMap<AppId, State>> {
    let rows = sqlx::query!(r#"SELECT app_id AS "app: AppId", state FROM app_fences"#);
    let rows = rows.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.app, State::parse(&row.state))).collect())
}

pub(super) async fn find(conn: &mut Conn, app: AppId) -> sqlx::Result<Option<Fence>> {
    let row = sqlx::query!(
        r#"SELECT state, export_id AS "export: ExportId", import_key_id AS "import_key: ImportKeyId", parked,
                exported_at IS NOT NULL AS "exported!"
         FROM app_fences WHERE app_id = $1"#,
        app.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Fence {
        state: State::parse(&row.state),
        export: row.export,
        import_key: row.import_key,
        parked: row.parked,
        exported: row.exported,
    }))
}

/// Fences the app for an export, waits for what is in flight, and closes the fence; goes on where an earlier run stopped. When it
/// returns, nothing of the app changes any more and nothing of it is due.
///
/// If something does not end within `patience`, the fence is lifted again.
pub(super) async fn close(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    app: AppId,
    key: ImportKeyId,
    patience: Duration,
) -> Result<Fence, MoveError> {
    let fence = begin(conn, vault, app, key).await?;
    fail::fail_point!("export::draining");
    if fence.state == State::Draining {
        if let Err(error) = drain(conn, app, patience).await {
            return Err(lifted_after(conn, app, fence.export, error).await);
        }
        set_closed(conn, app, fence.export).await?;
    }
    fail::fail_point!("export::closed");
    if !fence.parked {
        if let Err(error) = await_stragglers(conn).await {
            return Err(lifted_after(conn, app, fence.export, error).await);
        }
        park(conn, actor, app, &fence, key).await?;
    }
    fail::fail_point!("export::parked");
    Ok(fence)
}

/// Lifts the fence because of an error, and returns that; if the fence stays, that it does.
async fn lifted_after(
    conn: &mut Conn,
    app: AppId,
    export: ExportId,
    error: MoveError,
) -> MoveError {
    match lift(conn, app, export, LEAVING).await {
        Ok(_) => error,
        Err(lifting) => MoveError::FenceStays { lifting: lifting.cause(), cause: error.cause() },
    }
}

/// Inserts the fence, unless an earlier run did.
async fn begin(
    conn: &mut Conn,
    vault: &Vault,
    app: AppId,
    key: ImportKeyId,
) -> Result<Fence, MoveError> {
    if find(conn, app).await?.is_none() {
        before::refuse_open_approvals(conn, app).await?;
        let export = ExportId::new();
        let receipt = receipt::draw(vault, app, export)?;
        sqlx::query!(
            "INSERT INTO app_fences (app_id, state, export_id, import_key_id, receipt)
             VALUES ($1, 'draining', $2, $3, $4)
             ON CONFLICT (app_id) DO NOTHING",
            app.uuid(),
            export.uuid(),
            key.uuid(),
            receipt.as_bytes(),
        )
        .execute(&mut *conn)
        .await?;
    }
    let fence = find(conn, app).await?.ok_or(MoveError::NotMoving)?;
    match (fence.state, fence.import_key) {
        (State::Moved, _) => Err(MoveError::Moved),
        (State::Settling, _) | (_, None) => Err(MoveError::Arriving),
        (_, Some(other)) if other != key => Err(MoveError::OtherKey(other)),
        _ => Ok(fence),
    }
}

async fn drain(conn: &mut Conn, app: AppId, patience: Duration) -> Result<(), MoveError> {
    await_holders(conn, app).await?;
    await_stragglers(conn).await?;
    let until = Instant::now() + patience;
    loop {
        let in_flight = in_flight::count(conn, app).await?;
        if in_flight == InFlight::default() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(MoveError::Busy(in_flight));
        }
        sleep(POLL).await;
    }
}

/// Takes the app's usage lock and its arrival lock once each: whoever got one before the fence has ended then, and whoever gets
/// one later sees it. One after the other, so that nobody waits for both.
async fn await_holders(conn: &mut Conn, app: AppId) -> Result<(), MoveError> {
    let until = Instant::now() + STRAGGLERS;
    for lock in [Lock::Uses, Lock::Arrivals] {
        while !take_once(conn, app, lock).await? {
            if Instant::now() >= until {
                return Err(MoveError::Stragglers);
            }
        }
    }
    Ok(())
}

/// A lock that whoever begins something holds shared.
#[derive(Clone, Copy)]
enum Lock {
    Uses,
    Arrivals,
}

/// Takes a lock and gives it back; returns whether it was to be had within a transaction's time.
async fn take_once(conn: &mut Conn, app: AppId, lock: Lock) -> Result<bool, MoveError> {
    let mut tx = conn.begin().await?;
    let taking = match lock {
        Lock::Uses => sqlx::query!("SELECT pg_advisory_xact_lock(usage_lock($1))", app.uuid()),
        Lock::Arrivals => {
            sqlx::query!("SELECT pg_advisory_xact_lock(arrival_lock($1))", app.uuid())
        }
    };
    match taking.execute(&mut *tx).await {
        Ok(_) => {
            tx.commit().await?;
            Ok(true)
        }
        Err(error) if Fault::of(&error) == Fault::Contention => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits until every transaction has ended that has an id and began before now: one that passed a fence before it stood.
async fn await_stragglers(conn: &mut Conn) -> Result<(), MoveError> {
    let now = sqlx::query_scalar!(r#"SELECT pg_current_xact_id()::text AS "id!""#)
        .fetch_one(&mut *conn)
        .await?;
    let until = Instant::now() + STRAGGLERS;
    loop {
        let over = sqlx::query_scalar!(
            r#"SELECT pg_snapshot_xmin(pg_current_snapshot()) > ($1::text)::xid8 AS "over!""#,
            now,
        )
        .fetch_one(&mut *conn)
        .await?;
        if over {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(MoveError::Stragglers);
        }
        sleep(POLL).await;
    }
}

/// A change of the fence of this export from one state: fails if somebody else has lifted or changed it.
fn changed(done: &PgQueryResult) -> Result<(), MoveError> {
    if done.rows_affected() == 1 { Ok(()) } else { Err(MoveError::FenceLost) }
}

async fn set_closed(conn: &mut Conn, app: AppId, export: ExportId) -> Result<(), MoveError> {
    let done = sqlx::query!(
        "UPDATE app_fences SET state = 'closed', since = strongroom_now()
         WHERE app_id = $1 AND export_id = $2 AND state = 'draining'",
        app.uuid(),
        export.uuid(),
    )
    .execute(conn)
    .await?;
    changed(&done)
}

/// Puts off all that is due, so that no background work finds it here any more, and records the export: the last row of the trail.
/// Once: what is put off twice is never taken back.
async fn park(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    fence: &Fence,
    key: ImportKeyId,
) -> Result<(), MoveError> {
    let reason = format!("{} for {key}", fence.export);
    let mut tx = conn.begin().await?;
    tx.allow(LongWork::AppMove).await?;
    let done = sqlx::query!(
        "UPDATE app_fences SET parked = true
         WHERE app_id = $1 AND export_id = $2 AND state = 'closed' AND NOT parked",
        app.uuid(),
        fence.export.uuid(),
    )
    .execute(&mut *tx)
    .await?;
    changed(&done)?;
    sqlx::query!("SELECT shift_due_work($1, parking_time())", app.uuid()).execute(&mut *tx).await?;
    record(&mut tx, actor, app, "app.exported", &reason).await?;
    tx.commit().await?;
    Ok(())
}

/// Returns whether the fence of this export stands, in the snapshot that is read.
pub(super) async fn stands(
    conn: &mut Conn,
    app: AppId,
    export: ExportId,
) -> Result<bool, MoveError> {
    let fence = find(conn, app).await?;
    Ok(fence.is_some_and(|it| it.export == export && it.state == State::Closed && it.parked))
}

pub(super) async fn record(
    tx: &mut Conn,
    actor: &Actor,
    app: AppId,
    action: &'static str,
    reason: &str,
) -> sqlx::Result<()> {
    let (user, connection, reason) = (None, None, Some(reason));
    let event = Event { app, action, outcome: "ok", user, connection, reason };
    audit::record(tx, actor, &event).await
}

/// Records that a complete folder was written.
pub(super) async fn set_exported(
    conn: &mut Conn,
    app: AppId,
    export: ExportId,
) -> Result<(), MoveError> {
    let done = sqlx::query!(
        "UPDATE app_fences SET exported_at = strongroom_now()
         WHERE app_id = $1 AND export_id = $2 AND state = 'closed' AND parked",
        app.uuid(),
        export.uuid(),
    )
    .execute(conn)
    .await?;
    changed(&done)
}

/// The fences that a source lifts, and those that a target does.
const LEAVING: &[&str] = &["draining", "closed"];
pub(super) const ARRIVED: &[&str] = &["settling"];

/// Lifts the fence of this export if it is in one of these states, and makes due again what it had put off. Returns whether there
/// was one.
pub(super) async fn lift(
    conn: &mut Conn,
    app: AppId,
    export: ExportId,
    states: &[&str],
) -> Result<bool, MoveError> {
    let mut tx = conn.begin().await?;
    tx.allow(LongWork::AppMove).await?;
    // The dispatcher puts off what it queues for a fenced app: wait for the one that is at it, and keep the next away.
    sqlx::query!("SELECT app_id FROM event_heads WHERE app_id = $1 FOR UPDATE", app.uuid())
        .fetch_optional(&mut *tx)
        .await?;
    let states: Vec<_> = states.iter().map(|state| (*state).to_owned()).collect();
    let parked = sqlx::query_scalar!(
        "SELECT parked FROM app_fences WHERE app_id = $1 AND export_id = $2 AND state = ANY ($3) FOR UPDATE",
        app.uuid(),
        export.uuid(),
        &states,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(parked) = parked else { return Ok(false) };
    if parked {
        sqlx::query!("SELECT shift_due_work($1, -parking_time())", app.uuid())
            .execute(&mut *tx)
            .await?;
    }
    // Last: from here to the commit nobody else changes a client.
    let done = sqlx::query!(
        "DELETE FROM app_fences WHERE app_id = $1 AND export_id = $2",
        app.uuid(),
        export.uuid(),
    )
    .execute(&mut *tx)
    .await?;
    changed(&done)?;
    tx.commit().await?;
    Ok(true)
}

/// Takes an export back: the app serves here again. Two deployments act for it if its folder is imported all the same.
///
/// # Errors
/// [`MoveError::NotMoving`], [`MoveError::Moved`].
pub async fn abort(conn: &mut Conn, actor: &Actor, app: AppId) -> Result<(), MoveError> {
    let fence = find(conn, app).await?.ok_or(MoveError::NotMoving)?;
    match fence.state {
        State::Draining | State::Closed => {}
        State::Moved => return Err(MoveError::Moved),
        State::Settling => return Err(MoveError::Arriving),
    }
    let mut tx = conn.begin().await?;
    if !lift(&mut tx, app, fence.export, LEAVING).await? {
        return Err(MoveError::FenceLost);
    }
    let reason = fence.export.to_string();
    record(&mut tx, actor, app, "app.export_aborted", &reason).await?;
    tx.commit().await?;
    Ok(())
}

/// Ends the app here, by what its import has returned, and destroys the data keys of its users: no token of theirs opens here any
/// more, and whom the target erases is erased here as well. May be killed and run again. Without an audit row: the trail is at
/// the target, and goes on there.
///
/// # Errors
/// [`MoveError::WrongReceipt`]; [`MoveError::NotMoving`] or [`MoveError::NotExported`] if there is nothing to end.
pub async fn end(
    conn: &mut Conn,
    vault: &Vault,
    app: AppId,
    receipt: &str,
) -> Result<(), MoveError> {
    let fence = find(conn, app).await?.ok_or(MoveError::NotMoving)?;
    match fence.state {
        // An earlier run may have been killed before the last key.
        State::Moved => return destroy_keys(conn, app).await,
        State::Closed if fence.exported => {}
        State::Closed | State::Draining => return Err(MoveError::NotExported),
        State::Settling => return Err(MoveError::Arriving),
    }
    let expected = receipt::of(conn, vault, app, fence.export).await?;
    if !expected.same_as(&SecretText::new(receipt.trim().to_owned())) {
        return Err(MoveError::WrongReceipt(fence.export));
    }
    let done = sqlx::query!(
        "UPDATE app_fences SET state = 'moved', since = strongroom_now()
         WHERE app_id = $1 AND export_id = $2 AND state = 'closed' AND exported_at IS NOT NULL",
        app.uuid(),
        fence.export.uuid(),
    )
    .execute(&mut *conn)
    .await?;
    changed(&done)?;
    fail::fail_point!("export::moved");
    destroy_keys(conn, app).await
}

async fn destroy_keys(conn: &mut Conn, app: AppId) -> Result<(), MoveError> {
    let mut next = Some(String::new());
    while let Some(after) = next {
        next = vault::destroy_keys_of_users(conn, app, &after, DESTROYED_AT_ONCE).await?;
    }
    Ok(())
}
