//! The other systems' token endpoints and protected APIs.

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{
    Effect, Fault, SYSTEMS_CLIENT_ID as ID, SYSTEMS_CLIENT_SECRET as SECRET,
};

use crate::support::{Reply, TestSandbox};

const FORM: &str = "application/x-www-form-urlencoded";

async fn reply(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    Reply { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
}

fn form(test: &TestSandbox, path: &str, body: &str) -> RequestBuilder {
    test.http.post(test.url(path)).header("content-type", FORM).body(body.to_owned())
}

async fn token(request: RequestBuilder, lifetime: u32) -> String {
    let reply = reply(request).await;
    assert_eq!((reply.status, &reply.body["expires_in"]), (200, &json!(lifetime)), "{reply:?}");
    assert_eq!(reply.body["token_type"], "Bearer");
    reply.body["access_token"].as_str().unwrap().to_owned()
}

async fn call(test: &TestSandbox, path: &str, token: &str) -> Reply {
    reply(test.http.get(test.url(path)).bearer_auth(token)).await
}

#[track_caller]
fn error(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.body["error"].as_str().unwrap())
}

#[tokio::test]
async fn danaconnect_takes_basic_and_asks_for_a_scope() {
    let test = TestSandbox::start();
    let path = "/danaconnect/oauth2/token";
    let grant = "grant_type=client_credentials";
    let scoped = format!("{grant}&scope=conversation%3Aaccess2api");
    let token = token(form(&test, path, &scoped).basic_auth(ID, Some(SECRET)), 3600).await;
    assert_eq!(token.split('.').count(), 3, "it looks like a JWT");
    assert_eq!(call(&test, "/danaconnect/api/2.0/x", &token).await.status, 200);
    for (body, expected) in [
        (grant.to_owned(), (400, "invalid_scope")),
        (format!("{grant}&scope=nonsense"), (400, "invalid_scope")),
        ("scope=conversation%3Aaccess2api".to_owned(), (400, "unsupported_grant_type")),
    ] {
        let refused = reply(form(&test, path, &body).basic_auth(ID, Some(SECRET))).await;
        assert_eq!(error(&refused), expected, "{body}");
    }
    let wrong = reply(form(&test, path, &scoped).basic_auth(ID, Some("wrong"))).await;
    assert_eq!(error(&wrong), (401, "invalid_client"));
    let in_the_form = format!("{scoped}&client_id={ID}&client_secret={SECRET}");
    assert_eq!(error(&reply(form(&test, path, &in_the_form)).await), (401, "invalid_client"));
}

#[tokio::test]
async fn kaisa_takes_a_form_or_json_and_not_basic() {
    let test = TestSandbox::start();
    let path = "/kaisa/oauth/token";
    let body = format!("grant_type=client_credentials&client_id={ID}&client_secret={SECRET}");
    let first = token(form(&test, path, &body), 300).await;
    let json =
        json!({"grant_type": "client_credentials", "client_id": ID, "client_secret": SECRET});
    let second = token(test.http.post(test.url(path)).json(&json), 300).await;
    for token in [&first, &second] {
        assert!(!token.contains('.'), "it is opaque");
        assert_eq!(call(&test, "/kaisa/api/accounts", token).await.status, 200);
    }
    let basic = form(&test, path, "grant_type=client_credentials").basic_auth(ID, Some(SECRET));
    assert_eq!(error(&reply(basic).await), (401, "invalid_client"));
}

#[tokio::test]
async fn the_plain_one_takes_basic_alone() {
    let test = TestSandbox::start();
    let basic = form(&test, "/oauth/v2/token", "grant_type=client_credentials");
    let token = token(basic.basic_auth(ID, Some(SECRET)), 1800).await;
    let echoed = call(&test, "/oauth/v2/api/items?x=1", &token).await;
    assert_eq!((echoed.status, &echoed.body["path"]), (200, &json!("/oauth/v2/api/items")));
    assert!(!echoed.body.to_string().contains(&token), "it does not repeat the token");
}

#[tokio::test]
async fn an_api_tells_a_bad_token_from_a_missing_scope() {
    let test = TestSandbox::start();
    let body =
        format!("grant_type=client_credentials&client_id={ID}&client_secret={SECRET}&scope=other");
    let other = token(form(&test, "/kaisa/oauth/token", &body), 300).await;
    let path = "/kaisa/api/x";
    assert_eq!(error(&call(&test, path, &other).await), (403, "insufficient_scope"));
    assert_eq!(error(&call(&test, path, "nonsense").await), (401, "invalid_token"));
    let none = reply(test.http.get(test.url(path))).await;
    assert_eq!(error(&none), (401, "invalid_token"));
    assert_eq!(error(&call(&test, "/danaconnect/api/x", &other).await), (401, "invalid_token"));
}

#[tokio::test]
async fn tokens_end_by_the_clock_and_by_hand() {
    let test = TestSandbox::start();
    let body = format!("grant_type=client_credentials&client_id={ID}&client_secret={SECRET}");
    let ask = async || token(form(&test, "/kaisa/oauth/token", &body), 300).await;
    let first = ask().await;
    test.post("/sandbox/clock", &json!({"advanceSeconds": 300})).await;
    assert_eq!(call(&test, "/kaisa/api/x", &first).await.status, 401);
    let second = ask().await;
    assert_eq!(call(&test, "/kaisa/api/x", &second).await.status, 200);
    assert_eq!(test.post("/sandbox/systems/revoke", &json!({})).await.status, 204);
    assert_eq!(call(&test, "/kaisa/api/x", &second).await.status, 401);
}

#[tokio::test]
async fn calls_are_counted_and_faults_strike_them() {
    let test = TestSandbox::start();
    test.fault(Fault::status(503).on("/kaisa/oauth/token").times(1));
    test.fault(Fault::new(Effect::Garbage).on("kaisa/api"));
    let body = format!("grant_type=client_credentials&client_id={ID}&client_secret={SECRET}");
    assert_eq!(reply(form(&test, "/kaisa/oauth/token", &body)).await.status, 503);
    let token = token(form(&test, "/kaisa/oauth/token", &body), 300).await;
    let garbage = call(&test, "/kaisa/api/deep/er", &token).await;
    assert_eq!((garbage.status, garbage.body), (200, Value::Null));
    assert_eq!(test.sandbox.calls_to("kaisa/oauth/token"), 2);
    let report = test.get("/sandbox/calls?path=kaisa/api").await.body;
    assert_eq!(report["paths"], json!({"kaisa/oauth/token": 2, "kaisa/api": 1}));
    assert_eq!(report["calls"][0]["outcome"], "done");
    assert_eq!(report["calls"][0]["fault"], "garbage");
    assert!(!report.to_string().contains(SECRET));
}
