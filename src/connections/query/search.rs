//! The operator's view: search, history and counts across users.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::audit;
use crate::common::ids::{AppId, BulkRevocationId, ConnectionId, UserId};
use crate::common::paging::{Cursor, Page};
use crate::connections::model::{Connection, RevocationProgress, Status};
use crate::connections::query::store;
use crate::database::Conn;

/// A search for the connections that match every field that is given.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    pub client_user_id: Option<&'a str>,
    pub status: Option<Status>,
    pub attention: Option<bool>,
    /// The client that submitted them, or that created the session which did.
    pub created_by: Option<&'a str>,
    /// Exclusive.
    pub created_before: Option<OffsetDateTime>,
    /// Inclusive.
    pub created_after: Option<OffsetDateTime>,
    /// Matches if one of the connection's ids or its user's name contains it, ignoring case.
    pub text: Option<&'a str>,
    pub limit: u8,
    /// Exclusive.
    pub cursor: Option<Cursor>,
}

/// A connection as an operator sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminConnection)]
pub struct Found {
    /// The connection, as clients see it.
    #[serde(flatten)]
    pub connection: Connection,
    /// The random id of its user, as in the audit trail.
    pub user: UserId,
    /// The client that submitted it, or that created the session which did.
    #[serde(rename = "createdBy")]
    #[schema(example = "payroll7Qm2Xv9")]
    pub created_by: Option<String>,
    /// The bulk revocation that revoked it.
    #[serde(rename = "revocationOrder")]
    pub bulk_revocation: Option<BulkRevocationId>,
    /// How often its code was sent to Dapi.
    #[serde(rename = "exchangeAttempts")]
    #[schema(minimum = 0, example = 1)]
    pub exchange_attempts: i32,
}

/// A connection with all its events in the audit trail, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminConnectionWithHistory)]
pub struct WithHistory {
    /// The connection.
    #[serde(flatten)]
    pub found: Found,
    /// What happened to it.
    pub history: Vec<audit::AuditEvent>,
}

/// How many connections are how old.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConnectionAges)]
pub struct Ages {
    /// Less than an hour.
    pub hour: i64,
    /// Less than a day.
    pub day: i64,
    /// Less than seven days.
    pub week: i64,
    /// Less than thirty days.
    pub month: i64,
    /// More.
    pub older: i64,
}

/// How many connections are in a status.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCount {
    /// The status.
    pub status: Status,
    /// All of them.
    pub total: i64,
    /// By age; each counts once.
    pub ages: Ages,
    /// When the oldest was received.
    #[serde(with = "time::serde::rfc3339")]
    pub oldest_created_at: OffsetDateTime,
}

impl StatusCount {
    pub const fn new(
        status: Status,
        total: i64,
        [hour, day, week, month, older]: [i64; 5],
        oldest_created_at: OffsetDateTime,
    ) -> Self {
        Self { status, total, ages: Ages { hour, day, week, month, older }, oldest_created_at }
    }
}

/// Returns a page of the app's connections that match, newest first.
pub async fn search(conn: &mut Conn, app: AppId, search: &Search<'_>) -> sqlx::Result<Page<Found>> {
    store::search(conn, app, search).await
}

/// Returns a page of the connections of one of the app's bulk revocations that are this far, newest first.
pub async fn of_bulk_revocation(
    conn: &mut Conn,
    app: AppId,
    id: BulkRevocationId,
    progress: &[RevocationProgress],
    cursor: Option<Cursor>,
    limit: u8,
) -> sqlx::Result<Page<Found>> {
    store::search_of_bulk_revocation(conn, app, id, progress, cursor, limit).await
}

/// Returns one connection of the app with all its audit events.
pub async fn with_history(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<WithHistory>> {
    let Some(found) = store::find_for_operator(conn, app, id).await? else { return Ok(None) };
    let history = audit::history(conn, app, id).await?;
    Ok(Some(WithHistory { found, history }))
}

/// Counts the app's connections that need attention.
pub async fn needing_attention(conn: &mut Conn, app: AppId) -> sqlx::Result<i64> {
    store::count_needing_attention(conn, app).await
}

/// Counts the app's connections by status and age.
pub async fn stats(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<StatusCount>> {
    store::count_by_status(conn, app).await
}
