//! Attention: after Dapi said that the user's credentials are wrong or their account is locked, nothing
//! calls with that connection until the user links the login again, or somebody says otherwise. And when a
//! connection was used last.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault, Refuse, Status};

use crate::for_each_bank;
use crate::support::{Answer, Api, BOOTSTRAP_ID, BOOTSTRAP_SECRET, Bank, TestApp, id};

for_each_bank! {
    after_wrong_credentials_no_call_reaches_the_provider_until_somebody_says_otherwise,
    a_connection_that_needs_attention_is_read_and_revoked_as_ever,
    linking_the_login_again_clears_it,
    a_call_and_a_reading_tell_when_a_connection_was_used_last,
}

const ACCOUNTS: &str = "data/accounts/get";
const CARDS: &str = "data/cards/get";

fn refusal(kind: &str, status: u16) -> Fault {
    let refuse = Refuse { kind: kind.to_owned(), msg: "no".to_owned(), status };
    Fault::new(Effect::Refuse(refuse)).on(ACCOUNTS).times(1)
}

/// The next call is refused because the user has to link the login again.
fn link_again(bank: Bank) -> Fault {
    bank.refusal(bank.needs_attention()).on(bank.read()).times(1)
}

fn answer(code: u16, body: String) -> Fault {
    let headers = [("Content-Type".to_owned(), "application/json".to_owned())].into();
    Fault::new(Effect::Status(Status { code, headers, body })).on(ACCOUNTS).times(1)
}

async fn call(api: &Api, token: &str, connection: &Value, path: &str) -> Answer {
    api.post(token, &format!("/v1/connections/{}/dapi/{path}", id(connection)), &json!({})).await
}

async fn calls(app: &TestApp, connection: &Value) -> Answer {
    app.api.read(&app.token().await, app.bank, connection).await
}

async fn shown(app: &TestApp, connection: &Value) -> Value {
    app.api.connection(&app.token().await, id(connection)).await
}

async fn clear(app: &TestApp, token: &str, connection: &Value) -> Answer {
    let path = format!("/v1/connections/{}/attention", id(connection));
    app.api.send(app.api.request(Method::DELETE, &path).bearer_auth(token)).await
}

/// An active connection whose last call was refused for the user's credentials.
async fn refused(app: &TestApp, user: &str) -> Value {
    let active = app.active(user).await;
    app.sandbox.set_fault(link_again(app.bank)).unwrap();
    assert_eq!(calls(app, &active).await.json[app.bank.error()], app.bank.needs_attention());
    active
}

async fn after_wrong_credentials_no_call_reaches_the_provider_until_somebody_says_otherwise(
    bank: Bank,
) {
    let app = bank.spawn().await;
    let replica = app.replica().await;
    let active = app.active("ada").await;
    assert_eq!(active["attention"], Value::Null);
    app.sandbox.set_fault(link_again(bank)).unwrap();
    let told = calls(&app, &active).await;
    let kind = bank.needs_attention();
    assert_eq!((told.status, &told.json[bank.error()]), (400, &json!(kind)), "as it came");
    let before = app.sandbox.calls(1).total;
    let token = app.token().await;
    let attention = shown(&app, &active).await["attention"].clone();
    assert_eq!(attention["type"], kind);
    for api in [&app.api, &replica] {
        let refused = api.read(&token, bank, &active).await;
        assert_eq!(refused.problem(), (409, "connection_needs_attention"));
        assert_eq!(refused.json["attention"], attention);
    }
    assert_eq!(app.sandbox.calls(1).total, before);
    let turned_away = "strongroom_relay_turned_away_total{why=\"needs_attention\"}";
    assert_eq!(app.metric(turned_away).await, 1.0);

    for _ in 0..2 {
        let cleared = clear(&app, &token, &active).await;
        assert_eq!((cleared.status, &cleared.json["attention"]), (200, &Value::Null));
        assert_eq!(id(&cleared.json), id(&active));
    }
    assert_eq!(replica.read(&token, bank, &active).await.status, 200);
    let trail = app.database.trail().await;
    let expected = ["connection.attention_set ok", "connection.attention_cleared ok"];
    assert_eq!(trail[trail.len() - 2..], expected);
}

#[tokio::test]
async fn those_who_wait_for_the_turn_are_told_and_dapi_is_not_called() {
    let app = TestApp::spawn().await;
    let replica = app.replica().await;
    let active = app.active("ada").await;
    let slow = refusal("INVALID_CREDENTIALS", 401).delayed(Duration::from_secs(50));
    app.sandbox.set_fault(slow).unwrap();
    let token = app.token().await;
    let begin = |api: &Api, path: &'static str| {
        let (api, token, active) = (api.clone(), token.clone(), active.clone());
        tokio::spawn(async move { call(&api, &token, &active, path).await })
    };
    let running = begin(&app.api, ACCOUNTS);
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    let waiting: Vec<_> =
        [&app.api, &replica, &app.api, &replica].map(|api| begin(api, CARDS)).into();
    while app.database.value("SELECT count(*) FROM token_lease_queue").await != "4" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.sandbox.clear_faults();
    app.sandbox.set_fault(refusal("INVALID_CREDENTIALS", 401)).unwrap();
    // The slow one is let go and answers what it was to answer.
    let running = running.await.unwrap();
    assert_eq!(running.json["type"], "INVALID_CREDENTIALS", "{}", running.text);
    for waits in waiting {
        assert_eq!(waits.await.unwrap().problem(), (409, "connection_needs_attention"));
    }
    assert_eq!(app.sandbox.calls_to(CARDS), 0);
}

#[tokio::test]
async fn large_answers_and_those_with_status_200_say_it_too() {
    let filler = "x".repeat(3_000_000);
    for (code, body) in [
        (200, json!({ "success": false, "status": "failed", "type": "INVALID_CREDENTIALS" })),
        (401, json!({ "type": "INVALID_CREDENTIALS" })),
        (400, json!({ "a": { "success": true }, "success": false, "type": "ACCOUNT_LOCKED" })),
        (401, json!({ "data": filler, "success": false, "type": "INVALID_CREDENTIALS" })),
        (200, json!({ "success": false, "type": "INVALID_CREDENTIALS", "z": filler })),
    ] {
        let app = TestApp::spawn().await;
        let active = app.active("ada").await;
        app.sandbox.set_fault(answer(code, body.to_string())).unwrap();
        assert_eq!(calls(&app, &active).await.json["type"], body["type"]);
        let next = calls(&app, &active).await;
        assert_eq!(next.problem(), (409, "connection_needs_attention"), "{code}");
        assert_eq!(next.json["attention"]["type"], body["type"]);
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_in_a_large_answer_does_not_keep_it_from_being_heard() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let filler = "x".repeat(20_000_000);
    let body = json!({ "data": filler, "success": false, "type": "INVALID_CREDENTIALS" });
    app.sandbox.set_fault(answer(401, body.to_string())).unwrap();
    let path = format!("/v1/connections/{}/dapi/{ACCOUNTS}", id(&active));
    let request = app.api.request(Method::POST, &path).json(&json!({}));
    let mut response = request.bearer_auth(app.token().await).send().await.unwrap();
    response.chunk().await.unwrap();
    drop(response);
    let attention = "SELECT attention_type FROM connections";
    for _ in 0..2000 {
        if app.database.value(attention).await == "INVALID_CREDENTIALS" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it was not heard");
}

#[tokio::test]
async fn other_refusals_and_questions_to_the_user_need_no_attention() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    for body in [
        json!({ "success": false, "type": "INVALID_MFA" }),
        json!({ "success": false, "type": "invalid_credentials" }),
        json!({ "success": false, "data": { "type": "INVALID_CREDENTIALS" } }),
        json!({ "success": false, "type": ["INVALID_CREDENTIALS"] }),
        json!({ "success": true, "type": "INVALID_CREDENTIALS" }),
        json!({ "success": false, "status": "user_input_required", "type": "INVALID_CREDENTIALS" }),
    ] {
        app.sandbox.set_fault(answer(401, body.to_string())).unwrap();
        assert_eq!(calls(&app, &active).await.json, body);
        assert_eq!(shown(&app, &active).await["attention"], Value::Null, "{body}");
    }
}

#[tokio::test]
async fn which_types_need_attention_can_be_set() {
    let app = TestApp::builder().set("DAPI_ATTENTION_TYPES", "BANK_SAYS_STOP").spawn().await;
    let active = refused(&app, "ada").await;
    assert_eq!(shown(&app, &active).await["attention"], Value::Null);
    app.sandbox.set_fault(refusal("BANK_SAYS_STOP", 400)).unwrap();
    calls(&app, &active).await;
    assert_eq!(calls(&app, &active).await.problem(), (409, "connection_needs_attention"));
}

async fn a_connection_that_needs_attention_is_read_and_revoked_as_ever(bank: Bank) {
    let app = bank.spawn().await;
    let active = refused(&app, "ada").await;
    let token = app.token().await;
    assert_eq!(app.api.reveal(&token, id(&active)).await.status, 200);
    let delinked = app.api.delink(&token, id(&active)).await;
    assert_eq!((delinked.status, delinked.connection_status()), (200, "delinked"));
    assert_eq!(delinked.json["attention"], Value::Null, "there is nothing to attend to");
    assert_eq!(calls(&app, &active).await.problem(), (409, "connection_not_active"));
    assert_eq!(clear(&app, &token, &active).await.connection_status(), "delinked");
}

async fn linking_the_login_again_clears_it(bank: Bank) {
    let app = bank.spawn().await;
    let result = app.connect();
    let active = app.active_from("ada", &result).await;
    app.sandbox.set_fault(link_again(bank)).unwrap();
    calls(&app, &active).await;
    let again = app.active_from("ada", &app.connect_again(&result)).await;
    assert_eq!(again["attention"], Value::Null);
    assert_eq!(shown(&app, &active).await["attention"], Value::Null);
    assert_eq!(calls(&app, &again).await.status, 200);
}

#[tokio::test]
async fn lists_searches_and_counts_tell_who_needs_attention() {
    let app = TestApp::by_hand().await;
    let well = app.active("ada").await;
    let refused = refused(&app, "bob").await;
    let token = app.token().await;
    let ids = async |path: &str| {
        let list = app.api.get(&token, path).await.json;
        let ids = list["connections"].as_array().unwrap().iter().map(|it| id(it).to_owned());
        ids.collect::<Vec<_>>()
    };
    for base in ["/v1/connections", "/v1/admin/connections"] {
        for more in ["", "&status=active", "&limit=1"] {
            assert_eq!(ids(&format!("{base}?attention=true{more}")).await, [id(&refused)]);
            assert_eq!(ids(&format!("{base}?attention=false{more}")).await, [id(&well)]);
        }
        assert_eq!(ids(&format!("{base}?attention=true&clientUserID=bob")).await, [id(&refused)]);
        assert_eq!(ids(&format!("{base}?attention=true&clientUserID=ada")).await, [""; 0]);
        assert_eq!(ids(&format!("{base}?attention=true&status=pending")).await, [""; 0]);
        let wrong = app.api.get(&token, &format!("{base}?attention=yes")).await;
        assert_eq!(wrong.problem(), (400, "invalid_request"));
        assert_eq!(wrong.json["field"], "attention");
    }
    let stats = app.api.get(&token, "/v1/admin/stats").await.json;
    assert_eq!((&stats["total"], &stats["needingAttention"]), (&json!(2), &json!(1)));
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.metric("strongroom_connections_needing_attention").await, 1.0);
    let stranger = app.token_of_another_app().await;
    let list = app.api.get(&stranger, "/v1/connections?attention=true").await.json;
    assert_eq!(list["connections"], json!([]));
}

#[tokio::test]
async fn on_dapis_own_wire_the_refusal_is_repeated_in_dapis_shape() {
    let app = TestApp::spawn().await;
    let result = app.connect();
    let app_secret = format!("{BOOTSTRAP_ID}.{BOOTSTRAP_SECRET}");
    let wire = async |path: &str, bearer: &str, body: Value| {
        let body = crate::support::with(&body, json!({ "appSecret": app_secret }));
        let request = app.api.request(Method::POST, &format!("/dapi/v2/{path}")).json(&body);
        app.api.send(request.bearer_auth(bearer)).await
    };
    let code = json!({
        "accessCode": result["accessCode"], "connectionID": result["connectionID"],
    });
    let stand_in = wire("auth/ExchangeToken", "", code).await.json["accessToken"].clone();
    let secret = json!({ "userSecret": result["userSecret"] });
    app.sandbox.set_fault(refusal("INVALID_CREDENTIALS", 401)).unwrap();
    let stand_in = stand_in.as_str().unwrap();
    wire(ACCOUNTS, stand_in, secret.clone()).await;
    let before = app.sandbox.calls(1).total;
    let refused = wire(CARDS, stand_in, secret).await;
    assert_eq!(
        (refused.status, &refused.json["success"], &refused.json["status"]),
        (401, &json!(false), &json!("failed"))
    );
    assert_eq!(refused.json["type"], "INVALID_CREDENTIALS");
    assert_eq!(refused.header("strongroom-upstream"), "");
    assert_eq!(app.sandbox.calls(1).total, before);
}

async fn a_call_and_a_reading_tell_when_a_connection_was_used_last(bank: Bank) {
    let app = bank.by_hand().await;
    let active = app.active("ada").await;
    assert_eq!(active["lastUsedAt"], Value::Null);
    calls(&app, &active).await;
    let first = shown(&app, &active).await["lastUsedAt"].clone();
    assert!(first.is_string());
    calls(&app, &active).await;
    assert_eq!(shown(&app, &active).await["lastUsedAt"], first, "to a minute");
    app.turn_clock(Duration::from_secs(61)).await;
    calls(&app, &active).await;
    let second = shown(&app, &active).await["lastUsedAt"].clone();
    assert_ne!(second, first);
    app.turn_clock(Duration::from_secs(61)).await;
    app.api.reveal(&app.token().await, id(&active)).await;
    for _ in 0..1000 {
        if shown(&app, &active).await["lastUsedAt"] != second {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a reading is a use");
}
