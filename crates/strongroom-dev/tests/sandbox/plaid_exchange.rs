//! Public tokens and their exchange.

use std::time::Duration;

use serde_json::json;
use strongroom_dev::sandbox::{LinkOptions, Rules, SecondExchange};

use crate::support::{Reply, TestSandbox};

fn answering(second_exchange: SecondExchange) -> TestSandbox {
    TestSandbox::with_rules(Rules { second_exchange, ..Rules::default() })
}

#[track_caller]
fn assert_bad_token(reply: &Reply) {
    assert_eq!(reply.error(), (400, "INVALID_INPUT", "INVALID_PUBLIC_TOKEN"));
}

#[tokio::test]
async fn a_public_token_is_exchanged_for_the_items_access_token() {
    let test = TestSandbox::start();
    let linked = test.link();
    assert!(linked.public_token.starts_with("public-sandbox-"));
    let body = test.exchange_public(&linked).await.fine();
    assert_eq!(body["item_id"], linked.item_id);
    let token = body["access_token"].as_str().unwrap();
    assert!(token.starts_with("access-sandbox-"));
    assert!(test.plaid().lives(token));
    let live = test.plaid().live_tokens();
    assert_eq!((live.len(), live[0].token_id), (1, linked.token_id));
}

#[tokio::test]
async fn links_result_has_the_form_of_on_success() {
    let test = TestSandbox::start();
    let options = LinkOptions { accounts: Some(vec!["0000".into()]), ..LinkOptions::default() };
    let one = test.plaid().link(&options).unwrap().to_json();
    let metadata = &one["metadata"];
    assert_eq!(metadata["institution"]["institution_id"], "ins_109508");
    assert_eq!(metadata["institution"]["name"], "First Platypus Bank");
    assert_eq!(metadata["accounts"][0]["mask"], "0000");
    assert_eq!(metadata["accounts"][0]["type"], "depository");
    assert_eq!(metadata["accounts"][0]["subtype"], "checking");
    assert_eq!(metadata["account"], metadata["accounts"][0]);
    assert!(metadata["link_session_id"].is_string());
    let several = test.link().metadata;
    assert_eq!(several["accounts"].as_array().unwrap().len(), 3);
    assert!(several["account"]["id"].is_null());
}

#[tokio::test]
async fn a_second_exchange_of_a_public_token_is_refused_unless_told_otherwise() {
    let test = TestSandbox::start();
    let linked = test.link();
    test.exchange_public(&linked).await.fine();
    assert_bad_token(&test.exchange_public(&linked).await);
    let count = test.sandbox.calls_of_code(linked.token_id);
    assert_eq!((count.calls, count.exchanged), (2, 1));
}

#[tokio::test]
async fn a_second_exchange_of_a_public_token_can_give_the_same_token() {
    let test = answering(SecondExchange::SameToken);
    let linked = test.link();
    let first = test.access_token_of(&linked).await;
    assert_eq!(test.access_token_of(&linked).await, first);
    assert_eq!(test.plaid().live_tokens().len(), 1);
}

#[tokio::test]
async fn a_second_exchange_of_a_public_token_can_mint_another_that_lives() {
    let test = answering(SecondExchange::MintAnother);
    let linked = test.link();
    let tokens = [test.access_token_of(&linked).await, test.access_token_of(&linked).await];
    assert_ne!(tokens[0], tokens[1]);
    for token in &tokens {
        test.with_access("accounts/get", token).await.fine();
    }
    assert_eq!(test.plaid().item(&linked.item_id).unwrap().live_tokens, 2);
}

#[tokio::test]
async fn a_public_token_dies_when_its_window_closes() {
    let test = TestSandbox::start();
    let (early, late) = (test.link(), test.link());
    test.sandbox.clock().advance(Duration::from_mins(29));
    test.exchange_public(&early).await.fine();
    test.sandbox.clock().advance(Duration::from_mins(1));
    assert_bad_token(&test.exchange_public(&late).await);
    assert_eq!(test.plaid().live_tokens().len(), 1);
}

#[tokio::test]
async fn credentials_are_read_from_headers_and_from_the_body() {
    let test = TestSandbox::start();
    let linked = test.link();
    let exchange = async |client: &str, secret: &str| {
        let body = json!({
            "client_id": client, "secret": secret, "public_token": linked.public_token,
        });
        test.post("/plaid/item/public_token/exchange", &body).await
    };
    let (id, secret) = ("sandbox-plaid-client-id", "sandbox-plaid-secret");
    for (id, secret) in [(id, "wrong"), ("wrong", secret)] {
        let reply = exchange(id, secret).await;
        assert_eq!(reply.error(), (400, "INVALID_INPUT", "INVALID_API_KEYS"));
    }
    let without = json!({ "public_token": linked.public_token });
    let reply = test.post("/plaid/item/public_token/exchange", &without).await;
    assert_eq!(reply.error(), (400, "INVALID_REQUEST", "MISSING_FIELDS"));
    exchange(id, secret).await.fine();
}

#[tokio::test]
async fn what_is_no_public_token_is_refused() {
    let test = TestSandbox::start();
    for text in ["nonsense", "public-sandbox-0", "public-production-0"] {
        let body = json!({ "public_token": text });
        assert_bad_token(&test.call_plaid("item/public_token/exchange", &body).await);
    }
    let reply = test.call_plaid("item/public_token/exchange", &json!({})).await;
    assert_eq!(reply.error(), (400, "INVALID_REQUEST", "MISSING_FIELDS"));
    let reply = test.call_plaid("item/public_token/exchange", &json!({"public_token": 7})).await;
    assert_eq!(reply.error(), (400, "INVALID_REQUEST", "INVALID_FIELD"));
    let reply = test.call_plaid("item/public_token/exchange", &json!([])).await;
    assert_eq!(reply.error(), (400, "INVALID_REQUEST", "INVALID_BODY"));
    assert_eq!(test.call_plaid("item/nowhere", &json!({})).await.status, 404);
}
