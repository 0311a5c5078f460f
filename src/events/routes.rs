//! `GET /v1/events`: the app's events in their order, with a cursor that never skips one.

use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Context;
use super::cursor::EventCursor;
use super::model::Event;
use super::store::{self, Page};
use crate::common::ids::AppId;
use crate::common::paging::PageCursor;
use crate::http::body::UrlQuery;
use crate::http::caller::{Authorized, needs};
use crate::http::paging;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{ForClients, Problems};

/// The longest that a request waits for an event, in seconds.
const MAX_WAIT: u64 = 30;
/// Interval at which a waiting request polls the database, for events that another replica dispatches.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Which events, and how long to wait for one.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// The `nextCursor` of the answer before; without it, the oldest events that are kept.
    #[param(value_type = PageCursor, required = false)]
    after: Option<String>,
    /// How many at most: 50 by default, up to 100.
    #[param(value_type = u8, required = false, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// How long to wait for an event if there is none, in seconds.
    #[param(value_type = u8, required = false, minimum = 0, maximum = 30, default = 0)]
    wait: Option<String>,
}

/// Events, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    /// The events.
    events: Vec<Event>,
    /// What to send as `after` to go on from here, whether more events are there already or not.
    #[schema(value_type = PageCursor)]
    next_cursor: String,
}

/// Lists the app's events, oldest first, and waits for the next one if asked to.
///
/// Every event comes once for each reading of the list from its beginning, in an order that never changes: an event that
/// is committed late is put behind those that were there. They are kept for thirty days, unless the operator set
/// otherwise; the events of an erased user go with them.
#[utoipa::path(
    get, path = "/v1/events", tag = "Events", operation_id = "listEvents",
    security(("bearer" = ["connections:read"])),
    params(EventsQuery),
    responses(
        (status = 200, description = "The next events, or none if none came in time", body = EventList),
        Problems<(ForClients, code::CursorExpired)>,
    )
)]
pub async fn list(
    caller: Authorized<needs::ConnectionsRead>,
    context: web::Data<Context>,
    query: UrlQuery<EventsQuery>,
) -> Result<HttpResponse, Problem> {
    let app = caller.client.app;
    let query = query.0;
    let after = query.after.as_deref().map(|text| cursor(app, text)).transpose()?;
    let limit = paging::limit(query.limit.as_deref())?;
    let wait = query.wait.as_deref().map_or(Ok(Duration::ZERO), wait)?;
    let page = read(&context, app, after, limit, wait).await?;
    let last = page.events.last().map(|(position, _)| *position);
    // Without events the reader stays where it is: at the oldest that is kept, if it named no place.
    let position = last.or(after).unwrap_or(page.expired);
    Ok(HttpResponse::Ok().json(EventList {
        events: page.events.into_iter().map(|(_, event)| event).collect(),
        next_cursor: EventCursor { app, position }.to_string(),
    }))
}

/// Reads the events behind `after`; waits for one if there is none. Holds no connection while it waits.
async fn read(
    context: &Context,
    app: AppId,
    after: Option<i64>,
    limit: u8,
    wait: Duration,
) -> Result<Page, Problem> {
    let deadline = Instant::now() + wait;
    let mut permit = None;
    let subscription = context.feed.subscribe(app);
    loop {
        let news = subscription.notified();
        let page = store::read(&mut context.pool.acquire().await?, app, after, limit).await?;
        if after.is_some_and(|after| after < page.expired || after > page.head) {
            return Err(expired());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if !page.events.is_empty() || left.is_zero() || context.feed.is_closed() {
            return Ok(page);
        }
        if permit.is_none() {
            permit = Some(context.feed.waiting.take(app)?);
        }
        tokio::select! {
            () = news => {}
            () = context.feed.closing() => {}
            () = tokio::time::sleep(left.min(POLL_INTERVAL)) => {}
        }
    }
}

fn cursor(app: AppId, text: &str) -> Result<i64, Problem> {
    let cursor = text.parse::<EventCursor>().ok().filter(|cursor| cursor.app == app);
    let cursor = cursor.ok_or_else(|| {
        Problem::invalid_field("after", "must be the nextCursor of an answer before")
    });
    Ok(cursor?.position)
}

fn wait(text: &str) -> Result<Duration, Problem> {
    let seconds = text.parse().ok().filter(|seconds| (0..=MAX_WAIT).contains(seconds));
    let expected = format_args!("must be a whole number of seconds from 0 to {MAX_WAIT}");
    seconds.map(Duration::from_secs).ok_or_else(|| Problem::invalid_field("wait", expected))
}

/// The problem of a cursor behind which events were deleted, or from before a backup was restored.
fn expired() -> Problem {
    let detail =
        "Events behind this cursor are gone. Read without `after`, and the connections anew.";
    Problem::new(ProblemCode::CursorExpired, detail)
}
