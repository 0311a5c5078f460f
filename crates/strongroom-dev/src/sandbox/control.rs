//! The control API under `/sandbox`: what tests and developers can do to a sandbox over HTTP.
//!
//! May import: actix, api, endpoint, handle and its types, page, plaid, problem.

use std::time::Duration;

use actix_web::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use actix_web::web::{self, ServiceConfig, ThinData};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::Sandbox;
use super::api::spelling;
use super::endpoint::ENDPOINTS;
use super::faults::Fault;
use super::handle::ConnectOptions;
use super::page::{escaped, html};
use super::plaid;
use super::problem::{Handled, Problem, ok, query, read};
use super::settings::RulesChange;

const INDEX: &str = include_str!("pages/index.txt");
const INDEX_PAGE: &str = include_str!("pages/index.html");
const DEFAULT_LIMIT: usize = 100;
const MOST_LISTED: usize = 10_000;
/// The farthest that one request can advance the clock: ten years.
const FARTHEST_ADVANCE: u64 = 10 * 365 * 24 * 60 * 60;
const LONGEST_KIND: usize = 100;

type Control = ThinData<Sandbox>;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(
        web::scope("/sandbox")
            .route("", web::get().to(index))
            .route("/", web::get().to(index))
            .route("/connect", web::post().to(connect))
            .service(web::resource("/faults").get(faults).post(set_fault).delete(clear_faults))
            .service(web::resource("/settings").get(rules).put(change_rules))
            .service(web::resource("/calls").get(calls).delete(forget_calls))
            .route("/logins", web::get().to(logins))
            .route("/tokens", web::get().to(tokens))
            .route("/tokens/{token_id}/kill", web::post().to(kill))
            .route("/systems/revoke", web::post().to(revoke_system_tokens))
            .route("/clock", web::post().to(turn_clock))
            .default_service(web::to(nowhere)),
    );
}

/// Lists what can be done, for people.
pub(super) async fn index(request: HttpRequest) -> HttpResponse {
    let dapi: Vec<_> =
        ENDPOINTS.iter().map(|endpoint| format!("  POST /v2/{}", endpoint.path)).collect();
    let plaid: Vec<_> = plaid::paths().map(|path| format!("  POST /{path}")).collect();
    let text = INDEX
        .replace("{endpoints}", &dapi.join("\n"))
        .replace("{plaid}", &plaid.join("\n"))
        .replace("localhost:PORT", request.connection_info().host());
    let mut answer = HttpResponse::Ok();
    answer.insert_header((VARY, "accept"));
    if asks_for_a_page(&request) {
        return html(answer, "'none'", INDEX_PAGE.replace("{index}", &escaped(&text)));
    }
    answer.insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body(text)
}

/// Browsers name HTML first; curl and HTTP libraries take anything, and get the plain text.
fn asks_for_a_page(request: &HttpRequest) -> bool {
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

async fn nowhere() -> Handled {
    let detail = "the control API has no such path or method; GET /sandbox lists them";
    Err(Problem::not_found(detail))
}

async fn connect(sandbox: Control, body: web::Bytes) -> Handled {
    let options: ConnectOptions = read(&body)?;
    if !options.succeeds() {
        return Ok(ok(json!({
            "success": false,
            "status": "failed",
            "type": "INVALID_CREDENTIALS",
            "msg": "the bank refused this login",
        })));
    }
    let result = sandbox.connect(&options).map_err(|error| Problem::refused(&error))?;
    Ok(ok(result.to_json()))
}

async fn faults(sandbox: Control) -> HttpResponse {
    ok(json!({"faults": sandbox.faults()}))
}

async fn set_fault(sandbox: Control, body: web::Bytes) -> Handled {
    let fault: Fault = read(&body)?;
    let set = sandbox.set_fault(fault).map_err(|error| Problem::refused(&error))?;
    Ok(HttpResponse::Created().json(set))
}

async fn clear_faults(sandbox: Control) -> HttpResponse {
    sandbox.clear_faults();
    HttpResponse::NoContent().finish()
}

async fn rules(sandbox: Control) -> HttpResponse {
    ok(sandbox.rules().to_json())
}

async fn change_rules(sandbox: Control, body: web::Bytes) -> Handled {
    let change: RulesChange = read(&body)?;
    sandbox.change_rules(change);
    Ok(ok(sandbox.rules().to_json()))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CallQuery {
    path: Option<String>,
    #[serde(rename = "tokenID")]
    token_id: Option<Uuid>,
    #[serde(rename = "connectionID")]
    connection_id: Option<String>,
    limit: Option<usize>,
}

async fn calls(sandbox: Control, request: HttpRequest) -> Handled {
    let wanted: CallQuery = query(&request)?;
    let path = match &wanted.path {
        Some(path) => Some(
            spelling(path).ok_or_else(|| Problem::bad_request(format!("no endpoint `{path}`")))?,
        ),
        None => None,
    };
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT).min(MOST_LISTED);
    let report = sandbox.0.0.common.calls.report(limit, |call| {
        path.is_none_or(|path| path == call.path)
            && (wanted.token_id.is_none() || wanted.token_id == call.token_id)
            && (wanted.connection_id.is_none() || wanted.connection_id == call.connection_id)
    });
    Ok(ok(report))
}

async fn forget_calls(sandbox: Control) -> HttpResponse {
    sandbox.forget_calls();
    HttpResponse::NoContent().finish()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<usize>,
}

impl Page {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT).min(MOST_LISTED)
    }
}

/// Lists the bank logins, the newest first. No answer of Dapi's names the bank of a login, so this is where the
/// demo learns it.
async fn logins(sandbox: Control, request: HttpRequest) -> Handled {
    let page: Page = query(&request)?;
    let logins = sandbox.0.0.links.newest_logins(page.limit());
    let logins: Vec<_> = logins
        .iter()
        .map(|login| {
            let bank = login.holder.bank;
            json!({"connectionID": login.connection_id, "bank": {"id": bank.id, "name": bank.name}})
        })
        .collect();
    Ok(ok(json!({"logins": logins})))
}

async fn tokens(sandbox: Control, request: HttpRequest) -> Handled {
    let page: Page = query(&request)?;
    let known = sandbox.0.0.links.tokens_known();
    Ok(ok(json!({"total": known, "tokens": sandbox.tokens(page.limit())})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kill {
    #[serde(rename = "type", default = "user_delinked")]
    kind: String,
}

fn user_delinked() -> String {
    "USER_DELINKED".to_owned()
}

async fn kill(sandbox: Control, token_id: web::Path<String>, body: web::Bytes) -> Handled {
    let kill: Kill = read(&body)?;
    if kill.kind.is_empty() || kill.kind.len() > LONGEST_KIND {
        let detail = format!("`type` has to be 1 to {LONGEST_KIND} bytes long");
        return Err(Problem::bad_request(detail));
    }
    let id = Uuid::try_parse(&token_id).ok();
    let info = id.and_then(|id| sandbox.kill_token(id, &kill.kind));
    info.map(ok).ok_or_else(|| Problem::not_found("no such token; GET /sandbox/tokens lists them"))
}

async fn revoke_system_tokens(sandbox: Control) -> HttpResponse {
    sandbox.revoke_system_tokens();
    HttpResponse::NoContent().finish()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Advance {
    advance_seconds: u64,
}

async fn turn_clock(sandbox: Control, body: web::Bytes) -> Handled {
    let Advance { advance_seconds } = read(&body)?;
    if advance_seconds > FARTHEST_ADVANCE {
        let detail = format!("`advanceSeconds` is at most {FARTHEST_ADVANCE}");
        return Err(Problem::bad_request(detail));
    }
    sandbox.clock().advance(Duration::from_secs(advance_seconds));
    let now = sandbox.clock().now();
    let now = now.format(&time::format_description::well_known::Rfc3339);
    Ok(ok(json!({"now": now.unwrap_or_default()})))
}
