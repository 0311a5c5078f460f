//! The layers around every request: log line, trace, request id, the response to a panic, and the
//! one place where problems get their bodies.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};
use bytes::Bytes;
use futures_util::FutureExt as _;
use tracing::Span;
use tracing_actix_web::{RequestId, RootSpanBuilder};

use super::connection::{self, Flight};
use super::metrics::{Metrics, UNMATCHED, known_method};
use super::problem::Problem;
use crate::common::spans;
use crate::common::trace::TraceContext;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
// A name that is a text would be parsed, and copied, for each request.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The span of a request. It holds what an operator searches for and nothing that a caller chose,
/// which could be a secret or a name: the route's pattern rather than the path, no query, no
/// header, no body.
pub struct RequestSpan;

/// The pattern of the route that a request matches: looked up once, because the router tries all patterns again
/// each time it is asked.
struct Route(Option<String>);

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let header =
            |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        let trace = TraceContext::continued_from(header(TRACEPARENT), header(TRACESTATE));
        let request_id = request.extensions().get::<RequestId>().copied();
        let route = Route(request.match_pattern());
        let logged = trace.trace_id();
        let span = tracing::info_span!(
            "request",
            request_id = request_id.map(tracing::field::display),
            trace_id = logged,
            method = known_method(request.method()),
            route = route.0.as_deref().unwrap_or(UNMATCHED),
        );
        let trace = trace.held_by(&span);
        // A trace that begins here gets the id under which it is exported.
        if trace.trace_id() != logged {
            span.record("trace_id", trace.trace_id());
        }
        request.extensions_mut().insert(trace);
        request.extensions_mut().insert(route);
        span
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let status = match outcome {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        spans::end_request(&span, status.as_u16());
    }
}

/// Counts and logs a request, converts a panic to a problem, and renders problems.
pub async fn answer<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Answer>, Error> {
    let started = Instant::now();
    let flight = connection::begin(&req);
    let method = req.method().clone();
    let metrics = req.app_data::<web::Data<Metrics>>().cloned();
    let request_id = req.extensions().get::<RequestId>().map(ToString::to_string);

    let result = AssertUnwindSafe(next.call(req)).catch_unwind().await;
    let answered = match result {
        Ok(Ok(response)) => Ok(finish(response, request_id.as_deref(), flight)),
        Ok(Err(error)) => Err(finish_error(&error, request_id.as_deref())),
        // The hook has logged the panic, within this request's span.
        Err(_) => {
            let problem = Problem::internal("a handler panicked");
            Err(InternalError::from_response("panic", response(&problem, request_id.as_deref()))
                .into())
        }
    };

    let (status, route) = match &answered {
        Ok(response) => {
            let route = response.request().extensions_mut().remove::<Route>();
            (response.status(), route.and_then(|route| route.0))
        }
        Err(error) => (error.as_response_error().status_code(), None),
    };
    let took = started.elapsed();
    tracing::info!(
        status = status.as_u16(),
        route = route.as_deref().unwrap_or(UNMATCHED),
        micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "answered"
    );
    if let Some(metrics) = metrics {
        metrics.count(&method, route, status, took);
    }
    answered
}

/// Marks requests as in progress for the guard of connections, on a listener without the other
/// layers.
pub async fn guarded<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Answer>, Error> {
    let flight = connection::begin(&req);
    let response = next.call(req).await?.map_into_boxed_body();
    Ok(response.map_body(|_, body| Answer { body, _flight: flight }))
}

/// Completes a handler's response: problems get their bodies, and every response its headers.
fn finish<B: MessageBody + 'static>(
    response: ServiceResponse<B>,
    request_id: Option<&str>,
    flight: Option<Flight>,
) -> ServiceResponse<Answer> {
    let problem = problem_of(&response);
    let mut response = match problem {
        None => response.map_into_boxed_body(),
        Some((headers, body)) => response.map_body(|head, _| {
            let kept = head.headers_mut();
            for (name, value) in headers {
                kept.append(name, value);
            }
            kept.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
            BoxBody::new(body)
        }),
    };
    common_headers(response.headers_mut(), request_id);
    response.map_body(|_, body| Answer { body, _flight: flight })
}

/// A response's body. The request is in progress until its last byte.
pub struct Answer {
    body: BoxBody,
    _flight: Option<Flight>,
}

impl MessageBody for Answer {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

type ProblemParts = (Vec<(HeaderName, HeaderValue)>, String);

/// Returns the problem of a response: a handler's, or one for an error or an empty refusal of the
/// framework.
fn problem_of<B: MessageBody>(response: &ServiceResponse<B>) -> Option<ProblemParts> {
    let status = response.status();
    let request_id = response.request().extensions().get::<RequestId>().map(ToString::to_string);
    let error = response.response().error();
    if let Some(problem) = error.and_then(|error| error.as_error::<Problem>()) {
        return Some((problem.headers().to_vec(), problem.body(request_id).to_string()));
    }
    let refused = status.is_client_error() || status.is_server_error();
    let empty = matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0));
    let own = error.is_some() && !response.headers().contains_key(CONTENT_TYPE);
    (refused && (empty || own))
        .then(|| (Vec::new(), Problem::of_status(status).body(request_id).to_string()))
}

/// Completes an error that a layer returned in place of a response.
fn finish_error(error: &Error, request_id: Option<&str>) -> Error {
    let status = error.as_response_error().status_code();
    let answer = match error.as_error::<Problem>() {
        Some(problem) => response(problem, request_id),
        None => response(&Problem::of_status(status), request_id),
    };
    InternalError::from_response("refused", answer).into()
}

fn response(problem: &Problem, request_id: Option<&str>) -> HttpResponse {
    let mut builder = HttpResponse::build(actix_web::ResponseError::status_code(problem));
    for (name, value) in problem.headers() {
        builder.append_header((name.clone(), value.clone()));
    }
    let body = problem.body(request_id.map(str::to_owned)).to_string();
    let mut response = builder.content_type("application/problem+json").body(body);
    common_headers(response.headers_mut(), request_id);
    response
}

/// Adds the headers of every response. Caching is off unless a handler has turned it on.
fn common_headers(headers: &mut HeaderMap, request_id: Option<&str>) {
    if let Some(id) = request_id.and_then(|id| HeaderValue::from_str(id).ok()) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
