//! The tables `bulk_revocations` and `bulk_revocation_targets`.
//!
//! A row is in force from its commit until `marked_at` is set. Reveals and calls take the app's usage lock shared
//! and check the rows in force (`begin_use` in the migrations); [`wait_for_uses`] takes it exclusively, so that a
//! use either commits before the bulk revocation or sees it. [`mark_batch`] writes the decision on the
//! connections' rows.

mod counts;
mod marking;
mod throttle;

pub use counts::*;
pub use marking::*;
pub use throttle::*;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::common::ids::{AppId, BulkRevocationId, ConnectionId, ErasureId, UserId};
use crate::common::paging::{Cursor, Page};
use crate::common::strict_json;
use crate::connections::bulk_revocation::{
    BulkRevocation, BulkRevocationStatus, NewBulkRevocation, RevocationFilter, SAMPLE,
};
use crate::connections::model::RevocationKind;
use crate::database::Conn;

/// Returns how many usable connections match, and the newest [`SAMPLE`] of them.
pub async fn count_usable(
    conn: &mut Conn,
    app: AppId,
    matching: &RevocationFilter,
) -> sqlx::Result<(i64, Vec<ConnectionId>)> {
    let (ids, logins) = (matching.ids(), matching.logins());
    if ids.is_none() && logins.is_none() && matching.client_user_ids.is_none() {
        return count_usable_in_app(conn, app, matching).await;
    }
    let row = sqlx::query_file!(
        "src/connections/bulk_revocation/store/count_usable.sql",
        app.uuid(),
        ids.as_deref(),
        logins.as_deref(),
        matching.client_user_ids.as_deref(),
        matching.created_before,
        matching.created_after,
        matching.client_id,
        SAMPLE,
    )
    .fetch_one(conn)
    .await?;
    Ok((row.count, row.sample.into_iter().map(ConnectionId::from).collect()))
}

async fn count_usable_in_app(
    conn: &mut Conn,
    app: AppId,
    matching: &RevocationFilter,
) -> sqlx::Result<(i64, Vec<ConnectionId>)> {
    let row = sqlx::query_file!(
        "src/connections/bulk_revocation/store/count_usable_in_app.sql",
        app.uuid(),
        matching.created_before,
        matching.created_after,
        matching.client_id,
        SAMPLE,
    )
    .fetch_one(conn)
    .await?;
    Ok((row.count, row.sample.into_iter().map(ConnectionId::from).collect()))
}

/// Inserts a bulk revocation. Returns `false` if the app has one with the same idempotency key.
///
/// `before_ordinal` is the next connection ordinal: later connections do not match.
///
/// # Errors
/// [`Fault::Contention`](crate::database::Fault::Contention) if the one with that key has not committed yet.
pub async fn insert(
    conn: &mut Conn,
    id: BulkRevocationId,
    new: &NewBulkRevocation<'_>,
    created_by: Option<&str>,
) -> sqlx::Result<bool> {
    let matching = new.matching;
    let done = sqlx::query!(
        "INSERT INTO bulk_revocations (
            id, app_id, kind, reason, filter, per_second, created_by, idempotency_key, request_hash,
            before_ordinal, created_before, created_after, client_id, by_user, by_connection)
         VALUES ($1, $2, $3, $4, $5::text::jsonb, $6, $7, $8, $9,
                 nextval('connection_ordinals'), $10, $11, $12, $13, $14)
         ON CONFLICT (app_id, idempotency_key) DO NOTHING",
        id.uuid(),
        new.app.uuid(),
        new.kind.as_str(),
        new.reason,
        matching.described().to_string(),
        new.per_second,
        created_by,
        new.idempotency_key,
        new.request_hash.as_bytes(),
        matching.created_before,
        matching.created_after,
        matching.client_id,
        matching.client_user_ids.is_some(),
        matching.connection_ids.is_some(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Inserts the users and connections that the filter lists, by their ids. An unknown name adds no row, so that it
/// matches nothing.
pub async fn insert_targets(
    conn: &mut Conn,
    id: BulkRevocationId,
    app: AppId,
    matching: &RevocationFilter,
) -> sqlx::Result<()> {
    if matching.client_user_ids.is_none() && matching.connection_ids.is_none() {
        return Ok(());
    }
    let (ids, logins) = (matching.ids(), matching.logins());
    sqlx::query!(
        "INSERT INTO bulk_revocation_targets (bulk_revocation_id, target)
         SELECT $1::uuid, u.id FROM users u WHERE u.app_id = $2 AND u.client_user_id = ANY ($3::text[])
         UNION
         SELECT $1, c.id FROM connections c WHERE c.app_id = $2 AND c.id = ANY ($4::uuid[])
         UNION
         SELECT $1, c.id FROM connections c WHERE c.app_id = $2 AND c.login_id = ANY ($5::text[])",
        id.uuid(),
        app.uuid(),
        matching.client_user_ids.as_deref(),
        ids.as_deref(),
        logins.as_deref(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Inserts the bulk revocation of an erasure: all connections of the user, later ones included (the largest
/// `before_ordinal`).
pub async fn insert_for_erasure(
    conn: &mut Conn,
    id: BulkRevocationId,
    app: AppId,
    erasure: ErasureId,
    user: UserId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: insert_bulk_revocation_for_erasure
         WITH added AS (
            INSERT INTO bulk_revocations (
                id, app_id, erasure_id, kind, reason, filter, per_second, request_hash, before_ordinal, by_user)
            VALUES ($1, $2, $3, $4, 'the user is being erased', '{}', 1, sha256(uuid_send($3)),
                    9223372036854775807, true)
            RETURNING id)
         INSERT INTO bulk_revocation_targets (bulk_revocation_id, target) SELECT id, $5 FROM added",
        id.uuid(),
        app.uuid(),
        erasure.uuid(),
        RevocationKind::Delink.as_str(),
        user.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Waits until the app's reveals and calls that have begun their transaction have committed, and blocks new ones
/// until this transaction ends: every later one sees what this transaction writes. Take this lock last, just
/// before the commit, because every use of the app's tokens waits for it.
///
/// # Errors
/// [`Fault::Contention`](crate::database::Fault::Contention) (SQLSTATE 55P03) after the transaction's lock timeout.
pub async fn wait_for_uses(conn: &mut Conn, app: AppId) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock(usage_lock($1))", app.uuid()).execute(conn).await?;
    Ok(())
}

/// Returns the app's bulk revocation with this idempotency key, and the hash of the request that created it.
pub async fn find_by_idempotency_key(
    conn: &mut Conn,
    app: AppId,
    key: &str,
) -> sqlx::Result<Option<(BulkRevocationId, Vec<u8>)>> {
    let row = sqlx::query!(
        r#"SELECT id AS "id: BulkRevocationId", request_hash FROM bulk_revocations
         WHERE app_id = $1 AND idempotency_key = $2"#,
        app.uuid(),
        key,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.id, row.request_hash)))
}

struct Row {
    id: BulkRevocationId,
    kind: String,
    reason: String,
    filter: String,
    per_second: i32,
    state: String,
    created_by: Option<String>,
    created_at: OffsetDateTime,
    finished_at: Option<OffsetDateTime>,
    matched: Option<i64>,
    told: i64,
    failed: i64,
    telling: i64,
    waiting: i64,
}

impl TryFrom<Row> for BulkRevocation {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let defect = || sqlx::Error::Decode("a bulk revocation".into());
        let outstanding = row.matched.is_none() || row.telling + row.waiting > 0;
        let status = match row.state.as_str() {
            "cancelled" => BulkRevocationStatus::Cancelled,
            _ if !outstanding => BulkRevocationStatus::Done,
            "paused" => BulkRevocationStatus::Paused,
            _ => BulkRevocationStatus::Running,
        };
        Ok(Self {
            id: row.id,
            status,
            kind: RevocationKind::parse(&row.kind).ok_or_else(defect)?,
            reason: row.reason,
            filter: strict_json::from_str(&row.filter).map_err(|_| defect())?,
            per_second: row.per_second,
            created_by: row.created_by,
            created_at: row.created_at,
            finished_at: row.finished_at,
            matched: row.matched,
            told: row.told,
            failed: row.failed,
            telling: row.telling,
            waiting: row.waiting,
            errors: Vec::new(),
        })
    }
}

/// Selects bulk revocations as the API returns them. A finished one has its counts on its row; those of the others are kept
/// beside it, and no connection is read.
macro_rules! select_bulk_revocations {
    ($name:tt, $rest:tt, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            "-- name: " + $name + r#"
             SELECT o.id AS "id: BulkRevocationId", o.kind, o.reason, o.filter::text AS "filter!",
                    o.per_second, o.state, o.created_by, o.created_at, o.finished_at, o.matched,
                    coalesce(o.told, p.told, 0) AS "told!", coalesce(o.failed, p.failed, 0) AS "failed!",
                    coalesce(p.telling, 0) AS "telling!", coalesce(p.waiting, 0) AS "waiting!"
             FROM bulk_revocations o
             LEFT JOIN LATERAL progress_of_bulk_revocation(o.id) p ON o.finished_at IS NULL "# + $rest,
            $($argument),*
        )
    };
}

/// Returns one bulk revocation of the app, with Dapi's five most frequent answers other than a confirmation.
pub async fn find(
    conn: &mut Conn,
    app: AppId,
    id: BulkRevocationId,
) -> sqlx::Result<Option<BulkRevocation>> {
    let Some(found) = find_progress(conn, app, id).await? else { return Ok(None) };
    Ok(Some(BulkRevocation { errors: errors(conn, id).await?, ..found }))
}

/// Returns one bulk revocation of the app, without its errors.
pub async fn find_progress(
    conn: &mut Conn,
    app: AppId,
    id: BulkRevocationId,
) -> sqlx::Result<Option<BulkRevocation>> {
    let row = select_bulk_revocations!(
        "find_bulk_revocation",
        "WHERE o.app_id = $1 AND o.id = $2 AND o.erasure_id IS NULL",
        app.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(BulkRevocation::try_from).transpose()
}

/// Returns a page of the app's bulk revocations, newest first, without their errors.
pub async fn list(
    conn: &mut Conn,
    app: AppId,
    cursor: Option<Cursor>,
    limit: u8,
) -> sqlx::Result<Page<BulkRevocation>> {
    let rows = select_bulk_revocations!(
        "list_bulk_revocations",
        "WHERE o.app_id = $1 AND o.id < $2 AND o.erasure_id IS NULL ORDER BY o.id DESC LIMIT $3",
        app.uuid(),
        cursor.map_or(Uuid::max(), Cursor::id),
        i64::from(limit) + 1,
    )
    .fetch_all(conn)
    .await?;
    let found = rows.into_iter().map(BulkRevocation::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::from_query(found, limit, |revocation| revocation.id.uuid()))
}

/// Locks a bulk revocation of the app. Returns its state and whether it is finished.
pub async fn lock(
    conn: &mut Conn,
    app: AppId,
    id: BulkRevocationId,
) -> sqlx::Result<Option<(String, bool)>> {
    let row = sqlx::query!(
        r#"SELECT state, finished_at IS NOT NULL AS "finished!" FROM bulk_revocations
         WHERE app_id = $1 AND id = $2 AND erasure_id IS NULL FOR UPDATE"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.state, row.finished)))
}

/// Sets the state and makes the throttle check the bulk revocation at once.
pub async fn set_state(conn: &mut Conn, id: BulkRevocationId, state: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE bulk_revocations SET state = $2, next_release_at = strongroom_now() WHERE id = $1",
        id.uuid(),
        state,
    )
    .execute(conn)
    .await?;
    Ok(())
}
