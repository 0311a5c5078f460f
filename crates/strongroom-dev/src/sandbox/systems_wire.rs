//! The other systems over HTTP: token requests and protected calls.
//!
//! Errors of a token endpoint have OAuth's form (RFC 6749 §5.2); those of an API use a challenge (RFC 6750 §3).
//!
//! May import: actix, and the modules of the sandbox that it combines.

use std::collections::BTreeMap;

use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig, ThinData};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::Sandbox;
use super::calls::Arrival;
use super::faults::{Effect, Strike, When};
use super::systems::{SYSTEMS, SYSTEMS_CLIENT_ID, SYSTEMS_CLIENT_SECRET, System, Worth};
use super::visit::{self, hang_if_told, spoil, traceparent, wait};
use super::wire::{bearer, refusal_on_demand};

/// An answer before a fault corrupts it.
struct Reply {
    status: u16,
    outcome: &'static str,
    challenge: Option<&'static str>,
    body: Value,
}

impl Reply {
    fn ok(body: Value) -> Self {
        Self { status: 200, outcome: "done", challenge: None, body }
    }

    fn refused(status: u16, error: &'static str, description: &str) -> Self {
        let body = json!({ "error": error, "error_description": description });
        Self { status, outcome: error, challenge: None, body }
    }

    fn challenged(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    fn send(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut builder = HttpResponse::build(status);
        builder.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(challenge) = self.challenge {
            builder.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        builder.json(&self.body)
    }
}

impl From<Reply> for visit::Reply {
    fn from(reply: Reply) -> Self {
        Self {
            status: reply.status,
            outcome: reply.outcome.into(),
            body: reply.body.to_string().into_bytes(),
        }
    }
}

pub(super) fn routes(config: &mut ServiceConfig) {
    for system in &SYSTEMS {
        let token = move |request: HttpRequest, sandbox: ThinData<Sandbox>, body: Bytes| {
            visit(request, sandbox.0, body, system, give_token)
        };
        let api = move |request: HttpRequest, sandbox: ThinData<Sandbox>, body: Bytes| {
            visit(request, sandbox.0, body, system, protected)
        };
        config
            .route(&format!("/{}", system.token_path), web::to(token))
            .route(&format!("/{}", system.api_path), web::to(api))
            .route(&format!("/{}/{{path:.*}}", system.api_path), web::to(api));
    }
}

type Work = fn(&Sandbox, &'static System, &HttpRequest, &[u8]) -> Reply;

/// Records the call, does the work, and applies faults before or after it.
async fn visit(
    request: HttpRequest,
    sandbox: Sandbox,
    body: Bytes,
    system: &'static System,
    work: Work,
) -> HttpResponse {
    let state = &sandbox.0;
    let path = System::path_of(request.path()).unwrap_or("(unknown)");
    let strike = state.common.faults.take(path, None);
    let entry = state.common.calls.note(Arrival {
        path,
        at: state.common.clock.now(),
        connection_id: None,
        token_id: None,
        traceparent: traceparent(&request),
        pass_through: false,
        fault: strike.as_ref().map(|strike| strike.fault.name()),
        exchange: false,
        body: None,
    });
    let do_it = || {
        let reply = work(&sandbox, system, &request, &body);
        entry.outcome(reply.outcome.into());
        reply
    };
    let Some(Strike { fault, release }) = strike else { return do_it().send() };
    let done = (fault.strikes() == When::After).then(do_it);
    wait(&fault, &release).await;
    hang_if_told(&fault, &release).await;
    match (&fault.effect, done) {
        (Effect::Answer, done) => done.unwrap_or_else(do_it).send(),
        (_, done) => spoil(fault.effect, done.map(visit::Reply::from), refusal_on_demand),
    }
}

/// Answers a `POST` to a token endpoint.
fn give_token(
    sandbox: &Sandbox,
    system: &'static System,
    request: &HttpRequest,
    body: &[u8],
) -> Reply {
    if request.method() != Method::POST {
        return Reply::refused(405, "invalid_request", "tokens are asked for by POST");
    }
    let Some(mut fields) = fields(request, body) else {
        return Reply::refused(400, "invalid_request", "the body cannot be read");
    };
    let presented = if system.basic {
        basic(request)
    } else {
        fields.remove("client_id").zip(fields.remove("client_secret"))
    };
    let known = (SYSTEMS_CLIENT_ID.to_owned(), SYSTEMS_CLIENT_SECRET.to_owned());
    if presented != Some(known) {
        let reply = Reply::refused(401, "invalid_client", "unknown client or wrong secret");
        return if system.basic { reply.challenged("Basic realm=\"sandbox\"") } else { reply };
    }
    if fields.get("grant_type").map(String::as_str) != Some("client_credentials") {
        return Reply::refused(400, "unsupported_grant_type", "client_credentials is the grant");
    }
    let Ok(scope) = system.granted(fields.get("scope").map(String::as_str)) else {
        return Reply::refused(400, "invalid_scope", "no such scope, or none where one is needed");
    };
    let state = &sandbox.0;
    let token = state.grants.issue(&state.links.mint, system, scope, state.common.clock.now());
    Reply::ok(json!({
        "access_token": token, "token_type": "Bearer", "expires_in": system.lifetime,
    }))
}

/// Parses the fields of a form or a JSON object, by the content type.
fn fields(request: &HttpRequest, body: &[u8]) -> Option<BTreeMap<String, String>> {
    let kind = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    match kind.split(';').next()?.trim() {
        "application/x-www-form-urlencoded" => {
            Some(url::form_urlencoded::parse(body).into_owned().collect())
        }
        "application/json" => serde_json::from_slice(body).ok(),
        _ => None,
    }
}

/// Parses HTTP Basic credentials, form-decoded (RFC 6749 §2.3.1).
fn basic(request: &HttpRequest) -> Option<(String, String)> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (id, secret) = text.split_once(':').filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let decode = |half: &str| {
        let half = half.replace('+', " ");
        percent_encoding::percent_decode_str(&half).decode_utf8_lossy().into_owned()
    };
    Some((decode(id), decode(secret)))
}

/// Answers a protected call with what it received, so that a test can see what was passed on.
fn protected(
    sandbox: &Sandbox,
    system: &'static System,
    request: &HttpRequest,
    body: &[u8],
) -> Reply {
    let state = &sandbox.0;
    let token = bearer(request);
    let worth =
        token.as_deref().map(|token| state.grants.worth(system, token, state.common.clock.now()));
    match worth {
        Some(Worth::Good) => Reply::ok(echo(system, request, body)),
        Some(Worth::NoScope) => {
            Reply::refused(403, "insufficient_scope", "the token lacks a scope")
                .challenged("Bearer error=\"insufficient_scope\"")
        }
        Some(Worth::Nothing) => Reply::refused(401, "invalid_token", "unknown or expired")
            .challenged("Bearer error=\"invalid_token\""),
        None => Reply::refused(401, "invalid_token", "a bearer token is needed")
            .challenged("Bearer realm=\"sandbox\""),
    }
}

fn echo(system: &System, request: &HttpRequest, body: &[u8]) -> Value {
    let shown = |name: &HeaderName| name != header::AUTHORIZATION;
    let headers: BTreeMap<_, _> = request
        .headers()
        .iter()
        .filter(|(name, _)| shown(name))
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    json!({
        "system": system.name,
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "query": request.query_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(body),
    })
}
