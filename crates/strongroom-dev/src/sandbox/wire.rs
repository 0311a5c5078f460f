//! Dapi's API over HTTP: requests in, answers and faults out.
//!
//! `POST /v2/…` names the endpoint by its path; `POST /`, which SDKs inside apps use, names it by the body's
//! `action`.
//!
//! May import: actix, and the modules of the sandbox that it combines.

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header;
use actix_web::web::ThinData;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde_json::Value;

use super::Sandbox;
use super::answer::{Answer, Refusal, reason};
use super::api::{self, Call, State};
use super::calls::{Arrival, Entry};
use super::endpoint::{Deed, Endpoint};
use super::faults::Refuse;
use super::model::TokenUse;
use super::visit::{Reply, Visit, Work, traceparent};

/// The longest body that is read, in bytes.
pub(super) const LONGEST_BODY: usize = 1024 * 1024;
/// Answers everything that is neither the control API nor Connect.
pub(super) async fn dapi(
    request: HttpRequest,
    ThinData(sandbox): ThinData<Sandbox>,
    body: Result<Bytes, actix_web::Error>,
) -> HttpResponse {
    match read(&request, body) {
        Ok(call) => visit(&sandbox.0, &request, call).answer().await,
        Err(refusal) => {
            let entry = sandbox.0.common.calls.note(unknown(&sandbox.0, &request));
            entry.outcome(refusal.kind.clone());
            Reply::from(Answer::refused(None, refusal)).send()
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

fn unknown(state: &State, request: &HttpRequest) -> Arrival {
    Arrival {
        path: Endpoint::at(request.path()).map_or("(unknown)", |endpoint| endpoint.path),
        at: state.common.clock.now(),
        connection_id: None,
        token_id: None,
        traceparent: traceparent(request),
        pass_through: request.path() == "/",
        fault: None,
        exchange: false,
        body: None,
    }
}

/// A call to Dapi's API, and its use of a token if it has a known one.
struct DapiCall {
    state: Arc<State>,
    call: Call,
    token_use: Option<TokenUse>,
}

fn visit(state: &Arc<State>, request: &HttpRequest, call: Call) -> Visit<DapiCall> {
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
    let arrival = Arrival {
        path: call.endpoint.path,
        connection_id: connection_id.map(str::to_owned),
        token_id,
        exchange,
        ..unknown(state, request)
    };
    // Before the journal records the call: a caller that waits for the record and then uses the same token
    // is certain to overlap with this call.
    let token_use = token.map(TokenUse::begin);
    Visit::arrive(&state.common, arrival, DapiCall { state: Arc::clone(state), call, token_use })
}

impl Work for DapiCall {
    fn perform(&self, entry: &Entry) -> Reply {
        let done = self.state.perform(&self.call, self.token_use.as_ref());
        if let Some(token_id) = done.exchanged {
            entry.exchanged(token_id);
        }
        done.answer.into()
    }

    fn refusal(refuse: Refuse) -> Reply {
        refusal_on_demand(refuse)
    }
}

/// Creates a refusal in Dapi's form.
pub(super) fn refusal_on_demand(refuse: Refuse) -> Reply {
    let refusal = Refusal { status: refuse.status, kind: refuse.kind.into(), msg: refuse.msg };
    Answer::refused(None, refusal).into()
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { status: answer.status, body: answer.to_bytes(), outcome: answer.outcome }
    }
}
