//! Calls through an upstream: the caller's request with the upstream's bearer token, which the
//! caller never sees.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use zeroize::Zeroizing;

use super::acquire::{self, AcquireOutcome, AcquiredToken, Purpose};
use super::{Context, UpstreamError, UpstreamToken};
use crate::common::actor::Actor;
use crate::common::ids::AppId;
use crate::common::spans;
use crate::common::trace::TraceContext;
use crate::outbound::{NoAnswer, OutboundUrl};

/// The time limit of a call, from the caller's request to the last byte of the response.
const TIME_LIMIT: Duration = Duration::from_mins(2);

/// A call to be sent. The body is kept, so that it can be sent twice.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Still encoded, checked, without a leading slash.
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trace: TraceContext,
}

/// The outcome of a call.
#[derive(Debug)]
pub(super) enum CallOutcome {
    /// The upstream's response, whatever its status; the body is still to be read.
    Answer(Response),
    /// There is no token.
    NoToken(AcquireOutcome),
    /// The upstream has no base URL.
    NoBaseUrl,
    /// No response.
    NoAnswer(NoAnswer),
}

/// Sends a call. If the upstream's API refuses the token (401), fetches another and sends the call
/// once more; nothing else is retried.
pub(super) async fn call(
    context: &Context,
    actor: &Actor,
    app: AppId,
    name: &str,
    call: &Call,
) -> Result<CallOutcome, UpstreamError> {
    let deadline = Instant::now() + TIME_LIMIT;
    let purpose = Purpose::Call(call.method.as_str(), &call.path);
    let acquired = match acquire::acquire(context, actor, app, name, purpose).await? {
        AcquireOutcome::Token(acquired) => acquired,
        none => return Ok(CallOutcome::NoToken(none)),
    };
    let first = send(context, &acquired, call, deadline).await;
    if !matches!(&first, CallOutcome::Answer(answer) if answer.status() == StatusCode::UNAUTHORIZED)
    {
        return Ok(first);
    }
    acquire::renew(context, app, &acquired).await;
    match acquire::acquire(context, actor, app, name, purpose).await? {
        AcquireOutcome::Token(again) if again.epoch != acquired.epoch => {
            context.metrics.renewed.inc();
            Ok(send(context, &again, call, deadline).await)
        }
        // There is no newer token: the refusal stands.
        _ => Ok(first),
    }
}

async fn send(
    context: &Context,
    acquired: &AcquiredToken,
    call: &Call,
    deadline: Instant,
) -> CallOutcome {
    let Some(base) = &acquired.base_url else { return CallOutcome::NoBaseUrl };
    let base = OutboundUrl::parse_base(base, context.outbound.reach()).ok();
    let url = base.and_then(|base| base.under(&call.path, call.query.as_deref()));
    let Some(url) = url else { return CallOutcome::NoAnswer(NoAnswer::NotAllowed) };
    let limit = deadline.saturating_duration_since(Instant::now());
    let mut headers = call.headers.clone();
    headers.insert(AUTHORIZATION, bearer(&acquired.token));
    let mut request = context.outbound.request(call.method.clone(), &url, limit).headers(headers);
    request = request.header("traceparent", call.trace.traceparent());
    if let Some(state) = call.trace.tracestate() {
        request = request.header("tracestate", state);
    }
    if !call.body.is_empty() {
        request = request.body(call.body.clone());
    }
    match spans::call("upstream call", &call.method, url.url(), request.send()).await {
        Ok(answer) => CallOutcome::Answer(answer),
        Err(error) => CallOutcome::NoAnswer(NoAnswer::from(&error)),
    }
}

fn bearer(token: &UpstreamToken) -> HeaderValue {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()));
    // `wire` accepts tokens of visible ASCII alone.
    let value = HeaderValue::from_str(&text);
    let mut value = value.unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}
