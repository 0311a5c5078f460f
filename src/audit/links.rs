//! Reads of a chain for people who look at it: where it stands, whether single rows continue it, and its links in pieces for
//! a check elsewhere.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::archived;
use super::model::{AuditEvent, Head, LinkHash};
use super::store::{self, Link};
use crate::common::ids::{AppId, AuditEventId};
use crate::database::Conn;

/// Rows without a link that are counted at most: they are of all apps, in a queue that has no order.
pub const COUNTED_WAITING: i64 = 10_000;
/// Links that one piece holds.
pub const PIECE: i64 = 1000;
/// How long after a request's arrival its rows are looked for.
const REQUEST_LASTS: time::Duration = time::Duration::seconds(20);
/// Rows of one request that are shown at most.
const OF_A_REQUEST: i64 = 50;

/// Where an app's chain stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// How many links it has.
    pub seq: i64,
    /// The last link's hash, in hexadecimal.
    pub hash: String,
    /// When the last link was made.
    pub linked_at: Option<OffsetDateTime>,
    /// Rows of all apps that wait for their links, up to one more than [`COUNTED_WAITING`].
    pub waiting: i64,
}

/// Returns where the app's chain stands.
pub async fn standing(conn: &mut Conn, app: AppId) -> sqlx::Result<Standing> {
    let row = sqlx::query!(
        r#"-- name: audit_standing
         SELECT l.seq AS "seq?", l.hash AS "hash?", l.linked_at AS "linked_at?",
                (SELECT count(*) FROM (SELECT FROM audit_unlinked LIMIT $2) u) AS "waiting!"
         FROM (SELECT) one
         LEFT JOIN LATERAL (
            SELECT seq, hash, linked_at FROM audit_links
            WHERE app_id = $1 ORDER BY seq DESC LIMIT 1) l ON true"#,
        app.uuid(),
        COUNTED_WAITING + 1,
    )
    .fetch_one(conn)
    .await?;
    let hash = row.hash.as_deref().and_then(LinkHash::from_bytes).unwrap_or(LinkHash::NOTHING);
    let (seq, linked_at) = (row.seq.unwrap_or(0), row.linked_at);
    Ok(Standing { seq, hash: hash.to_string(), linked_at, waiting: row.waiting })
}

/// Whether a row continues its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// Its link follows from the row and the link before.
    Holds,
    /// It does not: the row, its link or the one before was changed.
    Broken,
    /// It has no link yet.
    Waits,
}

/// Recomputes the link of each of these rows from the row and the link before it.
pub async fn check(
    conn: &mut Conn,
    app: AppId,
    events: &[AuditEvent],
) -> sqlx::Result<HashMap<AuditEventId, Linked>> {
    let before: Vec<_> = events.iter().filter_map(|event| Some(event.seq? - 1)).collect();
    let rows = sqlx::query!(
        "SELECT seq, hash FROM audit_links WHERE app_id = $1 AND seq = ANY ($2)",
        app.uuid(),
        &before,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut hashes: HashMap<_, _> = rows
        .into_iter()
        .filter_map(|row| Some((row.seq, LinkHash::from_bytes(&row.hash)?)))
        .collect();
    // The link before may be archived. There are few such rows: the first of a month whose month before is gone.
    for seq in before.into_iter().filter(|seq| *seq > 0) {
        if let Entry::Vacant(missing) = hashes.entry(seq)
            && let Some(hash) = archived::hash_of(conn, app, seq).await?
        {
            missing.insert(hash);
        }
    }
    Ok(events.iter().map(|event| (event.id, checked(app, event, &hashes))).collect())
}

fn checked(app: AppId, event: &AuditEvent, hashes: &HashMap<i64, LinkHash>) -> Linked {
    let Some(seq) = event.seq else { return Linked::Waits };
    let before = match seq {
        1 => Some(LinkHash::NOTHING),
        _ => hashes.get(&(seq - 1)).copied(),
    };
    let Some(hash) = before else { return Linked::Broken };
    let next = Head { seq: seq - 1, hash }.followed_by(app, event);
    let same = event.hash.as_ref().is_some_and(|held| *held == next.hash.to_string());
    if same { Linked::Holds } else { Linked::Broken }
}

/// A link with its row, for a check elsewhere.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExportedLink {
    /// The position in the chain, from 1.
    pub seq: i64,
    /// How the hash is computed.
    pub version: i16,
    /// The hash, in hexadecimal.
    pub hash: Option<String>,
    /// The row; `null` if it was removed.
    pub event: Option<AuditEvent>,
}

impl From<Link> for ExportedLink {
    fn from(link: Link) -> Self {
        let hash = link.hash.map(|hash| hash.to_string());
        Self { seq: link.seq, version: link.version, hash, event: link.event }
    }
}

/// Returns up to [`PIECE`] links after a position, in their order.
pub async fn piece(conn: &mut Conn, app: AppId, after: i64) -> sqlx::Result<Vec<ExportedLink>> {
    let links = store::links(conn, app, after, PIECE, store::EVERY_ID).await?;
    Ok(links.into_iter().map(ExportedLink::from).collect())
}

/// Returns what a request of the app did, oldest first.
///
/// A request's id and a row's id both begin with their time (RFC 9562 §5.7), so its rows are found by the primary key.
pub async fn of_request(
    conn: &mut Conn,
    app: AppId,
    request: Uuid,
) -> sqlx::Result<Vec<AuditEvent>> {
    let Some(arrived) = time_of(request) else { return Ok(Vec::new()) };
    // A little earlier, for a database whose clock is behind.
    let from = store::first_id_at(arrived - time::Duration::seconds(5));
    sqlx::query_as!(
        AuditEvent,
        r#"-- name: audit_events_of_request
         SELECT e.id AS "id: _", e.at, e.action, e.outcome, e.actor, e.client_id, e.session_id AS "session_id: _",
                e.scope, e.ip, e.request_id, e.user_id AS "user: _", e.connection_id AS "connection: _", e.reason,
                l.seq AS "seq?", encode(l.hash, 'hex') AS "hash?"
         FROM (SELECT * FROM audit_events e
               WHERE e.app_id = $1 AND e.id >= $2 AND e.id < $3 AND e.request_id = $4
               ORDER BY e.id LIMIT $5) e
         -- The range once more, so that the months' links are as few as the rows.
         LEFT JOIN audit_links l ON l.app_id = $1 AND l.event_id = e.id AND l.event_id >= $2 AND l.event_id < $3
         ORDER BY e.id"#,
        app.uuid(),
        from,
        store::first_id_at(arrived + REQUEST_LASTS),
        request,
        OF_A_REQUEST,
    )
    .fetch_all(conn)
    .await
}

/// Returns the time in a `UUIDv7`.
#[must_use]
pub fn time_of(id: Uuid) -> Option<OffsetDateTime> {
    let (seconds, nanos) = id.get_timestamp().filter(|_| id.get_version_num() == 7)?.to_unix();
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    Some(at + time::Duration::nanoseconds(i64::from(nanos)))
}
