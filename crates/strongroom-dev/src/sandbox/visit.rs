//! A call to one of the sandbox's APIs, from its arrival to its answer: the fault that strikes it, its record, the
//! latency, its work.
//!
//! A call that arrived is carried out even if its caller disconnects, as a bank would.
//!
//! May import: actix, calls, common, cut, faults.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::calls::{Arrival, Entry};
use super::common::Common;
use super::cut::{Cut, Flood};
use super::faults::{Effect, Fault, Refuse, Status, Strike, When};

/// How long a call hangs at most.
const LONGEST_HANG: Duration = Duration::from_mins(10);
/// How much of a caller's `traceparent` is kept; a standard one is 55 characters long.
const LONGEST_TRACEPARENT: usize = 128;

const NOT_JSON: &str = "<!doctype html><title>Sandbox</title>This is not the JSON you are after.\n";

/// A JSON answer before a fault corrupts it.
pub(super) struct Reply {
    pub(super) status: u16,
    /// The outcome for the journal.
    pub(super) outcome: Cow<'static, str>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn send(self) -> HttpResponse {
        json(self.status).body(self.body)
    }
}

/// What an API does with a call.
pub(super) trait Work: 'static {
    /// Carries out the call; `entry` is its record.
    fn perform(&self, entry: &Entry) -> Reply;

    /// Creates a refusal on demand in the API's form.
    fn refusal(refuse: Refuse) -> Reply;
}

/// A call between its arrival and its answer.
pub(super) struct Visit<W> {
    common: Arc<Common>,
    work: W,
    strike: Option<Strike>,
    entry: Entry,
}

/// How a visit ends.
enum End {
    Answer(Reply),
    /// A fault, with the answer that it corrupts if the work was done.
    Fault(Fault, Option<Reply>),
}

impl<W: Work> Visit<W> {
    /// Records the call and decides which fault strikes it.
    pub(super) fn arrive(common: &Arc<Common>, arrival: Arrival, work: W) -> Self {
        let strike = common.faults.take(arrival.path, arrival.connection_id.as_deref());
        let fault = strike.as_ref().map(|strike| strike.fault.name());
        let entry = common.calls.note(Arrival { fault, ..arrival });
        Self { common: Arc::clone(common), work, strike, entry }
    }

    /// Carries out the call, in a task of its own if that takes time.
    pub(super) async fn answer(self) -> HttpResponse {
        let end = if self.strike.is_none() && self.common.rules().latency.is_zero() {
            End::Answer(self.perform())
        } else {
            match actix_web::rt::spawn(self.carry_out()).await {
                Ok(end) => end,
                Err(_) => return cut_off(),
            }
        };
        match end {
            End::Answer(reply) => reply.send(),
            End::Fault(fault, reply) => spoil(fault.effect, reply, W::refusal),
        }
    }

    fn perform(&self) -> Reply {
        let reply = self.work.perform(&self.entry);
        self.entry.outcome(reply.outcome.clone());
        reply
    }

    async fn carry_out(mut self) -> End {
        pause(self.common.rules().latency).await;
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
        let reply = self.perform();
        if struck_before {
            return End::Answer(reply);
        }
        wait(&fault, &release).await;
        hang_if_told(&fault, &release).await;
        if fault.effect == Effect::Answer {
            return End::Answer(reply);
        }
        End::Fault(fault, Some(reply))
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

pub(super) fn traceparent(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get("traceparent")?.to_str().ok()?;
    (value.len() <= LONGEST_TRACEPARENT).then(|| value.to_owned())
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

/// Sends what a fault makes of an answer; if the work was not done, of an empty one. `refusal` creates a refusal in
/// the API's form.
pub(super) fn spoil(
    effect: Effect,
    reply: Option<Reply>,
    refusal: fn(Refuse) -> Reply,
) -> HttpResponse {
    let (code, bytes) = reply.map_or_else(
        || (200, Bytes::from_static(b"{}")),
        |reply| (reply.status, reply.body.into()),
    );
    match effect {
        Effect::Answer | Effect::Drop | Effect::Hang => cut_off(),
        Effect::HalfAnswer => json(code).body(Cut::half_of(bytes)),
        Effect::Garbage => json(200).body(NOT_JSON),
        Effect::Huge(huge) => {
            json(code).body(Flood::before(&bytes, huge.bytes, huge.content_length))
        }
        Effect::Status(status) => of_a_gateway(status),
        Effect::Refuse(refuse) => refusal(refuse).send(),
    }
}

/// Builds an answer that the API did not create.
fn of_a_gateway(status: Status) -> HttpResponse {
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
