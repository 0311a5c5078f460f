//! The control API of Plaid's side, under `/sandbox/plaid`. Faults, settings, calls and the clock are under `/sandbox`
//! for both sides.
//!
//! May import: actix, handle and its types, problem, webhooks.

use actix_web::HttpRequest;
use actix_web::web::{self, ServiceConfig, ThinData};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::handle::Plaid;
use super::linking::LinkOptions;
use super::webhooks::WebhookOptions;
use crate::sandbox::problem::{Handled, Problem, ok, query, read};

const DEFAULT_LIMIT: usize = 100;
const MOST_LISTED: usize = 10_000;

type Control = ThinData<Plaid>;

pub(in crate::sandbox) fn control_routes(config: &mut ServiceConfig) {
    config.service(
        web::scope("/sandbox/plaid")
            .route("/link", web::post().to(link))
            .route("/accounts", web::get().to(accounts))
            .route("/items", web::get().to(items))
            .route("/items/{item_id}/remove", web::post().to(remove))
            .route("/items/{item_id}/require-login", web::post().to(require_login))
            .route("/items/{item_id}/repair-login", web::post().to(repair_login))
            .route("/items/{item_id}/transactions", web::post().to(add_transactions))
            .route("/items/{item_id}/webhooks", web::post().to(fire))
            .route("/tokens", web::get().to(tokens))
            .route("/tokens/{token_id}/kill", web::post().to(kill))
            .route("/webhooks", web::get().to(webhooks))
            .route("/webhooks/{number}/replay", web::post().to(replay))
            .route("/keys/rotate", web::post().to(rotate_key))
            .default_service(web::to(nowhere)),
    );
}

async fn nowhere() -> Handled {
    let detail = "the control API has no such path or method; GET /sandbox lists them";
    Err(Problem::not_found(detail))
}

async fn link(plaid: Control, body: web::Bytes) -> Handled {
    let options: LinkOptions = read(&body)?;
    if !options.succeeds() {
        return Ok(ok(json!({
            "error": {
                "error_type": "ITEM_ERROR",
                "error_code": "INVALID_CREDENTIALS",
                "error_message": "the provided credentials were not correct",
                "display_message": "The provided credentials were not correct. Please try again.",
            },
        })));
    }
    let result = plaid.link(&options).map_err(|error| Problem::refused(&error))?;
    Ok(ok(result.to_json()))
}

/// The accounts from which Link's page lets a user choose.
async fn accounts(plaid: Control, request: HttpRequest) -> Handled {
    let options: LinkOptions = query(&request)?;
    let accounts = plaid.accounts(&options).map_err(|error| Problem::refused(&error))?;
    Ok(ok(json!({ "accounts": accounts })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    limit: Option<usize>,
}

fn limit(request: &HttpRequest) -> Result<usize, Problem> {
    let wanted: Limit = query(request)?;
    Ok(wanted.limit.unwrap_or(DEFAULT_LIMIT).min(MOST_LISTED))
}

async fn items(plaid: Control, request: HttpRequest) -> Handled {
    Ok(ok(json!({ "items": plaid.items(limit(&request)?) })))
}

async fn tokens(plaid: Control, request: HttpRequest) -> Handled {
    Ok(ok(json!({ "tokens": plaid.tokens(limit(&request)?) })))
}

fn no_item() -> Problem {
    Problem::not_found("no such item; GET /sandbox/plaid/items lists them")
}

async fn remove(plaid: Control, item_id: web::Path<String>) -> Handled {
    plaid.remove_item(&item_id).map(ok).ok_or_else(no_item)
}

async fn require_login(plaid: Control, item_id: web::Path<String>) -> Handled {
    plaid.require_login(&item_id).map(ok).ok_or_else(no_item)
}

async fn repair_login(plaid: Control, item_id: web::Path<String>) -> Handled {
    plaid.repair_login(&item_id).map(ok).ok_or_else(no_item)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    count: u32,
}

async fn add_transactions(plaid: Control, item_id: web::Path<String>, body: web::Bytes) -> Handled {
    let Count { count } = read(&body)?;
    plaid.add_transactions(&item_id, count.min(1_000)).map(ok).ok_or_else(no_item)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kill {
    #[serde(default = "invalid_access_token")]
    error_code: String,
}

fn invalid_access_token() -> String {
    "INVALID_ACCESS_TOKEN".to_owned()
}

async fn kill(plaid: Control, token_id: web::Path<String>, body: web::Bytes) -> Handled {
    let Kill { error_code } = read(&body)?;
    let id = Uuid::try_parse(&token_id).ok();
    let info = id.and_then(|id| plaid.kill_token(id, &error_code));
    let missing = "no such token; GET /sandbox/plaid/tokens lists them";
    info.map(ok).ok_or_else(|| Problem::not_found(missing))
}

/// Sends a webhook and returns its delivery.
async fn fire(plaid: Control, item_id: web::Path<String>, body: web::Bytes) -> Handled {
    let options: WebhookOptions = read(&body)?;
    let delivery = plaid.fire_webhook(&item_id, &options).await;
    delivery.map(ok).ok_or_else(|| Problem::not_found("no such item, or it has no webhook"))
}

async fn webhooks(plaid: Control, request: HttpRequest) -> Handled {
    Ok(ok(json!({ "webhooks": plaid.deliveries(limit(&request)?) })))
}

/// Sends a webhook again, byte for byte, and returns the new delivery.
async fn replay(plaid: Control, number: web::Path<u64>) -> Handled {
    let known = plaid.deliveries(MOST_LISTED).into_iter().find(|one| one.number == *number);
    let known = known.ok_or_else(|| Problem::not_found("no such delivery"))?;
    Ok(ok(plaid.send_webhook(&known.url, known.webhook).await))
}

async fn rotate_key(plaid: Control) -> Handled {
    let key = plaid.rotate_webhook_key();
    key.map(|key_id| ok(json!({ "keyID": key_id })))
        .ok_or_else(|| Problem::bad_request("the system has no random numbers"))
}
