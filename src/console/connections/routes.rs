//! `/apps/{app}/connections`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::timeline::Done;
use super::{Query, page, timeline};
use crate::common::ids::ConnectionId;
use crate::connections::model::{RevocationKind, Status};
use crate::connections::revocation::{self, Request, RevokeOutcome};
use crate::connections::{Context, input, query};
use crate::console::answer::see_other;
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
    let revoking = life.found.found.connection.status == Status::Revoking;
    let done = after.done.as_ref().map(|_| if revoking { Done::Acknowledged } else { Done::Ended });
    let place = Place::new(&signed_in, &app, Screen::Connections, "Connection");
    Ok(answer(StatusCode::OK, timeline::show(&place, &life, done)))
}

/// `GET …/delink`: asks.
pub async fn ask_delink(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    ask(&signed_in, &app, &context, id_of(&path)?, RevocationKind::Delink).await
}

/// `GET …/invalidate`: asks.
pub async fn ask_invalidate(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    ask(&signed_in, &app, &context, id_of(&path)?, RevocationKind::Invalidate).await
}

async fn ask(
    signed_in: &SignedIn,
    app: &OfApp,
    context: &Context,
    id: ConnectionId,
    kind: RevocationKind,
) -> Result<HttpResponse, Problem> {
    let found = query::find(context, app.id, id).await?.ok_or_else(Problem::not_found)?;
    let title = match kind {
        RevocationKind::Delink => "Delink a connection",
        RevocationKind::Invalidate => "Invalidate a connection",
    };
    let place = Place::new(signed_in, app, Screen::Connections, title);
    let invalidates = kind == RevocationKind::Invalidate;
    Ok(answer(StatusCode::OK, timeline::confirm(&place, &found, invalidates)))
}

/// The form.
#[derive(Deserialize)]
pub struct Decision {
    #[serde(default)]
    reason: String,
}

/// `POST …/delink`.
pub async fn delink(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
    form: web::Form<Decision>,
) -> Result<HttpResponse, Problem> {
    revoke(signed_in, &app, context, id_of(&path)?, RevocationKind::Delink, form.into_inner()).await
}

/// `POST …/invalidate`.
pub async fn invalidate(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
    form: web::Form<Decision>,
) -> Result<HttpResponse, Problem> {
    let kind = RevocationKind::Invalidate;
    revoke(signed_in, &app, context, id_of(&path)?, kind, form.into_inner()).await
}

/// Revokes as the API does, in a task of its own. Does not wait for the bank link: the page that follows says how it stands.
async fn revoke(
    signed_in: SignedIn,
    app: &OfApp,
    context: web::Data<Context>,
    id: ConnectionId,
    kind: RevocationKind,
    Decision { reason }: Decision,
) -> Result<HttpResponse, Problem> {
    input::reason(&reason)?;
    let (of, tasks) = (app.id, context.tasks.clone());
    let revoking = async move {
        let request = Request { kind, reason: Some(&reason), unconfirmed: None };
        revocation::revoke(&context, &signed_in.actor, of, id, request).await
    };
    match detached(&tasks, revoking).await?? {
        RevokeOutcome::Unknown => Err(Problem::not_found()),
        RevokeOutcome::NotActive => Ok(see_other(&format!("/apps/{of}/connections/{id}"))),
        RevokeOutcome::Acknowledged => {
            Ok(see_other(&format!("/apps/{of}/connections/{id}?done={}", kind.as_str())))
        }
    }
}
