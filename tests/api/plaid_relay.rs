//! Calls to Plaid on a connection's behalf, and links that are begun without any secret of Plaid's.

use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use strongroom_dev::sandbox::{Effect, Fault, LinkOptions};

use crate::support::{Answer, Bank, TestApp, id};

const ACCOUNTS: &str = "accounts/get";
const CREATE: &str = "plaid/link/token/create";

fn url(connection: &Value, path: &str) -> String {
    format!("/v1/connections/{}/plaid/{path}", id(connection))
}

async fn call(app: &TestApp, connection: &Value, path: &str, body: &Value) -> Answer {
    app.api.post(&app.token().await, &url(connection, path), body).await
}

fn link_request() -> Value {
    json!({
        "client_name": "Test", "products": ["transactions"], "country_codes": ["US"], "language": "en",
    })
}

async fn begin_link(app: &TestApp, changes: Value) -> Answer {
    let body = crate::support::with(&link_request(), changes);
    app.api.post(&app.token().await, "/v1/plaid/link-token", &body).await
}

/// The body of the newest call to this path, as the sandbox's journal has it.
fn seen(app: &TestApp, path: &str) -> Value {
    let report = serde_json::to_value(app.sandbox.calls(20)).unwrap();
    let calls = report["calls"].as_array().unwrap();
    calls.iter().find(|call| call["path"] == path).unwrap()["body"].clone()
}

#[tokio::test]
async fn a_call_goes_out_with_the_token_whatever_the_caller_sent_in_its_place() {
    let app = Bank::Plaid.spawn().await;
    let active = app.active("ada").await;
    for body in [
        json!({}),
        json!({ "access_token": "x", "accessToken": "x", "client_id": "x", "SECRET": "x", "unknown": [1.50] }),
    ] {
        let answer = call(&app, &active, ACCOUNTS, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.header("strongroom-upstream"), "plaid");
        assert_eq!(answer.json["item"]["item_id"], active["connectionID"]);
    }
    let trail = "SELECT string_agg(outcome || ' ' || reason, ', ' ORDER BY id) FROM audit_events
                 WHERE action = 'plaid.call' AND client_id IS NOT NULL";
    let once = "begun accounts/get, answered accounts/get: 200";
    assert_eq!(app.database.value(trail).await, format!("{once}, {once}"));
}

#[tokio::test]
async fn a_refusal_of_plaids_comes_back_as_it_is() {
    let app = Bank::Plaid.spawn().await;
    let active = app.active("ada").await;
    let fault = Bank::Plaid.refusal("PRODUCTS_NOT_SUPPORTED").on("plaid/auth/get");
    app.sandbox.set_fault(fault).unwrap();
    let answer = call(&app, &active, "auth/get", &json!({})).await;
    assert_eq!(
        (answer.status, &answer.json["error_code"]),
        (400, &json!("PRODUCTS_NOT_SUPPORTED"))
    );
    assert_eq!(answer.header("strongroom-upstream"), "plaid");
}

#[tokio::test]
async fn two_calls_on_one_connection_run_side_by_side() {
    let app = Bank::Plaid.spawn().await;
    let active = app.active("ada").await;
    let slow = Fault::new(Effect::Answer).on("plaid/auth/get").delayed(Duration::from_secs(50));
    app.sandbox.set_fault(slow).unwrap();
    let waits = {
        let (api, token) = (app.api.clone(), app.token().await);
        let url = url(&active, "auth/get");
        tokio::spawn(async move { api.post(&token, &url, &json!({})).await })
    };
    app.sandbox.calls_reached("plaid/auth/get", 1).await;
    assert_eq!(call(&app, &active, "identity/get", &json!({})).await.status, 200);
    assert!(!waits.is_finished());
    app.sandbox.clear_faults();
    assert_eq!(waits.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_path_that_is_not_for_calling_is_not_found_and_nothing_leaves() {
    let app = Bank::Plaid.spawn().await;
    let active = app.active("ada").await;
    let before = app.sandbox.calls(1).total;
    for path in [
        "item/remove",
        "item/access_token/invalidate",
        "item/public_token/exchange",
        "link/token/get",
        "processor/token/create",
        "x",
    ] {
        let answer = call(&app, &active, path, &json!({})).await;
        assert_eq!(answer.problem(), (404, "not_found"), "{path}");
    }
    assert_eq!(app.sandbox.calls(1).total, before);
}

#[tokio::test]
async fn a_connection_of_the_other_provider_is_not_found() {
    let plaid = Bank::Plaid.spawn().await;
    let active = plaid.active("ada").await;
    let path = format!("/v1/connections/{}/dapi/data/accounts/get", id(&active));
    let answer = plaid.api.post(&plaid.token().await, &path, &json!({})).await;
    assert_eq!(answer.problem(), (404, "not_found"));
    let dapi = Bank::Dapi.spawn().await;
    let active = dapi.active("ada").await;
    for path in [ACCOUNTS, "link/token/create"] {
        let answer = call(&dapi, &active, path, &json!({})).await;
        assert_eq!(answer.problem(), (404, "not_found"), "{path}");
    }
    assert_eq!(
        begin_link(&dapi, json!({ "clientUserID": "ada" })).await.problem(),
        (404, "not_found")
    );
}

#[tokio::test]
async fn a_call_that_plaid_does_not_answer_is_told_by_its_name() {
    let app = Bank::Plaid.builder().set("PLAID_CALL_TIMEOUT", "1").spawn().await;
    let active = app.active("ada").await;
    let slow = Fault::new(Effect::Answer).on("plaid/auth/get").delayed(Duration::from_secs(50));
    app.sandbox.set_fault(slow).unwrap();
    let answer = call(&app, &active, "auth/get", &json!({})).await;
    assert_eq!(answer.problem(), (504, "upstream_timeout"));
    assert!(answer.json["detail"].as_str().unwrap().starts_with("Plaid did not answer in time"));
}

#[tokio::test]
async fn a_login_in_trouble_is_repaired_by_update_mode_and_called_by_nothing_else() {
    let app = Bank::Plaid.spawn().await;
    let active = app.active("ada").await;
    let item = active["connectionID"].as_str().unwrap().to_owned();
    let _ = app.sandbox.plaid().require_login(&item).unwrap();
    let refused = call(&app, &active, ACCOUNTS, &json!({})).await;
    assert_eq!(refused.json["error_code"], "ITEM_LOGIN_REQUIRED");
    let held = call(&app, &active, ACCOUNTS, &json!({})).await;
    assert_eq!(held.problem(), (409, "connection_needs_attention"));
    assert!(
        held.json["detail"].as_str().unwrap().starts_with("Plaid answered ITEM_LOGIN_REQUIRED")
    );

    let begun = call(&app, &active, "link/token/create", &link_request()).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    let link_token = begun.json["link_token"].as_str().map(str::to_owned);
    let options = LinkOptions { link_token, ..LinkOptions::default() };
    assert_eq!(app.sandbox.plaid().link(&options).unwrap().item_id, item);
    assert!(!app.sandbox.plaid().item(&item).unwrap().login_required);
}

#[tokio::test]
async fn an_update_of_a_link_names_the_connections_own_user_and_our_webhook() {
    let app = Bank::Plaid.spawn().await;
    let active = app.active("ada").await;
    call(&app, &active, "link/token/create", &link_request()).await;
    let sent = seen(&app, CREATE);
    assert_eq!(sent["user"], json!({ "client_user_id": "ada" }));
    assert_eq!(sent["webhook"], "http://strongroom.test/hooks/plaid/plaid");

    let mut own = link_request();
    own["user"] = json!({ "client_user_id": "opaque", "phone_number": "+1 415 555 0123" });
    own["webhook"] = json!("https://app.example/hook");
    call(&app, &active, "link/token/create", &own).await;
    let sent = seen(&app, CREATE);
    assert_eq!((&sent["user"], &sent["webhook"]), (&own["user"], &own["webhook"]));
}

#[tokio::test]
async fn a_link_is_begun_without_a_connection_for_the_user_that_the_app_names() {
    let app = Bank::Plaid.spawn().await;
    let begun =
        begin_link(&app, json!({ "clientUserID": "ada", "user": { "phone_number": "1" } })).await;
    assert_eq!(
        (begun.status, begun.header("strongroom-upstream")),
        (200, "plaid"),
        "{}",
        begun.text
    );
    let sent = seen(&app, CREATE);
    assert_eq!(sent["user"], json!({ "phone_number": "1", "client_user_id": "ada" }));
    assert_eq!(sent["webhook"], "http://strongroom.test/hooks/plaid/plaid");
    assert_eq!(sent.get("clientUserID"), None);
    let names = "SELECT string_agg(client_user_id, ' ' ORDER BY l.id)
                 FROM link_tokens l JOIN users u ON u.id = l.user_id";
    assert_eq!(app.database.value(names).await, "ada");

    let begun = begin_link(&app, json!({ "user": { "client_user_id": "bob" } })).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    let begun =
        begin_link(&app, json!({ "clientUserID": "eve", "user": { "client_user_id": "opaque" } }))
            .await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    assert_eq!(seen(&app, CREATE)["user"]["client_user_id"], "opaque");
    assert_eq!(app.database.value(names).await, "ada bob eve");
}

#[tokio::test]
async fn a_link_of_nobody_is_refused_before_anything_leaves() {
    let app = Bank::Plaid.spawn().await;
    for changes in [
        json!({}),
        json!({ "user": null }),
        json!({ "user": { "client_user_id": null } }),
        json!({ "user": "ada" }),
        json!({ "clientUserID": 7 }),
        json!({ "clientUserID": "" }),
        json!({ "clientUserID": "x".repeat(257) }),
    ] {
        let answer = begin_link(&app, changes.clone()).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{changes}");
    }
    assert_eq!(app.sandbox.calls_to(CREATE), 0);
    assert_eq!(app.database.value("SELECT count(*) FROM users").await, "0");
}

#[tokio::test]
async fn a_link_that_plaid_refuses_leaves_no_user_behind() {
    let app = Bank::Plaid.spawn().await;
    let refused = begin_link(&app, json!({ "clientUserID": "ada", "products": [] })).await;
    assert_eq!((refused.status, refused.header("strongroom-upstream")), (400, "plaid"));
    assert_eq!(app.database.value("SELECT count(*) FROM users").await, "0");
}

#[tokio::test]
async fn a_link_token_is_forgotten_with_its_user_and_an_hour_after_its_end() {
    let app = Bank::Plaid.by_hand().await;
    let left = "SELECT count(*) FROM link_tokens";
    begin_link(&app, json!({ "clientUserID": "ada" })).await;
    begin_link(&app, json!({ "clientUserID": "bob" })).await;
    let erase = app.api.request(Method::DELETE, "/v1/users/ada").bearer_auth(app.token().await);
    assert_eq!(app.api.send(erase).await.status, 200);
    assert_eq!(app.database.value(left).await, "1");

    app.turn_clock(Duration::from_hours(4)).await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value(left).await, "1");
    app.turn_clock(Duration::from_mins(61)).await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value(left).await, "0");
}
