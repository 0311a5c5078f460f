//! Spans of requests and of calls to other systems, in the names of OpenTelemetry's semantic conventions for HTTP
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>). They hold no path, query, header or body.
//!
//! Spans of calls are of level TRACE, as those of statements: at DEBUG and above, every line of a request has the request's
//! span as its own. They cost a comparison if nothing listens.

use opentelemetry::trace::TraceContextExt as _;
use reqwest::{Response, Url};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Creates the span of one call to another system. `name` is one of few: what is called, and what for.
#[must_use]
pub fn of_call(name: &'static str, url: &Url) -> Span {
    tracing::trace_span!(
        "call",
        otel.name = name,
        otel.kind = "client",
        server.address = url.host_str(),
        server.port = url.port_or_known_default().map(i64::from),
        http.request.method = Empty,
        http.response.status_code = Empty,
        error.r#type = Empty,
    )
}

/// Makes one call in a span of its own: `request` as it is sent by `method`, up to the answer's head.
///
/// # Errors
/// As of `request`.
pub async fn call(
    name: &'static str,
    method: &reqwest::Method,
    url: &Url,
    request: impl Future<Output = reqwest::Result<Response>>,
) -> reqwest::Result<Response> {
    let span = of_call(name, url);
    if span.is_disabled() {
        return request.await;
    }
    span.record("http.request.method", method.as_str());
    let answer = request.instrument(span.clone()).await;
    match &answer {
        Ok(response) => record_status(&span, response.status().as_u16(), 400),
        Err(error) if error.is_timeout() => record_error(&span, "timeout"),
        Err(error) if error.is_connect() => record_error(&span, "connect"),
        Err(_) => record_error(&span, "_OTHER"),
    }
    answer
}

/// Links the span of work that several callers share with the span of each caller, in both directions.
pub fn link<'a>(shared: &Span, callers: impl Iterator<Item = &'a Span> + Clone) {
    // All links of the shared span first: they decide whether it is exported.
    for caller in callers.clone() {
        shared.follows_from(caller);
    }
    for caller in callers {
        caller.follows_from(shared);
    }
}

/// Records that a call brought nothing. `kind` is one of few.
pub fn record_error(span: &Span, kind: &'static str) {
    span.record("error.type", kind);
}

fn record_status(span: &Span, status: u16, least_error: u16) {
    span.record("http.response.status_code", i64::from(status));
    if status >= least_error {
        span.record("error.type", status.to_string());
    }
}

/// Ends the exported span of a request with the answer's status. Tasks that the request began may still hold the span
/// itself, for minutes, and must not lengthen it.
pub fn end_request(span: &Span, status: u16) {
    let context = span.context();
    let exported = context.span();
    if exported.is_recording() {
        // Past the span's fields, which are repeated on every line of the log.
        span.set_attribute("http.response.status_code", i64::from(status));
        if status >= 500 {
            span.set_attribute("error.type", status.to_string());
        }
        exported.end();
    }
}
