//! `* /v1/upstreams/{name}/proxy/{path}`: a call through an upstream.

use actix_web::body::{BodyStream, SizedStream};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{name, no_token, unknown};
use crate::http::body::read_passed;
use crate::http::caller::{Authorized, needs};
use crate::http::concurrency::ConcurrencyPermit;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{Anything, Calling, ForClients, Problems, WithBody};
use crate::outbound::NoAnswer;
use crate::upstreams::model::UpstreamName;
use crate::upstreams::proxy::{self, Call, CallOutcome};
use crate::upstreams::{Context, headers, path};

/// The maximum size of a request's body, in bytes: it is held until the response arrives.
const MAX_REQUEST: usize = 1024 * 1024;
/// The maximum size of a response's body, in bytes: it is streamed and never held.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Marks the upstream's responses: a 401 of the upstream is not Strongroom's.
const ANSWERED_BY: HeaderName = HeaderName::from_static("strongroom-upstream");

macro_rules! operations {
    ($($method:ident $id:literal { $($body:tt)* })*) => { $(
        /// A call through an upstream: method, path, query, headers and body as they come, with the
        /// upstream's bearer token, which the caller never sees.
        ///
        /// The answer is the upstream's as it is, whatever its status, with the header
        /// `Strongroom-Upstream`; without that header it is Strongroom's own. If the upstream
        /// refuses the token (401), another one is fetched and the call is sent once more.
        #[utoipa::path(
            $method, path = "/v1/upstreams/{name}/proxy/{path}", tag = "Upstreams", operation_id = $id,
            security(("bearer" = ["upstreams:use"])),
            params(
                ("name" = UpstreamName, Path, description = "The upstream"),
                ("path" = String, Path, description = "The path under its base URL; may hold slashes", example = "contacts"),
            ),
            $($body)*
            responses(
                (status = 200, description = "The upstream's answer, with the headers and the body that it sent", content_type = "*/*", body = Anything, headers(("Strongroom-Upstream" = String, description = "The upstream's name"))),
                (status = "default", description = "The upstream's answer with any other status", content_type = "*/*", body = Anything, headers(("Strongroom-Upstream" = String, description = "The upstream's name"))),
                Problems<(ForClients, WithBody, Calling, code::NotFound)>,
            )
        )]
        pub async fn $method(
            caller: Authorized<needs::UpstreamsUse>,
            context: web::Data<Context>,
            req: HttpRequest,
            payload: web::Payload,
        ) -> Result<HttpResponse, Problem> {
            pass(caller, context, req, payload).await
        }
    )* };
}
operations! {
    get "getThroughUpstream" {}
    post "postThroughUpstream" { request_body(content = Option<Anything>, content_type = "*/*", description = "Anything, up to 1 MiB"), }
    put "putThroughUpstream" { request_body(content = Option<Anything>, content_type = "*/*", description = "Anything, up to 1 MiB"), }
    patch "patchThroughUpstream" { request_body(content = Option<Anything>, content_type = "*/*", description = "Anything, up to 1 MiB"), }
    delete "deleteThroughUpstream" { request_body(content = Option<Anything>, content_type = "*/*", description = "Anything, up to 1 MiB"), }
}

/// Passes one call of any method.
pub async fn pass(
    caller: Authorized<needs::UpstreamsUse>,
    context: web::Data<Context>,
    req: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let (app, name) = (caller.client.app, name(&req)?);
    let permit = context.calls.take(app)?;
    let hold = Hold { _permit: permit, _task: context.tasks.token() };
    let call = read(&caller, &req, payload).await?;
    match proxy::call(&context, &caller.actor, app, name, &call).await? {
        CallOutcome::Answer(answer) => answered(&context, name, answer, hold),
        CallOutcome::NoToken(outcome) => Err(no_token(outcome)),
        CallOutcome::NoBaseUrl => {
            let detail = "This upstream has no baseURL; only its token can be had.";
            Err(Problem::new(ProblemCode::NotFound, detail))
        }
        CallOutcome::NoAnswer(what) => Err(no_answer(&context, &what)),
    }
}

/// Held until the response is passed back: the permit of the call, and a token that shutdown waits
/// for.
struct Hold {
    _permit: ConcurrencyPermit,
    _task: TaskTrackerToken,
}

async fn read(
    caller: &Authorized<needs::UpstreamsUse>,
    req: &HttpRequest,
    payload: web::Payload,
) -> Result<Call, Problem> {
    let raw = raw_path(req).ok_or_else(unknown)?;
    path::check(raw).map_err(|what| Problem::invalid_field("path", what))?;
    let method = reqwest::Method::from_bytes(req.method().as_str().as_bytes());
    let method = method.map_err(|_| Problem::invalid_field("method", "is none"))?;
    let connection = req.headers().get_all("connection").map(HeaderValue::as_bytes);
    let listed = headers::connection_options(connection);
    let passed = req
        .headers()
        .iter()
        .filter(|(name, _)| headers::passes_to_upstream(name.as_str(), &listed));
    let mut headers = reqwest::header::HeaderMap::new();
    for (name, value) in passed {
        let name = reqwest::header::HeaderName::from_bytes(name.as_str().as_bytes());
        let value = reqwest::header::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    Ok(Call {
        method,
        path: raw.to_owned(),
        query: req.uri().query().map(str::to_owned),
        headers,
        body: read_passed(req, payload, MAX_REQUEST).await?,
        trace: caller.trace.clone(),
    })
}

/// Returns the path behind `/v1/upstreams/{name}/proxy/` as it arrived: the router's own copy is
/// decoded.
fn raw_path(req: &HttpRequest) -> Option<&str> {
    req.uri().path().splitn(6, '/').nth(5)
}

fn no_answer(context: &Context, what: &NoAnswer) -> Problem {
    let (code, outcome, detail) = match what {
        NoAnswer::Timeout => {
            (ProblemCode::UpstreamTimeout, "timeout", "The upstream did not answer in time.")
        }
        NoAnswer::NotAllowed => {
            let detail = "The upstream's baseURL leads to an address that may not be reached.";
            (ProblemCode::UpstreamFailed, "failed", detail)
        }
        NoAnswer::Unreachable(what) => {
            tracing::warn!(what, "an upstream could not be called");
            let detail = "The upstream could not be reached, or broke off.";
            (ProblemCode::UpstreamFailed, "failed", detail)
        }
    };
    context.metrics.call(outcome);
    Problem::new(code, detail)
}

fn answered(
    context: &Context,
    name: &str,
    answer: reqwest::Response,
    hold: Hold,
) -> Result<HttpResponse, Problem> {
    let length = answer.headers().get("content-length").and_then(|value| value.to_str().ok());
    let length: Option<u64> = length.and_then(|text| text.parse().ok());
    if length.is_some_and(|length| length > MAX_ANSWER) {
        context.metrics.call("too_large");
        let detail = format!("The upstream's answer is larger than {MAX_ANSWER} bytes.");
        return Err(Problem::new(ProblemCode::UpstreamFailed, detail));
    }
    context.metrics.call("answered");
    let status = StatusCode::from_u16(answer.status().as_u16()).map_err(Problem::internal)?;
    let mut builder = HttpResponse::build(status);
    copy_headers(&mut builder, answer.headers());
    builder.insert_header((ANSWERED_BY, name));
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(builder.finish());
    }
    let stream = bounded(answer, hold);
    // An empty response is streamed too: empty refusals of our own become problems, the upstream's
    // stay as they are.
    Ok(match length {
        Some(length) if length > 0 => builder.body(SizedStream::new(length, stream)),
        _ => builder.body(BodyStream::new(stream)),
    })
}

fn copy_headers(builder: &mut HttpResponseBuilder, from: &reqwest::header::HeaderMap) {
    let connection = from.get_all("connection").iter();
    let listed =
        headers::connection_options(connection.map(reqwest::header::HeaderValue::as_bytes));
    for (name, value) in from {
        if !headers::passes_to_caller(name.as_str(), &listed) {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            builder.append_header((name, value));
        }
    }
}

/// Streams a response's body as the caller reads it. If it is too large or breaks off, the
/// connection ends, so that the caller cannot mistake a part for the whole.
fn bounded(
    answer: reqwest::Response,
    hold: Hold,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    try_unfold((answer, hold, MAX_ANSWER), |(mut answer, hold, left)| async move {
        let chunk = answer.chunk().await.map_err(|_| std::io::Error::other("it broke off"))?;
        let Some(chunk) = chunk else { return Ok(None) };
        let left = left.checked_sub(chunk.len() as u64);
        let left = left.ok_or_else(|| std::io::Error::other("it is too large"))?;
        Ok(Some((chunk, (answer, hold, left))))
    })
}
