//! What is in flight for an app, and ends by itself: read while a fence drains.

use super::before;
use super::model::InFlight;
use crate::common::ids::AppId;
use crate::connections::exchange::outcome::HOLD_ANSWER;
use crate::database::{Conn, interval};
use crate::vault::{self, Scope};

/// Counts it. A replica that was cut off from the database keeps an answer for [`HOLD_ANSWER`]: it is waited for while its lease
/// stands, and also if others have taken its work over, released or ended it, of which `answer_until` tells.
pub(super) async fn count(conn: &mut Conn, app: AppId) -> sqlx::Result<InFlight> {
    let of_app = Scope { app: Some(app), ..Scope::default() };
    let data_keys = vault::count_rotating(conn, of_app).await?;
    let approvals = before::open_approvals(conn, app).await?;
    sqlx::query_as!(
        InFlight,
        r#"-- name: app_in_flight
         WITH t AS MATERIALIZED (SELECT strongroom_now() AS now)
         SELECT (SELECT count(*) FROM connections c
                 WHERE c.app_id = $1 AND c.due_at IS NOT NULL AND c.code IS NOT NULL
                   AND c.leased_until > (SELECT now FROM t) - $2::interval) AS "exchanges!",
                -- Of replicas that lost their work to others.
                (SELECT count(*) FROM connections c
                 WHERE c.app_id = $1 AND c.answer_until IS NOT NULL
                   AND c.answer_until > (SELECT now FROM t)) AS "kept_answers!",
                (SELECT count(*) FROM connections c
                 WHERE c.app_id = $1 AND c.due_at IS NOT NULL AND c.status = 'revoking'
                   AND c.access_token IS NOT NULL AND c.leased_until > (SELECT now FROM t)) AS "delinks!",
                (SELECT count(*) FROM token_leases l JOIN connections c ON c.id = l.connection_id
                 WHERE c.app_id = $1 AND l.ends_at > (SELECT now FROM t)) AS "calls!",
                (SELECT count(*) FROM token_rotations r JOIN connections c ON c.id = r.connection_id
                 WHERE r.app_id = $1
                   AND (c.rotation IN ('sent', 'unanswered')
                        AND c.rotation_until > (SELECT now FROM t) - $2::interval
                        -- Given up, while its answer may still come.
                        OR r.lost AND r.due_at > (SELECT now FROM t))) AS "rotations!",
                (SELECT count(*) FROM bulk_revocations b
                 WHERE b.app_id = $1 AND b.marked_at IS NULL) AS "markings!",
                (SELECT count(*) FROM upstreams u
                 WHERE u.app_id = $1 AND u.leased_until > (SELECT now FROM t)) AS "upstream_tokens!",
                $3::bigint AS "data_keys!", $4::bigint AS "approvals!""#,
        app.uuid(),
        // A code whose worker vanished is waited for as long as its answer may be in that worker's memory.
        interval(HOLD_ANSWER),
        data_keys,
        approvals,
    )
    .fetch_one(conn)
    .await
}
