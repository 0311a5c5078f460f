//! `/apps/{app}/connections`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::ending::{self, Ending};
use super::{Query, page, timeline};
use crate::approvals::Gated;
use crate::common::ids::ConnectionId;
use crate::connections::revocation::{self, Request, RevokeOutcome};
use crate::connections::{Context, query};
use crate::console::answer::{see_other, to_approval};
use crate::console::forms::{self, Invalid};
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

impl After {
    /// What it says if the connection had ended before.
    const NOTHING: &str = "nothing";
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
    let connection = &life.found.found.connection;
    let said = after.done.as_deref().map(|done| match done {
        After::NOTHING => ending::nothing_done(connection),
        _ => ending::done(connection),
    });
    Ok(answer(StatusCode::OK, timeline::show(&place, &life, said.as_ref())))
}

/// `GET …/delink`, `…/invalidate`, `…/give-up`: asks.
pub async fn ask(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
    ending: Ending,
) -> Result<HttpResponse, Problem> {
    asked(&signed_in, &app, &context, id_of(&path)?, ending, "", None).await
}

/// Answers with the page that asks; `invalid` says what is wrong with the reason.
async fn asked(
    signed_in: &SignedIn,
    app: &OfApp,
    context: &Context,
    id: ConnectionId,
    ending: Ending,
    reason: &str,
    invalid: Option<&Invalid>,
) -> Result<HttpResponse, Problem> {
    let found = query::find(context, app.id, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let waits = ending == Ending::GiveUp && context.four_eyes.is_on();
    let place = Place::new(signed_in, app, Screen::Connections, ending.title());
    let status = if invalid.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(answer(status, ending::confirm(&place, &found, ending, waits, reason, invalid)))
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
    let (id, given) = (id_of(&path)?, form.into_inner().reason);
    let reason = match forms::reason(&given) {
        Ok(reason) => reason.to_owned(),
        Err(invalid) => {
            let invalid = Some(&invalid);
            return asked(&signed_in, &app, &context, id, ending, &given, invalid).await;
        }
    };
    let of = app.id;
    let found = query::find(&context, of, id).await?.ok_or_else(Problem::not_found)?;
    let led = |done: &str| see_other(&format!("/apps/{of}/connections/{id}?done={done}"));
    if !ending.applies_to(found.status) {
        return Ok(led(After::NOTHING));
    }
    let tasks = context.tasks.clone();
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
        // It ended meanwhile.
        Gated::Done(RevokeOutcome::NotActive) => Ok(led(After::NOTHING)),
        Gated::Done(RevokeOutcome::Acknowledged) => Ok(led("true")),
    }
}
