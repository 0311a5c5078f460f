//! `/apps/{app}/approvals`.

use actix_web::http::StatusCode;
use actix_web::{Error, HttpResponse, web};
use serde::Deserialize;

use super::carry_out::{self, Failure};
use super::effect::{self, Effect};
use super::page::{self, Rejection, Shown};
use crate::approvals::{self, ApprovalStatus, Kind};
use crate::common::ids::ApprovalId;
use crate::connections::Context;
use crate::console::answer::{see_other, to_approval};
use crate::console::forms;
use crate::console::layout::{Place, Screen, answer};
use crate::console::of_app::{OfApp, id_of};
use crate::console::signed_in::SignedIn;
use crate::console::users;
use crate::database;
use crate::http::detached;
use crate::http::operators::Operators;
use crate::http::problem::Problem;

/// Requests on a page.
const ON_A_PAGE: u8 = 25;

/// Which page of the list.
#[derive(Deserialize)]
pub struct Which {
    cursor: Option<String>,
}

/// `GET /apps/{app}/approvals`: those of the app and of the deployment.
pub async fn list(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    which: web::Query<Which>,
) -> Result<HttpResponse, Problem> {
    let cursor = which.cursor.as_deref().and_then(|cursor| cursor.parse().ok());
    let mut conn = context.pool.acquire().await?;
    let found = approvals::list(&mut conn, app.id, true, cursor, ON_A_PAGE).await?;
    let at = database::now(&mut conn).await?;
    let place = Place::new(&signed_in, &app, Screen::Approvals, "Approvals");
    Ok(answer(StatusCode::OK, page::list(&place, &found, context.four_eyes, at)))
}

/// Reads a request with its dry run, which is of this moment. Without a dry run if that takes too long, or if somebody else's
/// query of the app is under way: a request that matches much must not be one that nobody can approve.
async fn read(
    signed_in: &SignedIn,
    app: &OfApp,
    context: &Context,
    operators: &Operators,
    id: ApprovalId,
) -> Result<Shown, Problem> {
    let mut conn = context.pool.acquire().await?;
    let approval = approvals::find(&mut conn, app.id, id).await?.ok_or_else(Problem::not_found)?;
    let request = approvals::request(&mut conn, app.id, id).await?;
    let at = database::now(&mut conn).await?;
    drop(conn);
    let effect = match request.filter(|_| approval.status == ApprovalStatus::Pending) {
        Some(request) => looked_at(app, operators, approval.kind, &request).await,
        None => None,
    };
    // What the page shows of a person is what their own page does.
    if let Some(Effect::Erasure(user, Some(_))) = &effect {
        let mut conn = context.pool.acquire().await?;
        users::record_view(&mut conn, &signed_in.actor, app.id, *user).await?;
    }
    let session = &signed_in.session;
    Ok(Shown {
        at,
        is_own: approval.requested_by == format!("operator: {}", session.name),
        may_decide: approval.kind.may_be_decided_by(session.role.as_str()),
        approval,
        effect,
    })
}

async fn looked_at(
    app: &OfApp,
    operators: &Operators,
    kind: Kind,
    request: &str,
) -> Option<Effect> {
    let mut conn = operators.begin(app.id).await.ok()?;
    let looked = effect::look(&mut conn, app.id, kind, request).await;
    looked.inspect_err(|error| tracing::warn!(%error, "no dry run of what is to be approved")).ok()
}

/// `GET …/{id}`.
pub async fn show(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    operators: web::Data<Operators>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let shown = read(&signed_in, &app, &context, &operators, id_of(&path)?).await?;
    let place = Place::new(&signed_in, &app, Screen::Approvals, "Request");
    Ok(answer(StatusCode::OK, page::show(&place, &shown, None)))
}

/// `GET …/{id}/approve`: the same, with the button.
pub async fn ask(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    operators: web::Data<Operators>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let shown = read(&signed_in, &app, &context, &operators, id_of(&path)?).await?;
    let place = Place::new(&signed_in, &app, Screen::Approvals, "Approve a request");
    Ok(answer(StatusCode::OK, page::confirm(&place, &shown)))
}

/// `POST …/{id}/approve`: approves and carries out, in one step, in a task of its own. Leads to the incident that it began.
pub async fn approve(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Error> {
    let (id, of, within) = (id_of(&path)?, app.id, context.clone());
    let approving = async move {
        let session = signed_in.session.session;
        carry_out::approve(&within, session, &signed_in.actor, of, id).await
    };
    Ok(match detached(&context.tasks, approving).await?? {
        Some(incident) => see_other(&format!("/apps/{of}/incident/{incident}")),
        None => to_approval(of, id),
    })
}

/// The form.
#[derive(Deserialize)]
pub struct Decision {
    #[serde(default)]
    reason: String,
}

/// `POST …/{id}/reject`.
pub async fn reject(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    operators: web::Data<Operators>,
    path: web::Path<(String, String)>,
    form: web::Form<Decision>,
) -> Result<HttpResponse, Error> {
    let id = id_of(&path)?;
    let reason = match forms::reason(&form.reason) {
        Ok(reason) => reason,
        Err(invalid) => {
            let shown = read(&signed_in, &app, &context, &operators, id).await?;
            let place = Place::new(&signed_in, &app, Screen::Approvals, "Request");
            let rejection = Rejection { reason: &form.reason, invalid: &invalid };
            let page = page::show(&place, &shown, Some(rejection));
            return Ok(answer(StatusCode::BAD_REQUEST, page));
        }
    };
    let mut conn = context.pool.acquire().await.map_err(Problem::from)?;
    let (session, actor) = (signed_in.session.session, &signed_in.actor);
    let rejected = approvals::reject(&mut conn, session, actor, app.id, id, reason).await;
    rejected.map_err(Failure::from)?;
    Ok(to_approval(app.id, id))
}

/// `POST …/{id}/withdraw`.
pub async fn withdraw(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Error> {
    let id = id_of(&path)?;
    let mut conn = context.pool.acquire().await.map_err(Problem::from)?;
    let withdrawn = approvals::withdraw(&mut conn, &signed_in.actor, app.id, id).await;
    withdrawn.map_err(Failure::from)?;
    Ok(to_approval(app.id, id))
}
