//! The table `approvals`.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{Approval, ApprovalStatus, Awaiting, Kind, NewRequest, Waiting};
use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ApprovalId, OperatorSessionId};
use crate::common::paging::{Cursor, Page};
use crate::common::strict_json;
use crate::database::Conn;
use crate::vault::KeyedHash;

/// Days for which a request is kept after it ended. What happened stays in the trail.
const KEPT_DAYS: i32 = 90;
/// Rows that one statement expires or deletes.
const BATCH: i64 = 500;

/// A row as PostgreSQL has it.
struct Row {
    id: ApprovalId,
    app: Option<AppId>,
    kind: String,
    described: String,
    matched: Option<i64>,
    requested_by: String,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    status: String,
    decided_by: Option<String>,
    decided_at: Option<OffsetDateTime>,
    decision_reason: Option<String>,
}

fn defect() -> sqlx::Error {
    sqlx::Error::Decode("an approval".into())
}

impl TryFrom<Row> for Approval {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let request: Value = strict_json::from_str(&row.described).map_err(|_| defect())?;
        Ok(Self {
            id: row.id,
            status: ApprovalStatus::parse(&row.status).ok_or_else(defect)?,
            kind: Kind::parse(&row.kind).ok_or_else(defect)?,
            request,
            matched: row.matched,
            requested_by: row.requested_by,
            created_at: row.created_at,
            expires_at: row.expires_at,
            decided_by: row.decided_by,
            decided_at: row.decided_at,
            decision_reason: row.decision_reason,
            app: row.app,
        })
    }
}

/// Selects requests as everybody may read them. One whose hour has passed is expired, swept or not.
macro_rules! select_approvals {
    ($rest:tt, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"SELECT a.id AS "id!: ApprovalId", a.app_id AS "app?: AppId", a.kind AS "kind!",
                    a.described::text AS "described!", a.matched, a.requested_by AS "requested_by!",
                    a.created_at AS "created_at!", a.expires_at AS "expires_at!", a.decided_by, a.decided_at,
                    a.decision_reason,
                    CASE WHEN a.status = 'pending' AND a.expires_at <= strongroom_now() THEN 'expired'
                         ELSE a.status END AS "status!" "# + $rest,
            $($argument),*
        )
    };
}

/// Inserts a request that waits. Returns `false` if the same one of the same requester waits already.
pub(super) async fn insert(
    conn: &mut Conn,
    id: ApprovalId,
    new: &NewRequest,
    digest: &KeyedHash,
    requested_by: &str,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "-- name: insert_approval
         WITH moment AS MATERIALIZED (SELECT strongroom_now() AS at)
         INSERT INTO approvals (
            id, app_id, kind, request, described, digest, matched, requested_by, created_at, expires_at)
         SELECT $1, $2, $3, $4, $5::text::jsonb, $6, $7, $8, at, at + interval '1 hour' FROM moment
         ON CONFLICT (digest, requested_by) WHERE status = 'pending' DO NOTHING",
        id.uuid(),
        new.app.map(AppId::uuid),
        new.kind.as_str(),
        new.request,
        new.described.to_string(),
        digest.as_bytes(),
        new.matched,
        requested_by,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns the request of this requester that waits.
pub(super) async fn find_pending(
    conn: &mut Conn,
    digest: &KeyedHash,
    requested_by: &str,
) -> sqlx::Result<Option<Awaiting>> {
    let row = sqlx::query!(
        r#"SELECT id AS "id: ApprovalId", expires_at FROM approvals
         WHERE digest = $1 AND requested_by = $2 AND status = 'pending' AND expires_at > strongroom_now()"#,
        digest.as_bytes(),
        requested_by,
    )
    .fetch_optional(conn)
    .await?;
    let status = ApprovalStatus::Pending;
    Ok(row.map(|row| Awaiting { id: row.id, status, expires_at: row.expires_at }))
}

/// Counts what waits in an app, or with `None` in the deployment alone; with a requester, what they asked for.
///
/// # Errors
/// The database's.
pub async fn pending_count(
    conn: &mut Conn,
    app: Option<AppId>,
    requested_by: Option<&str>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM approvals
         WHERE status = 'pending' AND expires_at > (SELECT strongroom_now()) AND app_id IS NOT DISTINCT FROM $1
           AND ($2::text IS NULL OR requested_by = $2)"#,
        app.map(AppId::uuid),
        requested_by,
    )
    .fetch_one(conn)
    .await
}

/// Counts what waits, by its kind: in every app and in the deployment.
///
/// # Errors
/// The database's.
pub async fn waiting(conn: &mut Conn) -> sqlx::Result<Vec<Waiting>> {
    let rows = sqlx::query!(
        r#"-- name: count_waiting_approvals
         SELECT kind, count(*) AS "count!",
                extract(epoch FROM max(strongroom_now() - created_at))::float8 AS "oldest!"
         FROM approvals WHERE status = 'pending' AND expires_at > (SELECT strongroom_now()) GROUP BY kind"#,
    )
    .fetch_all(conn)
    .await?;
    // A kind that a newer replica brings is that one's to count.
    let waiting = rows.into_iter().filter_map(|row| {
        let kind = Kind::parse(&row.kind)?;
        Some(Waiting { kind, count: row.count, oldest: row.oldest })
    });
    Ok(waiting.collect())
}

/// Returns one request of the app or of the deployment.
///
/// # Errors
/// The database's.
pub async fn find(conn: &mut Conn, app: AppId, id: ApprovalId) -> sqlx::Result<Option<Approval>> {
    let row = select_approvals!(
        "FROM approvals a WHERE a.id = $2 AND (a.app_id = $1 OR a.app_id IS NULL)",
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    row.map(Approval::try_from).transpose()
}

/// Returns in full what a request of the app or of the deployment asks for, while it waits.
///
/// # Errors
/// The database's.
pub async fn request(conn: &mut Conn, app: AppId, id: ApprovalId) -> sqlx::Result<Option<String>> {
    let request = sqlx::query_scalar!(
        "SELECT request FROM approvals
         WHERE id = $2 AND (app_id = $1 OR app_id IS NULL) AND expires_at > strongroom_now()",
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(request.flatten())
}

/// Returns a page of the requests of the app, and with `deployment` also those of the deployment, newest first.
///
/// # Errors
/// The database's.
pub async fn list(
    conn: &mut Conn,
    app: AppId,
    deployment: bool,
    cursor: Option<Cursor>,
    limit: u8,
) -> sqlx::Result<Page<Approval>> {
    let rows = select_approvals!(
        "FROM (
            (SELECT * FROM approvals WHERE app_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3)
            UNION ALL
            (SELECT * FROM approvals WHERE app_id IS NULL AND $4 AND id < $2 ORDER BY id DESC LIMIT $3)) a
         ORDER BY a.id DESC LIMIT $3",
        app.uuid(),
        cursor.map_or(Uuid::max(), Cursor::id),
        i64::from(limit) + 1,
        deployment,
    )
    .fetch_all(conn)
    .await?;
    let found = rows.into_iter().map(Approval::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::from_query(found, limit, |approval| approval.id.uuid()))
}

/// A request under lock.
pub(super) struct Locked {
    pub(super) app: Option<AppId>,
    pub(super) kind: Kind,
    pub(super) request: Option<String>,
    pub(super) digest: Vec<u8>,
    pub(super) requested_by: String,
    /// Whether it waits and its hour has not passed.
    pub(super) live: bool,
}

/// Locks a request of the app or of the deployment: of two who decide, the second sees the first's decision.
pub(super) async fn lock(
    conn: &mut Conn,
    app: AppId,
    id: ApprovalId,
) -> sqlx::Result<Option<Locked>> {
    let row = sqlx::query!(
        r#"SELECT app_id AS "app?: AppId", kind, request, digest, requested_by,
                status = 'pending' AND expires_at > strongroom_now() AS "live!"
         FROM approvals WHERE id = $2 AND (app_id = $1 OR app_id IS NULL) FOR UPDATE"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Locked {
        app: row.app,
        kind: Kind::parse(&row.kind).ok_or_else(defect)?,
        request: row.request,
        digest: row.digest,
        requested_by: row.requested_by,
        live: row.live,
    }))
}

/// An operator whose session is live.
pub(super) struct Approver {
    name: String,
    pub(super) role: String,
}

impl Approver {
    /// Returns who they are, as the table has it.
    pub(super) fn name(&self) -> String {
        format!("operator: {}", self.name)
    }
}

/// Returns the operator of a session that is live and in which they proved within `minutes` who they are. Keeps them from
/// being disabled or given another role until the transaction ends.
pub(super) async fn approver(
    conn: &mut Conn,
    session: OperatorSessionId,
    minutes: i32,
) -> sqlx::Result<Option<Approver>> {
    sqlx::query_as!(
        Approver,
        "-- name: lock_approver
         SELECT o.name, o.role
         FROM operator_sessions s JOIN operators o ON o.id = s.operator_id
         WHERE s.id = $1 AND s.ended_at IS NULL AND s.expires_at > strongroom_now() AND o.disabled_at IS NULL
           AND s.authenticated_at > strongroom_now() - make_interval(mins => $2)
         FOR SHARE",
        session.uuid(),
        minutes,
    )
    .fetch_optional(conn)
    .await
}

/// Ends a request that waits, under its lock, and forgets what it asked for in full.
pub(super) async fn end(
    conn: &mut Conn,
    id: ApprovalId,
    status: ApprovalStatus,
    by: &str,
    session: Option<OperatorSessionId>,
    reason: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE approvals SET status = $2, decided_by = $3, decided_in = $4, decision_reason = $5,
            decided_at = strongroom_now(), request = NULL
         WHERE id = $1",
        id.uuid(),
        status.as_str(),
        by,
        session.map(OperatorSessionId::uuid),
        reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends what nobody decided within its hour, with a row in the trail of its app, or of every app. Returns how many rows
/// of the trail that were.
///
/// # Errors
/// The database's.
pub async fn expire(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: expire_approvals
         WITH due AS (
            SELECT id FROM approvals WHERE status = 'pending' AND expires_at <= (SELECT strongroom_now())
            ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED),
         ended AS (
            UPDATE approvals a
            SET status = 'expired', decided_by = 'service', decided_at = strongroom_now(), request = NULL
            FROM due WHERE a.id = due.id
            RETURNING a.app_id, a.kind, a.id)
         SELECT record_audit(p.id, $2, 'approval.expired', 'expired', NULL, NULL, 'apr_' || e.id || ': ' || e.kind)
         FROM ended e JOIN apps p ON e.app_id IS NULL OR p.id = e.app_id",
        BATCH,
        AuditActor::from(&Actor::service()) as AuditActor,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes what ended more than ninety days ago. Returns how many rows.
///
/// # Errors
/// The database's.
pub async fn delete_old(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM approvals WHERE id = ANY (ARRAY(
            SELECT id FROM approvals
            WHERE status <> 'pending' AND decided_at < (SELECT strongroom_now()) - make_interval(days => $1) LIMIT $2))",
        KEPT_DAYS,
        BATCH,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
