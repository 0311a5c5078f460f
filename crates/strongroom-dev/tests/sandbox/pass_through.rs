//! The root path, which SDKs inside apps call.

use serde_json::json;

use crate::support::TestSandbox;

#[tokio::test]
async fn the_action_in_the_body_names_the_endpoint() {
    let test = TestSandbox::start();
    for action in ["auth/ExchangeToken", "/auth/ExchangeToken", "AUTH/exchangetoken"] {
        let linked = test.connect();
        let mut body = TestSandbox::exchange_body(&linked);
        body["action"] = json!(action);
        let request = test.http.post(test.url("/")).header("host", "dd.dapi.com");
        let response = request.json(&body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{action}");
    }
    assert_eq!(test.sandbox.calls_to("auth/ExchangeToken"), 3);
    assert!(test.sandbox.calls(3).calls.iter().all(|call| call.pass_through));
}

#[tokio::test]
async fn the_token_comes_in_the_header_as_ever() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let request = test.http.post(test.url("/")).bearer_auth(&user.token);
    let body = json!({
        "action": "data/accounts/get",
        "appSecret": "sandbox-app-secret",
        "userSecret": user.linked.user_secret,
    });
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn an_unknown_action_is_refused() {
    let test = TestSandbox::start();
    for body in [json!({}), json!({"action": "nothing/at/all"}), json!({"action": 7})] {
        let reply = test.post("/", &body).await;
        assert_eq!(reply.refusal(), (400, "PARAMETER_ERROR"), "{body}");
    }
}
