//! `/apps/{app}/connections`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::ending::{self, Ending};
use super::{Query, page, timeline};
use crate::approvals::Gated;
use crate::connections::revocation::{self, Request, RevokeOutcome};
use crate::connections::{Context, input, query};
use crate::console::answer::{see_other, to_approval};
use crate::console::layout::{Place, Screen, answer};
use crate::console::of_app::{OfApp, id_of};
use crate::console::signed_in::SignedIn;
use crate::http::detached;
use crate::http::operators::{Operators, query_problem};
use crate::http::problem::Problem;

/// `GET /apps/{app}/connections`.
pub async fn list(
    signed_in: SignedIn,
    app: OfApp,
    operators: web::Data<Operators>,
    query: web::Query<Query>,
) -> Result<HttpResponse, Problem> {
    let mut conn = operators.begin(app.id).await?;
    if let Some(elsewhere) = super::elsewhere(&mut conn, app.id, &query).await? {
        return Ok(see_other(&elsewhere));
    }
    let found = super::find(&mut conn, app.id, &query).await.map_err(query_problem)?;
    drop(conn);
    let place = Place::new(&signed_in, &app, Screen::Connections, "Connections");
    Ok(answer(StatusCode::OK, page::show(&place, &query, &found)))
}

/// What a form said when it led here.
#[derive(Deserialize)]
pub struct After {
    done: Option<String>,
}

/// `GET /apps/{app}/connections/{id}`.
pub async fn show(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
    after: web::Query<After>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path)?;
    let life = super::life(&mut context.pool.acquire().await?, app.id, id).await?;
    let life = life.ok_or_else(Problem::not_found)?;
    let place = Place::new(&signed_in, &app, Screen::Connections, "Connection");
    Ok(answer(StatusCode::OK, timeline::show(&place, &life, after.done.is_some())))
}

/// `GET …/delink`, `…/invalidate`, `…/give-up`: asks.
pub async fn ask(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
    ending: Ending,
) -> Result<HttpResponse, Problem> {
    let found = query::find(&context, app.id, id_of(&path)?).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let waits = ending == Ending::GiveUp && context.four_eyes.is_on();
    let place = Place::new(&signed_in, &app, Screen::Connections, ending.title());
    Ok(answer(StatusCode::OK, ending::confirm(&place, &found, ending, waits)))
}

/// The form.
#[derive(Deserialize)]
pub struct Decision {
    #[serde(default)]
    reason: String,
}

/// `POST …/delink`, `…/invalidate`, `…/give-up`: ends it as the API does, in a task of its own. Does not wait for the bank link: the
/// page that follows says how it stands.
pub async fn end(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
    ending: Ending,
    form: web::Form<Decision>,
) -> Result<HttpResponse, Problem> {
    let (id, reason) = (id_of(&path)?, form.into_inner().reason);
    input::reason(&reason)?;
    let (of, tasks) = (app.id, context.tasks.clone());
    let revoking = async move {
        let actor = &signed_in.actor;
        let Some(kind) = ending.told() else {
            return revocation::invalidate_unconfirmed(&context, actor, of, id, reason).await;
        };
        let request = Request::told(kind, Some(&reason));
        Ok(Gated::Done(revocation::revoke(&context, actor, of, id, request).await?))
    };
    match detached(&tasks, revoking).await?? {
        Gated::Awaits(approval) => Ok(to_approval(of, approval.id)),
        Gated::Done(RevokeOutcome::Unknown) => Err(Problem::not_found()),
        Gated::Done(RevokeOutcome::NotActive) => {
            Ok(see_other(&format!("/apps/{of}/connections/{id}")))
        }
        Gated::Done(RevokeOutcome::Acknowledged) => {
            Ok(see_other(&format!("/apps/{of}/connections/{id}?done=true")))
        }
    }
}
