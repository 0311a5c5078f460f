//! The routes of the relay: `call` is Strongroom's own API, `wire` is Dapi's.

pub mod call;
pub mod wire;

use std::sync::Arc;

use actix_web::body::{BodyStream, BoxBody, MessageBody as _};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use serde_json::json;

use crate::connections::model::{Attention, Status};
use crate::http::connection;
use crate::http::problem::{Problem, ProblemCode};
use crate::providers::Busy;
use crate::relay::call::{Answered, Body, RelayError, Request};
use crate::relay::queue::LeaseError;
use crate::relay::{Context, queue};

/// The largest request body that is passed on to Dapi, in bytes. It is held in memory until the answer comes.
const MAX_REQUEST: usize = 1024 * 1024;
/// Marks an answer of Dapi's, so that a caller does not mistake Dapi's 401 for Strongroom's.
const ANSWERED_BY: HeaderName = HeaderName::from_static("strongroom-upstream");

/// Waits for the token's lease, makes the call and returns Dapi's answer. A caller that closes the connection while it
/// waits loses its position; one that has only shut down its sending half keeps it.
async fn relay(
    req: &HttpRequest,
    context: &Context,
    request: Request,
) -> Result<HttpResponse, Problem> {
    let request = Arc::new(request);
    let asking = connection::asking(req);
    let begun = queue::begin(context, &request).await.map_err(lease_problem)?;
    drop(asking);
    // From here on, the call runs to its end even if this request is dropped.
    let outcome = begun.await.map_err(Problem::internal)?;
    answer(outcome.map_err(relay_problem)?)
}

fn answer(answered: Answered) -> Result<HttpResponse, Problem> {
    let status = StatusCode::from_u16(answered.status).map_err(Problem::internal)?;
    let mut builder = HttpResponse::build(status);
    builder.insert_header((CONTENT_TYPE, "application/json"));
    builder.insert_header((ANSWERED_BY, "dapi"));
    if let Some(wait) = answered.retry_after {
        builder.insert_header((RETRY_AFTER, wait.as_secs()));
    }
    let body: BoxBody = match answered.body {
        Body::Whole(bytes) => bytes.boxed(),
        Body::Streamed(first, rest) => {
            let pieces = stream::unfold((Some(first), rest), |(first, mut rest)| async move {
                let piece = match first {
                    Some(first) => Ok(first),
                    None => rest.recv().await?,
                };
                Some((piece, (None, rest)))
            });
            BodyStream::new(pieces).boxed()
        }
    };
    Ok(builder.body(body))
}

fn lease_problem(error: LeaseError) -> Problem {
    let too_many = |detail: &'static str, seconds| {
        Problem::new(ProblemCode::TooManyRequests, detail).retry_after(seconds)
    };
    match error {
        LeaseError::Unknown => Problem::not_found(),
        LeaseError::NotActive(status) => not_active(status),
        LeaseError::NeedsAttention(attention) => needs_attention(&attention),
        LeaseError::Full => {
            too_many("As many calls wait for this connection as may; Dapi takes one at a time.", 5)
        }
        LeaseError::TooLong => {
            too_many("Calls on this connection take so long that this one could not begin.", 5)
        }
        LeaseError::Gate(Busy { retry_after, held }) => {
            let detail = if held {
                "Dapi asked to be left alone with calls of this app for a while."
            } else {
                "As many calls to Dapi are under way as may."
            };
            too_many(detail, retry_after.as_secs().saturating_add(u64::from(held)).max(1))
        }
        LeaseError::Draining => Problem::unavailable("the replica is about to end"),
        LeaseError::Failed(error) => error.into(),
    }
}

fn not_active(status: Status) -> Problem {
    let detail = format!("The connection is {}.", status.as_str());
    Problem::new(ProblemCode::ConnectionNotActive, detail).with("connectionStatus", json!(status))
}

fn needs_attention(attention: &Attention) -> Problem {
    let kind = &attention.kind;
    let detail = format!("Dapi answered {kind}: the user has to link the login again.");
    let problem = Problem::new(ProblemCode::ConnectionNeedsAttention, detail);
    problem.with("attention", json!(attention))
}

fn relay_problem(error: RelayError) -> Problem {
    let failed = |detail: &'static str| Problem::new(ProblemCode::UpstreamFailed, detail);
    match error {
        RelayError::Timeout => {
            let detail = "Dapi did not answer in time; what it did is not known.";
            Problem::new(ProblemCode::UpstreamTimeout, detail)
        }
        RelayError::Unreachable => failed("Dapi could not be reached, or broke off."),
        RelayError::Unusable => {
            failed("Dapi's answer is not one of its own: no JSON object, or a redirect.")
        }
        RelayError::TooLarge => failed("Dapi's answer is larger than is passed back."),
        RelayError::NoUserSecret => {
            let detail = "The connection came through Dapi's own wire, and no call has brought its userSecret yet.";
            Problem::new(ProblemCode::UserSecretMissing, detail)
        }
        RelayError::Failed(error) => error.into(),
    }
}
