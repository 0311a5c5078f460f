//! What a token is worth, for those who may ask (RFC 7662).

use std::time::Duration;

use serde_json::{Value, json};
use strongroom::oauth::clients::Terms;

use crate::support::TestApp;

#[tokio::test]
async fn an_active_token_is_described_and_never_cached() {
    let app = TestApp::spawn().await;
    let client = app.client("connections:read tokens:read").await;
    let token = client.token(&app.api).await;
    let answer = client.introspect(&app.api, &token).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    let told = &answer.json;
    assert_eq!(told["active"], true);
    assert_eq!(told["scope"], "connections:read tokens:read");
    assert_eq!((&told["client_id"], &told["sub"]), (&json!(client.id), &json!(client.id)));
    assert_eq!(told["token_type"], "Bearer");
    assert_eq!(told["iss"], "http://strongroom.test");
    assert_eq!(told["aud"], "http://strongroom.test");
    assert_eq!(told["exp"].as_i64().unwrap() - told["iat"].as_i64().unwrap(), 3600);
    assert!(told["jti"].is_string());
}

#[tokio::test]
async fn what_is_inactive_is_told_by_exactly_one_member() {
    let app = TestApp::spawn().await;
    let client = app.client_on("connections:read", 60, Terms::default()).await;
    let (ended, revoked) = (client.token(&app.api).await, client.token(&app.api).await);
    client.revoke(&app.api, &revoked).await;
    let session = app.api.session(&app.token().await, "ada").await;
    app.turn_clock(Duration::from_secs(61)).await;
    let stranger = app.token_of_another_app().await;
    for token in ["x", "a.b.c", "%00", &ended, &revoked, &session, &stranger] {
        let answer = client.introspect(&app.api, token).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{\"active\":false}"), "{token}");
    }
}

#[tokio::test]
async fn a_client_asks_about_the_tokens_of_its_own_app() {
    let app = TestApp::spawn().await;
    let (owner, other) = (app.client("connections:read").await, app.client("admin").await);
    let token = owner.token(&app.api).await;
    let told = other.introspect(&app.api, &token).await;
    assert_eq!((&told.json["active"], &told.json["client_id"]), (&json!(true), &json!(owner.id)));
    app.token_of_another_app().await;
    let stranger = app.client_of("other", "admin", 3600, Terms::default()).await;
    assert_eq!(stranger.introspect(&app.api, &token).await.json, json!({ "active": false }));
}

#[tokio::test]
async fn nobody_asks_without_credentials() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let ask = |request: reqwest::RequestBuilder| {
        request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={token}"))
    };
    let bare = app.api.request(reqwest::Method::POST, "/oauth2/introspect");
    let answer = app.api.send(ask(bare)).await;
    assert_eq!((answer.status, &answer.json["error"]), (401, &json!("invalid_client")));
    let bearer = app.api.request(reqwest::Method::POST, "/oauth2/introspect").bearer_auth(&token);
    assert_eq!(app.api.send(ask(bearer)).await.status, 401, "a token is no credential here");
    let client = app.client("connections:read").await;
    let answer = client.post(&app.api, "/oauth2/introspect", "").await;
    assert_eq!((answer.status, &answer.json["error"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn what_the_client_may_no_longer_have_is_not_told() {
    let app = TestApp::spawn().await;
    let client = app.client("connections:read tokens:read").await;
    let token = client.token(&app.api).await;
    app.database
        .execute("UPDATE clients SET scopes = '{connections:read}' WHERE NOT bootstrap")
        .await;
    app.refresh_directories().await;
    let told = client.introspect(&app.api, &token).await;
    assert_eq!(told.json["scope"], "connections:read");
    let answer = app.api.reveal(&token, "conn_01999999-0000-7000-8000-000000000000").await;
    assert_eq!(answer.problem(), (403, "insufficient_scope"));
    assert_ne!(told.json, Value::Null);
}
