//! `/apps/{app}/incident`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use uuid::Uuid;

use super::{Asked, order, page};
use crate::approvals::Gated;
use crate::common::ids::{BulkRevocationId, ConnectionId};
use crate::connections::bulk_revocation::{
    self, Change, ChangeOutcome, NewBulkRevocation, RevocationFilter,
};
use crate::connections::model::RevocationKind;
use crate::connections::{Context, bulk_revocation::routes::created_id};
use crate::console::answer::{see_other, to_approval};
use crate::console::forms::{self, Invalid};
use crate::console::layout::{Place, Screen, answer};
use crate::console::live as streams;
use crate::console::of_app::{OfApp, id_of};
use crate::console::signed_in::SignedIn;
use crate::database;
use crate::http::detached;
use crate::http::operators::{Operators, query_problem};
use crate::http::problem::{Problem, ProblemCode};

/// Orders on a page.
const ON_A_PAGE: u8 = 25;

/// Which page of the list.
#[derive(Deserialize)]
pub struct Which {
    cursor: Option<String>,
}

/// `GET /apps/{app}/incident`: those there were.
pub async fn list(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    which: web::Query<Which>,
) -> Result<HttpResponse, Problem> {
    let cursor = which.cursor.as_deref().and_then(|cursor| cursor.parse().ok());
    let mut conn = context.pool.acquire().await?;
    let orders = bulk_revocation::list(&mut conn, app.id, cursor, ON_A_PAGE).await?;
    let place = Place::new(&signed_in, &app, Screen::Incident, "Incident");
    Ok(answer(StatusCode::OK, page::show(&place, &orders)))
}

/// `GET …/new`: the form.
pub async fn form(signed_in: SignedIn, app: OfApp) -> HttpResponse {
    shown(&signed_in, &app, &Asked::default(), None)
}

fn shown(
    signed_in: &SignedIn,
    app: &OfApp,
    asked: &Asked,
    invalid: Option<&Invalid>,
) -> HttpResponse {
    let place = Place::new(signed_in, app, Screen::Incident, "Begin an incident");
    let status = if invalid.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    answer(status, page::form_page(&place, asked, invalid))
}

/// A form that passed its checks.
struct Checked {
    kind: RevocationKind,
    per_second: i32,
    matching: RevocationFilter,
}

fn check(asked: &Asked) -> Result<Checked, Invalid> {
    Ok(Checked { kind: asked.kind()?, per_second: asked.rate()?, matching: asked.filter()? })
}

/// `POST …/preview`: the dry run.
pub async fn preview(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    operators: web::Data<Operators>,
    asked: web::Form<Asked>,
) -> Result<HttpResponse, Problem> {
    let mut asked = asked.into_inner();
    let checked = match check(&asked) {
        Ok(checked) => checked,
        Err(invalid) => return Ok(shown(&signed_in, &app, &asked, Some(&invalid))),
    };
    // A form that is sent twice is one order.
    let once: Uuid = ConnectionId::new().uuid();
    asked.key = format!("console-{once}");
    counted(&signed_in, &app, &context, &operators, &asked, &checked, None).await
}

/// Answers with the dry run of a form; `invalid` says what is wrong with its reason.
async fn counted(
    signed_in: &SignedIn,
    app: &OfApp,
    context: &Context,
    operators: &Operators,
    asked: &Asked,
    checked: &Checked,
    invalid: Option<&Invalid>,
) -> Result<HttpResponse, Problem> {
    let matching = &checked.matching;
    let mut conn = operators.begin(app.id).await?;
    let found = super::preview(&mut conn, app.id, matching).await.map_err(query_problem)?;
    drop(conn);
    let waits = context.four_eyes.is_exceeded_by(found.matched);
    let seconds = found.matched / i64::from(checked.per_second);
    let place = Place::new(signed_in, app, Screen::Incident, "Dry run");
    let status = if invalid.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(answer(status, page::preview(&place, asked, matching, &found, seconds, waits, invalid)))
}

/// `POST /apps/{app}/incident`: revokes, as `POST /v1/admin/revocations` does.
pub async fn create(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    operators: web::Data<Operators>,
    asked: web::Form<Asked>,
) -> Result<HttpResponse, Problem> {
    let asked = asked.into_inner();
    let checked = match check(&asked) {
        Ok(checked) => checked,
        Err(invalid) => return Ok(shown(&signed_in, &app, &asked, Some(&invalid))),
    };
    let reason = match asked.reason() {
        Ok(reason) => reason.to_owned(),
        Err(invalid) => {
            let invalid = Some(&invalid);
            return counted(&signed_in, &app, &context, &operators, &asked, &checked, invalid)
                .await;
        }
    };
    let Checked { kind, per_second, matching } = checked;
    let (of, within) = (app.id, context.clone());
    let creating = async move {
        let hash =
            bulk_revocation::request_hash(&within.vault, of, kind, &reason, per_second, &matching);
        let key = (!asked.key.is_empty() && asked.key.len() <= 64).then_some(asked.key.as_str());
        let new = NewBulkRevocation {
            app: of,
            kind,
            reason: &reason,
            matching: &matching,
            per_second,
            idempotency_key: key,
            request_hash: hash,
        };
        let mut conn = within.pool.acquire().await?;
        let (vault, four_eyes) = (&within.vault, within.four_eyes);
        bulk_revocation::create(&mut conn, vault, four_eyes, &signed_in.actor, &new).await
    };
    let outcome = match detached(&context.tasks, creating).await?? {
        Gated::Done(outcome) => outcome,
        Gated::Awaits(approval) => return Ok(to_approval(of, approval.id)),
    };
    let id = created_id(&context, &outcome)?;
    Ok(see_other(&format!("/apps/{of}/incident/{id}")))
}

/// `GET …/{order}`.
pub async fn show(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path)?;
    let mut conn = context.pool.acquire().await?;
    let found = bulk_revocation::find(&mut conn, app.id, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let at = database::now(&mut conn).await?;
    let place = Place::new(&signed_in, &app, Screen::Incident, "Incident");
    Ok(answer(StatusCode::OK, order::show(&place, &found, at)))
}

/// `GET …/{order}/live`: the page's live part, again and again.
pub async fn live(
    req: HttpRequest,
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path)?;
    let tasks = context.tasks.clone();
    Ok(streams::stream(&req, tasks, move || {
        let (signed_in, app, context) = (signed_in.clone(), app.clone(), context.clone());
        async move {
            let read = async {
                let mut conn = context.pool.acquire().await?;
                let found = bulk_revocation::find(&mut conn, app.id, id).await?;
                Ok::<_, sqlx::Error>(found.zip(Some(database::now(&mut conn).await?)))
            };
            let place = Place::new(&signed_in, &app, Screen::Incident, "Incident");
            match read.await {
                Ok(Some((found, at))) => order::live(&place, &found, at),
                Ok(None) => order::gone(),
                Err(_) => order::not_read(),
            }
        }
    }))
}

/// `POST …/{order}/pause`.
pub async fn pause(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    change(&signed_in, &app, &context, id_of(&path)?, Change::Pause).await
}

/// `POST …/{order}/resume`.
pub async fn resume(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    change(&signed_in, &app, &context, id_of(&path)?, Change::Resume).await
}

async fn change(
    signed_in: &SignedIn,
    app: &OfApp,
    context: &Context,
    id: BulkRevocationId,
    change: Change<'_>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let outcome = bulk_revocation::change(&mut conn, &signed_in.actor, app.id, id, change).await?;
    changed(app, context, id, outcome)
}

/// `GET …/{order}/cancel`: asks.
pub async fn ask_cancel(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    asked_to_cancel(&signed_in, &app, &context, id_of(&path)?, "", None).await
}

async fn asked_to_cancel(
    signed_in: &SignedIn,
    app: &OfApp,
    context: &Context,
    id: BulkRevocationId,
    reason: &str,
    invalid: Option<&Invalid>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let found = bulk_revocation::find(&mut conn, app.id, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let place = Place::new(signed_in, app, Screen::Incident, "Give up the rest of an incident");
    let waits = context.four_eyes.is_on();
    let status = if invalid.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(answer(status, order::confirm_cancel(&place, &found, waits, reason, invalid)))
}

/// The form that gives up the rest.
#[derive(Deserialize)]
pub struct Cancelling {
    #[serde(default)]
    reason: String,
}

/// `POST …/{order}/cancel`, as the API does, in a task of its own.
pub async fn cancel(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
    form: web::Form<Cancelling>,
) -> Result<HttpResponse, Problem> {
    let (id, of, within) = (id_of(&path)?, app.id, context.clone());
    let reason = match forms::reason(&form.reason) {
        Ok(reason) => reason.to_owned(),
        Err(invalid) => {
            let (given, invalid) = (&form.reason, Some(&invalid));
            return asked_to_cancel(&signed_in, &app, &context, id, given, invalid).await;
        }
    };
    let cancelling = async move {
        let mut conn = within.pool.acquire().await?;
        let (vault, four_eyes, reason) = (&within.vault, within.four_eyes, Some(reason.as_str()));
        bulk_revocation::cancel(&mut conn, vault, four_eyes, &signed_in.actor, of, id, reason).await
    };
    match detached(&context.tasks, cancelling).await?? {
        Gated::Done(outcome) => changed(&app, &context, id, outcome),
        Gated::Awaits(approval) => Ok(to_approval(of, approval.id)),
    }
}

/// Counts and wakes what a change affects, and leads to the order.
fn changed(
    app: &OfApp,
    context: &Context,
    id: BulkRevocationId,
    outcome: ChangeOutcome,
) -> Result<HttpResponse, Problem> {
    match outcome {
        ChangeOutcome::Yes(ended) => bulk_revocation::count_given_up(context, ended),
        ChangeOutcome::AtItsEnd => {
            let detail = "It was cancelled, or it has finished.";
            return Err(Problem::new(ProblemCode::OrderEnded, detail));
        }
        ChangeOutcome::Unknown => return Err(Problem::not_found()),
    }
    context.wake.notify_one();
    Ok(see_other(&format!("/apps/{}/incident/{id}", app.id)))
}
