//! `POST /hooks/plaid/{app}`: Plaid's webhooks.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::connections::Context;
use crate::connections::webhooks::{Outcome, Receiver, read, record};
use crate::http::body::MAX_BODY;
use crate::http::body_pool::BodyPool;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{AnyObject, Problems, WithBody};
use crate::http::{caller, detached};

/// The header that carries the signature.
const HEADER: &str = "plaid-verification";

/// A webhook of Plaid's about an item of this app. Plaid signs it; there are no other credentials.
#[utoipa::path(
    post, path = "/hooks/plaid/{app}", tag = "Webhooks",
    operation_id = "receivePlaidWebhook",
    security(()),
    params(
        ("app" = String, Path, description = "The app's name", example = "plaid"),
        ("Plaid-Verification" = Option<String>, Header, description = "A JWT (ES256) with `iat` and `request_body_sha256`"),
    ),
    request_body(content = AnyObject, description = "As Plaid sends it", content_type = "application/json"),
    responses(
        (status = 200, description = "Received, now or before"),
        Problems<(WithBody, code::InvalidRequest, code::TooManyRequests, code::Internal, code::Unavailable, code::KeysUnavailable)>,
    )
)]
pub async fn plaid(
    req: HttpRequest,
    payload: web::Payload,
    app: web::Path<String>,
    context: web::Data<Context>,
    receiver: web::Data<Receiver>,
    bodies: web::Data<BodyPool>,
) -> Result<HttpResponse, Problem> {
    let outcome = receive(&req, payload, &app, &context, &receiver, &bodies).await?;
    context.metrics.webhook(outcome);
    match outcome {
        Outcome::Applied | Outcome::Kept | Outcome::Ignored | Outcome::Repeated => {
            Ok(HttpResponse::Ok().finish())
        }
        Outcome::Failed => {
            let detail = "The webhook cannot be checked at the moment.";
            Err(Problem::new(ProblemCode::Unavailable, detail).retry_after(5))
        }
        // One answer for all: a forger learns nothing from it.
        Outcome::Unsigned
        | Outcome::Stale
        | Outcome::Altered
        | Outcome::UnknownApp
        | Outcome::Forged => {
            let detail = "This is no webhook of Plaid's for an app here.";
            Err(Problem::new(ProblemCode::InvalidRequest, detail))
        }
    }
}

async fn receive(
    req: &HttpRequest,
    payload: web::Payload,
    app: &str,
    context: &Context,
    receiver: &Receiver,
    bodies: &BodyPool,
) -> Result<Outcome, Problem> {
    let header = req.headers().get(HEADER).and_then(|value| value.to_str().ok());
    let verification = match receiver.read(header) {
        Ok(verification) => verification,
        Err(outcome) => return Ok(outcome),
    };
    let body = bodies.read(req, caller::address(req), payload, MAX_BODY).await?;
    let app = match receiver.verify(context, app, &verification, &body).await {
        Ok(app) => app,
        Err(outcome) => return Ok(outcome),
    };
    let Some(webhook) = read(context, &body) else { return Ok(Outcome::Ignored) };
    drop(body);
    let (digest, issued_at) = (verification.digest(), verification.issued_at());
    let recording = {
        let context = context.clone();
        async move { record(&context, app, digest, issued_at, &webhook).await }
    };
    Ok(detached(&context.tasks, recording).await?.unwrap_or_else(|error| {
        tracing::warn!(cause = %error, "a webhook could not be recorded");
        Outcome::Failed
    }))
}
