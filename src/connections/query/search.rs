//! Looking for connections across users, and counting them: the operator's view.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::audit;
use crate::base::ids::{AppId, BulkRevocationId, ConnectionId, UserId};
use crate::base::paging::{Cursor, Page};
use crate::connections::model::{Connection, Status};
use crate::connections::query::store;
use crate::database::Conn;

/// What is looked for: connections for which everything holds that is given.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Of this user, by the app's own name.
    pub client_user_id: Option<&'a str>,
    /// In this status.
    pub status: Option<Status>,
    /// Needing attention, or not needing it.
    pub attention: Option<bool>,
    /// Received before this.
    pub created_before: Option<OffsetDateTime>,
    /// Received at this time or after it.
    pub created_after: Option<OffsetDateTime>,
    /// With this text, in any case, somewhere in one of its ids.
    pub text: Option<&'a str>,
    /// How many at most.
    pub limit: u8,
    /// Only what comes behind this.
    pub cursor: Option<Cursor>,
}

/// A connection as an operator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Found {
    /// What everybody sees of it.
    #[serde(flatten)]
    pub connection: Connection,
    /// The random name of its user, by which the audit trail knows them.
    pub user: UserId,
    /// The client that handed it in, or that made the session which did.
    #[serde(rename = "createdBy")]
    pub created_by: Option<String>,
    /// The order that revoked it.
    #[serde(rename = "revocationOrder")]
    pub order: Option<BulkRevocationId>,
    /// How often its code was sent to Dapi.
    #[serde(rename = "exchangeAttempts")]
    pub exchange_attempts: i32,
}

/// A connection with everything that the audit trail tells of it, oldest first.
#[derive(Debug, Serialize, ToSchema)]
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

/// Connections of the app that are looked for, newest first.
pub async fn search(conn: &mut Conn, app: AppId, search: &Search<'_>) -> sqlx::Result<Page<Found>> {
    store::search(conn, app, search).await
}

/// One connection of the app with its whole history.
pub async fn with_history(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<WithHistory>> {
    let Some(found) = store::find_for_operator(conn, app, id).await? else { return Ok(None) };
    let history = audit::history(conn, app, id).await?;
    Ok(Some(WithHistory { found, history }))
}

/// How many of the app's connections need attention.
pub async fn needing_attention(conn: &mut Conn, app: AppId) -> sqlx::Result<i64> {
    store::count_needing_attention(conn, app).await
}

/// How many connections the app has in each status, by their age.
pub async fn stats(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<StatusCount>> {
    store::count_by_status(conn, app).await
}
