//! Finding due rows, without locking any: in portions of the same size for every app, so that a million rows of one
//! app do not delay another's.
//!
//! Each query leaves out the rows that are [`Deferred`](crate::connections::Deferred) in memory. The caller then claims
//! or ends the rows by id, which checks the conditions again under a lock.

use std::time::Duration;

use uuid::Uuid;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::connections::model::Failure;
use crate::database::{Conn, interval};

/// A row whose call is due.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub app: AppId,
    pub id: ConnectionId,
}

/// A due connection that is processed on its own, under its bank login lock.
#[derive(Debug)]
pub struct Due {
    pub app: AppId,
    pub id: ConnectionId,
    pub user: UserId,
    pub login_id: Option<String>,
}

/// Selects the first `$1` due rows of each app, the first row of every app before the second row of any. `$2` holds the
/// deferred rows. `$indexed` is the predicate of the partial index `(app_id, due_at)` that the statement reads,
/// `$condition` filters further.
///
/// The row comparisons, and `coalesce` in the conditions, keep the planner off other indexes, which hold the rows of
/// all apps.
macro_rules! portions {
    (Candidate, $name:literal, $($rest:tt)+) => {
        portions!(
            @select Candidate, $name,
            r#"d.app_id AS "app!: AppId", d.id AS "id!: ConnectionId""#,
            $($rest)+
        )
    };
    (Due, $name:literal, $($rest:tt)+) => {
        portions!(
            @select Due, $name,
            r#"d.app_id AS "app!: AppId", d.id AS "id!: ConnectionId", d.user_id AS "user!: UserId",
         d.login_id AS "login_id?""#,
            $($rest)+
        )
    };
    (@select $row:ident, $name:literal, $columns:literal, $indexed:literal, $condition:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            $row,
            "-- name: " + $name + "
             WITH RECURSIVE
             -- A skip scan: one index probe per app, however many rows each has. SELECT DISTINCT would read them all.
             apps AS (
                (SELECT c.app_id FROM connections c
                 WHERE c.due_at IS NOT NULL AND " + $indexed + " ORDER BY c.app_id LIMIT 1)
                UNION ALL
                SELECT (SELECT c.app_id FROM connections c
                        WHERE c.due_at IS NOT NULL AND " + $indexed + " AND c.app_id > a.app_id
                        ORDER BY c.app_id LIMIT 1)
                FROM apps a WHERE a.app_id IS NOT NULL)
             SELECT " + $columns + "
             FROM apps a CROSS JOIN LATERAL (
                SELECT n.*, row_number() OVER (ORDER BY n.due_at) AS rank
                FROM (SELECT c.app_id, c.id, c.user_id, c.login_id, c.due_at
                      FROM connections c
                      WHERE c.due_at IS NOT NULL AND " + $indexed + "
                        AND (c.app_id, c.due_at) >= (a.app_id, '-infinity'::timestamptz)
                        AND (c.app_id, c.due_at) <= (a.app_id, (SELECT strongroom_now()))
                        AND c.id <> ALL ($2::uuid[]) AND " + $condition + "
                      ORDER BY c.app_id, c.due_at LIMIT $1) n) d
             WHERE a.app_id IS NOT NULL
             ORDER BY d.rank, d.due_at",
            $($argument),*
        )
    };
}

/// Returns codes whose exchange is due. Leaves out codes whose earlier attempt went unanswered, except those of the
/// `probing` providers.
pub async fn due_exchanges(
    conn: &mut Conn,
    portion: i64,
    except: &[Uuid],
    probing: &[String],
) -> sqlx::Result<Vec<Candidate>> {
    portions!(
        Candidate,
        "find_due_exchanges",
        "c.code IS NOT NULL",
        "coalesce(c.code_expires_at > (SELECT strongroom_now()), false)
         AND (c.provider = ANY ($3::text[]) OR (c.leased_until IS NULL AND NOT c.unanswered))",
        portion,
        except,
        probing,
    )
    .fetch_all(conn)
    .await
}

/// Returns tokens whose delinking is due.
pub async fn due_delinks(
    conn: &mut Conn,
    portion: i64,
    except: &[Uuid],
) -> sqlx::Result<Vec<Candidate>> {
    portions!(
        Candidate,
        "find_due_delinks",
        "c.status = 'revoking' AND c.access_token IS NOT NULL",
        "true",
        portion,
        except,
    )
    .fetch_all(conn)
    .await
}

/// Returns due connections that have their token but are still `pending`, because an older link of their bank login has
/// to be delinked first.
pub async fn due_held_tokens(
    conn: &mut Conn,
    portion: i64,
    except: &[Uuid],
) -> sqlx::Result<Vec<Due>> {
    portions!(
        Due,
        "find_due_held_tokens",
        "c.status = 'pending' AND c.access_token IS NOT NULL",
        "true",
        portion,
        except,
    )
    .fetch_all(conn)
    .await
}

/// Returns codes whose attempt went unanswered, for the configuration in which such attempts are not repeated. Searches
/// only the thousand codes of each app that have been due for longest, so that a round does not read the whole backlog;
/// since exchanges are made in the same order, every code gets among them.
pub async fn due_in_doubt(
    conn: &mut Conn,
    portion: i64,
    except: &[Uuid],
    probing: &[String],
) -> sqlx::Result<Vec<Due>> {
    portions!(
        Due,
        "find_due_in_doubt",
        "c.code IS NOT NULL",
        "(c.leased_until IS NOT NULL OR c.unanswered) AND c.provider <> ALL ($3::text[])
         AND coalesce(c.code_expires_at > (SELECT strongroom_now()), false)
         AND (c.app_id, c.due_at) <= (a.app_id, coalesce((
            SELECT f.due_at FROM connections f
            WHERE f.due_at IS NOT NULL AND f.code IS NOT NULL
              AND (f.app_id, f.due_at) >= (a.app_id, '-infinity'::timestamptz)
              AND (f.app_id, f.due_at) <= (a.app_id, (SELECT strongroom_now()))
            ORDER BY f.app_id, f.due_at OFFSET 1000 LIMIT 1), 'infinity'))",
        portion,
        except,
        probing,
    )
    .fetch_all(conn)
    .await
}

/// Returns revoked codes whose window closed.
pub async fn due_revoked_codes(
    conn: &mut Conn,
    limit: i64,
    except: &[Uuid],
) -> sqlx::Result<Vec<Due>> {
    sqlx::query_as!(
        Due,
        r#"SELECT app_id AS "app: AppId", id AS "id: ConnectionId", user_id AS "user: UserId", login_id
         FROM connections
         WHERE due_at IS NOT NULL AND code IS NOT NULL AND code_expires_at <= (SELECT strongroom_now())
           AND coalesce(due_at <= (SELECT strongroom_now()), false) AND status = 'revoking' AND id <> ALL ($2::uuid[])
         ORDER BY code_expires_at LIMIT $1"#,
        limit,
        except,
    )
    .fetch_all(conn)
    .await
}

/// Returns pending connections whose window closed and whose lease is not alive.
pub async fn due_expiries(
    conn: &mut Conn,
    limit: i64,
    except: &[Uuid],
) -> sqlx::Result<Vec<ConnectionId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: ConnectionId" FROM connections
         WHERE due_at IS NOT NULL AND code IS NOT NULL AND code_expires_at <= (SELECT strongroom_now())
           AND coalesce(due_at <= (SELECT strongroom_now()), false) AND status = 'pending' AND id <> ALL ($2::uuid[])
         ORDER BY code_expires_at LIMIT $1"#,
        limit,
        except,
    )
    .fetch_all(conn)
    .await
}

/// Returns those of these rows that are still due. After a claim that skipped them, these are the locked ones.
pub async fn still_due(conn: &mut Conn, ids: &[Uuid]) -> sqlx::Result<Vec<ConnectionId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: ConnectionId" FROM connections
         WHERE id = ANY ($1) AND coalesce(due_at <= strongroom_now(), false)"#,
        ids,
    )
    .fetch_all(conn)
    .await
}

/// Postpones a due row unless it is locked. A lease that ran out stays known as an attempt without an answer.
pub async fn postpone_row(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    wait: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: postpone_row
         WITH free AS (
            SELECT c.id FROM connections c
            WHERE c.app_id = $1 AND c.id = $2 AND coalesce(c.due_at <= strongroom_now(), false)
            FOR UPDATE SKIP LOCKED)
         UPDATE connections c
         SET unanswered = c.unanswered OR (c.code IS NOT NULL AND c.leased_until IS NOT NULL),
             leased_until = NULL, due_at = strongroom_now() + $3::interval
         FROM free WHERE c.id = free.id",
        app.uuid(),
        id.uuid(),
        interval(wait),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// When work is due: connections, their details and rotations, bulk revocations and erasures together.
#[derive(Clone, Copy, Debug, Default)]
pub struct DueSummary {
    /// Time until the next row becomes due.
    pub next: Option<Duration>,
    /// Time for which the oldest due row has been due.
    pub overdue: Option<Duration>,
}

/// Returns when the next row becomes due, and for how long the oldest has been due.
pub async fn due_summary(conn: &mut Conn) -> sqlx::Result<DueSummary> {
    let row = sqlx::query!(
        "-- name: summarize_due_rows
         WITH t AS MATERIALIZED (SELECT strongroom_now() AS now)
         SELECT extract(epoch FROM least(
                (SELECT min(due_at) FROM connections WHERE due_at IS NOT NULL AND due_at > (SELECT now FROM t)),
                (SELECT min(details_due_at) FROM connections
                 WHERE details_due_at IS NOT NULL AND details_due_at > (SELECT now FROM t)),
                (SELECT min(next_release_at) FROM bulk_revocations
                 WHERE finished_at IS NULL AND state <> 'paused' AND erasure_id IS NULL
                   AND next_release_at > (SELECT now FROM t)),
                (SELECT min(mark_at) FROM bulk_revocations
                 WHERE marked_at IS NULL AND mark_at > (SELECT now FROM t)),
                (SELECT min(due_at) FROM erasures WHERE due_at IS NOT NULL AND due_at > (SELECT now FROM t)),
                (SELECT min(due_at) FROM token_rotations WHERE due_at > (SELECT now FROM t)))
                - now)::float8 AS next,
            extract(epoch FROM now - least(
                (SELECT min(due_at) FROM connections WHERE due_at IS NOT NULL),
                (SELECT min(details_due_at) FROM connections WHERE details_due_at IS NOT NULL),
                (SELECT min(due_at) FROM token_rotations),
                (SELECT min(next_release_at) FROM bulk_revocations
                 WHERE finished_at IS NULL AND state <> 'paused' AND erasure_id IS NULL),
                (SELECT min(mark_at) FROM bulk_revocations WHERE marked_at IS NULL),
                (SELECT min(due_at) FROM erasures WHERE due_at IS NOT NULL)))::float8 AS overdue
         FROM t",
    )
    .fetch_one(conn)
    .await?;
    let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
    Ok(DueSummary { next: row.next.and_then(duration), overdue: row.overdue.and_then(duration) })
}

/// Expires those of these pending connections whose window closed and whose lease is not alive. Returns their ids.
pub async fn expire_codes(conn: &mut Conn, ids: &[Uuid]) -> sqlx::Result<Vec<ConnectionId>> {
    let (unknown, unused) = (Failure::window_closed(true), Failure::window_closed(false));
    sqlx::query_scalar!(
        r#"-- name: expire_codes
         WITH
         -- Checks the conditions again, under the lock: the rows were found without one.
         due AS (
            SELECT app_id, id FROM connections
            WHERE id = ANY ($1) AND coalesce(due_at <= strongroom_now(), false) AND status = 'pending'
              AND code IS NOT NULL AND code_expires_at <= strongroom_now()
            ORDER BY id FOR UPDATE SKIP LOCKED),
         -- A code that was sent without an answer may have become a token at Dapi: the failure says so.
         expired AS (
            UPDATE connections c
            SET status = 'expired', code = NULL, user_secret = NULL, due_at = NULL, leased_until = NULL,
                failure_type = CASE WHEN c.unanswered OR c.leased_until IS NOT NULL THEN $2 ELSE $3 END,
                failure_detail = CASE WHEN c.unanswered OR c.leased_until IS NOT NULL THEN $4 ELSE $5 END
            FROM due WHERE c.app_id = due.app_id AND c.id = due.id
            RETURNING c.app_id, c.id, c.user_id, c.failure_type),
         audited AS (
            SELECT id, record_audit(app_id, $6, 'connection.expired', 'expired', user_id, id, failure_type)
            FROM expired)
         SELECT id AS "id: ConnectionId" FROM audited"#,
        ids,
        unknown.kind,
        unused.kind,
        unknown.detail,
        unused.detail,
        AuditActor::from(&Actor::service()) as AuditActor,
    )
    .fetch_all(conn)
    .await
}

/// Deletes connect sessions that ended a day ago, and the lists of the connections that they submitted. Returns how
/// many.
pub async fn delete_ended_sessions(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM connect_sessions WHERE expires_at < (SELECT strongroom_now()) - interval '1 day'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// The backlog of the background work, for the metrics.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Pending connections, and the age of the oldest in seconds.
    pub pending: (i64, f64),
    /// Revocations that Dapi has not confirmed, and the age of the oldest in seconds.
    pub revoking: (i64, f64),
    /// Active connections whose user has to link the login again.
    pub needing_attention: i64,
}

/// Counts the backlog. Not that of apps that move to another deployment: nothing is done for them here.
pub async fn backlog(conn: &mut Conn) -> sqlx::Result<Backlog> {
    let row = sqlx::query!(
        r#"-- name: count_backlog
         WITH waiting AS (
            SELECT status, created_at, revocation_requested_at FROM connections
            WHERE due_at IS NOT NULL AND app_id <> ALL (ARRAY(SELECT f.app_id FROM app_fences f))
            UNION ALL
            SELECT status, created_at, revocation_requested_at FROM connections
            WHERE status = 'revoking' AND due_at IS NULL AND app_id <> ALL (ARRAY(SELECT f.app_id FROM app_fences f)))
         SELECT count(*) FILTER (WHERE status = 'pending') AS "pending!",
                coalesce(extract(epoch FROM max(strongroom_now() - created_at)
                    FILTER (WHERE status = 'pending'))::float8, 0) AS "oldest_pending!",
                count(*) FILTER (WHERE status = 'revoking') AS "revoking!",
                coalesce(extract(epoch FROM max(strongroom_now() - revocation_requested_at)
                    FILTER (WHERE status = 'revoking'))::float8, 0) AS "oldest_revoking!",
                (SELECT count(*) FROM connections
                 WHERE attention_type IS NOT NULL AND status = 'active'
                   AND app_id <> ALL (ARRAY(SELECT f.app_id FROM app_fences f))) AS "needing_attention!"
         FROM waiting"#,
    )
    .fetch_one(conn)
    .await?;
    Ok(Backlog {
        pending: (row.pending, row.oldest_pending),
        revoking: (row.revoking, row.oldest_revoking),
        needing_attention: row.needing_attention,
    })
}
