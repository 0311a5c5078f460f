//! Calls to Dapi on a connection's behalf: with the token that the caller never sees, one at a time, in
//! turn, and never after a revocation.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use strongroom_dev::sandbox::{DEFAULT_APP_SECRET, Effect, Fault, Huge, Status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::{Answer, Api, Process, TestApp, id};

const ACCOUNTS: &str = "data/accounts/get";
const CARDS: &str = "data/cards/get";
const IDENTITY: &str = "data/identity/get";
const TRANSFER: &str = "payment/transfer/create";
const DELINK: &str = "users/DelinkUser";

fn url(connection: &Value, path: &str) -> String {
    format!("/v1/connections/{}/dapi/{path}", id(connection))
}

async fn call(app: &TestApp, connection: &Value, path: &str, body: &Value) -> Answer {
    app.api.post(&app.token().await, &url(connection, path), body).await
}

/// A call that goes on while the test does something else.
async fn begin(app: &TestApp, api: &Api, connection: &Value, path: &str) -> JoinHandle<Answer> {
    let (api, token, url) = (api.clone(), app.token().await, url(connection, path));
    tokio::spawn(async move { api.post(&token, &url, &json!({})).await })
}

/// Asks the database until it answers `expected`.
async fn until(app: &TestApp, sql: &'static str, expected: &str) {
    let mut last = String::new();
    for _ in 0..3000 {
        last = app.database.value(sql).await;
        if last == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{sql} stays {last}, not {expected}");
}

const WAITING: &str = "SELECT count(*) FROM token_lease_queue";
const TURNS: &str = "SELECT count(*) FROM token_leases";

/// A call that Dapi does not answer until the faults are cleared, and then does.
fn slow(path: &str) -> Fault {
    Fault::new(Effect::Answer).on(path).delayed(Duration::from_secs(50))
}

/// A Dapi that answers everything with the same bytes, and remembers what it was asked.
async fn dapi_that_answers(bytes: Vec<u8>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (base, seen) = (format!("http://{}/v2", listener.local_addr().unwrap()), Arc::default());
    let requests = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (bytes, requests) = (bytes.clone(), Arc::<Mutex<Vec<String>>>::clone(&requests));
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    let mut piece = [0; 4096];
                    let read = stream.read(&mut piece).await.unwrap();
                    if read == 0 {
                        return;
                    }
                    request.extend_from_slice(&piece[..read]);
                }
                requests.lock().unwrap().push(String::from_utf8(request).unwrap());
                // Whoever has heard enough closes.
                let _ = stream.write_all(&bytes).await;
            });
        }
    });
    (base, seen)
}

fn http(head: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A service whose Dapi is not the sandbox, with an imported token.
async fn with_dapi(base: &str) -> (TestApp, Value) {
    let app = TestApp::builder().set("DAPI_BASE_URL", base).spawn().await;
    let import = json!({
        "clientUserID": "ada", "connectionID": "c", "accessToken": "CANARY/token==",
        "userSecret": "CANARY-user-secret+/=",
    });
    let imported = app.api.post(&app.token().await, "/v1/connections/import", &import).await;
    assert_eq!(imported.status, 201, "{}", imported.text);
    (app, imported.json)
}

#[tokio::test]
async fn a_call_goes_out_with_the_secrets_whatever_the_caller_sent_in_their_place() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    for body in [json!({}), json!({ "appSecret": "x", "userSecret": "y", "unknown": [1.50] })] {
        let answer = call(&app, &active, ACCOUNTS, &body).await;
        assert_eq!(
            (answer.status, &answer.json["success"]),
            (200, &json!(true)),
            "{}",
            answer.text
        );
        assert_eq!(answer.header("strongroom-upstream"), "dapi");
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(!answer.json["accounts"].as_array().unwrap().is_empty());
    }
    let trail = "SELECT string_agg(outcome || ' ' || reason, ', ' ORDER BY id) FROM audit_events
                 WHERE action = 'dapi.call'";
    let once = format!("begun {ACCOUNTS}, answered {ACCOUNTS}: 200");
    assert_eq!(app.database.value(trail).await, format!("{once}, {once}"));
    assert_eq!(app.database.value(TURNS).await, "0");
    let counted = "strongroom_dapi_calls_total{call=\"call\",outcome=\"answered\"}";
    assert_eq!(app.metric(counted).await, 2.0);
}

#[tokio::test]
async fn what_the_caller_sends_arrives_as_it_came() {
    let (base, seen) = dapi_that_answers(http("200 OK", b"{\"success\":true}")).await;
    let (app, active) = with_dapi(&base).await;
    let request = app
        .api
        .request(reqwest::Method::POST, &url(&active, "Operation/GET"))
        .bearer_auth(app.token().await)
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .body(r#"{"amount": 12.50, "appsecret": "x", "userInputs": [{"id":"otp"}], "big": 1e400}"#);
    assert_eq!(app.api.send(request).await.json, json!({ "success": true }));
    let seen = seen.lock().unwrap()[0].clone();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v2/operation/get HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nauthorization: Bearer CANARY/token==\r\n"), "{head}");
    assert!(head.contains("\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-"), "{head}");
    assert_eq!(
        body,
        format!(
            r#"{{"amount":12.50,"userInputs":[{{"id":"otp"}}],"big":1e400,"appSecret":"{DEFAULT_APP_SECRET}","appKey":"sandbox-app-key","userSecret":"CANARY-user-secret+/="}}"#
        )
    );
}

#[tokio::test]
async fn a_transfer_asks_for_its_one_time_password_and_goes_on_with_it() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let accounts = call(&app, &active, ACCOUNTS, &json!({})).await;
    let mut transfer = json!({
        "senderID": accounts.json["accounts"][0]["id"], "amount": 12.5, "name": "Somebody",
        "accountNumber": "12345678",
    });
    let asked = call(&app, &active, TRANSFER, &transfer).await;
    assert_eq!(asked.json["status"], "user_input_required", "{}", asked.text);
    assert_eq!(asked.json["userInputs"][0]["id"], "otp");
    transfer["operationID"] = asked.json["operationID"].clone();
    transfer["userInputs"] = json!([{ "id": "otp", "index": 0, "answer": "123456" }]);
    let paid = call(&app, &active, TRANSFER, &transfer).await;
    assert_eq!(
        (&paid.json["status"], &paid.json["operationID"]),
        (&json!("done"), &asked.json["operationID"])
    );
}

#[tokio::test]
async fn every_path_for_calling_reaches_dapi_and_no_other_does() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let token = app.token().await;
    let before = app.sandbox.calls(1).total;
    let allowed = [
        "data/identity/get",
        "data/accounts/get",
        "data/cards/get",
        "data/balance/get",
        "data/transactions/get",
        "data/categorizedTransactions/get",
        "data/enrichedTransactions/get",
        "metadata/accounts/get",
        "payment/beneficiaries/get",
        "payment/beneficiaries/create",
        "payment/transfer/create",
        "payment/transfer/autoflow",
        "ach/pull/create",
        "ach/pull/get",
        "wire/beneficiaries/get",
        "wire/beneficiaries/create",
        "wire/transfer/create",
        "wire/transfer/autoflow",
        "batch/transfers/get",
        "batch/items/get",
        "batch/file/create",
        "batch/transfers/create",
        "batch/metadata/get",
        "operation/get",
        "operation/status",
    ];
    for path in allowed {
        let answer = app.api.post(&token, &url(&active, path), &json!({})).await;
        assert_eq!(answer.header("strongroom-upstream"), "dapi", "{path}: {}", answer.text);
        assert_eq!(app.sandbox.calls_to(path), 1, "{path}");
    }
    for path in [
        "auth/ExchangeToken",
        DELINK,
        "data/DelinkUser",
        "data/accounts",
        "data/accounts/get/x",
        "x",
    ] {
        let answer = app.api.post(&token, &url(&active, path), &json!({})).await;
        assert_eq!(answer.problem(), (404, "not_found"), "{path}");
    }
    assert_eq!(app.sandbox.calls(1).total, before + allowed.len() as u64);
}

#[tokio::test]
async fn a_refusal_of_dapis_comes_back_as_it_is() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let answer = call(&app, &active, "data/balance/get", &json!({ "accountID": "nobody" })).await;
    assert_eq!((answer.status, &answer.json["type"]), (404, &json!("INVALID_ACCOUNT_ID")));
    assert_eq!(answer.header("strongroom-upstream"), "dapi");
}

#[tokio::test]
async fn what_cannot_be_called_is_told_before_anything_leaves() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let token = app.token().await;
    for body in ["", "[]", "1", "{", "{\"a\":1,\"a\":2}", "\0"] {
        let request = app.api.request(reqwest::Method::POST, &url(&active, ACCOUNTS));
        let answer = app.api.send(request.bearer_auth(&token).body(body)).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{body:?}");
    }
    let request = app.api.request(reqwest::Method::POST, &url(&active, ACCOUNTS));
    let huge = app.api.send(request.bearer_auth(&token).body(vec![b' '; 1024 * 1024 + 1])).await;
    assert_eq!(huge.problem(), (413, "body_too_large"));
    let nobody = "/v1/connections/conn_01999999-0000-7000-8000-000000000000/dapi/data/accounts/get";
    assert_eq!(app.api.post(&token, nobody, &json!({})).await.problem(), (404, "not_found"));
    let stranger = app.token_of_another_app().await;
    let foreign = app.api.post(&stranger, &url(&active, ACCOUNTS), &json!({})).await;
    assert_eq!(foreign.problem(), (404, "not_found"));
    app.api.delink(&token, id(&active)).await;
    let revoked = call(&app, &active, ACCOUNTS, &json!({})).await;
    assert_eq!(revoked.problem(), (409, "connection_not_active"));
    assert_eq!(revoked.json["connectionStatus"], "delinked");
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), 0);
}

#[tokio::test]
async fn calls_with_one_token_wait_for_each_other_whichever_replica_they_come_to() {
    let app = TestApp::spawn().await;
    let replica = app.replica().await;
    let active = app.active("ada").await;
    // Dapi fails all calls with a token that is used by two at once, and so does the sandbox.
    let a_while = Fault::new(Effect::Answer).on(ACCOUNTS).delayed(Duration::from_millis(20));
    app.sandbox.set_fault(a_while).unwrap();
    let mut calls = Vec::new();
    for number in 0..24 {
        let api = if number % 2 == 0 { &app.api } else { &replica };
        calls.push(begin(&app, api, &active, ACCOUNTS).await);
    }
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(
            (answer.status, &answer.json["success"]),
            (200, &json!(true)),
            "{}",
            answer.text
        );
    }
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), 24);
    assert_eq!(app.database.value(WAITING).await, "0");
    assert_eq!(app.metric("strongroom_relay_waiting").await, 0.0);
    assert_eq!(app.metric("strongroom_relay_queue_wait_seconds_count").await, 12.0);
}

#[tokio::test]
async fn different_tokens_do_not_wait_for_each_other() {
    let app = TestApp::spawn().await;
    let (ada, bob) = (app.active("ada").await, app.active("bob").await);
    app.sandbox.set_fault(slow(ACCOUNTS)).unwrap();
    let waits = begin(&app, &app.api, &ada, ACCOUNTS).await;
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    assert_eq!(call(&app, &bob, CARDS, &json!({})).await.status, 200);
    app.sandbox.clear_faults();
    assert_eq!(waits.await.unwrap().status, 200);
}

#[tokio::test]
async fn who_came_first_is_served_first() {
    let app = TestApp::spawn().await;
    let replica = app.replica().await;
    let active = app.active("ada").await;
    app.sandbox.set_fault(slow(ACCOUNTS)).unwrap();
    let mut calls = vec![begin(&app, &app.api, &active, ACCOUNTS).await];
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    let order = [CARDS, IDENTITY, "metadata/accounts/get", "payment/beneficiaries/get"];
    for (number, path) in order.into_iter().enumerate() {
        let api = if number % 2 == 0 { &replica } else { &app.api };
        calls.push(begin(&app, api, &active, path).await);
        for _ in 0..2000 {
            if app.database.value(WAITING).await == (number + 1).to_string() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    app.sandbox.clear_faults();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    let report = serde_json::to_value(app.sandbox.calls(5)).unwrap();
    let mut served: Vec<_> =
        report["calls"].as_array().unwrap().iter().map(|c| c["path"].as_str().unwrap()).collect();
    if served[0] != ACCOUNTS {
        served.reverse();
    }
    assert_eq!(served[1..], order);
}

#[tokio::test]
async fn beyond_the_queues_length_callers_are_told_to_come_back() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    app.sandbox.set_fault(slow(ACCOUNTS)).unwrap();
    let mut calls = Vec::new();
    for _ in 0..33 {
        calls.push(begin(&app, &app.api, &active, ACCOUNTS).await);
    }
    until(&app, WAITING, "32").await;
    let answer = call(&app, &active, ACCOUNTS, &json!({})).await;
    assert_eq!(answer.problem(), (429, "too_many_requests"));
    assert_eq!(answer.header("retry-after"), "5");
    let counted = "strongroom_relay_turned_away_total{why=\"queue_full\"}";
    assert_eq!(app.metric(counted).await, 1.0);
    app.sandbox.clear_faults();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_its_place_and_nothing_else() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    app.sandbox.set_fault(slow(ACCOUNTS)).unwrap();
    let begun = begin(&app, &app.api, &active, ACCOUNTS).await;
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    let waits = begin(&app, &app.api, &active, CARDS).await;
    until(&app, WAITING, "1").await;
    waits.abort();
    until(&app, WAITING, "0").await;
    begun.abort();
    // Nobody listens any more; the call has begun and runs to its end.
    assert_eq!(app.database.value(TURNS).await, "1");
    app.sandbox.clear_faults();
    let ended =
        "SELECT count(*) FROM audit_events WHERE action = 'dapi.call' AND outcome = 'answered'";
    until(&app, ended, "1").await;
    assert_eq!(app.database.value(TURNS).await, "0");
    assert_eq!(app.sandbox.calls_to(CARDS), 0);
    assert_eq!(call(&app, &active, CARDS, &json!({})).await.status, 200);
}

#[tokio::test]
async fn a_dead_replicas_turn_is_free_when_its_calls_time_is_over() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let process = Process::serve(&app, &[]).await;
    app.sandbox.set_fault(Fault::new(Effect::Hang).on(ACCOUNTS).times(1)).unwrap();
    let lost = begin(&app, &process.api, &active, ACCOUNTS).await;
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    process.kill();
    assert!(lost.await.is_err(), "the connection broke");

    let waits = begin(&app, &app.api, &active, CARDS).await;
    until(&app, WAITING, "1").await;
    app.turn_clock(Duration::from_secs(115)).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(app.sandbox.calls_to(CARDS), 0, "the time is not over");
    // By now Dapi has given up as well.
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(6)).await;
    assert_eq!(waits.await.unwrap().status, 200);
    assert_eq!(app.database.value(TURNS).await, "0");
}

#[tokio::test]
async fn a_dead_replicas_waiting_callers_hold_nobody_up_for_long() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    app.database
        .execute(
            "INSERT INTO token_lease_queue (connection_id, alive_until)
             SELECT id, strongroom_now() + interval '15 seconds' FROM connections",
        )
        .await;
    let waits = begin(&app, &app.api, &active, CARDS).await;
    until(&app, WAITING, "2").await;
    app.turn_clock(Duration::from_secs(16)).await;
    assert_eq!(waits.await.unwrap().status, 200);
}

#[tokio::test]
async fn autoflow_may_take_twice_as_long() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let seconds =
        "SELECT round(extract(epoch FROM ends_at - strongroom_now()) / 10) FROM token_leases";
    for (path, expected) in [("wire/transfer/create", "12"), ("wire/transfer/autoflow", "24")] {
        app.sandbox.set_fault(slow(path)).unwrap();
        let calls = begin(&app, &app.api, &active, path).await;
        app.sandbox.calls_reached(path, 1).await;
        assert_eq!(app.database.value(seconds).await, expected, "{path}");
        app.sandbox.clear_faults();
        calls.await.unwrap();
    }
}

#[tokio::test]
async fn a_revocation_lets_a_running_call_end_and_starts_no_other() {
    let app = TestApp::builder().set("STRONGROOM_ANSWER_WITHIN", "0").spawn().await;
    let active = app.active("ada").await;
    app.sandbox.set_fault(slow(ACCOUNTS)).unwrap();
    let running = begin(&app, &app.api, &active, ACCOUNTS).await;
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    let waits = begin(&app, &app.api, &active, CARDS).await;
    until(&app, WAITING, "1").await;

    let revoked = app.api.delink(&app.token().await, id(&active)).await;
    assert_eq!((revoked.status, revoked.connection_status()), (202, "revoking"));
    assert_eq!(waits.await.unwrap().problem(), (409, "connection_not_active"));
    assert_eq!(
        call(&app, &active, CARDS, &json!({})).await.problem(),
        (409, "connection_not_active")
    );
    app.tick().await;
    assert_eq!(app.sandbox.calls_to(DELINK), 0, "the token is in use");

    app.sandbox.clear_faults();
    assert_eq!(running.await.unwrap().json["success"], true);
    until(&app, "SELECT status FROM connections", "delinked").await;
    assert_eq!((app.sandbox.calls_to(DELINK), app.sandbox.calls_to(CARDS)), (1, 0));
    assert_eq!(app.database.value(TURNS).await, "0");
}

#[tokio::test]
async fn under_load_dapi_hears_of_nothing_after_the_delinking() {
    let app = TestApp::spawn().await;
    let replica = app.replica().await;
    for round in 0..5 {
        let active = app.active("ada").await;
        app.sandbox.forget_calls();
        let mut calls = Vec::new();
        for number in 0..20 {
            let api = if number % 2 == 0 { &app.api } else { &replica };
            calls.push(begin(&app, api, &active, ACCOUNTS).await);
        }
        app.sandbox.calls_reached(ACCOUNTS, 1 + round).await;
        let revoked = app.api.delink(&app.token().await, id(&active)).await;
        assert_eq!((revoked.status, revoked.connection_status()), (200, "delinked"));
        let mut served = 0;
        for call in calls {
            let answer = call.await.unwrap();
            match answer.status {
                200 => served += 1,
                _ => assert_eq!(answer.problem(), (409, "connection_not_active")),
            }
        }
        let report = serde_json::to_value(app.sandbox.calls(1)).unwrap();
        assert_eq!(report["calls"][0]["path"], DELINK, "{report}");
        assert_eq!(app.sandbox.calls_to(ACCOUNTS), served);
    }
    assert_eq!(app.database.value(TURNS).await, "0");
}

#[tokio::test]
async fn a_replica_that_is_told_to_stop_finishes_its_call_and_sends_the_waiting_elsewhere() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let process = Process::serve(&app, &[]).await;
    app.sandbox.set_fault(slow(ACCOUNTS)).unwrap();
    let running = begin(&app, &process.api, &active, ACCOUNTS).await;
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    let waits = begin(&app, &process.api, &active, CARDS).await;
    until(&app, WAITING, "1").await;
    process.terminate();
    assert_eq!(waits.await.unwrap().problem(), (503, "unavailable"));
    app.sandbox.clear_faults();
    assert_eq!(running.await.unwrap().status, 200);
    assert!(process.ended().await.success());
    assert_eq!(call(&app, &active, CARDS, &json!({})).await.status, 200);
}

#[tokio::test]
async fn a_delinking_that_fails_gives_its_turn_back() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    app.sandbox.set_fault(Fault::status(503).on(DELINK).times(1)).unwrap();
    app.api.delink(&app.token().await, id(&active)).await;
    app.tick().await;
    assert_eq!(app.database.value(TURNS).await, "0");
    app.turn_clock(Duration::from_secs(6)).await;
    app.tick().await;
    assert_eq!(app.database.value("SELECT status FROM connections").await, "delinked");
}

#[tokio::test]
async fn whatever_dapi_does_wrong_is_a_problem_and_frees_the_turn() {
    let app = TestApp::builder().set("DAPI_CALL_TIMEOUT", "1").spawn().await;
    let active = app.active("ada").await;
    let redirect = Status {
        code: 307,
        headers: [("Location".to_owned(), format!("{}/v2/{CARDS}", app.sandbox_url))].into(),
        body: "{}".to_owned(),
    };
    let huge = Huge { bytes: 80 * 1024 * 1024, content_length: true };
    for (effect, expected) in [
        (Effect::Garbage, (502, "upstream_failed")),
        (Effect::HalfAnswer, (502, "upstream_failed")),
        (Effect::Drop, (502, "upstream_failed")),
        (Effect::Huge(huge), (502, "upstream_failed")),
        (Effect::Status(redirect), (502, "upstream_failed")),
        (Effect::Hang, (504, "upstream_timeout")),
    ] {
        let name = format!("{effect:?}");
        app.sandbox.set_fault(Fault::new(effect).on(ACCOUNTS).times(1)).unwrap();
        let answer = call(&app, &active, ACCOUNTS, &json!({})).await;
        assert_eq!(answer.problem(), expected, "{name}");
        assert_eq!(answer.header("strongroom-upstream"), "", "{name}");
        assert_eq!(app.database.value(TURNS).await, "0", "{name}");
    }
    assert_eq!(app.sandbox.calls_to(CARDS), 0, "redirects are not followed");
    app.sandbox.clear_faults();
    assert_eq!(call(&app, &active, CARDS, &json!({})).await.status, 200);
}

#[tokio::test]
async fn a_secret_that_an_answer_repeats_does_not_reach_the_caller() {
    let body = br#"{"success":false,"msg":"CANARY/token== CANARY\/token== CANARY-user-secret+/= sandbox-app-secret"}"#;
    let (base, _) = dapi_that_answers(http("400 Bad Request", body)).await;
    let (app, active) = with_dapi(&base).await;
    let answer = call(&app, &active, ACCOUNTS, &json!({})).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json["msg"], "(secret) (secret) (secret) (secret)");
}

#[tokio::test]
async fn a_large_answer_is_streamed_without_the_secrets_in_it() {
    let secret = "CANARY/token==";
    let filler = "x".repeat(300_000);
    let all: Vec<_> = (0..30).map(|_| format!("{filler}{secret}")).collect();
    let body = json!({ "success": true, "data": all }).to_string();
    let (base, _) = dapi_that_answers(http("200 OK", body.as_bytes())).await;
    let (app, active) = with_dapi(&base).await;
    let answer = call(&app, &active, ACCOUNTS, &json!({})).await;
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, "chunked"));
    assert!(!answer.text.contains("CANARY"));
    assert_eq!(answer.text, body.replace(secret, "(secret)"));
    until(&app, TURNS, "0").await;
}

#[tokio::test]
async fn a_large_answer_that_breaks_off_does_not_look_whole() {
    let mut bytes = http("200 OK", &[b"{\"a\":\"".as_slice(), &vec![b'x'; 3_000_000]].concat());
    bytes.truncate(2_500_000);
    let (base, _) = dapi_that_answers(bytes).await;
    let (app, active) = with_dapi(&base).await;
    let request = app.api.request(reqwest::Method::POST, &url(&active, ACCOUNTS)).json(&json!({}));
    let response = request.bearer_auth(app.token().await).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    until(&app, TURNS, "0").await;
}

#[tokio::test]
async fn an_answer_without_end_is_broken_off() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let huge = Huge { bytes: 80 * 1024 * 1024, content_length: false };
    app.sandbox.set_fault(Fault::new(Effect::Huge(huge)).on(ACCOUNTS).times(1)).unwrap();
    let request = app.api.request(reqwest::Method::POST, &url(&active, ACCOUNTS)).json(&json!({}));
    let response = request.bearer_auth(app.token().await).send().await.unwrap();
    assert!(response.bytes().await.is_err());
    let ended = "SELECT coalesce(max(outcome), '') FROM audit_events
         WHERE action = 'dapi.call' AND outcome <> 'begun'";
    until(&app, ended, "too_large").await;
    assert_eq!(app.database.value(TURNS).await, "0");
}

#[tokio::test]
async fn too_many_requests_of_dapis_are_told_and_heeded() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let status = Status {
        code: 429,
        headers: [("Retry-After".to_owned(), "7".to_owned())].into(),
        body: json!({ "success": false, "type": "RATE_LIMIT" }).to_string(),
    };
    app.sandbox.set_fault(Fault::new(Effect::Status(status)).on(ACCOUNTS).times(1)).unwrap();
    let told = call(&app, &active, ACCOUNTS, &json!({})).await;
    assert_eq!((told.status, told.header("retry-after")), (429, "7"));
    assert_eq!(told.header("strongroom-upstream"), "dapi");
    let heeded = call(&app, &active, ACCOUNTS, &json!({})).await;
    assert_eq!(heeded.problem(), (429, "too_many_requests"));
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), 1);
}
