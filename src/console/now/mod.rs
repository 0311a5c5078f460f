//! `/apps/{app}/now`: what is true of an app at this moment.

use actix_web::HttpResponse;
use maud::html;

use super::layout::Page;
use super::of_app::OfApp;
use super::signed_in::SignedIn;

/// `GET /apps/{app}/now`.
pub async fn page(signed_in: SignedIn, app: OfApp) -> HttpResponse {
    let content = html! { h1 { "Now" } };
    Page { title: "Now", app: Some(&app), content, ..Page::of(Some(&signed_in)) }.answer()
}
