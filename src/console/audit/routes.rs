//! `/apps/{app}/audit` and `/requests/{request}`.

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_DISPOSITION;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use uuid::Uuid;

use super::page::OfApp as FoundIn;
use super::{Query, page as pages};
use crate::apps;
use crate::audit::{self, routes::export as export_lines};
use crate::common::paging::Cursor;
use crate::common::signer::Signer;
use crate::connections::Context;
use crate::console::assets::VERIFIES;
use crate::console::layout::{Place, Screen, answer};
use crate::console::of_app::OfApp;
use crate::console::signed_in::SignedIn;
use crate::http::operators::{Operators, query_problem};
use crate::http::problem::Problem;

fn filter(app: &OfApp, query: &Query) -> Result<audit::Filter, Problem> {
    query.filter(app.id).map_err(|field| Problem::invalid_field(field, "is not of its form"))
}

/// `GET /apps/{app}/audit`.
pub async fn page(
    signed_in: SignedIn,
    app: OfApp,
    operators: web::Data<Operators>,
    signer: web::Data<Signer>,
    query: web::Query<Query>,
) -> Result<HttpResponse, Problem> {
    let filter = filter(&app, &query)?;
    let after = query.cursor.parse().ok().map(Cursor::id);
    let mut conn = operators.begin(app.id).await?;
    let trail = super::read(&mut conn, &filter, after).await.map_err(query_problem)?;
    let point = audit::checkpoint(&mut conn, app.id, &signer).await?;
    drop(conn);
    let place = Place::new(&signed_in, &app, Screen::Audit, "Audit").with(VERIFIES);
    let point = point.map(|point| point.jws);
    Ok(answer(StatusCode::OK, pages::show(&place, &query, &trail, point.as_deref())))
}

/// `GET …/export`: every row that matches, newest first, as JSON lines.
pub async fn export(
    _signed_in: SignedIn,
    app: OfApp,
    operators: web::Data<Operators>,
    query: web::Query<Query>,
) -> Result<HttpResponse, Problem> {
    let mut answer = export_lines(&operators, filter(&app, &query)?, None).await?;
    let name = format!("attachment; filename=\"audit-{}.ndjson\"", app.name);
    if let Ok(value) = name.parse() {
        answer.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    Ok(answer)
}

/// From which position on.
#[derive(Deserialize)]
pub struct After {
    #[serde(default)]
    after: i64,
}

/// `GET …/links`: the next links of the chain with their rows, in their order, for the check in the browser.
pub async fn links(
    _signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    after: web::Query<After>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    Ok(HttpResponse::Ok().json(audit::piece(&mut conn, app.id, after.after.max(0)).await?))
}

/// `GET /requests/{request}`: what a request did, to which a problem's `requestID` leads.
pub async fn request(
    signed_in: SignedIn,
    context: web::Data<Context>,
    request: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let request = Uuid::try_parse(&request).map_err(|_| Problem::not_found())?;
    let mut conn = context.pool.acquire().await?;
    let apps = apps::list(&mut conn).await?;
    let mut found = Vec::new();
    for app in &apps {
        let events = audit::of_request(&mut conn, app.id, request).await?;
        if !events.is_empty() {
            let links = audit::check(&mut conn, app.id, &events).await?;
            found.push(FoundIn { name: &app.name, events, links });
        }
    }
    Ok(answer(StatusCode::OK, pages::request(&signed_in, request, &found)))
}
