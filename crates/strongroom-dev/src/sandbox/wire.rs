//! Dapi's API over HTTP: requests in, answers and faults out.
//!
//! `POST /v2/…` names the endpoint by its path; `POST /`, which SDKs inside apps use, names it by the body's
//! `action`. A call that arrived is carried out even if its caller disconnects, as a bank would.
//!
//! May import: actix, and the modules of the sandbox that it combines.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::ThinData;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Sandbox;
use super::answer::{Answer, Refusal, reason};
use super::api::{self, Call, State};
use super::calls::{Arrival, Entry};
use super::cut::{Cut, Flood};
use super::endpoint::{Deed, Endpoint};
use super::faults::{Effect, Fault, Status, Strike, When};
use super::model::TokenUse;

/// The longest body that is read, in bytes.
pub(super) const LONGEST_BODY: usize = 1024 * 1024;
/// How long a call hangs at most.
const LONGEST_HANG: Duration = Duration::from_mins(10);
/// How much of a caller's `traceparent` is kept; a standard one is 55 characters long.
const LONGEST_TRACEPARENT: usize = 128;

const NOT_JSON: &str = "<!doctype html><title>Sandbox</title>This is not the JSON you are after.\n";

/// Answers everything that is neither the control API nor Connect.
pub(super) async fn dapi(
    request: HttpRequest,
    ThinData(sandbox): ThinData<Sandbox>,
    body: Result<Bytes, actix_web::Error>,
) -> HttpResponse {
    match read(&request, body) {
        Ok(call) => Visit::arrive(&sandbox.0, &request, call).answer().await,
        Err(refusal) => {
            let entry = sandbox.0.calls.note(unknown(&sandbox.0, &request));
            entry.outcome(refusal.kind.clone());
            send(&Answer::refused(None, refusal))
        }
    }
}

/// Parses a request; identity and permission are checked later.
fn read(request: &HttpRequest, body: Result<Bytes, actix_web::Error>) -> Result<Call, Refusal> {
    let pass_through = request.path() == "/";
    let known = Endpoint::at(request.path());
    if known.is_none() && !pass_through {
        return Err(reason::NOT_FOUND.because("no such path; GET /sandbox lists them"));
    }
    if request.method() != Method::POST {
        return Err(reason::METHOD_NOT_ALLOWED.because("Dapi's API is POST throughout"));
    }
    let body = body.map_err(|_| reason::BODY_TOO_LARGE.because("the body is too large"))?;
    let fields = api::read_fields(&body)?;
    let endpoint = match known {
        Some(endpoint) => endpoint,
        None => fields
            .get("action")
            .and_then(Value::as_str)
            .and_then(Endpoint::at)
            .ok_or_else(|| reason::PARAMETER_ERROR.because("action names no endpoint"))?,
    };
    Ok(Call { endpoint, bearer: bearer(request), fields })
}

pub(super) fn bearer(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

pub(super) fn traceparent(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get("traceparent")?.to_str().ok()?;
    (value.len() <= LONGEST_TRACEPARENT).then(|| value.to_owned())
}

fn unknown(state: &State, request: &HttpRequest) -> Arrival {
    Arrival {
        path: Endpoint::at(request.path()).map_or("(unknown)", |endpoint| endpoint.path),
        at: state.clock.now(),
        connection_id: None,
        token_id: None,
        traceparent: traceparent(request),
        pass_through: request.path() == "/",
        fault: None,
        exchange: false,
    }
}

/// A call between its arrival and its answer.
struct Visit {
    state: Arc<State>,
    call: Call,
    token_use: Option<TokenUse>,
    strike: Option<Strike>,
    entry: Entry,
}

/// How a visit ends.
enum End {
    Answer(Answer),
    /// A fault, with the answer that it corrupts if the work was done.
    Fault(Fault, Option<Answer>),
}

impl Visit {
    fn arrive(state: &Arc<State>, request: &HttpRequest, call: Call) -> Self {
        let token = call.bearer.as_deref().and_then(|bearer| state.links.token(bearer));
        let exchange = call.endpoint.deed == Deed::Exchange;
        let text = |name: &str| call.fields.get(name).and_then(Value::as_str);
        let (token_id, connection_id) = if exchange {
            let code = text("accessCode").and_then(|code| state.links.token_id_of_code(code));
            (code, text("connectionID").filter(|_| code.is_some()))
        } else {
            let login = token.as_ref().map(|token| &*token.login().connection_id);
            (token.as_ref().map(|token| token.id), login)
        };
        // Before the journal records the call: a caller that waits for the record and then uses the same token
        // is certain to overlap with this call.
        let token_use = token.clone().map(TokenUse::begin);
        let strike = state.faults.take(call.endpoint.path, connection_id);
        let entry = state.calls.note(Arrival {
            path: call.endpoint.path,
            connection_id: connection_id.map(str::to_owned),
            token_id,
            fault: strike.as_ref().map(|strike| strike.fault.name()),
            exchange,
            ..unknown(state, request)
        });
        Self { state: Arc::clone(state), token_use, call, strike, entry }
    }

    /// Carries out the call, in a task of its own if that takes time.
    async fn answer(self) -> HttpResponse {
        let end = if self.strike.is_none() && self.state.rules().latency.is_zero() {
            End::Answer(self.perform())
        } else {
            match actix_web::rt::spawn(self.carry_out()).await {
                Ok(end) => end,
                Err(_) => return cut_off(),
            }
        };
        match end {
            End::Answer(answer) => send(&answer),
            End::Fault(fault, answer) => spoil(fault.effect, answer.as_ref()),
        }
    }

    fn perform(&self) -> Answer {
        let done = self.state.perform(&self.call, self.token_use.as_ref());
        if let Some(token_id) = done.exchanged {
            self.entry.exchanged(token_id);
        }
        self.entry.outcome(done.answer.outcome.clone());
        done.answer
    }

    async fn carry_out(mut self) -> End {
        pause(self.state.rules().latency).await;
        let Some(Strike { fault, release }) = self.strike.take() else {
            return End::Answer(self.perform());
        };
        let struck_before = fault.strikes() == When::Before;
        if struck_before {
            wait(&fault, &release).await;
            if fault.effect != Effect::Answer {
                hang_if_told(&fault, &release).await;
                return End::Fault(fault, None);
            }
        }
        let answer = self.perform();
        if struck_before {
            return End::Answer(answer);
        }
        wait(&fault, &release).await;
        hang_if_told(&fault, &release).await;
        if fault.effect == Effect::Answer {
            return End::Answer(answer);
        }
        End::Fault(fault, Some(answer))
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Waits for the fault's delay, or until the faults are cleared.
pub(super) async fn wait(fault: &Fault, release: &CancellationToken) {
    if !fault.delay().is_zero() {
        // Timed out or released: in both cases the call goes on.
        let _ = tokio::time::timeout(fault.delay(), release.cancelled()).await;
    }
}

pub(super) async fn hang_if_told(fault: &Fault, release: &CancellationToken) {
    if fault.effect == Effect::Hang {
        // Timed out or released: in both cases the connection is cut.
        let _ = tokio::time::timeout(LONGEST_HANG, release.cancelled()).await;
    }
}

fn send(answer: &Answer) -> HttpResponse {
    json(answer.status).body(answer.to_bytes())
}

fn json(status: u16) -> HttpResponseBuilder {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut builder = HttpResponse::build(status);
    builder.insert_header((header::CONTENT_TYPE, "application/json"));
    builder
}

fn cut_off() -> HttpResponse {
    HttpResponse::Ok().body(Cut::at_once())
}

/// Sends what a fault makes of an answer; if the work was not done, of an empty one.
fn spoil(effect: Effect, answer: Option<&Answer>) -> HttpResponse {
    let bytes = Bytes::from(answer.map_or_else(|| b"{}".to_vec(), Answer::to_bytes));
    spoil_text(effect, answer.map_or(200, |answer| answer.status), bytes)
}

/// Sends what a fault makes of a status and its JSON.
pub(super) fn spoil_text(effect: Effect, code: u16, bytes: Bytes) -> HttpResponse {
    match effect {
        Effect::Answer | Effect::Drop | Effect::Hang => cut_off(),
        Effect::HalfAnswer => json(code).body(Cut::half_of(bytes)),
        Effect::Garbage => json(200).body(NOT_JSON),
        Effect::Huge(huge) => {
            json(code).body(Flood::before(&bytes, huge.bytes, huge.content_length))
        }
        Effect::Status(status) => not_of_dapi(status),
        Effect::Refuse(refuse) => send(&Answer::refused(
            None,
            Refusal { status: refuse.status, kind: refuse.kind.into(), msg: refuse.msg },
        )),
    }
}

/// Builds an answer that Dapi's API did not create.
fn not_of_dapi(status: Status) -> HttpResponse {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut builder = HttpResponse::build(code);
    builder.insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"));
    for (name, value) in &status.headers {
        if name.eq_ignore_ascii_case("connection") {
            builder.force_close();
            continue;
        }
        // Both were checked when the fault was set.
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            builder.insert_header((name, value));
        }
    }
    builder.body(status.body)
}
