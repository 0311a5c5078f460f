//! The tables `event_outbox`, `event_heads` and `events`.

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

use super::kind::EventType;
use super::model::Event;
use crate::common::ids::{AppId, EventId};
use crate::database::{Conn, interval};

/// An event without a position, as its trigger wrote it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) id: Uuid,
    pub(super) kind: String,
    pub(super) at: OffsetDateTime,
    pub(super) sequence: Option<i64>,
    pub(super) user_id: Option<Uuid>,
    pub(super) subject: String,
    /// JSON, as text: most of it goes back to PostgreSQL as it is.
    pub(super) snapshot: Option<String>,
    endpoint_id: Option<Uuid>,
    ordinal: i64,
}

impl Taken {
    /// The id of what it is about, if that is a UUID.
    pub(super) fn subject_id(&self) -> Option<Uuid> {
        self.subject.parse().ok()
    }

    /// What the trigger kept of it.
    pub(super) fn snapshot(&self) -> Option<Value> {
        serde_json::from_str(self.snapshot.as_deref()?).ok()
    }
}

/// An event with its position and its data.
#[derive(Debug)]
pub(super) struct NewEvent {
    pub(super) position: i64,
    pub(super) event: Taken,
    pub(super) data: String,
}

/// Returns apps whose events wait for their positions, at most `limit`: a skip scan, one look into the index for each.
pub(super) async fn waiting_apps(conn: &mut Conn, limit: i64) -> sqlx::Result<Vec<AppId>> {
    sqlx::query_scalar!(
        r#"-- name: find_apps_with_waiting_events
         WITH RECURSIVE waiting AS (
            (SELECT app_id FROM event_outbox ORDER BY app_id LIMIT 1)
            UNION ALL
            SELECT next.app_id FROM waiting w CROSS JOIN LATERAL (
                SELECT app_id FROM event_outbox WHERE app_id > w.app_id ORDER BY app_id LIMIT 1) next)
         SELECT app_id AS "app!: AppId" FROM waiting LIMIT $1"#,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Counts the events that wait for their positions.
pub(super) async fn waiting(conn: &mut Conn) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "it!" FROM event_outbox"#).fetch_one(conn).await
}

/// Makes this transaction the app's dispatcher and returns the last position; `None` if another one is.
pub(super) async fn lock_head(conn: &mut Conn, app: AppId) -> sqlx::Result<Option<i64>> {
    if let Some(head) = try_lock_head(conn, app).await? {
        return Ok(Some(head));
    }
    // Locked by another transaction, or the app's first event.
    let known = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM event_heads WHERE app_id = $1) AS "it!""#,
        app.uuid()
    );
    if known.fetch_one(&mut *conn).await? {
        return Ok(None);
    }
    sqlx::query!("INSERT INTO event_heads (app_id) VALUES ($1) ON CONFLICT DO NOTHING", app.uuid())
        .execute(&mut *conn)
        .await?;
    try_lock_head(conn, app).await
}

async fn try_lock_head(conn: &mut Conn, app: AppId) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "SELECT position FROM event_heads WHERE app_id = $1 FOR NO KEY UPDATE SKIP LOCKED",
        app.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Takes up to `limit` of an app's events out of the outbox, in the order in which they were written. An event that is
/// being erased is left alone.
pub(super) async fn take(conn: &mut Conn, app: AppId, limit: i64) -> sqlx::Result<Vec<Taken>> {
    let mut taken = sqlx::query_as!(
        Taken,
        r#"DELETE FROM event_outbox
         WHERE app_id = $1 AND ordinal = ANY (ARRAY(
            SELECT ordinal FROM event_outbox WHERE app_id = $1
            ORDER BY ordinal LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING id, type AS kind, at, sequence, user_id, subject, snapshot::text AS snapshot, endpoint_id,
            ordinal"#,
        app.uuid(),
        limit,
    )
    .fetch_all(conn)
    .await?;
    taken.sort_unstable_by_key(|event| event.ordinal);
    Ok(taken)
}

/// Inserts events and moves the app's head to the last of them.
pub(super) async fn insert(conn: &mut Conn, app: AppId, events: &[NewEvent]) -> sqlx::Result<()> {
    let column =
        |value: fn(&NewEvent) -> Option<Uuid>| events.iter().map(value).collect::<Vec<_>>();
    let ids: Vec<_> = events.iter().map(|new| new.event.id).collect();
    sqlx::query!(
        "-- name: insert_events
         WITH added AS (
            INSERT INTO events (app_id, position, id, type, at, sequence, user_id, data, endpoint_id)
            SELECT $1, * FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::timestamptz[], $6::bigint[],
                                     $7::uuid[], $8::text[], $10::uuid[]))
         UPDATE event_heads SET position = $9 WHERE app_id = $1",
        app.uuid(),
        &events.iter().map(|new| new.position).collect::<Vec<_>>(),
        &ids,
        events.iter().map(|new| new.event.kind.as_str()).collect::<Vec<_>>() as Vec<&str>,
        &events.iter().map(|new| new.event.at).collect::<Vec<_>>(),
        events.iter().map(|new| new.event.sequence).collect::<Vec<_>>() as Vec<Option<i64>>,
        column(|new| new.event.user_id) as Vec<Option<Uuid>>,
        events.iter().map(|new| new.data.as_str()).collect::<Vec<_>>() as Vec<&str>,
        events.last().map(|new| new.position),
        column(|new| new.event.endpoint_id) as Vec<Option<Uuid>>,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Events behind a position, and how far the app's events have come.
#[derive(Debug)]
pub(super) struct Page {
    /// The events by their positions.
    pub(super) events: Vec<(i64, Event)>,
    /// The position of the app's last event.
    pub(super) head: i64,
    /// The last position that was deleted because of its age.
    pub(super) expired: i64,
}

/// Returns up to `limit` events behind `after`. One statement, so that a sweep between its parts cannot hide events.
pub(super) async fn read(
    conn: &mut Conn,
    app: AppId,
    after: Option<i64>,
    limit: u8,
) -> sqlx::Result<Page> {
    let rows = sqlx::query!(
        r#"SELECT coalesce(h.position, 0) AS "head!", coalesce(h.expired, 0) AS "expired!",
                e.position AS "position?", e.id AS "id?: EventId", e.type AS "kind?", e.at AS "at?", e.sequence,
                e.data AS "data?"
         FROM (SELECT) one
         LEFT JOIN event_heads h ON h.app_id = $1
         LEFT JOIN LATERAL (
            SELECT position, id, type, at, sequence, data FROM events
            WHERE app_id = $1 AND position > $2 AND endpoint_id IS NULL
            ORDER BY position LIMIT $3) e ON true
         ORDER BY e.position"#,
        app.uuid(),
        after.unwrap_or(0),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    let mut page = Page { events: Vec::with_capacity(rows.len()), head: 0, expired: 0 };
    for row in rows {
        (page.head, page.expired) = (row.head, row.expired);
        let Some((((position, id), kind), (at, data))) =
            row.position.zip(row.id).zip(row.kind).zip(row.at.zip(row.data))
        else {
            continue;
        };
        // A type of a newer release is unknown to this one, and not to the replicas of that release.
        let Some(kind) = EventType::parse(&kind) else { continue };
        let data =
            RawValue::from_string(data).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let event = Event { id, kind, timestamp: at, sequence: row.sequence, data };
        page.events.push((position, event));
    }
    Ok(page)
}

/// Returns the apps that have events, at most `limit`, behind `after`.
pub(super) async fn apps(
    conn: &mut Conn,
    after: Option<AppId>,
    limit: i64,
) -> sqlx::Result<Vec<AppId>> {
    sqlx::query_scalar!(
        r#"SELECT app_id AS "app: AppId" FROM event_heads WHERE app_id > $1 ORDER BY app_id LIMIT $2"#,
        after.map_or(Uuid::nil(), AppId::uuid),
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Deletes up to `limit` of the app's events that are older than `retention`, and records how far. Returns how many.
pub(super) async fn sweep(
    conn: &mut Conn,
    app: AppId,
    retention: Duration,
    limit: i64,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"-- name: sweep_events
         WITH deleted AS (
            DELETE FROM events WHERE app_id = $1 AND position = ANY (ARRAY(
                SELECT position FROM events
                WHERE app_id = $1 AND at < (SELECT strongroom_now()) - $2::interval
                ORDER BY at LIMIT $3))
            RETURNING position),
         recorded AS (
            UPDATE event_heads SET expired = greatest(expired, d.last)
            FROM (SELECT max(position) AS last FROM deleted) d
            WHERE app_id = $1 AND d.last IS NOT NULL)
         SELECT count(*) AS "it!" FROM deleted"#,
        app.uuid(),
        interval(retention),
        limit,
    )
    .fetch_one(conn)
    .await
}
