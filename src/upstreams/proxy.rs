//! A call through an upstream: the caller's request with the upstream's bearer token, which the caller
//! never sees.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use zeroize::Zeroizing;

use super::acquire::{self, AcquireOutcome, AcquiredToken, Purpose};
use super::{Context, Failed, UpstreamToken};
use crate::base::actor::Actor;
use crate::base::ids::AppId;
use crate::base::trace::TraceContext;
use crate::outbound::{NoAnswer, OutboundUrl};

/// How long a call may take, from the caller's request to the last byte of the answer.
const TIME_LIMIT: Duration = Duration::from_mins(2);

/// A call to be made. The body is held, so that it can be sent again.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Still encoded, checked, without a slash at its head.
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trace: TraceContext,
}

/// What became of a call.
#[derive(Debug)]
pub(super) enum Called {
    /// The upstream's answer, whatever it is; its body is still to come.
    Answer(Response),
    /// There is no token: see why.
    NoToken(AcquireOutcome),
    /// The upstream has no base URL.
    NoBaseUrl,
    /// No answer.
    NoAnswer(NoAnswer),
}

/// Makes a call. Where the upstream's API refuses the token (401), another is fetched and the call is
/// made once more; nothing else is repeated.
pub(super) async fn call(
    context: &Context,
    actor: &Actor,
    app: AppId,
    name: &str,
    call: &Call,
) -> Result<Called, Failed> {
    let deadline = Instant::now() + TIME_LIMIT;
    let purpose = Purpose::Call(call.method.as_str(), &call.path);
    let lent = match acquire::acquire(context, actor, app, name, purpose).await? {
        AcquireOutcome::Token(lent) => lent,
        none => return Ok(Called::NoToken(none)),
    };
    let first = send(context, &lent, call, deadline).await;
    if !matches!(&first, Called::Answer(answer) if answer.status() == StatusCode::UNAUTHORIZED) {
        return Ok(first);
    }
    acquire::renew(context, app, &lent).await;
    match acquire::acquire(context, actor, app, name, purpose).await? {
        AcquireOutcome::Token(again) if again.epoch != lent.epoch => {
            context.metrics.renewed.inc();
            Ok(send(context, &again, call, deadline).await)
        }
        // There is no other token: the refusal stands.
        _ => Ok(first),
    }
}

async fn send(context: &Context, lent: &AcquiredToken, call: &Call, deadline: Instant) -> Called {
    let Some(base) = &lent.base_url else { return Called::NoBaseUrl };
    let base = OutboundUrl::parse_base(base, context.outbound.reach()).ok();
    let url = base.and_then(|base| base.under(&call.path, call.query.as_deref()));
    let Some(url) = url else { return Called::NoAnswer(NoAnswer::NotAllowed) };
    let limit = deadline.saturating_duration_since(Instant::now());
    let mut headers = call.headers.clone();
    headers.insert(AUTHORIZATION, bearer(&lent.token));
    let mut request = context.outbound.request(call.method.clone(), &url, limit).headers(headers);
    request = request.header("traceparent", call.trace.traceparent());
    if let Some(state) = call.trace.tracestate() {
        request = request.header("tracestate", state);
    }
    if !call.body.is_empty() {
        request = request.body(call.body.clone());
    }
    match request.send().await {
        Ok(answer) => Called::Answer(answer),
        Err(error) => Called::NoAnswer(NoAnswer::from(&error)),
    }
}

fn bearer(token: &UpstreamToken) -> HeaderValue {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()));
    // A token is visible ASCII: that was checked when it came.
    let value = HeaderValue::from_str(&text);
    let mut value = value.unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}
