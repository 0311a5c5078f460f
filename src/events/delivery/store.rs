//! The queue `webhook_deliveries`: claiming what is due and recording how it ended. Background work, for all apps.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

use super::attempt::Outcome;
use super::plan::FAILING;
use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, EventId, WebhookId};
use crate::database::{BatchQuery, Conn, interval};
use crate::events::endpoints::Signature;
use crate::events::kind::EventType;
use crate::events::model::Event;
use crate::vault::WrappedKey;

/// How long a delivery is attempted, and after how long of nothing but failures an endpoint is disabled.
const GIVE_UP_AFTER: Duration = Duration::from_hours(72);
/// The waits after the first failures; from then on the last.
const WAITS: [u64; 12] =
    [5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 43_200, 43_200, 43_200];
/// The longest that a `Retry-After` is honoured for.
const LONGEST_ASKED: Duration = Duration::from_hours(24);
/// The longest wait between two attempts at an endpoint that fails.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// An endpoint with deliveries that are due.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) endpoint: Uuid,
    pub(super) app: AppId,
    pub(super) failures: i32,
    pub(super) signature: Signature,
}

/// Returns the endpoints that have something due and may be called now.
pub(super) async fn due_lanes(conn: &mut Conn) -> sqlx::Result<Vec<Lane>> {
    let rows = sqlx::query!(
        r#"SELECT e.id, e.app_id AS "app: AppId", e.failures, e.signature
         FROM webhook_endpoints e
         WHERE e.disabled_at IS NULL AND (e.retry_at IS NULL OR e.retry_at <= strongroom_now())
           AND e.app_id <> ALL (ARRAY(SELECT f.app_id FROM app_fences f))
           AND EXISTS (SELECT FROM webhook_deliveries d
                       WHERE d.endpoint_id = e.id AND d.due_at <= (SELECT strongroom_now()))"#,
    )
    .fetch_all(conn)
    .await?;
    let lane = |row: (Uuid, AppId, i32, String)| {
        let (endpoint, app, failures, signature) = row;
        Signature::parse(&signature).map(|signature| Lane { endpoint, app, failures, signature })
    };
    let rows = rows.into_iter().map(|row| (row.id, row.app, row.failures, row.signature));
    Ok(rows.filter_map(lane).collect())
}

/// Counts the deliveries that are to be made here.
pub(super) async fn due(conn: &mut Conn) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "it!" FROM webhook_deliveries d
         WHERE due_at IS NOT NULL AND app_id <> ALL (ARRAY(SELECT f.app_id FROM app_fences f))"#
    )
    .fetch_one(conn)
    .await
}

/// Returns the data key of the app of each endpoint.
pub(super) async fn app_keys(
    conn: &mut Conn,
    endpoints: &[Uuid],
) -> sqlx::Result<HashMap<Uuid, WrappedKey>> {
    let rows = sqlx::query!(
        r#"SELECT e.id, key_of(k) AS "key!: WrappedKey"
         FROM webhook_endpoints e JOIN data_keys k ON k.app_id = e.app_id AND k.purpose = 'app'
         WHERE e.id = ANY ($1)"#,
        endpoints,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.key)).collect())
}

/// A delivery under a lease.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) app: AppId,
    pub(super) endpoint: Uuid,
    pub(super) position: i64,
    pub(super) attempt: i32,
    pub(super) url: String,
    pub(super) event: Event,
    /// When it was claimed, by the database's clock.
    pub(super) now: OffsetDateTime,
    /// How long ago the event was committed.
    pub(super) age: Duration,
    /// Whether the endpoint's last attempt failed.
    pub(super) was_failing: bool,
}

/// Claims as many due deliveries of each endpoint as its quota says, the longest due first.
pub(super) async fn claim(
    conn: &mut Conn,
    quotas: &[(Uuid, i32)],
    lease: Duration,
) -> sqlx::Result<Vec<Claimed>> {
    let (endpoints, counts): (Vec<_>, Vec<_>) = quotas.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"-- name: claim_deliveries
         WITH
         -- SKIP LOCKED: what another replica claims is not waited for. MATERIALIZED, so that rows are locked once.
         chosen AS MATERIALIZED (
            SELECT d.endpoint_id, d.position
            FROM unnest($1::uuid[], $2::int[]) AS q (endpoint_id, quota)
            CROSS JOIN LATERAL (
                SELECT endpoint_id, position FROM webhook_deliveries
                WHERE endpoint_id = q.endpoint_id AND due_at <= (SELECT strongroom_now())
                ORDER BY due_at, position LIMIT q.quota FOR UPDATE SKIP LOCKED) d),
         -- `due_at` is the end of the lease, so that a crash makes the delivery due again by itself.
         claimed AS (
            UPDATE webhook_deliveries d
            SET due_at = t.now + $3::interval, attempts = d.attempts + 1, attempted_at = t.now
            FROM chosen c, (SELECT strongroom_now() AS now) t
            WHERE d.endpoint_id = c.endpoint_id AND d.position = c.position
            RETURNING d.endpoint_id, d.app_id, d.position, d.attempts, d.attempted_at)
         SELECT c.endpoint_id, c.app_id AS "app: AppId", c.position, c.attempts, c.attempted_at AS "now!", e.url,
                e.failures > 0 AS "was_failing!", v.id AS "id: EventId", v.type AS kind, v.at, v.sequence, v.data
         FROM claimed c
         JOIN webhook_endpoints e ON e.id = c.endpoint_id
         JOIN events v ON v.app_id = c.app_id AND v.position = c.position"#,
        &endpoints,
        &counts,
        interval(lease),
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().filter_map(|row| {
        // A type of a newer release is left to the replicas of that release: the lease ends by itself.
        let kind = EventType::parse(&row.kind)?;
        let data = RawValue::from_string(row.data).ok()?;
        Some(Claimed {
            app: row.app,
            endpoint: row.endpoint_id,
            position: row.position,
            attempt: row.attempts,
            url: row.url,
            event: Event { id: row.id, kind, timestamp: row.at, sequence: row.sequence, data },
            now: row.now,
            age: Duration::try_from(row.now - row.at).unwrap_or_default(),
            was_failing: row.was_failing,
        })
    });
    Ok(claimed.collect())
}

/// The outcome of an attempt, to be recorded.
#[derive(Clone, Debug)]
pub struct Report {
    app: AppId,
    endpoint: Uuid,
    position: i64,
    attempt: i32,
    status: Option<i32>,
    pub(super) error: Option<String>,
    pub(super) was_failing: bool,
    gone: bool,
    asked: Option<Duration>,
}

impl Report {
    pub(super) fn of(claimed: &Claimed, outcome: &Outcome) -> Self {
        Self {
            app: claimed.app,
            endpoint: claimed.endpoint,
            position: claimed.position,
            attempt: claimed.attempt,
            status: outcome.status.map(i32::from),
            error: outcome.error.clone(),
            was_failing: claimed.was_failing,
            gone: outcome.is_gone(),
            asked: outcome.retry_after.map(|asked| asked.min(LONGEST_ASKED)),
        }
    }

    /// When the delivery is attempted again: after a wait that grows, four fifths of it for certain and the rest by
    /// chance, so that what failed together does not come back together; later if the answer asked for that.
    fn wait(&self) -> Duration {
        let nth = usize::try_from(self.attempt.saturating_sub(1)).unwrap_or_default();
        let wait = WAITS.get(nth).or(WAITS.last()).copied().unwrap_or_default();
        let wait = Duration::from_secs(wait);
        let mut byte = [0_u8; 1];
        let _ = aws_lc_rs::rand::fill(&mut byte);
        let chance = f64::from(byte.first().copied().unwrap_or_default()) / 255.0;
        let wait = wait.mul_f64(0.8 + 0.4 * chance);
        self.asked.map_or(wait, |asked| wait.max(asked))
    }
}

/// The outcome of attempts that succeeded at endpoints that had not failed: the ordinary case, many in one statement.
impl BatchQuery for Report {
    const NAME: &'static str = "record_deliveries";
    type Output = ();

    async fn run(conn: &mut Conn, reports: &[Self]) -> sqlx::Result<Vec<()>> {
        let endpoints: Vec<_> = reports.iter().map(|report| report.endpoint).collect();
        let positions: Vec<_> = reports.iter().map(|report| report.position).collect();
        let statuses: Vec<_> = reports.iter().map(|report| report.status).collect();
        sqlx::query!(
            "-- name: record_deliveries
             WITH mine AS MATERIALIZED (
                SELECT d.endpoint_id, d.position, r.status
                FROM unnest($1::uuid[], $2::bigint[], $3::int[]) AS r (endpoint_id, position, status)
                JOIN webhook_deliveries d ON d.endpoint_id = r.endpoint_id AND d.position = r.position
                ORDER BY d.endpoint_id, d.position FOR UPDATE OF d)
             UPDATE webhook_deliveries d
             SET delivered_at = strongroom_now(), due_at = NULL, status = m.status, error = NULL
             FROM mine m WHERE d.endpoint_id = m.endpoint_id AND d.position = m.position",
            &endpoints,
            &positions,
            statuses as Vec<Option<i32>>,
        )
        .execute(conn)
        .await?;
        Ok(vec![(); reports.len()])
    }
}

/// Records an outcome, and what it says about the endpoint, in the transaction that `conn` is in.
pub(super) async fn record(conn: &mut Conn, report: &Report) -> sqlx::Result<()> {
    let Some(error) = &report.error else {
        Report::run(conn, std::slice::from_ref(report)).await?;
        return recovered(conn, report.endpoint).await;
    };
    sqlx::query!(
        "UPDATE webhook_deliveries
         SET status = $4, error = $5,
             due_at = CASE WHEN strongroom_now() + $6::interval < created_at + $7::interval
                           THEN strongroom_now() + $6::interval END
         WHERE endpoint_id = $1 AND position = $2 AND attempts = $3 AND delivered_at IS NULL",
        report.endpoint,
        report.position,
        report.attempt,
        report.status,
        error,
        interval(report.wait()),
        interval(GIVE_UP_AFTER),
    )
    .execute(&mut *conn)
    .await?;
    failed(conn, report, error).await
}

async fn recovered(conn: &mut Conn, endpoint: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE webhook_endpoints SET failures = 0, failing_since = NULL, retry_at = NULL, last_error = NULL
         WHERE id = $1 AND failures > 0",
        endpoint,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records a failure of the endpoint: from the third in a row on it is left alone for a growing while, and it is
/// disabled if it is gone or if nothing has succeeded for three days.
async fn failed(conn: &mut Conn, report: &Report, error: &str) -> sqlx::Result<()> {
    let ended = sqlx::query_scalar!(
        r#"UPDATE webhook_endpoints SET
            failures = failures + 1, failing_since = coalesce(failing_since, strongroom_now()), last_error = $2,
            retry_at = greatest(retry_at,
                CASE WHEN failures + 1 >= $3 THEN
                    strongroom_now() + least($4::interval, interval '1 second' * 2 ^ least(failures + 1 - $3, 16)) END,
                strongroom_now() + $5::interval),
            disabled_at = CASE WHEN $6 OR failing_since < strongroom_now() - $7::interval
                               THEN strongroom_now() END,
            disabled_reason = CASE WHEN $6 THEN 'gone'
                                   WHEN failing_since < strongroom_now() - $7::interval THEN 'failing' END
         WHERE id = $1 AND disabled_at IS NULL
         RETURNING disabled_reason"#,
        report.endpoint,
        error,
        FAILING,
        interval(LONGEST_PAUSE),
        report.asked.map(interval),
        report.gone,
        interval(GIVE_UP_AFTER),
    )
    .fetch_optional(&mut *conn)
    .await?
    .flatten();
    let Some(reason) = ended else { return Ok(()) };
    sqlx::query!(
        "SELECT record_audit($1, $2, 'webhook.disabled', $3, NULL, NULL, $4)",
        report.app.uuid(),
        AuditActor::from(&Actor::service()) as AuditActor,
        reason,
        WebhookId::from(report.endpoint).to_string(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(attempt: i32, asked: Option<u64>) -> Report {
        Report {
            app: AppId::new(),
            endpoint: Uuid::nil(),
            position: 1,
            attempt,
            status: Some(503),
            error: Some("HTTP 503".to_owned()),
            was_failing: false,
            gone: false,
            asked: asked.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_wait_grows_varies_and_honours_what_was_asked() {
        for (attempt, wait) in [(1, 5), (2, 30), (5, 1800), (12, 43_200), (99, 43_200)] {
            let waited = report(attempt, None).wait().as_secs_f64() / f64::from(wait);
            assert!((0.79..=1.21).contains(&waited), "{attempt}: {waited}");
        }
        assert_eq!(report(1, Some(900)).wait(), Duration::from_mins(15));
        let waits: std::collections::HashSet<_> = (0..50).map(|_| report(6, None).wait()).collect();
        assert!(waits.len() > 5);
    }

    #[test]
    fn the_waits_reach_three_days() {
        let all: u64 = WAITS.iter().sum();
        assert!(Duration::from_secs(all) > Duration::from_hours(48));
    }
}
