//! Access tokens that end before their time (RFC 7009), on every replica.

use std::time::Duration;

use serde_json::json;
use strongroom::oauth::STALE_AFTER;
use strongroom::oauth::clients::Terms;

use crate::support::{Cut, OauthClient, Proxy, TestApp, TestDatabase};

const PATH: &str = "/v1/connections";

#[tokio::test]
async fn a_revoked_token_is_refused_here_at_once_and_elsewhere_after_the_next_refresh() {
    let app = TestApp::spawn().await;
    let other = app.replica().await;
    let client = app.client("connections:read").await;
    app.refresh_directories().await;
    let (token, kept) = (client.token(&app.api).await, client.token(&app.api).await);
    assert_eq!(other.get(&token, PATH).await.status, 200);
    let answer = client.revoke(&app.api, &token).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(app.api.get(&token, PATH).await.problem(), (401, "unauthorized"));
    app.refresh_directories().await;
    let refused = other.get(&token, PATH).await;
    assert_eq!(refused.problem(), (401, "unauthorized"));
    assert!(refused.header("www-authenticate").contains("error=\"invalid_token\""));
    assert_eq!(other.get(&kept, PATH).await.status, 200, "the client's other token lives");
    let late = app.replica().await;
    assert_eq!(
        late.get(&token, PATH).await.status,
        401,
        "a replica that starts later knows it too"
    );
}

#[tokio::test]
async fn a_replica_that_hears_of_no_revocation_for_five_seconds_lets_nobody_in() {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database).await;
    let app = TestApp::builder().on(database).spawn().await;
    let client = app.client("connections:read").await;
    app.refresh_directories().await;
    let token = client.token(&app.api).await;
    let cut_off = app.replica_with(&[("DATABASE_URL", proxy.url())]).await;
    let counts = |answer: &crate::support::Answer| answer.json["active"].clone();
    assert_eq!(counts(&client.introspect(&cut_off, &token).await), true);
    proxy.cut(Cut::Now);
    assert_eq!(client.revoke(&app.api, &token).await.status, 200);
    app.clock.advance(STALE_AFTER);
    let answer = cut_off.get(&token, PATH).await;
    assert_eq!(answer.problem(), (503, "unavailable"));
    assert!(!answer.header("retry-after").is_empty());
    let answer = client.introspect(&cut_off, &token).await;
    assert_eq!((answer.status, &answer.json["error"]), (503, &json!("temporarily_unavailable")));
    proxy.cut(Cut::Never);
    // The replica looks every second by itself.
    let mut answer = cut_off.get(&token, PATH).await;
    while answer.status == 503 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = cut_off.get(&token, PATH).await;
    }
    assert_eq!(answer.problem(), (401, "unauthorized"), "it never counts again");
}

#[tokio::test]
async fn a_revocation_that_cannot_be_kept_is_answered_503_and_the_token_lives() {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database).await;
    let app = TestApp::builder().set("DATABASE_URL", proxy.url()).on(database).spawn().await;
    let client = OauthClient {
        id: crate::support::BOOTSTRAP_ID.to_owned(),
        secret: crate::support::BOOTSTRAP_SECRET.to_owned(),
    };
    let token = client.token(&app.api).await;
    proxy.cut(Cut::Now);
    let answer = client.revoke(&app.api, &token).await;
    assert_eq!((answer.status, &answer.json["error"]), (503, &json!("temporarily_unavailable")));
    assert_eq!(answer.header("retry-after"), "1");
    proxy.cut(Cut::Never);
    while app.api.get(&token, PATH).await.status == 503 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(app.api.get(&token, PATH).await.status, 200);
}

#[tokio::test]
async fn a_client_revokes_its_own_tokens_only() {
    let app = TestApp::spawn().await;
    let (owner, other) = (app.client("connections:read").await, app.client("admin").await);
    let token = owner.token(&app.api).await;
    let answer = other.revoke(&app.api, &token).await;
    assert_eq!((answer.status, &answer.json["error"]), (400, &json!("invalid_grant")));
    app.refresh_directories().await;
    assert_eq!(app.api.get(&token, PATH).await.status, 200);
}

#[tokio::test]
async fn a_token_that_is_unknown_or_has_ended_is_answered_200() {
    let app = TestApp::spawn().await;
    let client = app.client_on("connections:read", 60, Terms::default()).await;
    let ended = client.token(&app.api).await;
    app.turn_clock(Duration::from_secs(61)).await;
    for token in ["x", "a.b.c", "cs_nobody", "%00", &ended] {
        assert_eq!(client.revoke(&app.api, token).await.status, 200, "{token}");
    }
    assert_eq!(app.database.value("SELECT count(*) FROM revoked_tokens").await, "0");
}

#[tokio::test]
async fn the_hint_makes_no_difference_and_a_missing_token_does() {
    let app = TestApp::spawn().await;
    let client = app.client("connections:read").await;
    for hint in ["access_token", "refresh_token", "whatever"] {
        let token = client.token(&app.api).await;
        let form = format!("token={token}&token_type_hint={hint}");
        assert_eq!(client.post(&app.api, "/oauth2/revoke", &form).await.status, 200);
        app.refresh_directories().await;
        assert_eq!(app.api.get(&token, PATH).await.status, 401, "{hint}");
    }
    for form in ["", "token=", "token=a&token=b"] {
        let answer = client.post(&app.api, "/oauth2/revoke", form).await;
        assert_eq!((answer.status, &answer.json["error"]), (400, &json!("invalid_request")));
    }
}

#[tokio::test]
async fn revocation_takes_credentials_by_basic_form_and_json() {
    let app = TestApp::spawn().await;
    let client = app.client("connections:read").await;
    let mut revoked = Vec::new();
    for way in ["basic", "form", "json"] {
        let token = client.token(&app.api).await;
        let request = app.api.request(reqwest::Method::POST, "/oauth2/revoke");
        let body =
            json!({ "token": token, "client_id": client.id, "client_secret": client.secret });
        let answer = match way {
            "basic" => client.revoke(&app.api, &token).await,
            "json" => app.api.send(request.json(&body)).await,
            _ => {
                let form = format!(
                    "token={token}&client_id={}&client_secret={}",
                    client.id, client.secret
                );
                let request = request.header("content-type", "application/x-www-form-urlencoded");
                app.api.send(request.body(form)).await
            }
        };
        assert_eq!(answer.status, 200, "{way}: {}", answer.text);
        revoked.push(token);
    }
    for token in &revoked {
        assert_eq!(app.api.get(token, PATH).await.status, 401);
    }
    let audit = app.database.audit().await;
    let events = audit.iter().filter(|event| *event == "access_token.revoked ok");
    assert_eq!(events.count(), 3);
}

#[tokio::test]
async fn revoked_twice_is_revoked_once_and_forgotten_when_it_would_have_ended() {
    let app = TestApp::by_hand().await;
    let client = app.client("connections:read").await;
    let token = client.token(&app.api).await;
    for _ in 0..2 {
        assert_eq!(client.revoke(&app.api, &token).await.status, 200);
    }
    let audit = app.database.audit().await;
    assert_eq!(audit.iter().filter(|event| event.starts_with("access_token.")).count(), 1);
    app.turn_clock(Duration::from_secs(2 * 3600 + 1)).await;
    let mut conn = app.context.pool.acquire().await.unwrap();
    strongroom::oauth::delete_ended_tokens(&mut conn).await.unwrap();
    assert_eq!(app.database.value("SELECT count(*) FROM revoked_tokens").await, "0");
    assert_eq!(app.api.get(&token, PATH).await.status, 401);
}

#[tokio::test]
async fn a_revoked_token_stays_refused_where_the_databases_clock_is_ahead() {
    let app = TestApp::by_hand().await;
    let other = app.replica().await;
    let client = app.client_on("connections:read", 60, Terms::default()).await;
    let token = client.token(&app.api).await;
    app.database.turn_clock(Duration::from_secs(120)).await;
    client.revoke(&app.api, &token).await;
    for _ in 0..3 {
        app.refresh_directories().await;
    }
    for api in [&app.api, &other] {
        assert_eq!(api.get(&token, PATH).await.problem(), (401, "unauthorized"));
    }
}
