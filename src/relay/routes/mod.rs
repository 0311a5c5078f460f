//! Calls on connections' behalf: HTTP in and out, one wire a file.

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
use crate::dapi::Busy;
use crate::http::connection;
use crate::http::problem::{Problem, ProblemCode};
use crate::relay::call::{Answered, Body, RelayError, Request};
use crate::relay::queue::LeaseError;
use crate::relay::{Context, queue};

/// The largest body that is passed on to Dapi, in bytes: it is held until the answer comes.
const MAX_REQUEST: usize = 1024 * 1024;
/// Tells a caller whose answer it is: a 401 of Dapi's is not Strongroom's.
const ANSWERED_BY: HeaderName = HeaderName::from_static("strongroom-upstream");

/// Makes a call when its turn comes, and answers what Dapi answers. A caller who closes the connection before
/// gives up their place; one who has only closed their half keeps it.
async fn relay(
    req: &HttpRequest,
    context: &Context,
    request: Request,
) -> Result<HttpResponse, Problem> {
    let request = Arc::new(request);
    let asking = connection::asking(req);
    let begun = queue::begin(context, &request).await.map_err(lease_problem)?;
    drop(asking);
    // From here on the call runs whatever becomes of this request.
    let outcome = begun.await.map_err(Problem::internal)?;
    answer(outcome.map_err(no_answer)?)
}

fn answer(answered: Answered) -> Result<HttpResponse, Problem> {
    let status = StatusCode::from_u16(answered.status).map_err(Problem::internal)?;
    let mut builder = HttpResponse::build(status);
    builder.insert_header((CONTENT_TYPE, "application/json"));
    builder.insert_header((ANSWERED_BY, "dapi"));
    if let Some(request) = answered.retry_after {
        builder.insert_header((RETRY_AFTER, request.as_secs()));
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

fn lease_problem(none: LeaseError) -> Problem {
    let too_many = |detail: &'static str, seconds| {
        Problem::new(ProblemCode::TooManyRequests, detail).retry_after(seconds)
    };
    match none {
        LeaseError::Unknown => Problem::not_found(),
        LeaseError::NotActive(status) => not_active(status),
        LeaseError::NeedsAttention(attention) => needs_attention(&attention),
        LeaseError::Full => too_many(
            "As many calls wait for this connection's turn as may; Dapi takes one at a time.",
            5,
        ),
        LeaseError::TooLong => {
            too_many("Calls on this connection take so long that this one's turn did not come.", 5)
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
        LeaseError::Failed(failed) => failed.into(),
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

fn no_answer(trouble: RelayError) -> Problem {
    let failed = |detail: &'static str| Problem::new(ProblemCode::UpstreamFailed, detail);
    match trouble {
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
        RelayError::Failed(failed) => failed.into(),
    }
}
