//! Faults of calls to Plaid, and what the journal keeps of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault, Huge, LinkResult, Status};

use crate::support::TestSandbox;

const EXCHANGE: &str = "plaid/item/public_token/exchange";

/// Exchanges as a caller that may not get an answer.
async fn attempt(test: &TestSandbox, linked: &LinkResult) -> Result<(u16, String), reqwest::Error> {
    let body = json!({
        "client_id": "sandbox-plaid-client-id", "secret": "sandbox-plaid-secret",
        "public_token": linked.public_token,
    });
    let request = test.http.post(test.url(&format!("/{EXCHANGE}"))).json(&body);
    let response = request.send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

/// Whether the exchange was carried out.
fn exchanged(test: &TestSandbox, linked: &LinkResult) -> bool {
    test.sandbox.calls_of_code(linked.token_id).exchanged == 1
}

#[tokio::test]
async fn an_answer_is_lost_before_or_after_the_public_token_is_consumed() {
    for (fault, consumed) in [
        (Fault::new(Effect::Drop).before(), false),
        (Fault::new(Effect::Drop).after(), true),
        (Fault::new(Effect::HalfAnswer), true),
    ] {
        let test = TestSandbox::start();
        let linked = test.link();
        test.fault(fault.on(EXCHANGE).times(1));
        attempt(&test, &linked).await.unwrap_err();
        assert_eq!(exchanged(&test, &linked), consumed);
        assert_eq!(test.plaid().live_tokens().len(), usize::from(consumed));
    }
}

#[tokio::test]
async fn answers_are_replaced() {
    let test = TestSandbox::start();
    let huge = Effect::Huge(Huge { bytes: 1_000_000, content_length: true });
    for (fault, status, length) in [
        (Fault::new(Effect::Garbage), 200, 20..200),
        (Fault::new(huge), 200, 1_000_000..1_001_000),
        (Fault::status(502), 502, 1..100),
    ] {
        test.fault(fault.on("item/public_token/exchange").times(1));
        let (given, body) = attempt(&test, &test.link()).await.unwrap();
        assert_eq!(given, status);
        assert!(length.contains(&body.len()), "{}", body.len());
    }
}

#[tokio::test]
async fn a_rate_limit_has_plaids_form_and_says_when_to_come_again() {
    let test = TestSandbox::start();
    let body = json!({
        "error_type": "RATE_LIMIT_EXCEEDED", "error_code": "RATE_LIMIT", "error_message": "slow",
        "display_message": null, "request_id": "r1",
    });
    let headers = [("Retry-After", "7"), ("Content-Type", "application/json")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let status = Status { code: 429, headers: headers.into(), body: body.to_string() };
    test.fault(Fault::new(Effect::Status(status)).times(1));
    let url = test.url("/plaid/accounts/get");
    let response = test.http.post(url).json(&json!({})).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    assert_eq!(response.json::<Value>().await.unwrap(), body);

    test.fault(Fault::plaid_rate_limit(Some(7)).times(1));
    let reply = test.call_plaid("accounts/get", &json!({})).await;
    assert_eq!(reply.error(), (429, "RATE_LIMIT_EXCEEDED", "RATE_LIMIT"));
}

#[tokio::test]
async fn a_refusal_on_demand_has_plaids_form() {
    let test = TestSandbox::start();
    let linked = test.link();
    let faults = [
        (
            Fault::plaid_error(400, "RATE_LIMIT_EXCEEDED", "NEW_LIMIT"),
            (400, "RATE_LIMIT_EXCEEDED", "NEW_LIMIT"),
        ),
        (
            Fault::plaid_error(500, "API_ERROR", "INTERNAL_SERVER_ERROR"),
            (500, "API_ERROR", "INTERNAL_SERVER_ERROR"),
        ),
    ];
    for (fault, expected) in faults {
        test.fault(fault.on(EXCHANGE).times(1));
        assert_eq!(test.exchange_public(&linked).await.error(), expected);
    }
    let fault = json!({
        "effect": { "refuse": { "type": "INSTITUTION_DOWN" } }, "path": "/plaid/accounts/get",
    });
    let set = test.post("/sandbox/faults", &fault).await;
    assert_eq!((set.status, &set.body["path"]), (201, &json!("plaid/accounts/get")));
    let token = test.access_token_of(&linked).await;
    let reply = test.with_access("accounts/get", &token).await;
    assert_eq!(reply.error(), (400, "INSTITUTION_ERROR", "INSTITUTION_DOWN"));
}

#[tokio::test]
async fn a_fault_strikes_one_item_alone() {
    let test = TestSandbox::start();
    let (one, two) = (test.link(), test.link());
    let (mine, other) = (test.access_token_of(&one).await, test.access_token_of(&two).await);
    test.fault(
        Fault::plaid_error(503, "API_ERROR", "X").on("item/remove").of_connection(&one.item_id),
    );
    test.with_access("item/remove", &other).await.fine();
    assert_eq!(test.with_access("item/remove", &mine).await.status, 503);
    assert!(test.plaid().lives(&mine));
}

#[tokio::test]
async fn a_call_hangs_until_it_is_let_go() {
    let test = TestSandbox::start();
    let linked = test.link();
    test.fault(Fault::new(Effect::Hang).on(EXCHANGE).after().times(1));
    let caller = attempt(&test, &linked);
    let release = async {
        test.sandbox.calls_reached(EXCHANGE, 1).await;
        while !exchanged(&test, &linked) {
            tokio::task::yield_now().await;
        }
        test.sandbox.clear_faults();
    };
    tokio::join!(caller, release).0.unwrap_err();
    assert_eq!(test.plaid().live_tokens().len(), 1);
}

#[tokio::test]
async fn a_delay_passes() {
    let test = TestSandbox::start();
    let delay = Duration::from_millis(150);
    test.fault(Fault::new(Effect::Answer).delayed(delay).on(EXCHANGE).times(1));
    let start = Instant::now();
    test.exchange_public(&test.link()).await.fine();
    assert!(start.elapsed() >= delay);
}

#[tokio::test]
async fn the_journal_keeps_what_came_without_its_secrets() {
    let test = TestSandbox::start();
    let linked = test.link();
    let token = test.access_token_of(&linked).await;
    let body = json!({ "access_token": token, "secret": "hush", "options": { "count": 3 } });
    test.call_plaid("transactions/get", &body).await;
    let calls = test.get("/sandbox/calls?path=transactions/get").await.body;
    let call = &calls["calls"][0];
    assert_eq!(call["path"], "plaid/transactions/get");
    assert_eq!(call["connectionID"], linked.item_id);
    assert_eq!(call["tokenID"], linked.token_id.to_string());
    assert_eq!(call["body"]["options"]["count"], 3);
    let listed = test.get("/sandbox/calls").await.body.to_string();
    for secret in ["hush", &token, &linked.public_token] {
        assert!(!listed.contains(secret), "{secret}");
    }
    assert_eq!(test.sandbox.calls_to("item/public_token/exchange"), 1);
    let codes = &test.get("/sandbox/calls").await.body["codes"];
    assert_eq!(codes[linked.token_id.to_string()], json!({"calls": 1, "exchanged": 1}));
}
