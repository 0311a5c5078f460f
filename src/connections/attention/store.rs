//! The columns `attention_…`, `repair_…` and `last_used_at`. Calls set both when they release their
//! [token lease](crate::connections::token_lease::store).

use std::time::Duration;

use time::OffsetDateTime;

use crate::audit::AuditActor;
use crate::common::ids::{AppId, ConnectionId};
use crate::connections::sql::column;
use crate::database::{BatchQuery, Conn, interval};

/// How long a user may be at the repair of their login: for so long Plaid's link token of update mode counts.
const REPAIR: Duration = Duration::from_mins(30);

/// Records that an active connection needs attention, unless it does already; the first reason and its time stay. `since`
/// is the time of the trouble, if it is known by another clock than ours.
pub async fn set_attention(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
    kind: &str,
    since: Option<OffsetDateTime>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: set_attention
         WITH changed AS (
            UPDATE connections
            SET attention_type = $4, attention_since = least(strongroom_now(), $5::timestamptz)
            WHERE app_id = $1 AND id = $2 AND status = 'active' AND attention_type IS NULL
            RETURNING app_id, id, user_id)
         SELECT record_audit(app_id, $3, 'connection.attention_set', 'ok', user_id, id, $4) FROM changed",
        app.uuid(),
        id.uuid(),
        actor as &AuditActor,
        kind,
        since,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records that what was wrong with the login of an active connection is past: what was before `repaired_at` (now, if
/// `None`) counts no more, even if it becomes known later. Clears the attention, if there is any, and records its `type`
/// in the audit trail.
pub async fn clear_attention(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
    repaired_at: Option<OffsetDateTime>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: clear_attention
         WITH before AS (
            SELECT app_id, id, attention_type FROM connections
            WHERE app_id = $1 AND id = $2 AND status = 'active'
            FOR UPDATE),
         cleared AS (
            UPDATE connections c
            SET attention_type = NULL, attention_since = NULL, repair_tried_from = NULL, repair_ends_at = NULL,
                attention_cleared_at =
                    greatest(c.attention_cleared_at, least(strongroom_now(), $4::timestamptz)),
                -- What could not be asked for meanwhile.
                details_due_at = CASE WHEN c.details_due_at IS NOT NULL AND b.attention_type IS NOT NULL
                                      THEN strongroom_now() ELSE c.details_due_at END
            FROM before b WHERE c.app_id = b.app_id AND c.id = b.id
            RETURNING c.app_id, c.id, c.user_id, b.attention_type)
         SELECT record_audit(app_id, $3, 'connection.attention_cleared', 'ok', user_id, id, attention_type)
         FROM cleared WHERE attention_type IS NOT NULL",
        app.uuid(),
        id.uuid(),
        actor as &AuditActor,
        repaired_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records that the user was sent to repair the login of a connection that needs attention: from now on calls try
/// whether it works, because its bank link may not say so.
pub async fn begin_repair(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections
         SET repair_tried_from = strongroom_now(), repair_ends_at = strongroom_now() + $3::interval
         WHERE app_id = $1 AND id = $2 AND status = 'active' AND attention_type IS NOT NULL",
        app.uuid(),
        id.uuid(),
        interval(REPAIR),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns whether a call may try now whether the user has repaired the login.
pub async fn is_repair_tried(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM connections
            WHERE app_id = $1 AND id = $2 AND repair_tried_from <= strongroom_now()) AS "it!""#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Records that a connection's secrets were read, to a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordUse {
    pub app: AppId,
    pub id: ConnectionId,
}

impl BatchQuery for RecordUse {
    const NAME: &'static str = "record_use_of_connection";

    type Output = ();

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<()>> {
        // Locked rows are skipped: their next use is recorded instead.
        sqlx::query!(
            "-- name: record_use_of_connection
             WITH stale AS MATERIALIZED (
                SELECT c.app_id, c.id
                FROM (SELECT DISTINCT * FROM unnest($1::uuid[], $2::uuid[]) AS u (app_id, id)) i
                JOIN connections c ON c.app_id = i.app_id AND c.id = i.id
                WHERE c.last_used_at IS NULL OR c.last_used_at <= strongroom_now() - interval '1 minute'
                FOR NO KEY UPDATE OF c SKIP LOCKED)
             UPDATE connections c SET last_used_at = strongroom_now()
             FROM stale s WHERE c.app_id = s.app_id AND c.id = s.id",
            &column(inputs, |input| input.app.uuid()),
            &column(inputs, |input| input.id.uuid()),
        )
        .execute(conn)
        .await?;
        Ok(inputs.iter().map(|_| ()).collect())
    }
}
