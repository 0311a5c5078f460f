//! Dapi's own wire: an app that uses Dapi's SDK moves here by changing the base URL. What it gets is a
//! stand-in; errors have Dapi's shape.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault, Refuse};

use crate::support::{Answer, Api, BOOTSTRAP_ID, BOOTSTRAP_SECRET, TestApp, with};

const EXCHANGE: &str = "auth/ExchangeToken";
const ACCOUNTS: &str = "data/accounts/get";
const DELINK: &str = "users/DelinkUser";

fn app_secret() -> String {
    format!("{BOOTSTRAP_ID}.{BOOTSTRAP_SECRET}")
}

/// A call as an SDK makes it: over `/dapi/v2`, with `appSecret`.
async fn call(api: &Api, path: &str, token: Option<&str>, body: &Value) -> Answer {
    let body = with(body, json!({ "appSecret": app_secret() }));
    let mut request = api.request(Method::POST, &format!("/dapi/v2/{path}")).json(&body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    api.send(request).await
}

async fn exchange(app: &TestApp, result: &Value) -> Answer {
    let body =
        json!({ "accessCode": result["accessCode"], "connectionID": result["connectionID"] });
    call(&app.api, EXCHANGE, None, &body).await
}

/// A user's result and the stand-in that its exchange gave.
async fn linked(app: &TestApp) -> (Value, String) {
    let result = app.connect();
    let answer = exchange(app, &result).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    (result, answer.json["accessToken"].as_str().unwrap().to_owned())
}

fn secret_of(result: &Value) -> Value {
    json!({ "userSecret": result["userSecret"] })
}

fn refused(answer: &Answer) -> (u16, &str) {
    assert_eq!(answer.header("content-type"), "application/json", "{}", answer.text);
    assert_eq!(
        (&answer.json["success"], &answer.json["status"]),
        (&json!(false), &json!("failed"))
    );
    assert!(answer.json["msg"].is_string(), "{}", answer.text);
    (answer.status, answer.json["type"].as_str().unwrap())
}

async fn status(app: &TestApp) -> String {
    app.database.value("SELECT status FROM connections").await
}

#[tokio::test]
async fn an_exchange_gives_a_stand_in_that_only_strongroom_can_use() {
    let app = TestApp::spawn().await;
    let result = app.connect();
    let answer = exchange(&app, &result).await;
    assert_eq!((answer.status, &answer.json["success"]), (200, &json!(true)), "{}", answer.text);
    assert_eq!(answer.json["status"], "done");
    assert_eq!(answer.json["tokenID"], result["tokenID"]);
    assert_eq!(answer.json["userID"], result["userID"]);
    let stand_in = answer.json["accessToken"].as_str().unwrap();
    assert!(stand_in.starts_with("strongroom_"), "{stand_in}");
    let own = call(&app.api, ACCOUNTS, Some(stand_in), &secret_of(&result)).await;
    assert_eq!((own.status, &own.json["success"]), (200, &json!(true)), "{}", own.text);
    // At Dapi it is nobody's.
    let body = with(&secret_of(&result), json!({ "appSecret": "sandbox-app-secret" }));
    let elsewhere = reqwest::Client::new().post(format!("{}/v2/{ACCOUNTS}", app.sandbox_url));
    let elsewhere = elsewhere.bearer_auth(stand_in).json(&body).send().await.unwrap();
    assert_eq!(elsewhere.status(), 401);
}

#[tokio::test]
async fn the_same_code_again_gives_the_same_stand_in_on_every_replica() {
    let app = TestApp::spawn().await;
    let replica = app.replica().await;
    let result = app.connect();
    let body =
        json!({ "accessCode": result["accessCode"], "connectionID": result["connectionID"] });
    let (one, two) = futures_util::future::join(
        call(&app.api, EXCHANGE, None, &body),
        call(&replica, EXCHANGE, None, &body),
    )
    .await;
    let again = call(&replica, EXCHANGE, None, &body).await;
    assert_eq!(one.status, 200, "{}", one.text);
    assert_eq!((&one.json, &one.json), (&two.json, &again.json));
    assert_eq!(app.sandbox.calls_to(EXCHANGE), 1);
    assert_eq!(app.database.value("SELECT count(*) FROM proxy_tokens").await, "1");
}

#[tokio::test]
async fn the_user_is_whom_the_app_names_and_else_the_login() {
    let app = TestApp::spawn().await;
    let names = "SELECT string_agg(client_user_id, ' ' ORDER BY id) FROM users";
    let (result, _) = linked(&app).await;
    let login = result["connectionID"].as_str().unwrap();
    assert_eq!(app.database.value(names).await, format!("dapi:{login}"));

    let named = app.connect();
    let body = with(&named, json!({ "appSecret": app_secret() }));
    let request = app.api.request(Method::POST, "/dapi/v2/auth/ExchangeToken");
    let request = request.header("X-Client-User-ID", "ada").json(&body);
    assert_eq!(app.api.send(request).await.status, 200);
    assert_eq!(app.database.value(names).await, format!("dapi:{login} ada"));
    // Without the name it would be another user's code.
    let other = exchange(&app, &named).await;
    assert_eq!(refused(&other), (400, "CODE_ALREADY_RECEIVED"));
}

#[tokio::test]
async fn the_pass_through_does_the_same_by_action() {
    let app = TestApp::spawn().await;
    let result = app.connect();
    let post = async |token: Option<&str>, body: Value| {
        let body = with(&body, json!({ "appSecret": app_secret() }));
        let mut request = app.api.request(Method::POST, "/dapi").header("host", "dd.dapi.com");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        app.api.send(request.json(&body)).await
    };
    let exchanged = post(None, with(&result, json!({ "action": "auth/exchangetoken" }))).await;
    let token = exchanged.json["accessToken"].as_str().unwrap().to_owned();
    let with_secret = |action| with(&secret_of(&result), json!({ "action": action }));
    let accounts = post(Some(&token), with_secret("data/accounts/get")).await;
    assert_eq!(accounts.json["success"], true, "{}", accounts.text);
    assert_eq!(refused(&post(Some(&token), with_secret("auth/nothing")).await), (404, "NOT_FOUND"));
    assert_eq!(refused(&post(Some(&token), json!({})).await), (422, "PARAMETER_MISSING"));
    assert_eq!(post(Some(&token), with_secret("users/DelinkUser")).await.json["success"], true);
    let dead = post(Some(&token), with_secret("data/accounts/get")).await;
    assert_eq!(refused(&dead), (401, "USER_DELINKED"));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_in_dapis_shape() {
    let app = TestApp::spawn().await;
    let (result, token) = linked(&app).await;
    let raw = async |body: &str| {
        let request = app.api.request(Method::POST, "/dapi/v2/data/accounts/get");
        app.api.send(request.bearer_auth(&token).body(body.to_owned())).await
    };
    assert_eq!(refused(&raw("[]").await), (400, "PARAMETER_ERROR"));
    for secret in ["x", "x.y", ".", &format!("{BOOTSTRAP_ID}."), &format!("{}x", app_secret())] {
        let body = json!({ "appSecret": secret }).to_string();
        assert_eq!(refused(&raw(&body).await), (401, "INVALID_APP_SECRET"), "{secret}");
    }
    let none = json!({});
    assert_eq!(refused(&call(&app.api, "nothing", Some(&token), &none).await), (404, "NOT_FOUND"));
    assert_eq!(refused(&call(&app.api, ACCOUNTS, None, &none).await), (401, "INVALID_CONNECTION"));
    let unknown = call(&app.api, ACCOUNTS, Some("strongroom_x"), &secret_of(&result)).await;
    assert_eq!(refused(&unknown), (401, "INVALID_CONNECTION"));
    let bare = call(&app.api, ACCOUNTS, Some(&token), &none).await;
    assert_eq!(refused(&bare), (422, "PARAMETER_MISSING"));
    let codeless = call(&app.api, EXCHANGE, None, &json!({ "connectionID": "c" })).await;
    assert_eq!(refused(&codeless), (422, "PARAMETER_MISSING"));
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), 0);
}

#[tokio::test]
async fn a_client_needs_both_scopes_and_sees_nothing_of_another_app() {
    let app = TestApp::spawn().await;
    let (result, token) = linked(&app).await;
    let admin = app.token().await;
    for scopes in ["connections:write", "dapi:call"] {
        let body = json!({ "name": "half", "scopes": [scopes] });
        let made = app.api.post(&admin, "/v1/admin/clients", &body).await;
        let (id, secret) = (made.json["clientID"].as_str(), made.json["clientSecret"].as_str());
        let secret = format!("{}.{}", id.unwrap(), secret.unwrap());
        let request = app.api.request(Method::POST, "/dapi/v2/data/accounts/get");
        let request = request.bearer_auth(&token).json(&json!({ "appSecret": secret }));
        assert_eq!(refused(&app.api.send(request).await), (403, "INSUFFICIENT_SCOPE"), "{scopes}");
    }
    let stranger = app.client_of_another_app().await;
    let body = with(&secret_of(&result), json!({ "appSecret": stranger }));
    let request = app.api.request(Method::POST, "/dapi/v2/data/accounts/get").json(&body);
    let foreign = app.api.send(request.bearer_auth(&token)).await;
    assert_eq!(refused(&foreign), (401, "INVALID_CONNECTION"));
}

#[tokio::test]
async fn a_refused_code_is_told_in_dapis_words() {
    let app = TestApp::spawn().await;
    let refuse = Refuse { kind: "INVALID_THING".to_owned(), msg: "no".to_owned(), status: 400 };
    app.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).on(EXCHANGE).times(1)).unwrap();
    let answer = exchange(&app, &app.connect()).await;
    assert_eq!(refused(&answer), (400, "INVALID_THING"));
    assert_eq!(answer.json["msg"], "no");
}

#[tokio::test]
async fn an_exchange_that_dapi_does_not_settle_is_safe_and_asked_for_again() {
    let app = TestApp::builder().set("DAPI_EXCHANGE_TIMEOUT", "1").spawn().await;
    let result = app.connect();
    app.sandbox.set_fault(Fault::status(503).on(EXCHANGE)).unwrap();
    let pending = exchange(&app, &result).await;
    assert_eq!(refused(&pending), (503, "EXCHANGE_PENDING"));
    assert_eq!(pending.header("retry-after"), "2");
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(60)).await;
    app.tick().await;
    let answer = exchange(&app, &result).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn the_user_secret_is_sealed_from_the_first_call_that_brings_it() {
    let app = TestApp::spawn().await;
    let (result, token) = linked(&app).await;
    let held = "SELECT user_secret IS NOT NULL AND user_secret_proven FROM connections";
    let empty = "SELECT user_secret IS NULL FROM connections";
    assert_eq!(app.database.value(empty).await, "true");
    let answer = call(&app.api, ACCOUNTS, Some(&token), &secret_of(&result)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(app.database.value(held).await, "true");
    // From now on it is put in, whatever comes, and read like any other.
    for body in [json!({}), json!({ "userSecret": "wrong" })] {
        assert_eq!(call(&app.api, ACCOUNTS, Some(&token), &body).await.status, 200);
    }
    let listed = app.api.get(&app.token().await, "/v1/connections").await;
    let id = listed.json["connections"][0]["id"].as_str().unwrap();
    let revealed = app.api.reveal(&app.token().await, id).await;
    assert_eq!(revealed.json["userSecret"], result["userSecret"]);
}

#[tokio::test]
async fn a_wrong_user_secret_does_not_stay_for_good() {
    let app = TestApp::spawn().await;
    let (result, token) = linked(&app).await;
    let wrong = call(&app.api, ACCOUNTS, Some(&token), &json!({ "userSecret": "wrong" })).await;
    assert_eq!((wrong.status, wrong.header("strongroom-upstream")), (401, "dapi"));
    assert_eq!(call(&app.api, ACCOUNTS, Some(&token), &secret_of(&result)).await.status, 200);
}

#[tokio::test]
async fn a_connection_without_user_secret_is_told_by_the_other_api_too() {
    let app = TestApp::spawn().await;
    linked(&app).await;
    let token = app.token().await;
    let listed = app.api.get(&token, "/v1/connections").await;
    let id = listed.json["connections"][0]["id"].as_str().unwrap();
    let path = format!("/v1/connections/{id}/dapi/data/accounts/get");
    let answer = app.api.post(&token, &path, &json!({ "userSecret": "ignored" })).await;
    assert_eq!(answer.problem(), (409, "user_secret_missing"));
    let revealed = app.api.reveal(&token, id).await;
    assert_eq!((revealed.status, &revealed.json["userSecret"]), (200, &Value::Null));
}

#[tokio::test]
async fn a_revocation_waits_for_the_user_secret_and_says_so() {
    let app = TestApp::by_hand().await;
    let result = app.connect();
    let (exchanged, ()) = futures_util::future::join(exchange(&app, &result), async {}).await;
    let token = exchanged.json["accessToken"].as_str().unwrap().to_owned();
    let admin = app.token().await;
    let listed = app.api.get(&admin, "/v1/connections").await;
    let id = listed.json["connections"][0]["id"].as_str().unwrap().to_owned();
    app.api.delink(&admin, &id).await;
    app.tick().await;
    let waiting = app.api.connection(&admin, &id).await;
    assert_eq!(
        (&waiting["status"], &waiting["revocation"]["lastError"]),
        (&json!("revoking"), &json!("user_secret_missing"))
    );
    assert_eq!(waiting["revocation"]["attempts"], 0);
    assert_eq!(app.sandbox.calls_to(DELINK), 0);

    // A call that comes now is refused, and what it brought is what was missing.
    let late = call(&app.api, ACCOUNTS, Some(&token), &secret_of(&result)).await;
    assert_eq!(refused(&late), (401, "USER_DELINKED"));
    app.tick().await;
    assert_eq!(app.api.connection(&admin, &id).await["status"], "delinked");
    assert_eq!((app.sandbox.calls_to(DELINK), app.sandbox.calls_to(ACCOUNTS)), (1, 0));
}

#[tokio::test]
async fn a_user_secret_that_never_comes_ends_the_revocation_unconfirmed() {
    let app = TestApp::by_hand().await;
    linked(&app).await;
    let admin = app.token().await;
    let listed = app.api.get(&admin, "/v1/connections").await;
    let id = listed.json["connections"][0]["id"].as_str().unwrap().to_owned();
    app.api.delink(&admin, &id).await;
    app.tick().await;
    app.turn_clock(Duration::from_secs(7 * 24 * 3600 + 1)).await;
    app.tick().await;
    let ended = app.api.connection(&app.token().await, &id).await;
    assert_eq!(
        (&ended["status"], &ended["revocation"]["confirmedAt"]),
        (&json!("invalidated"), &Value::Null)
    );
    assert_eq!(app.database.value("SELECT count(*) FROM token_leases").await, "0");
}

#[tokio::test]
async fn delinking_by_the_wire_revokes_here_and_at_dapi() {
    for path in [DELINK, "data/DelinkUser"] {
        let app = TestApp::spawn().await;
        let (result, token) = linked(&app).await;
        let answer = call(&app.api, path, Some(&token), &secret_of(&result)).await;
        assert_eq!(
            (answer.status, &answer.json["status"]),
            (200, &json!("done")),
            "{}",
            answer.text
        );
        assert_eq!(status(&app).await, "delinked");
        assert!(app.sandbox.tokens(10).iter().all(|token| !token.live));
        let dead = call(&app.api, ACCOUNTS, Some(&token), &secret_of(&result)).await;
        assert_eq!(refused(&dead), (401, "USER_DELINKED"));
        let again = call(&app.api, path, Some(&token), &secret_of(&result)).await;
        assert_eq!(refused(&again), (401, "USER_DELINKED"));
        let code = exchange(&app, &result).await;
        assert_eq!(refused(&code), (401, "USER_DELINKED"));
    }
}

#[tokio::test]
async fn a_delinking_with_a_wrong_user_secret_is_mended_by_the_right_one() {
    let app = TestApp::by_hand().await;
    let (result, token) = linked(&app).await;
    let wrong = call(&app.api, DELINK, Some(&token), &json!({ "userSecret": "wrong" })).await;
    assert_eq!(wrong.status, 200, "it is dead here: {}", wrong.text);
    app.tick().await;
    assert_eq!(status(&app).await, "revoking");
    let right = call(&app.api, DELINK, Some(&token), &secret_of(&result)).await;
    assert_eq!(right.status, 200, "{}", right.text);
    app.tick().await;
    assert_eq!(status(&app).await, "delinked");
}

#[tokio::test]
async fn an_invalidated_connections_stand_in_is_dead_at_once() {
    let app = TestApp::by_hand().await;
    let (result, token) = linked(&app).await;
    let admin = app.token().await;
    let listed = app.api.get(&admin, "/v1/connections").await;
    let id = listed.json["connections"][0]["id"].as_str().unwrap().to_owned();
    app.api.invalidate(&admin, &id, &json!({ "reason": "stolen" })).await;
    let dead = call(&app.api, ACCOUNTS, Some(&token), &secret_of(&result)).await;
    assert_eq!(refused(&dead), (401, "INVALID_CONNECTION"));
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), 0);
}

#[tokio::test]
async fn an_operation_is_asked_for_without_a_token_as_the_sdk_does() {
    let app = TestApp::spawn().await;
    let (result, token) = linked(&app).await;
    let accounts = call(&app.api, ACCOUNTS, Some(&token), &secret_of(&result)).await;
    let body = json!({ "operationID": accounts.json["operationID"] });
    let answer = call(&app.api, "operation/status", None, &body).await;
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("done")), "{}", answer.text);
    let trail = "SELECT count(*) FROM audit_events WHERE action = 'dapi.call' AND reason LIKE 'operation/status%'";
    assert_eq!(app.database.value(trail).await, "2");
}
