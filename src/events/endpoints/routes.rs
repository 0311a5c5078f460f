//! `/v1/admin/webhooks`: the webhooks of the caller's own app. A secret is shown once, when it is created.

use std::time::Duration;

use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::admin::{self, DEFAULT_OVERLAP, MAX_OVERLAP, WebhookError};
use super::log::WebhookDelivery;
use super::model::{Change, Draft, Webhook};
use super::store;
use crate::common::ids::{EventId, WebhookId, WebhookSecretId};
use crate::common::paging::PageCursor;
use crate::events::Context;
use crate::events::cursor::EventCursor;
use crate::events::kind::EventType;
use crate::http::body::{Body, Id, OptionalBody, UrlQuery};
use crate::http::caller::{Authorized, needs};
use crate::http::paging;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{ForClients, Problems, WithJson};

type Admin = Authorized<needs::Admin>;

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::Invalid(invalid) => Self::invalid_field(invalid.field, invalid.what),
            WebhookError::Unknown => Self::not_found(),
            WebhookError::TwoSecrets => {
                let detail = "End one by DELETE, or send `oldSecretsEndIn: 0` to end both at once.";
                Self::new(ProblemCode::TwoSecrets, detail)
            }
            WebhookError::TooMany | WebhookError::OnlySecret => {
                Self::new(ProblemCode::InvalidRequest, format!("{error}."))
            }
            WebhookError::Disabled => Self::new(
                ProblemCode::WebhookDisabled,
                "Enable it by PATCH with `disabled: false`.",
            ),
            WebhookError::Vault(error) => error.into(),
        }
    }
}

/// The webhooks of an app, oldest first.
#[derive(Serialize, ToSchema)]
pub struct WebhookList {
    /// The webhooks.
    webhooks: Vec<Webhook>,
}

/// A webhook with a new secret, shown this once.
#[derive(Serialize, ToSchema)]
pub struct CreatedWebhook {
    /// The webhook.
    #[serde(flatten)]
    webhook: Webhook,
    /// The secret in clear text, with which `v1` signatures are verified.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAAAAAAAAA=")]
    secret: String,
}

/// A new secret, shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedWebhookSecret {
    /// The secret's id.
    id: WebhookSecretId,
    /// The secret in clear text, with which `v1` signatures are verified.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAAAAAAAAA=")]
    secret: String,
    /// The public key with which `v1a` signatures are verified.
    #[schema(example = "whpk_oYL4XNQcCXTbAXRM+hQfXyjpHvlfcJNwFQn2gPDjcqs=")]
    public_key: String,
    /// The webhook as it is now.
    webhook: Webhook,
}

/// How a secret follows another.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddWebhookSecret {
    /// How long the secrets that it has live on, in seconds; 0 ends them at once.
    #[schema(minimum = 0, maximum = 2_592_000, default = 86400)]
    old_secrets_end_in: Option<u32>,
}

/// Adds a webhook: an endpoint to which the app's events are sent from now on, each signed as Standard Webhooks has it.
/// Its secret is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/v1/admin/webhooks", tag = "Events", operation_id = "createWebhook",
    security(("bearer" = ["admin"])),
    request_body = Draft,
    responses(
        (status = 201, description = "The webhook with its secret, shown this once", body = CreatedWebhook, headers(("Location" = String, description = "The webhook"))),
        Problems<(ForClients, WithJson)>,
    )
)]
pub async fn create(
    caller: Admin,
    context: web::Data<Context>,
    body: Body<Draft>,
) -> Result<HttpResponse, Problem> {
    let (app, reach) = (caller.client.app, context.outbound.reach());
    let mut conn = context.pool.acquire().await?;
    let made = admin::create(&mut conn, &context.vault, &caller.actor, app, body.0, reach).await?;
    let location = format!("/v1/admin/webhooks/{}", made.webhook.id);
    let secret = made.secret.expose().to_owned();
    let mut answer = HttpResponse::Created();
    answer.insert_header((LOCATION, location));
    Ok(answer.json(CreatedWebhook { webhook: made.webhook, secret }))
}

/// Lists the app's webhooks, oldest first.
#[utoipa::path(
    get, path = "/v1/admin/webhooks", tag = "Events", operation_id = "listWebhooks",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "All of them", body = WebhookList),
        Problems<ForClients>,
    )
)]
pub async fn list(caller: Admin, context: web::Data<Context>) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let webhooks = store::list(&mut conn, caller.client.app).await?;
    Ok(HttpResponse::Ok().json(WebhookList { webhooks }))
}

/// One webhook, with how it fares.
#[utoipa::path(
    get, path = "/v1/admin/webhooks/{id}", tag = "Events", operation_id = "getWebhook",
    security(("bearer" = ["admin"])),
    params(("id" = WebhookId, Path, description = "The webhook")),
    responses(
        (status = 200, description = "The webhook", body = Webhook),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn get(
    caller: Admin,
    context: web::Data<Context>,
    id: Id<WebhookId>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let found = store::find(&mut conn, caller.client.app, id.0).await?;
    found.map(|webhook| HttpResponse::Ok().json(webhook)).ok_or_else(Problem::not_found)
}

/// Changes a webhook. What is left out stays; a wait after failures ends.
#[utoipa::path(
    patch, path = "/v1/admin/webhooks/{id}", tag = "Events", operation_id = "updateWebhook",
    security(("bearer" = ["admin"])),
    params(("id" = WebhookId, Path, description = "The webhook")),
    request_body = Change,
    responses(
        (status = 200, description = "Changed", body = Webhook),
        Problems<(ForClients, WithJson, code::NotFound)>,
    )
)]
pub async fn change(
    caller: Admin,
    context: web::Data<Context>,
    id: Id<WebhookId>,
    body: Body<Change>,
) -> Result<HttpResponse, Problem> {
    let (app, reach) = (caller.client.app, context.outbound.reach());
    let mut conn = context.pool.acquire().await?;
    let changed = admin::change(&mut conn, &caller.actor, app, id.0, body.0, reach).await?;
    Ok(HttpResponse::Ok().json(changed))
}

/// Deletes a webhook with its secrets and its deliveries. One that is under way may still arrive.
#[utoipa::path(
    delete, path = "/v1/admin/webhooks/{id}", tag = "Events", operation_id = "deleteWebhook",
    security(("bearer" = ["admin"])),
    params(("id" = WebhookId, Path, description = "The webhook")),
    responses(
        (status = 204, description = "Deleted"),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn delete(
    caller: Admin,
    context: web::Data<Context>,
    id: Id<WebhookId>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    admin::delete(&mut conn, &caller.actor, caller.client.app, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Gives a webhook a second secret and the first an end. Until then each delivery has a signature by both.
#[utoipa::path(
    post, path = "/v1/admin/webhooks/{id}/secrets", tag = "Events", operation_id = "createWebhookSecret",
    security(("bearer" = ["admin"])),
    params(("id" = WebhookId, Path, description = "The webhook")),
    request_body = Option<AddWebhookSecret>,
    responses(
        (status = 201, description = "The secret, shown this once", body = CreatedWebhookSecret),
        Problems<(ForClients, WithJson, code::NotFound, code::TwoSecrets)>,
    )
)]
pub async fn add_secret(
    caller: Admin,
    context: web::Data<Context>,
    id: Id<WebhookId>,
    body: OptionalBody<AddWebhookSecret>,
) -> Result<HttpResponse, Problem> {
    let overlap = body.0.and_then(|body| body.old_secrets_end_in).unwrap_or(DEFAULT_OVERLAP);
    if overlap > MAX_OVERLAP {
        return Err(Problem::invalid_field("oldSecretsEndIn", "must be at most 2592000 seconds"));
    }
    let overlap = Duration::from_secs(overlap.into());
    let mut conn = context.pool.acquire().await?;
    let (vault, app) = (&context.vault, caller.client.app);
    let made = admin::add_secret(&mut conn, vault, &caller.actor, app, id.0, overlap).await?;
    Ok(HttpResponse::Created().json(CreatedWebhookSecret {
        id: made.id,
        secret: made.secret.expose().to_owned(),
        public_key: made.public_key,
        webhook: made.webhook,
    }))
}

/// Ends one of a webhook's secrets now; not the only one: `invalid_request`.
#[utoipa::path(
    delete, path = "/v1/admin/webhooks/{id}/secrets/{secretID}", tag = "Events", operation_id = "deleteWebhookSecret",
    security(("bearer" = ["admin"])),
    params(
        ("id" = WebhookId, Path, description = "The webhook"),
        ("secretID" = WebhookSecretId, Path, description = "The secret"),
    ),
    responses(
        (status = 204, description = "Ended"),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn end_secret(
    caller: Admin,
    context: web::Data<Context>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let (id, secret) = path.into_inner();
    let id = id.parse().map_err(|_| Problem::not_found())?;
    let secret = secret.parse().map_err(|_| Problem::not_found())?;
    let mut conn = context.pool.acquire().await?;
    if admin::end_secret(&mut conn, &caller.actor, caller.client.app, id, secret).await? {
        return Ok(HttpResponse::NoContent().finish());
    }
    Err(Problem::not_found())
}

/// A test event that is on its way.
#[derive(Serialize, ToSchema)]
pub struct WebhookTest {
    /// The event's id, the delivery's `webhook-id`.
    id: EventId,
    /// `webhook.test`.
    #[serde(rename = "type")]
    #[schema(example = json!(EventType::WebhookTest))]
    kind: EventType,
}

/// Sends a test event, `webhook.test`, to this webhook alone. How it went is in its deliveries.
#[utoipa::path(
    post, path = "/v1/admin/webhooks/{id}/test", tag = "Events", operation_id = "testWebhook",
    security(("bearer" = ["admin"])),
    params(("id" = WebhookId, Path, description = "The webhook")),
    responses(
        (status = 202, description = "On its way", body = WebhookTest),
        Problems<(ForClients, code::NotFound, code::WebhookDisabled)>,
    )
)]
pub async fn test(
    caller: Admin,
    context: web::Data<Context>,
    id: Id<WebhookId>,
) -> Result<HttpResponse, Problem> {
    let mut conn = context.pool.acquire().await?;
    let event = admin::test(&mut conn, &caller.actor, caller.client.app, id.0).await?;
    Ok(HttpResponse::Accepted().json(WebhookTest { id: event, kind: EventType::WebhookTest }))
}

/// Which events are sent once more.
#[derive(Deserialize, ToSchema)]
pub struct ReplayRequest {
    /// Those of this time or later.
    #[serde(with = "time::serde::rfc3339")]
    from: OffsetDateTime,
    /// Those before this time.
    #[serde(with = "time::serde::rfc3339")]
    to: OffsetDateTime,
}

/// What is sent once more.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// How many events.
    #[schema(minimum = 0, maximum = 10000, example = 42)]
    queued: i64,
    /// If there are more than 10,000, the time of the next one: the `from` of the next request.
    #[serde(with = "time::serde::rfc3339::option")]
    continue_from: Option<OffsetDateTime>,
}

/// Sends the events of a range of time once more, under their own ids, whether they were delivered or not. Of the events
/// that are still kept, those of the types that the webhook takes now.
#[utoipa::path(
    post, path = "/v1/admin/webhooks/{id}/replay", tag = "Events", operation_id = "replayWebhook",
    security(("bearer" = ["admin"])),
    params(("id" = WebhookId, Path, description = "The webhook")),
    request_body = ReplayRequest,
    responses(
        (status = 202, description = "On their way", body = Replay),
        Problems<(ForClients, WithJson, code::NotFound, code::WebhookDisabled)>,
    )
)]
pub async fn replay(
    caller: Admin,
    context: web::Data<Context>,
    id: Id<WebhookId>,
    body: Body<ReplayRequest>,
) -> Result<HttpResponse, Problem> {
    if body.0.from >= body.0.to {
        return Err(Problem::invalid_field("to", "must be after `from`"));
    }
    let mut conn = context.pool.acquire().await?;
    let range = (body.0.from, body.0.to);
    let (queued, continue_from) =
        admin::replay(&mut conn, &caller.actor, caller.client.app, id.0, range).await?;
    Ok(HttpResponse::Accepted().json(Replay { queued, continue_from }))
}

/// Which page of the deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeliveriesQuery {
    /// How many at most: 50 by default, up to 100.
    #[param(value_type = u8, required = false, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// The `nextCursor` of the page before.
    #[param(value_type = PageCursor, required = false)]
    cursor: Option<String>,
}

/// One page of a webhook's deliveries, the newest event first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookDeliveryList {
    /// The deliveries.
    deliveries: Vec<WebhookDelivery>,
    /// Where the next page starts; `null` on the last.
    next_cursor: Option<String>,
}

/// Lists a webhook's deliveries, the newest event first: each event with how it stands. They go with their events.
#[utoipa::path(
    get, path = "/v1/admin/webhooks/{id}/deliveries", tag = "Events", operation_id = "listWebhookDeliveries",
    security(("bearer" = ["admin"])),
    params(("id" = WebhookId, Path, description = "The webhook"), DeliveriesQuery),
    responses(
        (status = 200, description = "One page", body = WebhookDeliveryList),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn deliveries(
    caller: Admin,
    context: web::Data<Context>,
    id: Id<WebhookId>,
    query: UrlQuery<DeliveriesQuery>,
) -> Result<HttpResponse, Problem> {
    let app = caller.client.app;
    let limit = paging::limit(query.0.limit.as_deref())?;
    let cursor = query.0.cursor.as_deref().map(|text| {
        let cursor = text.parse::<EventCursor>().ok().filter(|cursor| cursor.app == app);
        let what = "must be the nextCursor of a page before";
        cursor.ok_or_else(|| Problem::invalid_field("cursor", what))
    });
    let before = cursor.transpose()?.map(|cursor| cursor.position);
    let mut conn = context.pool.acquire().await?;
    store::find(&mut conn, app, id.0).await?.ok_or_else(Problem::not_found)?;
    // One more than the page holds, to know whether there is another.
    let rows = i64::from(limit) + 1;
    let mut found = store::deliveries(&mut conn, app, id.0, before, rows).await?;
    let more = found.len() > usize::from(limit);
    found.truncate(limit.into());
    let last = found.last().filter(|_| more).map(|row| row.position);
    let next_cursor = last.map(|position| EventCursor { app, position }.to_string());
    let deliveries = found.into_iter().map(WebhookDelivery::from).collect();
    Ok(HttpResponse::Ok().json(WebhookDeliveryList { deliveries, next_cursor }))
}
