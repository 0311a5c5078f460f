//! Plaid's API over HTTP: requests in, answers and faults out.
//!
//! May import: actix, and the modules of the sandbox that it combines.

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig, ThinData};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde_json::Value;

use super::answer::{Refusal, reason};
use super::api::{Call, State};
use super::body::{self, Body};
use super::endpoint::{Deed, Endpoint};
use super::handle::Plaid;
use super::link_page;
use crate::sandbox::calls::{Arrival, Entry};
use crate::sandbox::faults::Refuse;
use crate::sandbox::visit::{Reply, Visit, Work, traceparent};

pub(in crate::sandbox) fn routes(config: &mut ServiceConfig) {
    config
        .service(web::scope("/plaid").configure(link_page::routes).default_service(web::to(plaid)));
}

/// Answers everything below `/plaid` but Link's page.
async fn plaid(
    request: HttpRequest,
    ThinData(plaid): ThinData<Plaid>,
    body: Result<Bytes, actix_web::Error>,
) -> HttpResponse {
    let state = &plaid.0;
    match read(&request, body) {
        Ok(call) => visit(state, &request, call).answer().await,
        Err(refusal) => {
            let entry = state.common.calls.note(unknown(state, &request));
            entry.outcome(refusal.code.clone());
            refusal.into_reply(&state.vault.mint.request_id()).send()
        }
    }
}

/// Parses a request; identity and permission are checked later.
fn read(request: &HttpRequest, body: Result<Bytes, actix_web::Error>) -> Result<Call, Refusal> {
    let endpoint = Endpoint::at(request.path()).filter(|_| request.method() == Method::POST);
    let endpoint = endpoint
        .ok_or_else(|| reason::NOT_FOUND.because("the requested endpoint was not found"))?;
    let body = body.map_err(|_| reason::INVALID_BODY.because("the body is too large"))?;
    let header = |name| request.headers().get(name)?.to_str().ok().map(str::to_owned);
    Ok(Call {
        endpoint,
        client_id: header("plaid-client-id"),
        secret: header("plaid-secret"),
        fields: body::parse(&body)?,
    })
}

fn unknown(state: &State, request: &HttpRequest) -> Arrival {
    Arrival {
        path: Endpoint::at(request.path()).map_or("(unknown)", |endpoint| endpoint.path),
        at: state.common.clock.now(),
        connection_id: None,
        token_id: None,
        traceparent: traceparent(request),
        pass_through: false,
        fault: None,
        exchange: false,
        body: None,
    }
}

/// A call to Plaid's API.
struct PlaidCall {
    state: Arc<State>,
    call: Call,
}

fn visit(state: &Arc<State>, request: &HttpRequest, call: Call) -> Visit<PlaidCall> {
    let exchange = call.endpoint.deed == Deed::Exchange;
    let text = |name: &str| call.fields.get(name).and_then(Value::as_str);
    let known = if exchange {
        let known = text("public_token").and_then(|text| state.vault.public_token_of(text));
        known.map(|known| (known.id, known.item.id.clone()))
    } else {
        let known = text("access_token").and_then(|text| state.vault.token(text));
        known.map(|known| (known.id, known.item.id.clone()))
    };
    let (token_id, connection_id) = known.unzip();
    let arrival = Arrival {
        path: call.endpoint.path,
        connection_id,
        token_id,
        exchange,
        body: Body::new(&call.fields).without_secrets(),
        ..unknown(state, request)
    };
    Visit::arrive(&state.common, arrival, PlaidCall { state: Arc::clone(state), call })
}

impl Work for PlaidCall {
    fn perform(&self, entry: &Entry) -> Reply {
        let done = self.state.perform(&self.call);
        if let Some(id) = done.exchanged {
            entry.exchanged(id);
        }
        done.reply
    }

    fn refusal(refuse: Refuse) -> Reply {
        Refusal::named(&refuse.kind, refuse.status, refuse.msg).into_reply("sandboxfault000")
    }
}
