//! `/v1/admin/audit-events` and `/v1/admin/audit-checkpoint`: the trail of the caller's own app.

use actix_web::http::header::{ACCEPT, CACHE_CONTROL, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use super::checkpoint as points;
use super::model::AuditEvent;
use super::store::{self, Filter};
use crate::common::ids::{AppId, AuditEventId, ConnectionId};
use crate::common::paging::{Cursor, Page, PageCursor};
use crate::common::signer::Signer;
use crate::common::text;
use crate::database::{Conn, Pool};
use crate::http::body::UrlQuery;
use crate::http::caller::{Authorized, needs};
use crate::http::operators::{Operators, query_problem};
use crate::http::paging;
use crate::http::problem::{Problem, code};
use crate::http::responses::{ForClients, Problems};

/// The media type of an export: one JSON object a line.
const JSON_LINES: &str = "application/x-ndjson";
/// How many rows an export reads per statement.
const PIECE: u8 = 250;
/// The longest text that a filter accepts, in bytes.
const MAX_TEXT: usize = 256;
/// The kinds of actors that the filter accepts.
const ACTORS: [&str; 4] = ["client", "session", "operator", "service"];

text::text_schemas! {
    /// A text that a filter compares with, at most 256 bytes.
    AuditFilterText, text::TEXT, 1 to MAX_TEXT, "token.revealed";
}

/// What kind of actor.
#[derive(Debug)]
pub struct ActorKind;

impl utoipa::PartialSchema for ActorKind {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let object = utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String);
        object.enum_values(Some(ACTORS)).build().into()
    }
}

impl ToSchema for ActorKind {}

/// Which events, and which page of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only this action, such as `token.revealed`.
    #[param(value_type = AuditFilterText, required = false)]
    action: Option<String>,
    /// Only events of this user.
    #[serde(rename = "clientUserID")]
    #[param(value_type = AuditFilterText, required = false)]
    client_user_id: Option<String>,
    /// Only events of this connection, by its id `conn_…`.
    #[param(value_type = ConnectionId, required = false)]
    connection: Option<String>,
    /// Only what this client did.
    #[serde(rename = "clientID")]
    #[param(value_type = AuditFilterText, required = false)]
    client_id: Option<String>,
    /// Only what this kind of actor did: `client`, `session`, `operator` or `service`.
    #[param(value_type = ActorKind, required = false)]
    actor: Option<String>,
    /// Only what was written before this time (RFC 3339).
    #[param(value_type = String, required = false, format = DateTime, example = "2026-11-21T15:20:00Z")]
    before: Option<String>,
    /// Only what was written at this time or later (RFC 3339).
    #[param(value_type = String, required = false, format = DateTime, example = "2026-11-21T15:20:00Z")]
    after: Option<String>,
    /// The size of a page: 50 by default, at most 100. JSON lines return all events.
    #[param(value_type = u8, required = false, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// The `nextCursor` of the page before.
    #[param(value_type = PageCursor, required = false)]
    cursor: Option<String>,
}

/// One page of the trail, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEventList {
    /// The events.
    events: Vec<AuditEvent>,
    /// Where the next page starts; `null` on the last.
    next_cursor: Option<String>,
}

/// A signed statement of the end of the app's chain.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditCheckpoint {
    /// The app.
    app: AppId,
    /// How many links the chain has.
    #[schema(minimum = 0, example = 1042)]
    seq: i64,
    /// The hash of the last, in hexadecimal.
    #[schema(
        pattern = "^[0-9a-f]{64}$",
        example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    )]
    hash: String,
    /// When the statement was made.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// The same as a JWS that verifies with `/.well-known/jwks.json`: this is what to keep.
    #[schema(example = "eyJhbGciOiJFUzI1NiJ9.claims.c2lnbmF0dXJl")]
    checkpoint: String,
}

/// The audit trail of the app, newest first; with `Accept: application/x-ndjson` all of it that the
/// filters let through, one event a line.
#[utoipa::path(
    get, path = "/v1/admin/audit-events", tag = "Administration", operation_id = "listAuditEvents",
    security(("bearer" = ["admin"])),
    params(EventQuery),
    responses(
        (status = 200, description = "One page, or everything", content(
            (AuditEventList = "application/json"), (String = "application/x-ndjson", example = json!("{\"action\": \"token.revealed\"}\n")))),
        Problems<(ForClients, code::TooManyRequests)>,
    )
)]
pub async fn list(
    caller: Authorized<needs::Admin>,
    operators: web::Data<Operators>,
    query: UrlQuery<EventQuery>,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let query = query.0;
    let limit = paging::limit(query.limit.as_deref())?;
    let cursor = paging::cursor(query.cursor.as_deref())?;
    let filter = filter(caller.client.app, query)?;
    if wants_lines(&req) {
        return export(&operators, filter, cursor).await;
    }
    let mut conn = operators.begin(filter.app).await?;
    let page = page(&mut conn, &filter, cursor, limit).await?;
    Ok(HttpResponse::Ok().insert_header((VARY, "Accept")).json(AuditEventList {
        events: page.items,
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }))
}

/// A signed statement of the end of the app's chain, to be kept elsewhere.
#[utoipa::path(
    get, path = "/v1/admin/audit-checkpoint", tag = "Administration", operation_id = "getAuditCheckpoint",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "The checkpoint", body = AuditCheckpoint),
        Problems<ForClients>,
    )
)]
pub async fn checkpoint(
    caller: Authorized<needs::Admin>,
    pool: web::Data<Pool>,
    signer: web::Data<Signer>,
) -> Result<HttpResponse, Problem> {
    let mut conn = pool.acquire().await?;
    let point = points::checkpoint(&mut conn, caller.client.app, &signer).await?;
    let point = point.ok_or_else(|| Problem::unavailable("no key signs"))?;
    let points::SignedCheckpoint { claims, jws } = point;
    let at = OffsetDateTime::from_unix_timestamp(claims.iat).map_err(Problem::internal)?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(AuditCheckpoint {
        app: claims.sub,
        seq: claims.seq,
        hash: claims.hash,
        at,
        checkpoint: jws,
    }))
}

async fn page(
    conn: &mut Conn,
    filter: &Filter,
    cursor: Option<Cursor>,
    limit: u8,
) -> Result<Page<AuditEvent>, Problem> {
    let after = cursor.map(Cursor::id);
    let events =
        store::list(conn, filter, after, i64::from(limit) + 1).await.map_err(query_problem)?;
    Ok(Page::from_query(events, limit, |event| AuditEventId::uuid(event.id)))
}

/// Streams rows as JSON lines. Each portion holds a connection for one statement only, never while the
/// caller reads slowly.
pub async fn export(
    operators: &Operators,
    filter: Filter,
    cursor: Option<Cursor>,
) -> Result<HttpResponse, Problem> {
    // Read the first portion before answering, so that an error still becomes a status code.
    let first = page(&mut *operators.begin(filter.app).await?, &filter, cursor, PIECE).await?;
    let body = lines(operators.clone(), filter, first);
    let mut answer = HttpResponse::Ok();
    answer.content_type(JSON_LINES).insert_header((VARY, "Accept"));
    Ok(answer.streaming(body))
}

fn lines(
    operators: Operators,
    filter: Filter,
    first: Page<AuditEvent>,
) -> impl Stream<Item = Result<Bytes, Problem>> {
    let start = (operators, filter, Some(first), None);
    stream::try_unfold(start, async |(operators, filter, ready, cursor)| {
        let piece = match (ready, cursor) {
            (Some(ready), _) => ready,
            (None, Some(cursor)) => {
                let mut conn = operators.go_on(filter.app).await?;
                page(&mut conn, &filter, Some(cursor), PIECE).await?
            }
            (None, None) => return Ok(None),
        };
        let mut text = Vec::new();
        for event in &piece.items {
            serde_json::to_writer(&mut text, event).map_err(Problem::internal)?;
            text.push(b'\n');
        }
        Ok(Some((Bytes::from(text), (operators, filter, None, piece.next))))
    })
}

fn wants_lines(req: &HttpRequest) -> bool {
    let accept = req.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    accept.flat_map(|value| value.split(',')).any(|range| {
        let essence = range.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(JSON_LINES)
    })
}

fn filter(app: AppId, query: EventQuery) -> Result<Filter, Problem> {
    for (name, value) in [
        ("action", &query.action),
        ("clientUserID", &query.client_user_id),
        ("clientID", &query.client_id),
    ] {
        let Some(value) = value else { continue };
        text::check(value, MAX_TEXT).map_err(|what| Problem::invalid_field(name, what))?;
    }
    if query.actor.as_deref().is_some_and(|actor| !ACTORS.contains(&actor)) {
        let expected = format!("must be one of {}", ACTORS.join(", "));
        return Err(Problem::invalid_field("actor", expected));
    }
    let connection = query.connection.as_deref().map(|text| {
        text.parse().map_err(|error| Problem::invalid_field("connection", format!("is {error}")))
    });
    Ok(Filter {
        connection: connection.transpose()?,
        before: moment("before", query.before.as_deref())?,
        after: moment("after", query.after.as_deref())?,
        action: query.action,
        client_user_id: query.client_user_id,
        client_id: query.client_id,
        actor: query.actor,
        app,
    })
}

fn moment(name: &'static str, text: Option<&str>) -> Result<Option<OffsetDateTime>, Problem> {
    let expected = "must be a time of RFC 3339, such as 2026-11-21T15:20:00Z";
    text.map(|text| OffsetDateTime::parse(text, &Rfc3339))
        .transpose()
        .map_err(|_| Problem::invalid_field(name, expected))
}
