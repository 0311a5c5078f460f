//! The tables of the trail and of its chain: `audit_events`, `audit_links`, `audit_heads`, `audit_unlinked`, `audit_chainer`.

use std::ops::Range;

use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{AuditEvent, Head, LINK_VERSION, LinkHash};
use crate::common::ids::{AppId, AuditEventId, ConnectionId, SessionId, UserId};
use crate::database::Conn;

/// A row of the trail as `select_rows!` reads it.
struct Row {
    app: AppId,
    id: AuditEventId,
    at: OffsetDateTime,
    action: String,
    outcome: String,
    actor: String,
    client_id: Option<String>,
    session_id: Option<SessionId>,
    scope: Option<String>,
    ip: Option<String>,
    request_id: Option<Uuid>,
    user: Option<UserId>,
    connection: Option<ConnectionId>,
    reason: Option<String>,
    seq: Option<i64>,
    hash: Option<Vec<u8>>,
}

impl From<Row> for AuditEvent {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            at: row.at,
            action: row.action,
            outcome: row.outcome,
            actor: row.actor,
            client_id: row.client_id,
            session_id: row.session_id,
            scope: row.scope,
            ip: row.ip,
            request_id: row.request_id,
            user: row.user,
            connection: row.connection,
            reason: row.reason,
            seq: row.seq,
            hash: row.hash.and_then(|hash| LinkHash::from_bytes(&hash)).map(|h| h.to_string()),
        }
    }
}

macro_rules! select_rows {
    ($name:literal, $with:literal, $rest:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            "-- name: " + $name + "\n" + $with + r#"SELECT e.app_id AS "app: AppId", e.id AS "id: AuditEventId", e.at, e.action,
                    e.outcome, e.actor, e.client_id, e.session_id AS "session_id: SessionId",
                    e.scope, e.ip, e.request_id, e.user_id AS "user: UserId",
                    e.connection_id AS "connection: ConnectionId", e.reason,
                    l.seq AS "seq?", l.hash AS "hash?"
             FROM audit_events e
             LEFT JOIN audit_links l ON l.app_id = e.app_id AND l.event_id = e.id "# + $rest,
            $($argument),*
        )
    };
}

/// Returns whether any row waits for its link. Cheaper than [`waiting`], and asked every round.
pub(super) async fn anything_waits(conn: &mut Conn) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM audit_unlinked) AS "it!""#)
        .fetch_one(conn)
        .await
}

/// Counts the rows that wait for their links.
pub(super) async fn waiting(conn: &mut Conn) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "it!" FROM audit_unlinked"#).fetch_one(conn).await
}

/// Makes this transaction the chainer, unless another one is: `SKIP LOCKED`, so a replica never queues for
/// the role. The lock ends with the transaction.
pub(super) async fn become_chainer(conn: &mut Conn) -> sqlx::Result<bool> {
    let mine = sqlx::query_scalar!("SELECT one FROM audit_chainer FOR UPDATE SKIP LOCKED")
        .fetch_optional(conn)
        .await?;
    Ok(mine.is_some())
}

/// Dequeues up to `limit` rows; returns their number, and those that have no link yet, by app and id. If the
/// number equals `limit`, more rows may wait.
pub(super) async fn take_unlinked(
    conn: &mut Conn,
    limit: i64,
) -> sqlx::Result<(usize, Vec<(AppId, AuditEvent)>)> {
    let taken = sqlx::query!(
        "DELETE FROM audit_unlinked
         -- By ctid, because DELETE has no LIMIT. Rows of the queue are never updated, so ctids are stable.
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM audit_unlinked LIMIT $1))
         RETURNING app_id, event_id",
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    if taken.is_empty() {
        return Ok((0, Vec::new()));
    }
    let (apps, events): (Vec<_>, Vec<_>) =
        taken.iter().map(|row| (row.app_id, row.event_id)).unzip();
    let rows = select_rows!(
        "find_unlinked_audit_rows",
        "",
        "JOIN (SELECT DISTINCT * FROM unnest($1::uuid[], $2::uuid[]) AS i (app_id, id)) i
           ON i.app_id = e.app_id AND i.id = e.id
         WHERE l.seq IS NULL
         ORDER BY e.app_id, e.id",
        &apps,
        &events,
    )
    .fetch_all(conn)
    .await?;
    Ok((taken.len(), rows.into_iter().map(|row| (row.app, row.into())).collect()))
}

/// Returns the last link of an app's chain, which outlives the link itself: that may be archived.
pub(super) async fn head(conn: &mut Conn, app: AppId) -> sqlx::Result<Head> {
    let row = sqlx::query!("SELECT seq, hash FROM audit_heads WHERE app_id = $1", app.uuid())
        .fetch_optional(conn)
        .await?;
    row.map_or(Ok(Head::EMPTY), |row| Ok(Head { seq: row.seq, hash: hash(&row.hash)? }))
}

fn hash(bytes: &[u8]) -> sqlx::Result<LinkHash> {
    LinkHash::from_bytes(bytes).ok_or_else(|| sqlx::Error::Decode("not a hash".into()))
}

pub(super) struct NewLink<'a> {
    pub(super) app: AppId,
    pub(super) head: Head,
    pub(super) event: &'a AuditEvent,
}

/// Inserts links; a trigger refuses any that does not continue its chain, by `audit_heads`.
pub(super) async fn insert_links(conn: &mut Conn, links: &[NewLink<'_>]) -> sqlx::Result<()> {
    let (mut apps, mut seqs, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hashes, mut users, mut connections) = (Vec::new(), Vec::new(), Vec::new());
    for NewLink { app, head, event } in links {
        apps.push(app.uuid());
        seqs.push(head.seq);
        events.push(event.id.uuid());
        hashes.push(head.hash.as_bytes().to_vec());
        users.push(event.user.map(UserId::uuid));
        connections.push(event.connection.map(ConnectionId::uuid));
    }
    sqlx::query!(
        "INSERT INTO audit_links (app_id, seq, event_id, version, hash, user_id, connection_id)
         SELECT app_id, seq, event_id, $7, hash, user_id, connection_id
         FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bytea[], $5::uuid[], $6::uuid[])
              AS i (app_id, seq, event_id, hash, user_id, connection_id)",
        &apps,
        &seqs,
        &events,
        &hashes,
        users as Vec<Option<Uuid>>,
        connections as Vec<Option<Uuid>>,
        LINK_VERSION,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The range of all ids.
pub(super) const EVERY_ID: Range<Uuid> = Uuid::nil()..Uuid::max();

/// A stored link with the row that it names, if that row still exists.
pub(super) struct Link {
    pub(super) seq: i64,
    pub(super) event_id: AuditEventId,
    pub(super) version: i16,
    pub(super) hash: Option<LinkHash>,
    pub(super) event: Option<AuditEvent>,
}

/// Returns up to `limit` links of an app's chain after `after`, with their rows, of rows with these ids.
pub(super) async fn links(
    conn: &mut Conn,
    app: AppId,
    after: i64,
    limit: i64,
    rows: Range<Uuid>,
) -> sqlx::Result<Vec<Link>> {
    let rows = sqlx::query!(
        r#"SELECT l.seq, l.event_id AS "event_id: AuditEventId", l.version, l.hash,
                e.id AS "id?: AuditEventId", e.at AS "at?", e.action AS "action?",
                e.outcome AS "outcome?", e.actor AS "actor?", e.client_id,
                e.session_id AS "session_id: SessionId", e.scope, e.ip, e.request_id,
                e.user_id AS "user: UserId", e.connection_id AS "connection: ConnectionId", e.reason
         FROM audit_links l
         LEFT JOIN audit_events e ON e.app_id = l.app_id AND e.id = l.event_id
         WHERE l.app_id = $1 AND l.seq > $2 AND l.event_id >= $4 AND l.event_id < $5 ORDER BY l.seq LIMIT $3"#,
        app.uuid(),
        after,
        limit,
        rows.start,
        rows.end,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let event = match (row.id, row.at, row.action, row.outcome, row.actor) {
                (Some(id), Some(at), Some(action), Some(outcome), Some(actor)) => {
                    Some(AuditEvent {
                        id,
                        at,
                        action,
                        outcome,
                        actor,
                        client_id: row.client_id,
                        session_id: row.session_id,
                        scope: row.scope,
                        ip: row.ip,
                        request_id: row.request_id,
                        user: row.user,
                        connection: row.connection,
                        reason: row.reason,
                        seq: None,
                        hash: None,
                    })
                }
                _ => None,
            };
            Link {
                seq: row.seq,
                event_id: row.event_id,
                version: row.version,
                hash: LinkHash::from_bytes(&row.hash),
                event,
            }
        })
        .collect())
}

/// Rows of an app that are not in its chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unlinked {
    /// The number of rows that are queued for a link.
    pub(super) waiting: i64,
    /// When the oldest queued row was written.
    pub(super) oldest: Option<OffsetDateTime>,
    /// The first row that neither has a link nor is queued for one: evidence of tampering.
    pub(super) lost: Option<AuditEventId>,
}

/// Makes this transaction's statements look up each row by its index, as the pools' sessions do. Otherwise
/// the planner may join a table that grew since it was analysed with the whole of another.
pub(super) async fn plan_by_index(conn: &mut Conn) -> sqlx::Result<()> {
    sqlx::raw_sql(
        "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
         SET LOCAL enable_mergejoin = off; SET LOCAL enable_material = off; SET LOCAL jit = off",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Finds the rows outside of an app's chain. Reads the app's whole trail, in one pass beside the whole chain: looking up
/// each row's link costs ten times as much. For the rest of the transaction.
pub(super) async fn unlinked(conn: &mut Conn, app: AppId) -> sqlx::Result<Unlinked> {
    sqlx::raw_sql("SET LOCAL enable_mergejoin = on; SET LOCAL enable_nestloop = off")
        .execute(&mut *conn)
        .await?;
    let row = sqlx::query_file!("src/audit/unlinked.sql", app.uuid()).fetch_one(conn).await?;
    Ok(Unlinked { waiting: row.waiting, oldest: row.oldest, lost: row.lost })
}

/// Selects rows of the trail. `None` in a field means no restriction.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The app whose trail is read; always restricts.
    pub app: AppId,
    /// The exact action, such as `token.revealed`.
    pub action: Option<String>,
    /// The app's name for a user. An unknown name matches no row.
    pub client_user_id: Option<String>,
    /// The affected connection.
    pub connection: Option<ConnectionId>,
    /// The client that acted.
    pub client_id: Option<String>,
    /// The kind of actor: `client`, `session`, `operator` (with or without a name) or `service`; or `operator: NAME`.
    pub actor: Option<String>,
    /// Exclusive upper bound of the row's time.
    pub before: Option<OffsetDateTime>,
    /// Inclusive lower bound of the row's time.
    pub after: Option<OffsetDateTime>,
}

impl Filter {
    /// Selects everything of this app.
    #[must_use]
    pub const fn of(app: AppId) -> Self {
        Self {
            app,
            action: None,
            client_user_id: None,
            connection: None,
            client_id: None,
            actor: None,
            before: None,
            after: None,
        }
    }

    /// Returns the range of the ids older than `older_than` that were given between the filter's times, with a second of
    /// slack: the id's clock was read a moment before or after the row's. A range of ids lets PostgreSQL use the
    /// primary key.
    fn ids(&self, older_than: Option<Uuid>) -> (Uuid, Uuid) {
        let slack = time::Duration::SECOND;
        let first = self.after.map_or(Uuid::nil(), |at| first_id_at(at.saturating_sub(slack)));
        let last = self.before.map_or(Uuid::max(), |at| first_id_at(at.saturating_add(slack)));
        (first, older_than.map_or(last, |id| id.min(last)))
    }
}

/// Returns the least `UUIDv7` of a moment (RFC 9562 §5.7).
pub(super) fn first_id_at(at: OffsetDateTime) -> Uuid {
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    Uuid::from_u128(u128::from(millis.min((1 << 48) - 1)) << 80)
}

/// Returns up to `limit` rows, newest first, older than the row `after`.
pub async fn list(
    conn: &mut Conn,
    filter: &Filter,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<AuditEvent>> {
    let user = match &filter.client_user_id {
        None => None,
        Some(name) => match user_of(conn, filter.app, name).await? {
            None => return Ok(Vec::new()),
            user => user,
        },
    };
    let rows = if user.is_some() || filter.connection.is_some() {
        rows_about(conn, filter, user, filter.ids(after), limit).await?
    } else {
        rows_of_app(conn, filter, filter.ids(after), limit).await?
    };
    Ok(rows.into_iter().map(AuditEvent::from).collect())
}

/// Finds the rows about one user or one connection by the indexes of `audit_links` and, if they are not linked yet, by
/// the queue.
async fn rows_about(
    conn: &mut Conn,
    filter: &Filter,
    user: Option<Uuid>,
    (first, last): (Uuid, Uuid),
    limit: i64,
) -> sqlx::Result<Vec<Row>> {
    select_rows!(
        "list_audit_events_about",
        "WITH found AS (
            -- One range of an index per branch: an OR over both columns would read the app's whole trail.
            -- Rows that the chainer has not linked yet are in none of the indexes, hence the third branch;
            -- it is short, and the outer conditions filter it.
            SELECT event_id FROM audit_links
            WHERE app_id = $1 AND connection_id = $9 AND event_id >= $2 AND event_id < $3
            UNION
            SELECT event_id FROM audit_links
            WHERE app_id = $1 AND user_id = $10 AND $9::uuid IS NULL
              AND event_id >= $2 AND event_id < $3
            UNION
            SELECT event_id FROM audit_unlinked WHERE app_id = $1) ",
        "-- As an array, so that the planner has no other way than to look up each: as a join, a table that grew makes it
         -- read the app's whole trail backwards.
         WHERE e.app_id = $1 AND e.id = ANY (ARRAY(SELECT event_id FROM found))
           AND coalesce(e.id >= $2 AND e.id < $3, false)
           AND ($4::timestamptz IS NULL OR e.at >= $4) AND ($5::timestamptz IS NULL OR e.at < $5)
           AND ($6::text IS NULL OR e.action = $6) AND ($7::text IS NULL OR e.client_id = $7)
           AND ($8::text IS NULL OR e.actor = $8 OR ($8 = 'operator' AND e.actor LIKE 'operator: %'))
           AND ($9::uuid IS NULL OR e.connection_id = $9)
           AND ($10::uuid IS NULL OR e.user_id = $10)
         ORDER BY e.id DESC LIMIT $11",
        filter.app.uuid(),
        first,
        last,
        filter.after,
        filter.before,
        filter.action,
        filter.client_id,
        filter.actor,
        filter.connection.map(ConnectionId::uuid),
        user,
        limit,
    )
    .fetch_all(conn)
    .await
}

async fn rows_of_app(
    conn: &mut Conn,
    filter: &Filter,
    (first, last): (Uuid, Uuid),
    limit: i64,
) -> sqlx::Result<Vec<Row>> {
    select_rows!(
        "list_audit_events",
        "",
        "WHERE e.app_id = $1 AND e.id >= $2 AND e.id < $3
           AND ($4::timestamptz IS NULL OR e.at >= $4) AND ($5::timestamptz IS NULL OR e.at < $5)
           AND ($6::text IS NULL OR e.action = $6) AND ($7::text IS NULL OR e.client_id = $7)
           AND ($8::text IS NULL OR e.actor = $8 OR ($8 = 'operator' AND e.actor LIKE 'operator: %'))
         ORDER BY e.id DESC LIMIT $9",
        filter.app.uuid(),
        first,
        last,
        filter.after,
        filter.before,
        filter.action,
        filter.client_id,
        filter.actor,
        limit,
    )
    .fetch_all(conn)
    .await
}

async fn user_of(conn: &mut Conn, app: AppId, name: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "SELECT id FROM users WHERE app_id = $1 AND client_user_id = $2",
        app.uuid(),
        name,
    )
    .fetch_optional(conn)
    .await
}
