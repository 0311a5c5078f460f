//! Reading a token in the clear: the scoped and audited exception.

use serde_json::json;

use crate::support::{TestApp, id};

#[tokio::test]
async fn a_token_is_read_whole_and_never_cached() {
    let app = TestApp::spawn().await;
    let result = app.connect();
    let active = app.active_from("ada", &result).await;
    let answer = app.api.reveal(&app.token().await, id(&active)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.json["userSecret"], result["userSecret"]);
    assert_eq!(answer.json["clientUserID"], "ada");
    for name in ["connectionID", "userID", "tokenID"] {
        assert_eq!(answer.json[name], result[name], "{name}");
    }
    // The sandbox takes it for its own.
    let token = answer.json["accessToken"].as_str().unwrap();
    let call = reqwest::Client::new()
        .post(format!("{}/v2/data/accounts/get", app.sandbox_url))
        .bearer_auth(token)
        .json(&json!({ "appSecret": strongroom_dev::sandbox::DEFAULT_APP_SECRET, "userSecret": result["userSecret"] }));
    assert_eq!(call.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn every_reading_is_on_record_with_its_reason() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let token = app.token().await;
    for reason in ["nightly run", "support ticket 7"] {
        let path = format!("/v1/connections/{}/token", id(&active));
        app.api.post(&token, &path, &json!({ "reason": reason })).await;
    }
    let reasons = "SELECT reason FROM audit_events WHERE action = 'token.revealed' ORDER BY id";
    assert_eq!(app.database.values(reasons).await, ["nightly run", "support ticket 7"]);
    assert_eq!(app.metric("strongroom_token_reveals_total").await, 2.0);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_read() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    app.database
        .execute("ALTER TABLE audit_events ADD CONSTRAINT no CHECK (action <> 'token.revealed')")
        .await;
    let answer = app.api.reveal(&app.token().await, id(&active)).await;
    assert_eq!(answer.problem(), (500, "internal"));
    assert!(!answer.text.contains("audit"), "nothing of the inside in a 5xx: {}", answer.text);
}

#[tokio::test]
async fn a_reading_needs_a_reason() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let path = format!("/v1/connections/{}/token", id(&active));
    let token = app.token().await;
    for body in [
        json!({}),
        json!({ "reason": "" }),
        json!({ "reason": " " }),
        json!({ "reason": 1 }),
        json!({ "reason": "a\u{0}b" }),
        json!({ "reason": "x".repeat(501) }),
    ] {
        let answer = app.api.post(&token, &path, &body).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{body}");
    }
    assert!(app.database.audit().await.iter().all(|event| !event.starts_with("token.")));
}

#[tokio::test]
async fn a_token_of_another_app_is_not_there() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let stranger = app.token_of_another_app().await;
    assert_eq!(app.api.reveal(&stranger, id(&active)).await.problem(), (404, "not_found"));
    assert_eq!(app.api.delink(&stranger, id(&active)).await.problem(), (404, "not_found"));
    let body = json!({ "reason": "x" });
    assert_eq!(
        app.api.invalidate(&stranger, id(&active), &body).await.problem(),
        (404, "not_found")
    );
    let still = app.api.connection(&app.token().await, id(&active)).await;
    assert_eq!(still["status"], "active");
}

#[tokio::test]
async fn an_id_that_is_none_is_not_there() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    for id in [
        "conn_x",
        "usr_01999999-0000-7000-8000-000000000000",
        "%00",
        "conn_01999999-0000-7000-8000-00000000000A",
    ] {
        assert_eq!(app.api.reveal(&token, id).await.problem(), (404, "not_found"), "{id}");
    }
}
