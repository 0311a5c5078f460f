//! `/apps/{app}/users/{id}`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use super::{Shown, page};
use crate::approvals::Gated;
use crate::common::ids::UserId;
use crate::connections::Context;
use crate::connections::erasure::{self, Receipt};
use crate::console::answer::{see_other, to_approval};
use crate::console::assets::VERIFIES;
use crate::console::layout::{Place, Screen, answer};
use crate::console::of_app::{OfApp, id_of};
use crate::console::signed_in::SignedIn;
use crate::http::detached;
use crate::http::problem::Problem;
use crate::oauth::Issuer;
use crate::sessions;

async fn open(
    signed_in: &SignedIn,
    app: &OfApp,
    context: &Context,
    id: UserId,
) -> Result<Shown, Problem> {
    let mut conn = context.pool.acquire().await?;
    let shown = super::open(&mut conn, &signed_in.actor, app.id, id).await?;
    shown.ok_or_else(Problem::not_found)
}

/// `GET /apps/{app}/users/{id}`.
pub async fn show(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    issuer: web::Data<Issuer>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let shown = open(&signed_in, &app, &context, id_of(&path)?).await?;
    let receipt = shown.erasure.as_ref().and_then(|erasure| Receipt::of(&issuer, erasure));
    let place = Place::new(&signed_in, &app, Screen::Connections, "Person").with(VERIFIES);
    Ok(answer(StatusCode::OK, page::show(&place, &shown, receipt.as_ref())))
}

/// `POST …/end-sessions`.
pub async fn end_sessions(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path)?;
    let mut conn = context.pool.acquire().await?;
    sessions::end_of_user(&mut conn, &signed_in.actor, app.id, id).await?;
    Ok(see_other(&format!("/apps/{}/users/{id}", app.id)))
}

/// `GET …/erase`: asks.
pub async fn ask(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let shown = open(&signed_in, &app, &context, id_of(&path)?).await?;
    let person = shown.person.as_ref().ok_or_else(Problem::not_found)?;
    let place = Place::new(&signed_in, &app, Screen::Connections, "Erase a person");
    Ok(answer(StatusCode::OK, page::confirm(&place, &shown, person, context.four_eyes.is_on())))
}

/// `POST …/erase`, as `DELETE /v1/users/{clientUserID}` does, without waiting for the bank link.
pub async fn erase(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path)?;
    let shown = open(&signed_in, &app, &context, id).await?;
    let name = shown.person.ok_or_else(Problem::not_found)?.user.client_user_id;
    let (of, within) = (app.id, context.clone());
    let beginning = async move {
        let mut conn = within.pool.acquire().await?;
        let (vault, four_eyes) = (&within.vault, within.four_eyes);
        erasure::begin(&mut conn, vault, four_eyes, &signed_in.actor, of, &name).await
    };
    match detached(&context.tasks, beginning).await?? {
        Gated::Done(begun) => begun.ok_or_else(Problem::not_found)?,
        Gated::Awaits(approval) => return Ok(to_approval(of, approval.id)),
    };
    context.wake.notify_one();
    Ok(see_other(&format!("/apps/{of}/users/{id}")))
}
