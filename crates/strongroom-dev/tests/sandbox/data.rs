//! Data and metadata.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom_dev::sandbox::{ConnectOptions, Mfa, Rules};
use time::format_description::well_known::Iso8601;

use crate::support::TestSandbox;

fn day(test: &TestSandbox, days_ago: i64) -> String {
    let day = test.sandbox.clock().now() - time::Duration::days(days_ago);
    day.date().format(&Iso8601::DATE).unwrap()
}

#[tokio::test]
async fn every_login_has_a_person_accounts_and_a_card() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let identity = user.call("data/identity/get", json!({})).await.done();
    assert!(identity["identity"]["name"].is_string());
    let accounts = user.call("data/accounts/get", json!({})).await.done();
    let accounts = accounts["accounts"].as_array().unwrap().clone();
    assert_eq!(accounts.len(), 2);
    assert!(accounts[0]["currency"]["code"].is_string());
    let cards = user.call("data/cards/get", json!({})).await.done();
    assert_eq!(cards["cards"][0]["type"], "credit");
    let metadata = user.call("metadata/accounts/get", json!({})).await.done();
    assert_eq!(metadata["accountsMetadata"]["transactionRange"]["value"], 365);
}

#[tokio::test]
async fn one_login_shows_the_same_in_every_sandbox() {
    let options = ConnectOptions {
        connection_id: Some("2c72a336a7c09fd905f9adf3dc5ff976d58eeb20".to_owned()),
        ..ConnectOptions::default()
    };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let test = TestSandbox::start();
        let user = test.user_of(test.sandbox.connect(&options).unwrap()).await;
        let identity = user.call("data/identity/get", json!({})).await.done();
        let account = user.account(0).await;
        let range = json!({
            "accountID": account["id"], "fromDate": day(&test, 30), "toDate": day(&test, 1),
        });
        let booked = user.call("data/transactions/get", range).await.done();
        seen.push((identity["identity"].clone(), account, booked["transactions"].clone()));
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_balance_is_an_accounts_or_a_cards() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let account = user.account(0).await;
    let body = user.call("data/balance/get", json!({"accountID": account["id"]})).await.done();
    assert!(body["balance"]["amount"].as_f64().unwrap() > 0.0);
    assert_eq!(body["balance"]["accountNumber"], account["number"]);
    let cards = user.call("data/cards/get", json!({})).await.done();
    let card = json!({"cardID": cards["cards"][0]["id"]});
    let body = user.call("data/balance/get", card).await.done();
    assert_eq!(body["balance"]["cardNumber"], cards["cards"][0]["cardNumber"]);
    let refused = [
        (json!({"accountID": "none"}), (404, "INVALID_ACCOUNT_ID")),
        (json!({"cardID": "none"}), (404, "INVALID_CARD_ID")),
        (json!({}), (422, "PARAMETER_MISSING")),
    ];
    for (body, refusal) in refused {
        let reply = user.call("data/balance/get", body).await;
        assert_eq!(reply.refusal(), refusal);
    }
}

#[tokio::test]
async fn transactions_lie_in_the_range_and_tell_as_much_as_asked() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let (from, to) = (day(&test, 60), day(&test, 0));
    let range = json!({"accountID": user.account(0).await["id"], "fromDate": from, "toDate": to});
    let mut lists = Vec::new();
    for path in ["transactions", "categorizedTransactions", "enrichedTransactions"] {
        let body = user.call(&format!("data/{path}/get"), range.clone()).await.done();
        lists.push(body["transactions"].as_array().unwrap().clone());
    }
    assert!(lists[0].len() > 10);
    for booked in &lists[0] {
        let date = &booked["date"].as_str().unwrap()[..10];
        assert!(from.as_str() <= date && date <= to.as_str(), "{booked}");
        assert_eq!((booked.get("category"), booked.get("brandDetails")), (None, None));
    }
    assert!(lists[1].iter().all(|booked| booked["category"].is_string()));
    assert!(lists[2].iter().all(|booked| booked["brandDetails"]["name"].is_string()));
    assert!(lists.iter().all(|list| list.len() == lists[0].len()));
}

#[tokio::test]
async fn a_date_range_that_the_bank_does_not_have_is_refused() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let id = user.account(0).await["id"].clone();
    let refused = [
        (day(&test, 1), day(&test, 2), (400, "INVALID_DATE_RANGE")),
        (day(&test, 400), day(&test, 2), (400, "INVALID_DATE_RANGE")),
        (day(&test, -2), day(&test, -1), (400, "INVALID_DATE_RANGE")),
        ("Invalid date".to_owned(), day(&test, 2), (400, "PARAMETER_ERROR")),
        (String::new(), day(&test, 2), (422, "PARAMETER_MISSING")),
    ];
    for (from, to, refusal) in refused {
        let body = json!({"accountID": id, "fromDate": from, "toDate": to});
        let reply = user.call("data/transactions/get", body).await;
        assert_eq!(reply.refusal(), refusal, "{from} to {to}");
    }
}

#[tokio::test]
async fn data_calls_ask_for_a_password_where_that_is_the_rule() {
    let test = TestSandbox::with_rules(Rules { mfa: Mfa::Everything, ..Rules::default() });
    let user = test.user().await;
    let done = user.call_with_otp("data/identity/get", json!({}), "123456").await;
    assert!(done.done()["identity"]["name"].is_string());
    // Auth, metadata and operation calls never ask.
    user.call("metadata/accounts/get", json!({})).await.done();
    user.call("users/DelinkUser", json!({})).await.done();
}

#[tokio::test]
async fn what_python_sends_for_nothing_counts_as_nothing() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let body = json!({"userInputs": [], "operationID": ""});
    user.call("data/accounts/get", body).await.done();
}

#[tokio::test]
async fn a_year_on_the_same_login_still_works() {
    let test = TestSandbox::start();
    let user = test.user().await;
    test.sandbox.clock().advance(Duration::from_hours(24 * 400));
    let body: Value = user.call("data/accounts/get", json!({})).await.done();
    assert_eq!(body["accounts"].as_array().unwrap().len(), 2);
}
