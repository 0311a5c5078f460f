//! `/apps/{app}/clients`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use super::page;
use crate::common::ids::ClientSecretId;
use crate::connections::{Budgets, Context};
use crate::console::answer::see_other;
use crate::console::layout::{Place, Screen, answer};
use crate::console::of_app::OfApp;
use crate::console::signed_in::SignedIn;
use crate::http::problem::Problem;
use crate::oauth::{clients, secrets};

/// `GET /apps/{app}/clients`.
pub async fn list(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
) -> Result<HttpResponse, Problem> {
    let listed = super::list(&mut context.pool.acquire().await?, app.id).await?;
    let place = Place::new(&signed_in, &app, Screen::Clients, "Clients");
    Ok(answer(StatusCode::OK, page::list(&place, &listed)))
}

/// `GET /apps/{app}/clients/{client}`.
pub async fn show(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    budgets: web::Data<Budgets>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let shown = super::show(&mut conn, app.id, &path.1, budgets.default_budget()).await?;
    let place = Place::new(&signed_in, &app, Screen::Clients, "Client");
    Ok(answer(StatusCode::OK, page::show(&place, &shown)))
}

/// `POST …/disable`.
pub async fn disable(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    clients::disable(&mut conn, &signed_in.actor, Some(app.id), &path.1).await?;
    Ok(back_to(&app, &path.1))
}

/// `POST …/enable`.
pub async fn enable(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    clients::enable(&mut conn, &signed_in.actor, Some(app.id), &path.1).await?;
    Ok(back_to(&app, &path.1))
}

/// `POST …/secrets/{secret}/end`.
pub async fn end_secret(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String, String)>,
) -> Result<HttpResponse, Problem> {
    let secret: ClientSecretId = path.2.parse().map_err(|_| Problem::not_found())?;
    let mut conn = context.pool.acquire().await?;
    secrets::end(&mut conn, &signed_in.actor, Some(app.id), &path.1, secret).await?;
    Ok(back_to(&app, &path.1))
}

fn back_to(app: &OfApp, client: &str) -> HttpResponse {
    see_other(&format!("/apps/{}/clients/{client}", app.id))
}
