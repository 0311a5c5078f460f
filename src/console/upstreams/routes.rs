//! `/apps/{app}/upstreams`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use super::page;
use crate::connections::Context;
use crate::console::layout::{Place, Screen, answer};
use crate::console::of_app::OfApp;
use crate::console::signed_in::SignedIn;
use crate::database;
use crate::http::problem::Problem;
use crate::upstreams::store;

/// `GET /apps/{app}/upstreams`.
pub async fn list(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let upstreams = store::list(&mut conn, app.id).await?;
    let at = database::now(&mut conn).await?;
    let place = Place::new(&signed_in, &app, Screen::Upstreams, "Upstreams");
    Ok(answer(StatusCode::OK, page::list(&place, &upstreams, at)))
}
