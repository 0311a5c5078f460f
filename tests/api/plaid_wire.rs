//! Plaid's own wire: an app that uses Plaid's SDK moves here by changing the base path and its credentials. What it gets
//! is a proxy token; errors have Plaid's shape.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault, LinkOptions};

use crate::support::{Answer, Api, BOOTSTRAP_ID, BOOTSTRAP_SECRET, Bank, TestApp, with};

const LINK: &str = "link/token/create";
const LINK_GET: &str = "plaid/link/token/get";
const EXCHANGE: &str = "item/public_token/exchange";
const ACCOUNTS: &str = "accounts/get";
const REMOVE: &str = "item/remove";

/// A call as an SDK makes it: with the credentials in its headers.
async fn call(api: &Api, path: &str, body: &Value) -> Answer {
    let request = api.request(Method::POST, &format!("/plaid/{path}"));
    let request = request.header("PLAID-CLIENT-ID", BOOTSTRAP_ID);
    api.send(request.header("PLAID-SECRET", BOOTSTRAP_SECRET).json(body)).await
}

/// An exchange for a user whom the header names.
async fn exchange_for(api: &Api, user: &str, result: &Value) -> Answer {
    let request = api.request(Method::POST, &format!("/plaid/{EXCHANGE}"));
    let request = request.header("PLAID-CLIENT-ID", BOOTSTRAP_ID).header("X-Client-User-ID", user);
    let request = request.header("PLAID-SECRET", BOOTSTRAP_SECRET);
    api.send(request.json(&json!({ "public_token": result["public_token"] }))).await
}

async fn exchange(app: &TestApp, result: &Value) -> Answer {
    call(&app.api, EXCHANGE, &json!({ "public_token": result["public_token"] })).await
}

async fn link_token(app: &TestApp, user: &str) -> String {
    let body = json!({
        "user": { "client_user_id": user }, "client_name": "Test", "products": ["transactions"],
        "country_codes": ["US"], "language": "en",
    });
    let answer = call(&app.api, LINK, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["link_token"].as_str().unwrap().to_owned()
}

/// What a user does with a link token.
fn link(app: &TestApp, link_token: &str) -> Value {
    app.link_with(&LinkOptions {
        link_token: Some(link_token.to_owned()),
        ..LinkOptions::default()
    })
}

/// A user's proxy token, after the call for the details of its login, which may end later than the answer.
async fn linked(app: &TestApp) -> String {
    let answer = exchange_for(&app.api, "ada", &app.connect()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    app.details_asked(only_connection(app).await["id"].as_str().unwrap()).await;
    answer.json["access_token"].as_str().unwrap().to_owned()
}

/// The refusal of an answer in Plaid's whole shape.
#[track_caller]
fn refused(answer: &Answer) -> (u16, &str, &str) {
    for name in ["error_type", "error_code", "error_message", "request_id"] {
        assert!(answer.json[name].is_string(), "{name}: {}", answer.text);
    }
    assert!(answer.json.get("display_message").is_some_and(Value::is_null), "{}", answer.text);
    assert_eq!(answer.json["request_id"], answer.header("x-request-id"));
    let text = |name: &str| answer.json[name].as_str().unwrap();
    (answer.status, text("error_type"), text("error_code"))
}

async fn only_connection(app: &TestApp) -> Value {
    app.api.get(&app.token().await, "/v1/connections").await.json["connections"][0].clone()
}

const USERS: &str = "SELECT string_agg(u.client_user_id, ' ' ORDER BY c.id)
                     FROM connections c JOIN users u ON u.id = c.user_id";

#[tokio::test]
async fn an_exchange_gives_a_proxy_token_that_only_strongroom_can_use() {
    let app = Bank::Plaid.spawn().await;
    let result = app.connect();
    let answer = exchange_for(&app.api, "ada", &result).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["item_id"], app.login_of(&result));
    assert_eq!(answer.json["request_id"], answer.header("x-request-id"));
    let proxy_token = answer.json["access_token"].as_str().unwrap();
    assert!(proxy_token.starts_with("strongroom_"), "{proxy_token}");
    let own = call(&app.api, ACCOUNTS, &json!({ "access_token": proxy_token })).await;
    assert_eq!((own.status, own.header("strongroom-upstream")), (200, "plaid"), "{}", own.text);
    let elsewhere = json!({
        "client_id": "sandbox-plaid-client-id", "secret": "sandbox-plaid-secret",
        "access_token": proxy_token,
    });
    let elsewhere = app.ask_sandbox("/plaid/accounts/get", &elsewhere).await;
    assert_eq!(elsewhere["error_code"], "INVALID_ACCESS_TOKEN");
}

#[tokio::test]
async fn the_same_public_token_again_gives_the_same_proxy_token_on_every_replica() {
    let app = Bank::Plaid.spawn().await;
    let replica = app.replica().await;
    let result = app.connect();
    let (one, two) = futures_util::future::join(
        exchange_for(&app.api, "ada", &result),
        exchange_for(&replica, "ada", &result),
    )
    .await;
    assert_eq!(one.status, 200, "{}", one.text);
    assert_eq!(one.json["access_token"], two.json["access_token"]);
    // Also without the name: the code is known.
    let again = exchange(&app, &result).await;
    assert_eq!(one.json["access_token"], again.json["access_token"], "{}", again.text);
    assert_eq!(app.exchanges(), 1);
}

#[tokio::test]
async fn credentials_in_the_body_count_as_those_in_the_headers() {
    let app = Bank::Plaid.spawn().await;
    let token = linked(&app).await;
    let body =
        json!({ "client_id": BOOTSTRAP_ID, "secret": BOOTSTRAP_SECRET, "access_token": token });
    let request = app.api.request(Method::POST, "/plaid/accounts/get").json(&body);
    assert_eq!(app.api.send(request).await.status, 200);
}

#[tokio::test]
async fn wrong_credentials_are_told_in_plaids_shape() {
    let app = Bank::Plaid.spawn().await;
    for body in [
        json!({}),
        json!({ "client_id": BOOTSTRAP_ID }),
        json!({ "client_id": BOOTSTRAP_ID, "secret": "x" }),
        json!({ "client_id": "x", "secret": BOOTSTRAP_SECRET }),
        json!({ "client_id": 7, "secret": BOOTSTRAP_SECRET }),
    ] {
        let request = app.api.request(Method::POST, "/plaid/accounts/get").json(&body);
        let answer = app.api.send(request).await;
        assert_eq!(refused(&answer), (400, "INVALID_INPUT", "INVALID_API_KEYS"), "{body}");
    }
}

#[tokio::test]
async fn a_client_needs_both_scopes() {
    let app = Bank::Plaid.spawn().await;
    let admin = app.token().await;
    for scopes in ["connections:write", "dapi:call"] {
        let body = json!({ "name": "half", "scopes": [scopes] });
        let made = app.api.post(&admin, "/v1/admin/clients", &body).await;
        let body =
            json!({ "client_id": made.json["clientID"], "secret": made.json["clientSecret"] });
        let request = app.api.request(Method::POST, "/plaid/accounts/get").json(&body);
        let answer = app.api.send(request).await;
        assert_eq!(refused(&answer).2, "UNAUTHORIZED_ROUTE_ACCESS", "{scopes}");
    }
}

#[tokio::test]
async fn an_app_of_the_other_provider_is_refused_in_the_shape_of_the_wire() {
    let dapi = Bank::Dapi.spawn().await;
    let answer =
        exchange_for(&dapi.api, "ada", &json!({ "public_token": "public-sandbox-1" })).await;
    assert_eq!(refused(&answer), (400, "INVALID_INPUT", "INVALID_API_KEYS"));
    let body = json!({ "user": { "client_user_id": "ada" } });
    assert_eq!(refused(&call(&dapi.api, LINK, &body).await).2, "INVALID_API_KEYS");
    let token = json!({ "access_token": "strongroom_x" });
    assert_eq!(refused(&call(&dapi.api, ACCOUNTS, &token).await).2, "INVALID_ACCESS_TOKEN");

    let plaid = Bank::Plaid.spawn().await;
    let proxy_token = linked(&plaid).await;
    let secret = format!("{BOOTSTRAP_ID}.{BOOTSTRAP_SECRET}");
    let post = async |path: &str, token: &str, body: Value| {
        let body = with(&body, json!({ "appSecret": secret }));
        let request = plaid.api.request(Method::POST, &format!("/dapi/v2/{path}"));
        plaid.api.send(request.bearer_auth(token).json(&body)).await
    };
    let code = json!({ "accessCode": "c", "connectionID": "c" });
    let answer = post("auth/ExchangeToken", "x", code).await;
    assert_eq!((answer.status, &answer.json["type"]), (400, &json!("PARAMETER_ERROR")));
    for path in ["data/accounts/get", "users/DelinkUser"] {
        let answer = post(path, &proxy_token, json!({ "userSecret": "s" })).await;
        let told = (answer.status, &answer.json["success"], &answer.json["type"]);
        assert_eq!(told, (401, &json!(false), &json!("INVALID_CONNECTION")), "{path}");
    }
    assert_eq!(only_connection(&plaid).await["status"], "active");
}

#[tokio::test]
async fn another_apps_proxy_token_is_unknown() {
    let app = Bank::Plaid.spawn().await;
    let token = linked(&app).await;
    let stranger = app.client_of_another_app().await;
    let (id, secret) = stranger.split_once('.').unwrap();
    let body = json!({ "client_id": id, "secret": secret, "access_token": token });
    let request = app.api.request(Method::POST, "/plaid/accounts/get").json(&body);
    let answer = app.api.send(request).await;
    assert_eq!(refused(&answer), (400, "INVALID_INPUT", "INVALID_ACCESS_TOKEN"));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_in_plaids_shape() {
    let app = Bank::Plaid.spawn().await;
    let post = async |path: &str, body: &str| {
        let request = app.api.request(Method::POST, &format!("/plaid/{path}"));
        let request = request.header("PLAID-CLIENT-ID", BOOTSTRAP_ID);
        let request = request.header("PLAID-SECRET", BOOTSTRAP_SECRET);
        app.api.send(request.body(body.to_owned())).await
    };
    for (path, body, expected) in [
        (ACCOUNTS, "", (400, "INVALID_REQUEST", "INVALID_FIELD")),
        (ACCOUNTS, "{", (400, "INVALID_REQUEST", "INVALID_BODY")),
        (ACCOUNTS, r#"{"a":1,"a":1}"#, (400, "INVALID_REQUEST", "INVALID_BODY")),
        (ACCOUNTS, "{}", (400, "INVALID_REQUEST", "MISSING_FIELDS")),
        (ACCOUNTS, r#"{"access_token":7}"#, (400, "INVALID_REQUEST", "INVALID_FIELD")),
        (ACCOUNTS, r#"{"access_token":"x"}"#, (400, "INVALID_INPUT", "INVALID_ACCESS_TOKEN")),
        (EXCHANGE, "{}", (400, "INVALID_REQUEST", "MISSING_FIELDS")),
        (EXCHANGE, r#"{"public_token":7}"#, (400, "INVALID_REQUEST", "INVALID_FIELD")),
        (EXCHANGE, r#"{"public_token":""}"#, (400, "INVALID_INPUT", "INVALID_PUBLIC_TOKEN")),
        (LINK, "{}", (400, "INVALID_REQUEST", "MISSING_FIELDS")),
        (LINK, r#"{"user":7}"#, (400, "INVALID_REQUEST", "INVALID_FIELD")),
        ("item/access_token/invalidate", "{}", (404, "INVALID_REQUEST", "NOT_FOUND")),
        ("link/token/get", "{}", (404, "INVALID_REQUEST", "NOT_FOUND")),
    ] {
        assert_eq!(refused(&post(path, body).await), expected, "{path} {body}");
    }
    assert_eq!(app.sandbox.calls(1).total, 0);
}

#[tokio::test]
async fn the_user_is_the_one_for_whom_the_link_was_begun() {
    let app = Bank::Plaid.spawn().await;
    let (ada, bob) = (link_token(&app, "ada").await, link_token(&app, "bob").await);
    let (of_ada, of_bob) = (link(&app, &ada), link(&app, &bob));
    assert_eq!(exchange(&app, &of_ada).await.status, 200);
    assert_eq!(exchange(&app, &of_bob).await.status, 200);
    assert_eq!(app.database.value(USERS).await, "ada bob");
}

#[tokio::test]
async fn a_link_token_in_the_request_spares_the_question_to_plaid() {
    let app = Bank::Plaid.spawn().await;
    let ada = link_token(&app, "ada").await;
    let result = link(&app, &ada);
    let body = json!({ "public_token": result["public_token"], "link_token": ada });
    assert_eq!(call(&app.api, EXCHANGE, &body).await.status, 200);
    assert_eq!(app.database.value(USERS).await, "ada");
    assert_eq!(app.sandbox.calls_to(LINK_GET), 0);
}

#[tokio::test]
async fn the_header_goes_before_what_the_link_says() {
    let app = Bank::Plaid.spawn().await;
    let result = link(&app, &link_token(&app, "ada").await);
    assert_eq!(exchange_for(&app.api, "eve", &result).await.status, 200);
    assert_eq!(app.database.value(USERS).await, "eve");
}

#[tokio::test]
async fn a_public_token_of_nobody_is_refused_and_not_exchanged() {
    let app = Bank::Plaid.spawn().await;
    link_token(&app, "ada").await;
    let answer = exchange(&app, &app.connect()).await;
    assert_eq!(refused(&answer), (400, "INVALID_INPUT", "INVALID_PUBLIC_TOKEN"));
    assert_eq!(app.exchanges(), 0);
}

#[tokio::test]
async fn plaid_is_asked_about_the_twenty_newest_link_tokens_alone() {
    let app = Bank::Plaid.spawn().await;
    let oldest = link_token(&app, "ada").await;
    let result = link(&app, &oldest);
    for number in 0..20 {
        link_token(&app, &format!("user-{number}")).await;
    }
    let answer = exchange(&app, &result).await;
    assert_eq!(refused(&answer).2, "INVALID_PUBLIC_TOKEN");
    assert_eq!(app.sandbox.calls_to(LINK_GET), 20);
}

#[tokio::test]
async fn an_owner_whom_plaid_does_not_tell_now_is_asked_for_again() {
    let app = Bank::Plaid.spawn().await;
    let result = link(&app, &link_token(&app, "ada").await);
    app.sandbox.set_fault(Fault::status(500).on(LINK_GET)).unwrap();
    let answer = exchange(&app, &result).await;
    assert_eq!(refused(&answer), (503, "API_ERROR", "INTERNAL_SERVER_ERROR"));
    assert_eq!(answer.header("retry-after"), "2");
    app.sandbox.clear_faults();
    assert_eq!(exchange(&app, &result).await.status, 200);
}

#[tokio::test]
async fn an_exchange_that_plaid_does_not_settle_is_safe_and_asked_for_again() {
    let app = Bank::Plaid.builder().set("PLAID_EXCHANGE_TIMEOUT", "1").spawn().await;
    let result = app.connect();
    app.sandbox.set_fault(Fault::status(503).on(Bank::Plaid.exchange())).unwrap();
    let pending = exchange_for(&app.api, "ada", &result).await;
    assert_eq!(refused(&pending), (503, "API_ERROR", "INTERNAL_SERVER_ERROR"));
    assert_eq!(pending.header("retry-after"), "2");
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(60)).await;
    app.tick().await;
    let answer = exchange_for(&app.api, "ada", &result).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_refused_public_token_is_told_in_plaids_words() {
    let app = Bank::Plaid.spawn().await;
    app.sandbox.set_fault(Bank::Plaid.code_refused()).unwrap();
    let answer = exchange_for(&app.api, "ada", &app.connect()).await;
    assert_eq!(refused(&answer), (400, "INVALID_INPUT", "INVALID_PUBLIC_TOKEN"));
    assert_eq!(answer.json["error_message"], "no");
}

#[tokio::test]
async fn another_users_public_token_is_refused() {
    let app = Bank::Plaid.spawn().await;
    let result = app.connect();
    assert_eq!(exchange_for(&app.api, "ada", &result).await.status, 200);
    let other = exchange_for(&app.api, "eve", &result).await;
    assert_eq!(refused(&other), (400, "INVALID_INPUT", "INVALID_PUBLIC_TOKEN"));
}

#[tokio::test]
async fn removing_by_the_wire_revokes_here_and_at_plaid() {
    let app = Bank::Plaid.spawn().await;
    let token = json!({ "access_token": linked(&app).await });
    let removed = call(&app.api, REMOVE, &token).await;
    assert_eq!(removed.status, 200, "{}", removed.text);
    assert_eq!(removed.json, json!({ "request_id": removed.header("x-request-id") }));
    assert_eq!(only_connection(&app).await["status"], "delinked");
    assert_eq!(app.live_tokens(), 0);
    for path in [ACCOUNTS, REMOVE, LINK] {
        let dead = call(&app.api, path, &token).await;
        assert_eq!(refused(&dead), (400, "ITEM_ERROR", "ITEM_NOT_FOUND"), "{path}");
    }
}

#[tokio::test]
async fn a_removal_that_plaid_has_not_confirmed_may_be_repeated_and_nothing_is_called() {
    let app = Bank::Plaid.by_hand().await;
    let result = app.connect();
    let token = json!({ "access_token": exchange_for(&app.api, "ada", &result).await.json["access_token"] });
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    for _ in 0..2 {
        assert_eq!(call(&app.api, REMOVE, &token).await.status, 200);
    }
    assert_eq!(only_connection(&app).await["status"], "revoking");
    assert_eq!(refused(&call(&app.api, "auth/get", &token).await).2, "ITEM_NOT_FOUND");
    assert_eq!(app.sandbox.calls_to("plaid/auth/get"), 0);
}

#[tokio::test]
async fn a_login_in_trouble_is_told_without_a_call_and_repaired_by_update_mode() {
    let app = Bank::Plaid.spawn().await;
    let token = json!({ "access_token": linked(&app).await });
    let item = only_connection(&app).await["connectionID"].as_str().unwrap().to_owned();
    let _ = app.sandbox.plaid().require_login(&item).unwrap();
    assert_eq!(call(&app.api, "auth/get", &token).await.json["error_code"], "ITEM_LOGIN_REQUIRED");
    let held = call(&app.api, "auth/get", &token).await;
    assert_eq!(refused(&held), (400, "ITEM_ERROR", "ITEM_LOGIN_REQUIRED"));
    assert_eq!(app.sandbox.calls_to("plaid/auth/get"), 1);
    let update =
        with(&token, json!({ "client_name": "Test", "country_codes": ["US"], "language": "en" }));
    let begun = call(&app.api, LINK, &update).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    // Nothing of an update is exchanged, and Plaid sends no webhook to the app that began it.
    link(&app, begun.json["link_token"].as_str().unwrap());
    assert_eq!(call(&app.api, "auth/get", &token).await.status, 200);
    assert_eq!(only_connection(&app).await["attention"], Value::Null);
    assert_eq!(call(&app.api, "auth/get", &token).await.status, 200);
}

#[tokio::test]
async fn while_a_login_is_being_repaired_one_call_a_minute_tries_whether_it_works() {
    let app = Bank::Plaid.spawn().await;
    let token = json!({ "access_token": linked(&app).await });
    let item = only_connection(&app).await["connectionID"].as_str().unwrap().to_owned();
    let _ = app.sandbox.plaid().require_login(&item).unwrap();
    call(&app.api, "auth/get", &token).await;
    let update =
        with(&token, json!({ "client_name": "Test", "country_codes": ["US"], "language": "en" }));
    let begun = call(&app.api, LINK, &update).await;
    for calls in [2, 2] {
        let answer = call(&app.api, "auth/get", &token).await;
        assert_eq!(answer.json["error_code"], "ITEM_LOGIN_REQUIRED", "{}", answer.text);
        assert_eq!(app.sandbox.calls_to("plaid/auth/get"), calls);
    }
    let trail = app.database.trail().await;
    let set = trail.iter().filter(|event| *event == "connection.attention_set ok").count();
    assert_eq!(set, 1, "it has not ended meanwhile");
    app.turn_clock(Duration::from_secs(61)).await;
    link(&app, begun.json["link_token"].as_str().unwrap());
    assert_eq!(call(&app.api, "auth/get", &token).await.status, 200);
    assert_eq!(only_connection(&app).await["attention"], Value::Null);
}

#[tokio::test]
async fn a_repair_that_was_left_half_way_ends_with_the_link() {
    let app = Bank::Plaid.spawn().await;
    let token = json!({ "access_token": linked(&app).await });
    let item = only_connection(&app).await["connectionID"].as_str().unwrap().to_owned();
    let _ = app.sandbox.plaid().require_login(&item).unwrap();
    call(&app.api, "auth/get", &token).await;
    let update =
        with(&token, json!({ "client_name": "Test", "country_codes": ["US"], "language": "en" }));
    call(&app.api, LINK, &update).await;
    // The first call afterwards, whenever it comes, and no other.
    app.turn_clock(Duration::from_hours(1)).await;
    for _ in 0..3 {
        call(&app.api, "auth/get", &token).await;
        app.turn_clock(Duration::from_mins(2)).await;
    }
    assert_eq!(app.sandbox.calls_to("plaid/auth/get"), 2);
}

#[tokio::test]
async fn an_exchange_whose_answer_broke_off_tells_the_item_that_its_details_name() {
    let app = Bank::Plaid.by_hand().await;
    let broken = Fault::new(Effect::HalfAnswer).on(Bank::Plaid.exchange()).after();
    app.sandbox.set_fault(broken.times(1)).unwrap();
    let slow = Fault::new(Effect::Answer).on("plaid/accounts/get");
    app.sandbox.set_fault(slow.delayed(Duration::from_millis(700)).times(1)).unwrap();
    let result = app.connect();
    let answer = exchange_for(&app.api, "ada", &result).await;
    assert_eq!((answer.status, &answer.json["item_id"]), (200, &json!(app.login_of(&result))));
}

#[tokio::test]
async fn an_item_that_nothing_has_named_has_no_id() {
    let app = Bank::Plaid.by_hand().await;
    let broken = Fault::new(Effect::HalfAnswer).on(Bank::Plaid.exchange()).after();
    app.sandbox.set_fault(broken.times(1)).unwrap();
    app.sandbox.set_fault(Fault::status(503).on("plaid/accounts/get")).unwrap();
    let answer = exchange_for(&app.api, "ada", &app.connect()).await;
    assert_eq!((answer.status, &answer.json["item_id"]), (200, &Value::Null));
    assert_eq!(only_connection(&app).await["connectionID"], Value::Null);
}

#[tokio::test]
async fn a_users_erasure_is_told_and_nothing_is_remembered_meanwhile() {
    let app = Bank::Plaid.by_hand().await;
    let result = app.connect();
    exchange_for(&app.api, "ada", &result).await;
    app.settled(only_connection(&app).await["id"].as_str().unwrap()).await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    let erase = app.api.request(Method::DELETE, "/v1/users/ada").bearer_auth(app.token().await);
    assert_eq!(app.api.send(erase).await.status, 202);
    let body = json!({
        "user": { "client_user_id": "ada" }, "client_name": "Test", "products": ["transactions"],
        "country_codes": ["US"], "language": "en",
    });
    let answer = call(&app.api, LINK, &body).await;
    assert_eq!(refused(&answer), (409, "INVALID_REQUEST", "USER_BEING_ERASED"));
    assert_eq!(app.database.value("SELECT count(*) FROM link_tokens").await, "0");
}
