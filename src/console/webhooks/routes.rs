//! `/apps/{app}/webhooks`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use time::OffsetDateTime;

use super::page;
use super::page::Done;
use crate::common::ids::WebhookId;
use crate::connections::Context;
use crate::console::fields::local;
use crate::console::layout::{Place, Screen, answer};
use crate::console::of_app::{OfApp, id_of};
use crate::console::signed_in::SignedIn;
use crate::events::endpoints::{self, admin};
use crate::http::problem::Problem;

/// `GET /apps/{app}/webhooks`.
pub async fn list(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
) -> Result<HttpResponse, Problem> {
    let webhooks = endpoints::list(&mut context.pool.acquire().await?, app.id).await?;
    let place = Place::new(&signed_in, &app, Screen::Webhooks, "Webhooks");
    Ok(answer(StatusCode::OK, page::list(&place, &webhooks)))
}

/// Which page of the deliveries.
#[derive(Default, Deserialize)]
pub struct Which {
    before: Option<i64>,
}

/// `GET /apps/{app}/webhooks/{id}`.
pub async fn show(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
    which: web::Query<Which>,
) -> Result<HttpResponse, Problem> {
    shown(&signed_in, &app, &context, id_of(&path)?, which.before, None).await
}

async fn shown(
    signed_in: &SignedIn,
    app: &OfApp,
    context: &Context,
    id: WebhookId,
    before: Option<i64>,
    done: Option<Done>,
) -> Result<HttpResponse, Problem> {
    let shown = super::read(&mut context.pool.acquire().await?, app.id, id, before).await?;
    let shown = shown.ok_or_else(Problem::not_found)?;
    let place = Place::new(signed_in, app, Screen::Webhooks, "Webhook");
    Ok(answer(StatusCode::OK, page::show(&place, &shown, done.as_ref())))
}

/// `POST …/test`.
pub async fn test(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path)?;
    let mut conn = context.pool.acquire().await?;
    let tested = admin::test(&mut conn, &signed_in.actor, app.id, id).await;
    drop(conn);
    let done = tested.map_or_else(|error| Done::Refused(error.to_string()), |_| Done::Tested);
    shown(&signed_in, &app, &context, id, None, Some(done)).await
}

/// The form: two times in UTC.
#[derive(Deserialize)]
pub struct Range {
    from: String,
    to: String,
}

impl Range {
    fn times(&self) -> Option<(OffsetDateTime, OffsetDateTime)> {
        let (from, to) = (local(&self.from)?, local(&self.to)?);
        (from < to).then_some((from, to))
    }
}

/// `POST …/replay`.
pub async fn replay(
    signed_in: SignedIn,
    app: OfApp,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
    range: web::Form<Range>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path)?;
    let done = match range.times() {
        None => Done::Refused("Choose two times, the earlier one first.".to_owned()),
        Some(range) => {
            let mut conn = context.pool.acquire().await?;
            match admin::replay(&mut conn, &signed_in.actor, app.id, id, range).await {
                Ok((count, _)) => Done::Replayed(count),
                Err(error) => Done::Refused(error.to_string()),
            }
        }
    };
    shown(&signed_in, &app, &context, id, None, Some(done)).await
}
