//! Reads and writes the institution and accounts of connections.

use std::time::Duration;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::database::{Conn, interval};
use crate::providers::plaid::{Account, Institution, ItemDetails};

/// A connection whose details are to be confirmed.
#[derive(Clone, Copy, Debug)]
pub struct DueDetails {
    pub app: AppId,
    pub id: ConnectionId,
    pub attempts: i32,
}

/// Returns connections whose details are due, the first of every app before the second of any. Reads `limit` rows of
/// each app at most, however many are due.
pub async fn due(conn: &mut Conn, limit: i64, except: &[Uuid]) -> sqlx::Result<Vec<DueDetails>> {
    sqlx::query_file_as!(DueDetails, "src/connections/details/due.sql", limit, except)
        .fetch_all(conn)
        .await
}

/// Postpones the next attempt.
pub async fn postpone(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    wait: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections
         SET details_due_at = strongroom_now() + $3::interval, details_attempts = details_attempts + 1
         WHERE app_id = $1 AND id = $2 AND details_due_at IS NOT NULL",
        app.uuid(),
        id.uuid(),
        interval(wait),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An active connection, and what its app wants of duplicates.
#[derive(Debug)]
pub struct Unconfirmed {
    pub user: UserId,
    pub login_id: Option<String>,
    pub created_at: OffsetDateTime,
    pub supersedes: bool,
}

/// Takes the lock of a connection's user for confirmations, until the transaction ends.
pub async fn lock_confirmations(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<()> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('details ' || c.user_id::text, 0))
         FROM connections c WHERE c.app_id = $1 AND c.id = $2",
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    Ok(())
}

/// Locks a connection until the transaction ends: it is not revoked while older ones end in its favour. Returns `None` if
/// it is not active any more.
pub async fn lock_active(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<Unconfirmed>> {
    sqlx::query_as!(
        Unconfirmed,
        r#"SELECT c.user_id AS "user: UserId", c.login_id, c.created_at, a.supersede_duplicates AS supersedes
         FROM connections c JOIN apps a ON a.id = c.app_id
         WHERE c.app_id = $1 AND c.id = $2 AND c.status = 'active'
         FOR NO KEY UPDATE OF c"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Locks a connection until the transaction ends, so that others can end in its favour. Returns `false` if it is not
/// active any more, or if a bulk revocation in force has it in its scope; none is acknowledged until then.
pub async fn hold_usable(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<bool> {
    let asks = sqlx::query_scalar!(r#"SELECT begin_use($1) AS "asks!""#, app.uuid())
        .fetch_one(&mut *conn)
        .await?;
    let found = sqlx::query!(
        r#"SELECT CASE WHEN $3 THEN is_bulk_revoked(c.app_id, c.id, c.user_id, c.created_at, c.created_by, c.ordinal)
                     ELSE false END AS "bulk_revoked!"
         FROM connections c WHERE c.app_id = $1 AND c.id = $2 AND c.status = 'active' FOR NO KEY UPDATE"#,
        app.uuid(),
        id.uuid(),
        asks,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some_and(|found| !found.bulk_revoked))
}

/// An active connection whose details are confirmed.
#[derive(Debug)]
pub struct Confirmed {
    pub id: ConnectionId,
    pub login_id: Option<String>,
    pub created_at: OffsetDateTime,
    pub accounts: Vec<Account>,
}

/// Returns the user's other confirmed connections to an institution, in the order of their arrival.
pub async fn confirmed_of(
    conn: &mut Conn,
    app: AppId,
    user: UserId,
    except: ConnectionId,
    institution: &str,
) -> sqlx::Result<Vec<Confirmed>> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: ConnectionId", login_id, created_at, accounts AS "accounts: Json<Vec<Account>>"
         FROM connections
         WHERE app_id = $1 AND user_id = $2 AND id <> $3 AND status = 'active'
           AND institution_id = $4 AND details_due_at IS NULL
         ORDER BY created_at, id"#,
        app.uuid(),
        user.uuid(),
        except.uuid(),
        institution,
    )
    .fetch_all(conn)
    .await?;
    let confirmed = rows.into_iter().map(|row| Confirmed {
        id: row.id,
        login_id: row.login_id,
        created_at: row.created_at,
        accounts: row.accounts.map(|accounts| accounts.0).unwrap_or_default(),
    });
    Ok(confirmed.collect())
}

/// Records what the provider confirmed.
pub async fn record(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    details: &ItemDetails,
    duplicate_of: Option<ConnectionId>,
) -> sqlx::Result<()> {
    let institution = details.institution.as_ref();
    sqlx::query!(
        "-- name: record_details
         WITH changed AS (
            UPDATE connections c
            SET institution_id = $3,
                -- Not the browser's word for it, even if its id was right.
                institution_name = $4,
                accounts = $5, duplicate_of = $6, details_due_at = NULL, details_attempts = 0
            WHERE c.app_id = $1 AND c.id = $2 AND c.status = 'active'
            RETURNING c.app_id, c.user_id, c.id)
         SELECT record_audit(app_id, $7, 'connection.duplicate_found', 'ok', user_id, id, $6::uuid::text)
         FROM changed WHERE $6 IS NOT NULL",
        app.uuid(),
        id.uuid(),
        institution.map(|institution| institution.id.as_str()),
        institution.and_then(|institution: &Institution| institution.name.as_deref()),
        Json(&details.accounts) as Json<&Vec<Account>>,
        duplicate_of.map(ConnectionId::uuid),
        AuditActor::from(&Actor::service()) as AuditActor,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records that a newer connection, which was confirmed first, is a duplicate of an older one.
pub async fn mark_duplicate(
    conn: &mut Conn,
    app: AppId,
    newer: ConnectionId,
    older: ConnectionId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: mark_duplicate
         WITH changed AS (
            UPDATE connections SET duplicate_of = $3
            WHERE app_id = $1 AND id = $2 AND duplicate_of IS NULL
            RETURNING app_id, user_id, id)
         SELECT record_audit(app_id, $4, 'connection.duplicate_found', 'ok', user_id, id, $3::uuid::text)
         FROM changed",
        app.uuid(),
        newer.uuid(),
        older.uuid(),
        AuditActor::from(&Actor::service()) as AuditActor,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records which connection superseded a duplicate that is being revoked.
pub async fn replaced_by(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    by: ConnectionId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections SET replaced_by = $3 WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
        by.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
