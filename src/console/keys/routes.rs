//! `/apps/{app}/keys` and `/jwks.json`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::{Counts, page as pages};
use crate::connections::Context;
use crate::console::layout::{Place, Screen, answer};
use crate::console::of_app::OfApp;
use crate::console::signed_in::SignedIn;
use crate::http::problem::Problem;
use crate::oauth::Issuer;

/// `GET /apps/{app}/keys`.
pub async fn page(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    counts: web::Data<Counts>,
) -> Result<HttpResponse, Problem> {
    let counted = counts.get(&context.pool).await;
    let mut conn = context.pool.acquire().await?;
    let tree = super::read(&mut conn, &context.vault, counted).await?;
    let place = Place::new(&signed_in, &app, Screen::Keys, "Keys");
    Ok(answer(StatusCode::OK, pages::show(&place, &tree, &context.vault.outages())))
}

/// `GET /jwks.json`: the public keys, from the page's own origin, for the checks in the browser.
pub async fn jwks(_signed_in: SignedIn, issuer: web::Data<Issuer>) -> HttpResponse {
    let keys = issuer.directory().keys();
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk().clone()).collect();
    HttpResponse::Ok().json(json!({ "keys": keys }))
}
