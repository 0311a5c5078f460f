//! Connect sessions: one browser, one user's results, nothing else.

use std::time::Duration;

use serde_json::json;
use strongroom_dev::sandbox::{Effect, Fault};

use crate::support::{TestApp, id, with};

#[tokio::test]
async fn a_session_hands_in_a_result_and_reads_what_it_became() {
    let app = TestApp::spawn().await;
    let session = app.api.session(&app.token().await, "ada").await;
    let answer = app.api.post(&session, "/v1/connections", &app.connect()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.json["clientUserID"], "ada");
    let found = app.api.get(&session, answer.header("location")).await;
    assert_eq!((found.status, &found.json), (200, &answer.json));
    let list = app.api.get(&session, "/v1/connections").await;
    assert_eq!(list.json, json!({ "connections": [answer.json], "nextCursor": null }));
}

#[tokio::test]
async fn a_session_tells_when_it_ends_and_then_is_refused() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let answer =
        app.api.post(&token, "/v1/connect-sessions", &json!({ "clientUserID": "ada" })).await;
    assert_eq!((answer.status, &answer.json["clientUserID"]), (201, &json!("ada")));
    assert!(answer.json["expiresAt"].is_string());
    let session = answer.json["token"].as_str().unwrap();
    app.turn_clock(Duration::from_secs(29 * 60 + 59)).await;
    assert_eq!(app.api.get(session, "/v1/connections").await.status, 200);
    app.turn_clock(Duration::from_secs(2)).await;
    let refused = app.api.get(session, "/v1/connections").await;
    assert_eq!(refused.problem(), (401, "unauthorized"));
    assert!(refused.header("www-authenticate").contains("error=\"invalid_token\""));
}

#[tokio::test]
async fn a_session_does_not_take_another_users_result() {
    let app = TestApp::spawn().await;
    let session = app.api.session(&app.token().await, "ada").await;
    let result = app.connect();
    let foreign = with(&result, json!({ "clientUserID": "bob" }));
    let answer = app.api.post(&session, "/v1/connections", &foreign).await;
    assert_eq!(answer.problem(), (403, "user_mismatch"));
    let own = with(&result, json!({ "clientUserID": "ada" }));
    assert_eq!(app.api.post(&session, "/v1/connections", &own).await.status, 201);
}

#[tokio::test]
async fn a_session_sees_nothing_that_it_did_not_hand_in() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let (one, two) = (app.api.session(&token, "ada").await, app.api.session(&token, "ada").await);
    let made = app.api.post(&one, "/v1/connections", &app.connect()).await;
    let path = format!("/v1/connections/{}", id(&made.json));
    assert_eq!(app.api.get(&two, &path).await.problem(), (404, "not_found"));
    assert_eq!(app.api.get(&two, "/v1/connections").await.json["connections"], json!([]));
}

#[tokio::test]
async fn a_session_that_repeats_an_earlier_sessions_result_may_follow_it() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let result = app.connect();
    let (one, two) = (app.api.session(&token, "ada").await, app.api.session(&token, "ada").await);
    app.api.post(&one, "/v1/connections", &result).await;
    let again = app.api.post(&two, "/v1/connections", &result).await;
    assert_eq!(again.status, 200);
    assert_eq!(app.api.get(&two, again.header("location")).await.status, 200);
}

#[tokio::test]
async fn a_session_does_nothing_else() {
    let app = TestApp::spawn().await;
    let session = app.api.session(&app.token().await, "ada").await;
    let made = app.api.post(&session, "/v1/connections", &app.connect()).await;
    let path = |end: &str| format!("/v1/connections/{}/{end}", id(&made.json));
    let reason = json!({ "reason": "x" });
    for (path, scope) in [
        (path("token"), "tokens:read"),
        (path("delink"), "connections:revoke"),
        (path("invalidate"), "connections:revoke"),
        ("/v1/connections/import".to_owned(), "connections:write"),
        ("/v1/connect-sessions".to_owned(), "sessions:create"),
    ] {
        let answer = app.api.post(&session, &path, &reason).await;
        assert_eq!(answer.problem(), (403, "insufficient_scope"), "{path}");
        assert_eq!(answer.json["scope"], scope);
    }
}

#[tokio::test]
async fn a_session_hands_in_ten_different_results_and_repeats_them_without_limit() {
    let app = TestApp::by_hand().await;
    app.sandbox.set_fault(Fault::new(Effect::Hang)).unwrap();
    let session = app.api.session(&app.token().await, "ada").await;
    let results: Vec<_> = (0..11).map(|_| app.connect()).collect();
    for result in &results[..10] {
        assert_eq!(app.api.post(&session, "/v1/connections", result).await.status, 202);
    }
    for _ in 0..3 {
        assert_eq!(app.api.post(&session, "/v1/connections", &results[0]).await.status, 202);
    }
    let answer = app.api.post(&session, "/v1/connections", &results[10]).await;
    assert_eq!(answer.problem(), (429, "too_many_requests"));
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "10");
    app.sandbox.clear_faults();
}

#[tokio::test]
async fn the_limit_of_a_session_holds_for_what_comes_at_once() {
    let app = TestApp::by_hand().await;
    app.sandbox.set_fault(Fault::new(Effect::Hang)).unwrap();
    let session = app.api.session(&app.token().await, "ada").await;
    let posts = (0..20).map(|_| {
        let (api, session, result) = (app.api.clone(), session.clone(), app.connect());
        async move { api.post(&session, "/v1/connections", &result).await.status }
    });
    let answers = futures_util::future::join_all(posts).await;
    assert_eq!(answers.iter().filter(|status| **status == 202).count(), 10);
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 10);
    app.sandbox.clear_faults();
}

#[tokio::test]
async fn a_session_needs_a_user() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    for body in [
        json!({}),
        json!({ "clientUserID": "" }),
        json!({ "clientUserID": 7 }),
        json!({ "clientUserID": "a\u{0}" }),
        json!({ "clientUserID": "x".repeat(257) }),
    ] {
        let answer = app.api.post(&token, "/v1/connect-sessions", &body).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{body}");
    }
}

#[tokio::test]
async fn a_session_of_one_app_is_of_no_use_in_another() {
    let app = TestApp::spawn().await;
    let made = app.active("ada").await;
    let session = app.api.session(&app.token_of_another_app().await, "ada").await;
    let path = format!("/v1/connections/{}", id(&made));
    assert_eq!(app.api.get(&session, &path).await.problem(), (404, "not_found"));
}

#[tokio::test]
async fn ended_sessions_are_forgotten() {
    let app = TestApp::by_hand().await;
    app.api.session(&app.token().await, "ada").await;
    app.turn_clock(Duration::from_hours(25)).await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value("SELECT count(*) FROM connect_sessions").await, "0");
}
