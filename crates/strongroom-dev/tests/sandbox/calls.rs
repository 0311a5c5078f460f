//! The journal.

use serde_json::json;
use strongroom_dev::sandbox::{Effect, Fault, Settings};

use crate::support::TestSandbox;

#[tokio::test]
async fn calls_are_counted_by_path_and_by_code() {
    let test = TestSandbox::start();
    let (one, two) = (test.connect(), test.connect());
    for linked in [&one, &one, &two] {
        test.exchange(linked).await;
    }
    assert_eq!(test.sandbox.calls_to("auth/ExchangeToken"), 3);
    assert_eq!(test.sandbox.calls_to("/v2/auth/exchangetoken"), 3);
    let counts = [&one, &two].map(|linked| test.sandbox.calls_of_code(linked.token_id));
    assert_eq!(counts.map(|count| (count.calls, count.exchanged)), [(2, 1), (1, 1)]);

    let shown = test.get("/sandbox/calls").await.body;
    assert_eq!(shown["total"], 3);
    assert_eq!(shown["paths"]["auth/ExchangeToken"], 3);
    assert_eq!(shown["codes"][one.token_id.to_string()], json!({"calls": 2, "exchanged": 1}));
    let outcomes: Vec<_> = shown["calls"].as_array().unwrap().iter().collect();
    assert_eq!(outcomes[0]["outcome"], "done");
    assert_eq!(outcomes[1]["outcome"], "ACCESS_CODE_USED");
    assert_eq!(outcomes[0]["connectionID"], two.connection_id);
}

#[tokio::test]
async fn the_journal_can_be_narrowed_and_forgotten() {
    let test = TestSandbox::start();
    let user = test.user().await;
    user.call("data/accounts/get", json!({})).await;
    test.exchange(&test.connect()).await;
    let count = async |query: &str| {
        let reply = test.get(&format!("/sandbox/calls?{query}")).await;
        reply.body["calls"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 3);
    assert_eq!(count("limit=2").await, 2);
    assert_eq!(count("path=data/accounts/get").await, 1);
    assert_eq!(count(&format!("tokenID={}", user.linked.token_id)).await, 2);
    assert_eq!(count(&format!("connectionID={}", user.linked.connection_id)).await, 2);
    let reply = test.send(reqwest::Method::DELETE, "/sandbox/calls", &json!({})).await;
    assert_eq!(reply.status, 204);
    assert_eq!(count("").await, 0);
    assert_eq!(test.sandbox.calls_of_code(user.linked.token_id).calls, 0);
}

#[tokio::test]
async fn the_journal_knows_the_callers_trace_and_no_secret() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let body = json!({"appSecret": "sandbox-app-secret", "userSecret": user.linked.user_secret});
    let request = test.http.post(test.url("/v2/data/accounts/get"));
    let request = request.bearer_auth(&user.token).header("traceparent", trace);
    request.json(&body).send().await.unwrap();
    let shown = test.get("/sandbox/calls").await.body;
    assert_eq!(shown["calls"][0]["traceparent"], trace);
    let tokens = test.get("/sandbox/tokens").await.body;
    for text in [shown.to_string(), tokens.to_string()] {
        for secret in [&user.token, &user.linked.access_code, &user.linked.user_secret] {
            assert!(!text.contains(secret.as_str()));
        }
        assert!(!text.contains("sandbox-app-secret"));
    }
}

#[tokio::test]
async fn a_call_under_way_is_in_the_journal_without_an_end() {
    let test = TestSandbox::start();
    test.fault(Fault::new(Effect::Hang).times(1));
    let linked = test.connect();
    let hanging = test.http.post(test.url("/v2/auth/ExchangeToken"));
    let hanging = tokio::spawn(hanging.json(&TestSandbox::exchange_body(&linked)).send());
    test.sandbox.calls_reached("auth/ExchangeToken", 1).await;
    let call = test.sandbox.calls(1).calls.remove(0);
    assert_eq!((call.ended, call.outcome, call.fault), (false, None, Some("hang")));
    test.sandbox.clear_faults();
    assert!(hanging.await.unwrap().is_err());
    let call = test.sandbox.calls(1).calls.remove(0);
    assert_eq!((call.ended, call.outcome), (true, None));
}

#[tokio::test]
async fn what_is_no_endpoint_is_counted_under_one_name() {
    let test = TestSandbox::start();
    for path in ["/v2/a", "/v2/b", "/favicon.ico"] {
        test.post(path, &json!({})).await;
    }
    let shown = test.get("/sandbox/calls").await.body;
    assert_eq!(shown["paths"], json!({"(unknown)": 3}));
}

#[tokio::test]
async fn a_full_sandbox_forgets_its_oldest_codes_and_tokens() {
    let test = TestSandbox::start_with(Settings { capacity: 2, ..Settings::default() });
    let user = test.user().await;
    let waiting = test.connect();
    test.user().await;
    test.user().await;
    let reply = test.exchange(&waiting).await;
    assert_eq!(reply.refusal(), (400, "INVALID_ACCESS_CODE"));
    let reply = user.call("data/accounts/get", json!({})).await;
    assert_eq!(reply.refusal(), (401, "INVALID_CONNECTION"));
    assert_eq!(test.sandbox.tokens(10).len(), 2);
}
