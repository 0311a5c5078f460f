//! `/`: the choice of an app.

use actix_web::{HttpResponse, web};
use maud::html;

use super::answer::see_other;
use super::context::Console;
use super::layout::Page;
use super::signed_in::SignedIn;
use crate::apps;
use crate::http::problem::Problem;

/// `GET /`: the apps, or the page of the only one.
pub async fn page(
    signed_in: SignedIn,
    console: web::Data<Console>,
) -> Result<HttpResponse, Problem> {
    let apps = apps::list(&mut console.pool.acquire().await?).await?;
    if let [app] = apps.as_slice() {
        return Ok(see_other(&format!("/apps/{}/now", app.id)));
    }
    let content = html! {
        h1 { "Apps" }
        ul {
            @for app in &apps {
                li { a href={ "/apps/" (app.id) "/now" } { (app.name) } }
            }
        }
    };
    Ok(Page { title: "Apps", content, ..Page::of(Some(&signed_in)) }.answer())
}
