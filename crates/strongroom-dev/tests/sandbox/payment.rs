//! Money: transfers with the user's one-time password, beneficiaries, pulls, batches, operations.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom_dev::sandbox::{Mfa, Rules};

use crate::support::{APP_KEY, TestSandbox, User};

const RAILS: [&str; 2] = ["payment", "wire"];

async fn transfer(user: &User<'_>, amount: f64) -> Value {
    json!({
        "senderID": user.account(0).await["id"],
        "amount": amount,
        "name": "Somebody",
        "accountNumber": "12345678",
    })
}

fn without_mfa() -> TestSandbox {
    TestSandbox::with_rules(Rules { mfa: Mfa::Never, ..Rules::default() })
}

#[tokio::test]
async fn a_transfer_asks_for_a_password_and_is_done_with_it() {
    let test = TestSandbox::start();
    let user = test.user().await;
    for rail in RAILS {
        let path = format!("{rail}/transfer/create");
        let body = transfer(&user, 12.5).await;
        let asked = user.call(&path, body.clone()).await;
        assert_eq!((asked.status, &asked.body["success"]), (200, &json!(true)));
        let input = &asked.body["userInputs"][0];
        assert_eq!((&input["id"], &input["index"]), (&json!("otp"), &json!(0)));
        assert_eq!(input["answer"], "");
        assert!(input["query"].is_string());
        let done = user.call_with_otp(&path, body, "123456").await.done();
        assert!(done["reference"].as_str().unwrap().starts_with("SBX"));
    }
}

#[tokio::test]
async fn a_wrong_password_ends_the_transfer() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let path = "payment/transfer/create";
    let mut body = transfer(&user, 12.5).await;
    let asked = user.call(path, body.clone()).await;
    body["operationID"] = asked.body["operationID"].clone();
    body["userInputs"] = json!([{"id": "otp", "index": 0, "answer": "000000"}]);
    let wrong = user.call(path, body.clone()).await;
    assert_eq!(wrong.refusal(), (401, "INVALID_MFA"));
    assert_eq!(wrong.body["operationID"], body["operationID"]);
    body["userInputs"] = json!([{"id": "otp", "index": 0, "answer": "123456"}]);
    let late = user.call(path, body).await;
    assert_eq!(late.refusal(), (404, "INVALID_OPERATION_ID"));
}

#[tokio::test]
async fn a_password_counts_for_its_own_operation_alone() {
    let test = TestSandbox::start();
    let (user, other) = (test.user().await, test.user().await);
    let body = transfer(&user, 12.5).await;
    let asked = user.call("payment/transfer/create", body.clone()).await;
    let answers = json!({
        "operationID": asked.body["operationID"],
        "userInputs": [{"id": "otp", "index": 0, "answer": "123456"}],
    });
    let with_answers = |mut body: Value| {
        body["operationID"] = answers["operationID"].clone();
        body["userInputs"] = answers["userInputs"].clone();
        body
    };
    let others = with_answers(transfer(&other, 12.5).await);
    for reply in [
        other.call("payment/transfer/create", others).await,
        user.call("wire/transfer/create", with_answers(body.clone())).await,
    ] {
        assert_eq!(reply.refusal(), (404, "INVALID_OPERATION_ID"));
    }
    // Neither of them ended it.
    let done = user.call("payment/transfer/create", with_answers(body)).await;
    done.done();
}

#[tokio::test]
async fn an_operation_without_an_answer_asks_again() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let mut body = transfer(&user, 12.5).await;
    let asked = user.call("payment/transfer/create", body.clone()).await;
    body["operationID"] = asked.body["operationID"].clone();
    let again = user.call("payment/transfer/create", body).await;
    assert_eq!(again.body["status"], "user_input_required");
    assert_eq!(again.body["operationID"], asked.body["operationID"]);
}

#[tokio::test]
async fn autoflow_describes_its_receiver() {
    let test = without_mfa();
    let user = test.user().await;
    for rail in RAILS {
        let path = format!("{rail}/transfer/autoflow");
        let sender = user.account(1).await["id"].clone();
        let body = json!({"senderID": sender, "amount": 3});
        let reply = user.call(&path, body.clone()).await;
        assert_eq!(reply.refusal(), (422, "PARAMETER_MISSING"));
        let mut body = body;
        body["beneficiary"] = json!({"name": "Somebody", "iban": "AE070331234567890123456"});
        user.call(&path, body).await.done();
    }
}

#[tokio::test]
async fn a_transfer_that_cannot_be_is_refused_before_anybody_is_asked() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let good = transfer(&user, 12.5).await;
    let refused = [
        ("senderID", json!("none"), (404, "INVALID_ACCOUNT_ID")),
        ("senderID", json!(null), (422, "PARAMETER_MISSING")),
        ("amount", json!(100_000_000), (400, "INSUFFICIENT_BALANCE")),
        ("amount", json!(0), (400, "PARAMETER_ERROR")),
        ("amount", json!("12"), (400, "PARAMETER_ERROR")),
        ("amount", json!(null), (422, "PARAMETER_MISSING")),
        ("accountNumber", json!(null), (422, "PARAMETER_MISSING")),
        ("name", json!(null), (422, "PARAMETER_MISSING")),
        ("receiverID", json!("none"), (400, "PARAMETER_ERROR")),
    ];
    for (field, value, refusal) in refused {
        let mut body = good.clone();
        body[field] = value;
        let reply = user.call("payment/transfer/create", body).await;
        assert_eq!(reply.refusal(), refusal, "{field}");
    }
}

#[tokio::test]
async fn a_new_beneficiary_waits_a_day() {
    let test = without_mfa();
    let user = test.user().await;
    for rail in RAILS {
        let add = json!({"name": "Nora New", "iban": "GB29NWBK60161331926819", "type": "local"});
        let path = format!("{rail}/beneficiaries/create");
        user.call(&path, add.clone()).await.done();
        let twice = user.call(&path, add).await;
        assert_eq!(twice.refusal(), (400, "BENEFICIARY_ALREADY_EXISTS"));
        let list = user.call(&format!("{rail}/beneficiaries/get"), json!({})).await.done();
        let list = list["beneficiaries"].as_array().unwrap();
        let added = list.iter().find(|one| one["name"] == "Nora New").unwrap();
        let body = json!({
            "senderID": user.account(0).await["id"], "amount": 1, "receiverID": added["id"],
        });
        let path = format!("{rail}/transfer/create");
        let early = user.call(&path, body.clone()).await;
        assert_eq!(early.refusal(), (400, "BENEFICIARY_COOL_DOWN_PERIOD"));
        test.sandbox.clock().advance(Duration::from_hours(25));
        user.call(&path, body).await.done();
    }
}

#[tokio::test]
async fn a_beneficiary_that_the_bank_has_not_confirmed_gets_nothing() {
    let test = without_mfa();
    let user = test.user().await;
    let list = user.call("payment/beneficiaries/get", json!({})).await.done();
    let list = list["beneficiaries"].as_array().unwrap();
    for (status, refusal) in
        [("approved", None), ("waiting_for_confirmation", Some((400, "BENEFICIARY_NOT_ACTIVATED")))]
    {
        let payee = list.iter().find(|one| one["status"] == status).unwrap();
        let body = json!({
            "senderID": user.account(0).await["id"], "amount": 1, "receiverID": payee["id"],
        });
        let reply = user.call("payment/transfer/create", body).await;
        assert_eq!((reply.status != 200).then(|| reply.refusal()), refusal);
    }
}

#[tokio::test]
async fn a_pull_can_be_looked_up() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let pull = json!({"senderID": user.account(0).await["id"], "amount": 20.25});
    // Java's SDK sends the pull as a nested object, Go's does not.
    for body in [pull.clone(), json!({"transfer": pull})] {
        let done = user.call_with_otp("ach/pull/create", body, "123456").await.done();
        let lookup = json!({"operationID": done["operationID"]});
        let found = user.call("ach/pull/get", lookup).await.done();
        assert_eq!(found["transfer"]["amount"], 20.25);
        assert_eq!(found["transfer"]["status"], "done");
    }
    let none = user.call("ach/pull/get", json!({"operationID": "none"})).await;
    assert_eq!(none.refusal(), (404, "INVALID_OPERATION_ID"));
}

#[tokio::test]
async fn batches_are_made_and_listed() {
    let test = without_mfa();
    let user = test.user().await;
    let item = |amount: f64| {
        json!({"type": "local", "amount": amount, "currency": "AED",
               "beneficiary": {"name": "Somebody", "accountNumber": "12345678"}})
    };
    let mut batch = json!({
        "senderID": user.account(0).await["id"], "type": "local", "items": [item(1.5), item(2.0)],
    });
    let made = user.call("batch/transfers/create", batch.clone()).await.done();
    assert_eq!(made["details"]["totalAmountSucceeded"], 3.5);
    let file = user.call("batch/file/create", batch.clone()).await.done();
    assert_eq!(file["fileExtension"], "csv");
    batch["items"] = json!([item(100_000_000.0)]);
    let reply = user.call("batch/transfers/create", batch.clone()).await;
    assert_eq!(reply.refusal(), (400, "INSUFFICIENT_BALANCE"));
    batch["items"] = json!([]);
    let reply = user.call("batch/file/create", batch).await;
    assert_eq!(reply.refusal(), (422, "PARAMETER_MISSING"));

    let limits = user.call("batch/metadata/get", json!({})).await.done();
    assert_eq!(limits["metadata"]["maxBatchTransfers"], 100);
    let now = test.sandbox.clock().now().date();
    let range = json!({
        "fromDate": (now - time::Duration::days(90)).to_string(), "toDate": now.to_string(),
    });
    let past = user.call("batch/transfers/get", range).await.done();
    let reference = past["transfers"][0]["reference"].clone();
    let items = user.call("batch/items/get", json!({"reference": reference})).await.done();
    assert_eq!(items["transfers"]["reference"], reference);
}

#[tokio::test]
async fn an_operation_can_be_followed() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let body = transfer(&user, 12.5).await;
    let asked = user.call("payment/transfer/create", body.clone()).await;
    let id = asked.body["operationID"].clone();
    let lookup = json!({"operationID": id, "appKey": APP_KEY});

    let waiting = user.call("operation/get", lookup.clone()).await;
    assert_eq!(waiting.body["status"], "user_input_required");
    let mut answered = body;
    answered["operationID"] = id.clone();
    answered["userInputs"] = json!([{"id": "otp", "index": 0, "answer": "123456"}]);
    user.call("payment/transfer/create", answered).await.done();
    let info = user.call("operation/get", lookup.clone()).await.done()["opInfo"].clone();
    assert_eq!(info["type"], "/payment/transfer/create");
    assert_eq!(info["transferDetails"]["amount"], 12.5);
    assert!(info["endDate"].is_string());

    // Node's SDK calls without a token.
    let body = json!({"operationID": id, "appSecret": "sandbox-app-secret"});
    let status = test.post("/v2/operation/status", &body).await.done();
    assert_eq!(status["operationID"], id);

    let other = test.user().await.call("operation/get", lookup).await;
    assert_eq!(other.refusal(), (404, "INVALID_OPERATION_ID"));
    let keyless = user.call("operation/get", json!({"operationID": id})).await;
    assert_eq!(keyless.refusal(), (422, "PARAMETER_MISSING"));
    let wrong = json!({"operationID": id, "appKey": "wrong"});
    let wrong = user.call("operation/get", wrong).await;
    assert_eq!(wrong.refusal(), (400, "PARAMETER_ERROR"));
}

#[tokio::test]
async fn a_call_that_failed_is_an_operation_that_failed() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let failed = user.call("data/balance/get", json!({"accountID": "none"})).await;
    let lookup = json!({"operationID": failed.body["operationID"], "appKey": APP_KEY});
    let info = user.call("operation/get", lookup).await.body["opInfo"].clone();
    assert_eq!(info["status"], "failed");
    assert_eq!(info["errorType"], "INVALID_ACCOUNT_ID");
}
