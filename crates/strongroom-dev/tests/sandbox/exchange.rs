//! Codes and their exchange.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::time::Duration;
use strongroom_dev::sandbox::{ConnectOptions, Rules, SecondExchange};

use crate::support::{APP_KEY, TestSandbox};

fn claims(jwt: &str) -> Value {
    let payload = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn answering(second_exchange: SecondExchange) -> TestSandbox {
    TestSandbox::with_rules(Rules { second_exchange, ..Rules::default() })
}

#[tokio::test]
async fn a_code_is_exchanged_for_a_permanent_token() {
    let test = TestSandbox::start();
    let linked = test.connect();
    let body = test.exchange(&linked).await.done();
    assert_eq!(body["tokenID"], linked.token_id.to_string());
    assert_eq!(body["userID"], linked.user_id);
    let token = claims(body["accessToken"].as_str().unwrap());
    assert_eq!(token["tokenID"], linked.token_id.to_string());
    assert_eq!(token["jti"], linked.token_id.to_string());
    assert_eq!(token["appKey"], APP_KEY);
    assert_eq!(token.get("exp"), None);
}

#[tokio::test]
async fn connects_result_has_the_forms_that_dapis_has() {
    let test = TestSandbox::start();
    let linked = test.connect();
    assert_eq!(STANDARD.decode(&linked.user_secret).unwrap().len(), 512);
    assert_eq!(STANDARD.decode(&linked.user_id).unwrap().len(), 64);
    assert_eq!(linked.connection_id.len(), 40);
    let code = claims(&linked.access_code);
    let seconds = code["exp"].as_i64().unwrap() - code["iat"].as_i64().unwrap();
    assert_eq!(seconds, 30 * 60);
    assert_eq!(code["jti"], linked.token_id.to_string());
}

#[tokio::test]
async fn a_second_exchange_is_refused_unless_told_otherwise() {
    let test = TestSandbox::start();
    let linked = test.connect();
    test.exchange(&linked).await.done();
    let second = test.exchange(&linked).await;
    assert_eq!(second.refusal(), (400, "ACCESS_CODE_USED"));
    let count = test.sandbox.calls_of_code(linked.token_id);
    assert_eq!((count.calls, count.exchanged), (2, 1));
}

#[tokio::test]
async fn a_second_exchange_can_give_the_same_token() {
    let test = answering(SecondExchange::SameToken);
    let linked = test.connect();
    let first = test.exchange(&linked).await.done();
    let second = test.exchange(&linked).await.done();
    assert_eq!(first["accessToken"], second["accessToken"]);
    assert_eq!(first["tokenID"], second["tokenID"]);
    assert_eq!(test.sandbox.tokens(10).len(), 1);
}

#[tokio::test]
async fn a_second_exchange_can_mint_another_token() {
    let test = answering(SecondExchange::MintAnother);
    let first = test.user().await;
    let linked = first.linked.clone();
    let second = test.user_of(linked).await;
    assert_ne!(first.token, second.token);
    assert_eq!(test.sandbox.tokens(10).len(), 2);
    for user in [first, second] {
        user.call("data/identity/get", json!({})).await.done();
    }
}

#[tokio::test]
async fn of_many_exchanges_at_once_one_is_the_first() {
    let test = TestSandbox::start();
    let linked = test.connect();
    let calls = (0..20).map(|_| test.exchange(&linked));
    let replies = futures_util::future::join_all(calls).await;
    let done = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(done, 1);
}

#[tokio::test]
async fn a_code_dies_when_its_window_closes() {
    let test = TestSandbox::start();
    let (early, late) = (test.connect(), test.connect());
    test.sandbox.clock().advance(Duration::from_mins(29));
    test.exchange(&early).await.done();
    test.sandbox.clock().advance(Duration::from_mins(1));
    let reply = test.exchange(&late).await;
    assert_eq!(reply.refusal(), (400, "ACCESS_CODE_EXPIRED"));
    assert!(test.sandbox.tokens(10).len() == 1);
}

#[tokio::test]
async fn a_code_can_live_as_long_as_connect_is_told() {
    let test = TestSandbox::start();
    let options = ConnectOptions { code_lifetime: Some(300), ..ConnectOptions::default() };
    let (first, second) =
        (test.sandbox.connect(&options).unwrap(), test.sandbox.connect(&options).unwrap());
    test.sandbox.clock().advance(Duration::from_secs(298));
    test.exchange(&first).await.done();
    test.sandbox.clock().advance(Duration::from_secs(3));
    let reply = test.exchange(&second).await;
    assert_eq!(reply.refusal(), (400, "ACCESS_CODE_EXPIRED"));
}

#[tokio::test]
async fn an_opaque_code_works_like_any_other() {
    let test = TestSandbox::start();
    let options = ConnectOptions { opaque: true, ..ConnectOptions::default() };
    let linked = test.sandbox.connect(&options).unwrap();
    assert!(!linked.access_code.contains('.'));
    test.exchange(&linked).await.done();
    assert_eq!(test.sandbox.calls_of_code(linked.token_id).exchanged, 1);
}

#[tokio::test]
async fn an_exchange_needs_the_right_secret_code_and_connection() {
    let test = TestSandbox::start();
    let linked = test.connect();
    let good = TestSandbox::exchange_body(&linked);
    let wrong = [
        ("appSecret", 401, "INVALID_APP_SECRET"),
        ("accessCode", 400, "INVALID_ACCESS_CODE"),
        ("connectionID", 401, "INVALID_CONNECTION"),
    ];
    for (field, status, kind) in wrong {
        let mut body = good.clone();
        body[field] = json!("wrong");
        let reply = test.post("/v2/auth/ExchangeToken", &body).await;
        assert_eq!(reply.refusal(), (status, kind), "{field}");
        for nothing in [json!(null), json!("")] {
            body[field] = nothing;
            let reply = test.post("/v2/auth/ExchangeToken", &body).await;
            assert_eq!(reply.refusal(), (422, "PARAMETER_MISSING"), "{field}");
        }
        body[field] = json!(7);
        let reply = test.post("/v2/auth/ExchangeToken", &body).await;
        assert_eq!(reply.refusal(), (400, "PARAMETER_ERROR"), "{field}");
    }
    // None of that consumed the code.
    test.exchange(&linked).await.done();
}

#[tokio::test]
async fn a_code_is_worth_nothing_to_another_app() {
    let test = TestSandbox::with_apps(["one", "two"]);
    let linked = test.connect();
    let mut body = TestSandbox::exchange_body(&linked);
    body["appSecret"] = json!("secret of two");
    let reply = test.post("/v2/auth/ExchangeToken", &body).await;
    assert_eq!(reply.refusal(), (400, "INVALID_ACCESS_CODE"));
    body["appSecret"] = json!("secret of one");
    test.post("/v2/auth/ExchangeToken", &body).await.done();
}

#[tokio::test]
async fn unknown_fields_headers_and_spellings_do_not_matter() {
    let test = TestSandbox::start();
    for path in ["/v2/auth/exchangetoken", "/V2/AUTH/ExchangeToken", "/v2/auth/ExchangeToken/"] {
        let mut body = TestSandbox::exchange_body(&test.connect());
        body["action"] = json!("whatever");
        let request = test.http.post(test.url(path)).json(&body);
        let response = request.header("x-dapi-library", "test").send().await;
        assert_eq!(response.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let test = TestSandbox::start();
    for body in ["", "{", "[]", "\"text\""] {
        let request = test.http.post(test.url("/v2/auth/ExchangeToken"));
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), 400, "{body}");
        let reply: Value = response.json().await.unwrap();
        assert_eq!(reply["type"], "PARAMETER_ERROR", "{body}");
    }
    let flood = vec![b' '; 2 * 1024 * 1024];
    let request = test.http.post(test.url("/v2/auth/ExchangeToken"));
    if let Ok(response) = request.body(flood).send().await {
        assert_eq!(response.status(), 413);
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_in_dapis_form() {
    let test = TestSandbox::start();
    let nowhere = test.post("/v2/auth/nowhere", &json!({})).await;
    assert_eq!(nowhere.refusal(), (404, "NOT_FOUND"));
    let get = test.get("/v2/auth/ExchangeToken").await;
    assert_eq!(get.refusal(), (405, "METHOD_NOT_ALLOWED"));
}
