//! Clients that were written for other client-credentials servers, as they stand.

use std::process::Command;

use serde_json::Value;
use strongroom::common::external_scopes::ExternalScopes;
use strongroom::oauth::clients::Terms;

use crate::support::{OauthClient, TestApp};

/// Runs a line for a shell in which `HOST`, `ID` and `SECRET` are exchanged, and reads its answer.
async fn run(app: &TestApp, line: &str, client: &OauthClient) -> Value {
    let line = line
        .replace("https://HOST", &app.api.url(""))
        .replace("ID", &client.id)
        .replace("SECRET", &client.secret);
    let output = tokio::task::spawn_blocking(move || {
        Command::new("sh").args(["-c", &line]).output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
}

fn terms(other: &str, required: &str) -> Terms {
    let names = |text: &'static str| text.split(' ').filter(|name| !name.is_empty());
    let other = other.to_owned().leak();
    let required = required.to_owned().leak();
    Terms {
        external_scopes: ExternalScopes::new(names(other)).unwrap(),
        required_scopes: names(required).map(str::to_owned).collect(),
        ..Terms::default()
    }
}

#[tokio::test]
async fn the_line_of_danaconnect_gets_a_token_with_its_own_scope() {
    let app = TestApp::spawn().await;
    let scope = "conversation:access2api";
    let client = app.client_on("connections:read", 3600, terms(scope, scope)).await;
    let line = "curl -s -X POST https://HOST/oauth2/token \\
        -H 'Content-Type: application/x-www-form-urlencoded' \\
        -d 'grant_type=client_credentials' -u 'ID:SECRET' -d 'scope=conversation:access2api'";
    let told = run(&app, line, &client).await;
    assert_eq!((&told["token_type"], &told["expires_in"]), (&"Bearer".into(), &3600.into()));
    assert_eq!(told["scope"], scope);
    let token = told["access_token"].as_str().unwrap();
    assert_eq!(client.introspect(&app.api, token).await.json["scope"], scope);
    let answer = app.api.get(token, "/v1/connections").await;
    assert_eq!(answer.problem(), (403, "insufficient_scope"), "it means nothing here");
    let without =
        run(&app, &line.replace(" -d 'scope=conversation:access2api'", ""), &client).await;
    assert_eq!(without["error"], "invalid_scope", "the scope has to be named");
}

#[tokio::test]
async fn the_lines_of_kaisa_get_tokens_of_five_minutes_by_json_and_by_form() {
    let app = TestApp::spawn().await;
    let client = app.client_on("connections:read", 300, Terms::default()).await;
    let json = r#"curl -s -X POST https://HOST/oauth2/token -H "Content-Type: application/json" \
        -d '{ "grant_type": "client_credentials", "client_id": "ID", "client_secret": "SECRET" }'"#;
    let form = r#"curl -s -X POST https://HOST/oauth2/token -d "grant_type=client_credentials" \
        -d "client_id=ID" -d "client_secret=SECRET""#;
    for line in [json, form] {
        let told = run(&app, line, &client).await;
        assert_eq!(told["expires_in"], 300, "{told}");
        let token = told["access_token"].as_str().unwrap();
        assert_eq!(app.api.get(token, "/v1/connections").await.status, 200);
    }
}

#[tokio::test]
async fn the_line_of_a_plain_basic_server_gets_a_token_under_the_path_that_it_knows() {
    let app = TestApp::spawn().await;
    let client = app.client("connections:read").await;
    let line =
        "curl -s -X POST https://HOST/oauth/v2/token -u ID:SECRET -d grant_type=client_credentials";
    let told = run(&app, line, &client).await;
    let token = told["access_token"].as_str().unwrap();
    assert_eq!(app.api.get(token, "/v1/connections").await.status, 200);
    assert_eq!(app.api.reveal(token, "conn_x").await.status, 403, "a missing scope");
    assert_eq!(app.api.get("x", "/v1/connections").await.status, 401, "a bad token");
}

#[tokio::test]
async fn a_foreign_scope_is_asked_for_as_strictly_as_an_own_one() {
    let app = TestApp::spawn().await;
    let client = app.client_on("connections:read", 3600, terms("a:b https://x/y", "")).await;
    let ask = async |scope| client.ask(&app.api, scope).await.json;
    assert_eq!(ask(None).await["scope"], "connections:read a:b https://x/y");
    assert_eq!(ask(Some("a:b")).await["scope"], "a:b");
    assert_eq!(ask(Some("a:b connections:read")).await["scope"], "connections:read a:b");
    for scope in ["c:d", "a:b c:d", "tokens:read a:b", "A:B", "%22", "a%5cb", "%c3%a4"] {
        assert_eq!(ask(Some(scope)).await["error"], "invalid_scope", "{scope}");
    }
}

#[tokio::test]
async fn a_foreign_scope_never_comes_to_mean_something_here() {
    let app = TestApp::spawn().await;
    let client = app.client_on("connections:read", 3600, terms("future:scope", "")).await;
    // As if a release had given a meaning to the name.
    app.database
        .execute("UPDATE clients SET external_scopes = '{tokens:read}' WHERE NOT bootstrap")
        .await;
    app.refresh_directories().await;
    let answer = client.ask(&app.api, None).await;
    assert_eq!(answer.json["scope"], "connections:read tokens:read");
    let token = answer.json["access_token"].as_str().unwrap();
    assert_eq!(app.api.reveal(token, "conn_x").await.problem(), (403, "insufficient_scope"));
}
