//! `/` and `/to/{screen}`: the choice of an app.

use actix_web::{HttpRequest, HttpResponse, web};
use maud::html;

use super::answer::see_other;
use super::context::Console;
use super::layout::{Page, Screen};
use super::signed_in::SignedIn;
use crate::apps;
use crate::http::problem::Problem;

/// `GET /`: the apps, or the page of the only one.
pub async fn page(
    signed_in: SignedIn,
    console: web::Data<Console>,
) -> Result<HttpResponse, Problem> {
    choose(&signed_in, &console, "now").await
}

/// `GET /seen`: nothing. That somebody reads a page that updates itself, and scrolls in it, keeps their session from going idle.
pub async fn seen(_signed_in: SignedIn) -> HttpResponse {
    HttpResponse::NoContent().finish()
}

/// `GET /to/{screen}`: a screen of the app that the reader chooses, with the query as it came. Alerts link here: they
/// count for all apps, so they cannot name one.
pub async fn to_screen(
    signed_in: SignedIn,
    console: web::Data<Console>,
    screen: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let screen = Screen::path_of(&screen).ok_or_else(Problem::not_found)?;
    let query = request.query_string();
    let mark = if query.is_empty() { "" } else { "?" };
    choose(&signed_in, &console, &format!("{screen}{mark}{query}")).await
}

async fn choose(
    signed_in: &SignedIn,
    console: &Console,
    rest: &str,
) -> Result<HttpResponse, Problem> {
    let apps = apps::list(&mut console.pool.acquire().await?).await?;
    if let [app] = apps.as_slice() {
        return Ok(see_other(&format!("/apps/{}/{rest}", app.id)));
    }
    let content = html! {
        h1 { "Apps" }
        ul {
            @for app in &apps {
                li { a href={ "/apps/" (app.id) "/" (rest) } { (app.name) } }
            }
        }
    };
    Ok(Page { title: "Apps", content, ..Page::of(Some(signed_in)) }.answer())
}
