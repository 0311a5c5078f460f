//! `/v1/admin/connections` and `/v1/admin/stats`: the operator's view across users.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use crate::common::ids::ConnectionId;
use crate::common::paging::PageCursor;
use crate::common::text;
use crate::connections::Context;
use crate::connections::model::Status;
use crate::connections::query::routes::read::{attention, status};
use crate::connections::query::search;
use crate::connections::query::search::{Found, Search, StatusCount, WithHistory};
use crate::http::body::{Id, UrlQuery};
use crate::http::caller::{Authorized, needs};
use crate::http::operators::{Operators, query_problem};
use crate::http::paging;
use crate::http::problem::{Problem, code};
use crate::http::responses::{ForClients, Problems};
use crate::users::ClientUserID;

/// The longest search text, in bytes.
const MAX_TEXT: usize = 256;

text::text_schemas! {
    /// A text to search for, at most 256 bytes.
    SearchText, text::TEXT, 1 to MAX_TEXT, "user-42";
}

/// What is looked for, and which page of it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// Only this user's.
    #[serde(rename = "clientUserID")]
    #[param(value_type = ClientUserID, required = false)]
    client_user_id: Option<String>,
    /// Only in this status.
    #[param(value_type = Status, required = false)]
    status: Option<String>,
    /// Only those that need attention (`true`), or only those that do not (`false`).
    #[param(value_type = bool, required = false, example = true)]
    attention: Option<String>,
    /// Received before this time.
    #[param(value_type = String, required = false, format = DateTime, example = "2026-11-21T15:20:00Z")]
    created_before: Option<String>,
    /// Received at this time or after it.
    #[param(value_type = String, required = false, format = DateTime, example = "2026-11-21T15:20:00Z")]
    created_after: Option<String>,
    /// Text that one of the ids contains, ignoring case: `conn_…`, `usr_…`, `connectionID`,
    /// `userID`, `tokenID`, `clientUserID`.
    #[param(value_type = SearchText, required = false)]
    text: Option<String>,
    /// How many at most: 50 by default, up to 100.
    #[param(value_type = u8, required = false, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// The `nextCursor` of the page before.
    #[param(value_type = PageCursor, required = false)]
    cursor: Option<String>,
}

/// One page of connections, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminConnectionList)]
pub struct FoundList {
    /// The connections.
    connections: Vec<Found>,
    /// Where the next page starts; `null` on the last.
    next_cursor: Option<String>,
}

fn moment(field: &str, text: &str) -> Result<OffsetDateTime, Problem> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| Problem::invalid_field(field, "must be a time such as 2026-01-31T12:00:00Z"))
}

/// Looks for connections across users, newest first.
///
/// A search by text or time reads a limited number of connections at a time: a page may hold fewer than `limit`, or none,
/// and have a `nextCursor` from which the search goes on. A connection whose id, `connectionID` or user is the
/// text, or whose user begins with it, is found on the first page whatever its age, and again on the page of its age.
#[utoipa::path(
    get, path = "/v1/admin/connections", tag = "Administration", operation_id = "searchConnections",
    security(("bearer" = ["admin"])),
    params(SearchQuery),
    responses(
        (status = 200, description = "One page", body = FoundList),
        Problems<(ForClients, code::TooManyRequests)>,
    )
)]
pub async fn search(
    caller: Authorized<needs::Admin>,
    operators: web::Data<Operators>,
    query: UrlQuery<SearchQuery>,
) -> Result<HttpResponse, Problem> {
    let query = query.0;
    if let Some(user) = &query.client_user_id {
        crate::connections::input::client_user_id(user)?;
    }
    if let Some(text) = &query.text {
        crate::connections::input::sound("text", text::check(text, MAX_TEXT))?;
    }
    let before = query.created_before.as_deref();
    let after = query.created_after.as_deref();
    let filter = Search {
        client_user_id: query.client_user_id.as_deref(),
        status: query.status.as_deref().map(status).transpose()?,
        attention: query.attention.as_deref().map(attention).transpose()?,
        created_by: None,
        created_before: before.map(|text| moment("createdBefore", text)).transpose()?,
        created_after: after.map(|text| moment("createdAfter", text)).transpose()?,
        text: query.text.as_deref(),
        limit: paging::limit(query.limit.as_deref())?,
        cursor: paging::cursor(query.cursor.as_deref())?,
    };
    let app = caller.client.app;
    let mut conn = operators.begin(app).await?;
    let page = search::search(&mut conn, app, &filter).await.map_err(query_problem)?;
    Ok(HttpResponse::Ok().json(FoundList {
        connections: page.items,
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }))
}

/// One connection with its whole history: every change, and every reading of its token.
#[utoipa::path(
    get, path = "/v1/admin/connections/{id}", tag = "Administration", operation_id = "getConnectionHistory",
    security(("bearer" = ["admin"])),
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses(
        (status = 200, description = "The connection and its history", body = WithHistory),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn get(
    caller: Authorized<needs::Admin>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let found = search::with_history(&mut conn, caller.client.app, id.0).await?;
    found.map(|found| HttpResponse::Ok().json(found)).ok_or_else(Problem::not_found)
}

/// How many connections the app has.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConnectionStats)]
pub struct Stats {
    /// All of them.
    total: i64,
    /// Active ones with which no call is made until their user links the login again.
    needing_attention: i64,
    /// By status; one that no connection is in is left out.
    statuses: Vec<StatusCount>,
}

impl Stats {
    pub fn new(statuses: Vec<StatusCount>, needing_attention: i64) -> Self {
        let total = statuses.iter().map(|count| count.total).sum();
        Self { total, needing_attention, statuses }
    }
}

/// Counts the app's connections by status and age.
#[utoipa::path(
    get, path = "/v1/admin/stats", tag = "Administration", operation_id = "getConnectionStats",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "The counts", body = Stats),
        Problems<(ForClients, code::TooManyRequests)>,
    )
)]
pub async fn stats(
    caller: Authorized<needs::Admin>,
    operators: web::Data<Operators>,
) -> Result<HttpResponse, Problem> {
    let app = caller.client.app;
    let mut conn = operators.begin(app).await?;
    let statuses = search::stats(&mut conn, app).await.map_err(query_problem)?;
    let needing_attention =
        search::needing_attention(&mut conn, app).await.map_err(query_problem)?;
    Ok(HttpResponse::Ok().json(Stats::new(statuses, needing_attention)))
}
