//! `/apps/{app}/now`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::page as pages;
use crate::connections::Context;
use crate::console::layout::{Place, Screen, answer};
use crate::console::live as streams;
use crate::console::of_app::OfApp;
use crate::console::signed_in::SignedIn;

/// `GET /apps/{app}/now`.
pub async fn page(signed_in: SignedIn, app: OfApp, context: web::Data<Context>) -> HttpResponse {
    let now = super::load(&context, app.id).await;
    let place = Place::new(&signed_in, &app, Screen::Now, "Now");
    answer(StatusCode::OK, pages::show(&place, &now))
}

/// `GET /apps/{app}/now/live`: the page's live part, again and again.
pub async fn live(
    req: HttpRequest,
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
) -> HttpResponse {
    let tasks = context.tasks.clone();
    streams::stream(&req, tasks, move || {
        let (signed_in, app, context) = (signed_in.clone(), app.clone(), context.clone());
        async move {
            let now = super::load(&context, app.id).await;
            pages::live(&Place::new(&signed_in, &app, Screen::Now, "Now"), &now)
        }
    })
}
