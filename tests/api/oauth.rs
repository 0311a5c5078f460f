//! The token endpoint and the life of access tokens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use strongroom::common::actor::Actor;
use strongroom::oauth::clients;

use crate::support::{Answer, BOOTSTRAP_ID, BOOTSTRAP_SECRET, TestApp};

async fn form(app: &TestApp, body: &str) -> Answer {
    let request = app
        .api
        .request(Method::POST, "/oauth2/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.to_owned());
    app.api.send(request).await
}

async fn basic(app: &TestApp, id: &str, secret: &str, body: &str) -> Answer {
    let request = app
        .api
        .request(Method::POST, "/oauth2/token")
        .basic_auth(id, Some(secret))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.to_owned());
    app.api.send(request).await
}

fn error(answer: &Answer) -> (u16, &str) {
    assert_eq!(
        answer.header("content-type"),
        "application/json",
        "OAuth's own shape: {}",
        answer.text
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.json["error_description"].is_string());
    (answer.status, answer.json["error"].as_str().unwrap())
}

fn credentials() -> String {
    format!(
        "client_id={BOOTSTRAP_ID}&client_secret={BOOTSTRAP_SECRET}&grant_type=client_credentials"
    )
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn basic_a_form_and_json_all_get_a_token() {
    let app = TestApp::spawn().await;
    let by_json = json!({ "client_id": BOOTSTRAP_ID, "client_secret": BOOTSTRAP_SECRET, "grant_type": "client_credentials" });
    let by_json = app.api.send(app.api.request(Method::POST, "/oauth2/token").json(&by_json)).await;
    for answer in [
        basic(&app, BOOTSTRAP_ID, BOOTSTRAP_SECRET, "grant_type=client_credentials").await,
        form(&app, &credentials()).await,
        by_json,
    ] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(
            (answer.header("cache-control"), answer.header("pragma")),
            ("no-store", "no-cache")
        );
        assert_eq!(
            (&answer.json["token_type"], &answer.json["expires_in"]),
            (&json!("Bearer"), &json!(3600))
        );
        assert!(answer.json.get("refresh_token").is_none());
        let token = answer.json["access_token"].as_str().unwrap();
        assert_eq!(app.api.get(token, "/v1/connections").await.status, 200);
    }
}

#[tokio::test]
async fn an_access_token_is_a_jwt_as_rfc_9068_has_it() {
    let app = TestApp::spawn().await;
    let token = app.token_for("connections:read").await;
    let (header, claims) = (part(&token, 0), part(&token, 1));
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("ES256")));
    assert!(header["kid"].is_string());
    assert_eq!(claims["iss"], "http://strongroom.test");
    assert_eq!(claims["aud"], "http://strongroom.test");
    assert_eq!(
        (&claims["sub"], &claims["client_id"]),
        (&json!(BOOTSTRAP_ID), &json!(BOOTSTRAP_ID))
    );
    assert_eq!(claims["scope"], "connections:read");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert!(claims["jti"].is_string());
    assert_ne!(claims["jti"], part(&app.token().await, 1)["jti"]);
}

#[tokio::test]
async fn scope_left_out_is_everything_a_subset_is_honoured_and_more_is_refused() {
    let app = TestApp::spawn().await;
    let with = |scope: &str| format!("{}&scope={}", credentials(), scope.replace(' ', "+"));
    let all = form(&app, &credentials()).await;
    assert!(all.json["scope"].as_str().unwrap().contains("tokens:read"));
    let some = form(&app, &with("tokens:read connections:read")).await;
    assert_eq!(some.json["scope"], "connections:read tokens:read");
    let empty = form(&app, &with("")).await;
    assert_eq!(empty.json["scope"], all.json["scope"], "an empty parameter counts as left out");
    for scope in ["no:such", "admin no:such", "%22", " "] {
        assert_eq!(error(&form(&app, &with(scope)).await), (400, "invalid_scope"), "{scope}");
    }
    app.token_of_another_app().await;
    let mut conn = app.context.pool.acquire().await.unwrap();
    let new = clients::NewClient {
        app: strongroom::apps::find(&mut conn, "default").await.unwrap().unwrap().id,
        name: "narrow",
        scopes: "connections:read".parse().unwrap(),
        token_lifetime: Duration::from_secs(60),
    };
    let narrow =
        clients::create(&mut conn, &app.context.vault, &Actor::operator(), &new).await.unwrap();
    let more = "grant_type=client_credentials&scope=connections:read+tokens:read";
    let refused = basic(&app, &narrow.id, narrow.secret.expose(), more).await;
    assert_eq!(error(&refused), (400, "invalid_scope"));
    let granted =
        basic(&app, &narrow.id, narrow.secret.expose(), "grant_type=client_credentials").await;
    assert_eq!(
        (&granted.json["scope"], &granted.json["expires_in"]),
        (&json!("connections:read"), &json!(60))
    );
}

#[tokio::test]
async fn wrong_credentials_are_told_alike_whatever_is_wrong() {
    let app = TestApp::spawn().await;
    let grant = "grant_type=client_credentials";
    let wrong_secret = basic(&app, BOOTSTRAP_ID, "x", grant).await;
    let unknown = basic(&app, "nobody", BOOTSTRAP_SECRET, grant).await;
    let nul = basic(&app, "%00", BOOTSTRAP_SECRET, grant).await;
    for answer in [&wrong_secret, &unknown, &nul] {
        assert_eq!(error(answer), (401, "invalid_client"));
        assert!(answer.header("www-authenticate").starts_with("Basic "));
        assert_eq!(answer.json, wrong_secret.json);
    }
}

#[tokio::test]
async fn a_request_that_is_not_one_is_refused_in_oauths_words() {
    let app = TestApp::spawn().await;
    let id = format!("client_id={BOOTSTRAP_ID}&client_secret={BOOTSTRAP_SECRET}");
    for (body, told) in [
        (id.clone(), (400, "invalid_request")),
        (format!("{id}&grant_type="), (400, "invalid_request")),
        (format!("{id}&grant_type=password"), (400, "unsupported_grant_type")),
        (format!("{}&grant_type=client_credentials", credentials()), (400, "invalid_request")),
        (format!("{}&scope=admin&scope=admin", credentials()), (400, "invalid_request")),
        (format!("{}&client_id={BOOTSTRAP_ID}", credentials()), (400, "invalid_request")),
        ("grant_type=client_credentials".to_owned(), (401, "invalid_client")),
        (
            format!("client_id={BOOTSTRAP_ID}&grant_type=client_credentials"),
            (401, "invalid_client"),
        ),
    ] {
        assert_eq!(error(&form(&app, &body).await), told, "{body}");
    }
    assert_eq!(form(&app, &format!("{}&unknown=1&unknown=2", credentials())).await.status, 200);
    let both = basic(&app, BOOTSTRAP_ID, BOOTSTRAP_SECRET, &credentials()).await;
    assert_eq!(error(&both), (400, "invalid_request"));
    for (media_type, body) in [
        ("text/plain", credentials()),
        ("application/json", credentials()),
        ("application/json", "[]".into()),
    ] {
        let request = app
            .api
            .request(Method::POST, "/oauth2/token")
            .header("content-type", media_type)
            .body(body);
        assert_eq!(error(&app.api.send(request).await), (400, "invalid_request"), "{media_type}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_in_oauths_shape() {
    let app = TestApp::spawn().await;
    let body = format!("{}&x={}", credentials(), "x".repeat(64 * 1024));
    assert_eq!(error(&form(&app, &body).await), (413, "invalid_request"));
}

#[tokio::test]
async fn the_characters_of_a_scope_are_those_of_rfc_6749() {
    let app = TestApp::spawn().await;
    for scope in ["%22", "a%5Cb", "%C3%A4", "admin%09tokens:read", "admin%0A", "%7F"] {
        let body = format!("{}&scope={scope}", credentials());
        assert_eq!(error(&form(&app, &body).await), (400, "invalid_scope"), "{scope}");
    }
}

#[tokio::test]
async fn basic_is_decoded_as_a_form_whichever_way_a_client_encodes_it() {
    let app = TestApp::spawn().await;
    let grant = "grant_type=client_credentials";
    let encoded: String = BOOTSTRAP_SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for secret in [BOOTSTRAP_SECRET, &encoded] {
        assert_eq!(basic(&app, BOOTSTRAP_ID, secret, grant).await.status, 200);
    }
}

#[tokio::test]
async fn credentials_in_the_uri_are_refused() {
    let app = TestApp::spawn().await;
    let path = format!("/oauth2/token?{}", credentials());
    let answer = app.api.send(app.api.request(Method::POST, &path)).await;
    assert_eq!(error(&answer), (400, "invalid_request"));
    let answer = app.api.send(app.api.request(Method::GET, &path)).await;
    assert_eq!(answer.problem(), (405, "method_not_allowed"));
    assert_eq!(answer.header("allow"), "POST");
}

#[tokio::test]
async fn an_access_token_ends_when_it_said_it_would() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    app.turn_clock(Duration::from_secs(3598)).await;
    assert_eq!(app.api.get(&token, "/v1/connections").await.status, 200);
    app.turn_clock(Duration::from_secs(3)).await;
    assert_eq!(app.api.get(&token, "/v1/connections").await.problem(), (401, "unauthorized"));
}

#[tokio::test]
async fn a_token_whose_content_was_changed_does_not_count() {
    let app = TestApp::spawn().await;
    let token = app.token_for("connections:read").await;
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims = part(&token, 1);
    claims["scope"] = json!("connections:read admin");
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    for forged in [
        format!("{}.{claims}.{}", parts[0], parts[2]),
        format!("{none}.{}.", parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode([0; 64])),
    ] {
        assert_eq!(app.api.get(&forged, "/v1/connections").await.problem(), (401, "unauthorized"));
    }
}

#[tokio::test]
async fn a_disabled_client_and_its_tokens_are_refused_on_every_replica() {
    let app = TestApp::spawn().await;
    let other = app.replica().await;
    let mut conn = app.context.pool.acquire().await.unwrap();
    let new = clients::NewClient {
        app: strongroom::apps::find(&mut conn, "default").await.unwrap().unwrap().id,
        name: "leaving",
        scopes: "connections:read".parse().unwrap(),
        token_lifetime: Duration::from_secs(3600),
    };
    let made =
        clients::create(&mut conn, &app.context.vault, &Actor::operator(), &new).await.unwrap();
    let token = app.api.token(&made.id, made.secret.expose(), None).await;
    app.refresh_directories().await;
    assert_eq!(other.get(&token, "/v1/connections").await.status, 200);
    clients::disable(&mut conn, &Actor::operator(), None, &made.id).await.unwrap();
    app.refresh_directories().await;
    for api in [&app.api, &other] {
        assert_eq!(api.get(&token, "/v1/connections").await.problem(), (401, "unauthorized"));
    }
    let refused =
        basic(&app, &made.id, made.secret.expose(), "grant_type=client_credentials").await;
    assert_eq!(error(&refused), (401, "invalid_client"));
}

#[tokio::test]
async fn a_token_of_one_replica_counts_on_another_and_after_a_restart() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let other = app.replica().await;
    assert_eq!(other.get(&token, "/v1/connections").await.status, 200);
    assert_eq!(app.database.value("SELECT count(*) FROM signing_keys").await, "1");
}

#[tokio::test]
async fn a_token_of_a_client_that_was_made_a_moment_ago_counts_on_every_replica() {
    let app = TestApp::spawn().await;
    let other = app.replica().await;
    for _ in 0..5 {
        let client = app.client("connections:read").await;
        let token = client.token(&app.api).await;
        assert_eq!(other.get(&token, "/v1/connections").await.status, 200);
    }
}
