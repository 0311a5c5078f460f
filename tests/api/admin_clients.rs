//! Clients, administered over the API and over the command line.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom::common::external_scopes::ExternalScopes;
use strongroom::oauth::clients::Terms;

use crate::support::{Answer, BOOTSTRAP_ID, OauthClient, TestApp, command};

const PATH: &str = "/v1/admin/clients";

async fn call(
    app: &TestApp,
    token: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Answer {
    let mut request = app.api.request(method, path).bearer_auth(token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    app.api.send(request).await
}

async fn made(app: &TestApp, token: &str, body: Value) -> OauthClient {
    let answer = app.api.post(token, PATH, &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let text = |name: &str| answer.json[name].as_str().unwrap().to_owned();
    OauthClient { id: text("clientID"), secret: text("clientSecret") }
}

#[tokio::test]
async fn a_client_is_made_with_its_secret_shown_once() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let body = json!({ "name": "payroll", "scopes": ["tokens:read", "connections:read"], "tokenLifetime": 300, "revealsPerMinute": 7, "requiredScopes": ["connections:read"] });
    let answer = app.api.post(&token, PATH, &body).await;
    assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"));
    let id = answer.json["clientID"].as_str().unwrap();
    let secret = answer.json["clientSecret"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("{PATH}/{id}"));
    for member in ["clientID", "clientSecret"] {
        let text = answer.json[member].as_str().unwrap();
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric()), "letters and digits only: {text}");
    }
    assert_eq!(answer.json["scopes"], json!(["connections:read", "tokens:read"]));
    assert_eq!(
        (&answer.json["tokenLifetime"], &answer.json["revealsPerMinute"]),
        (&json!(300), &json!(7))
    );
    let client = OauthClient { id: id.to_owned(), secret: secret.to_owned() };
    let told = client.ask(&app.api, Some("connections:read")).await;
    assert_eq!(
        (&told.json["expires_in"], &told.json["scope"]),
        (&json!(300), &json!("connections:read"))
    );
    assert_eq!(client.ask(&app.api, None).await.json["error"], "invalid_scope");
    let shown = app.api.get(&token, &format!("{PATH}/{id}")).await;
    let listed = app.api.get(&token, PATH).await;
    for answer in [&shown, &listed] {
        assert_eq!(answer.status, 200);
        assert!(!answer.text.contains(secret) && !answer.text.contains("clientSecret"));
    }
    assert_eq!(shown.json["secrets"].as_array().unwrap().len(), 1);
    assert_eq!(listed.json["clients"][0]["clientID"], id, "the newest first");
    assert!(app.database.audit().await.contains(&"client.created ok".to_owned()));
    assert_eq!(
        app.database.value("SELECT client_id FROM audit_events WHERE action = 'client.created' AND actor = 'client'").await,
        BOOTSTRAP_ID
    );
}

#[tokio::test]
async fn scopes_may_come_as_oauth_writes_them() {
    let app = TestApp::spawn().await;
    let body = json!({ "name": "x", "scopes": "connections:read tokens:read" });
    let client = made(&app, &app.token().await, body).await;
    assert_eq!(client.ask(&app.api, None).await.json["scope"], "connections:read tokens:read");
}

#[tokio::test]
async fn what_makes_no_client_is_refused_by_field() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let good = json!({ "name": "x", "scopes": ["connections:read"] });
    for (changes, field) in [
        (json!({ "name": " " }), "name"),
        (json!({ "name": "a\u{0}" }), "name"),
        (json!({ "name": "x".repeat(201) }), "name"),
        (json!({ "scopes": [] }), "scopes"),
        (json!({ "scopes": ["no:such"] }), "scopes"),
        (json!({ "tokenLifetime": 59 }), "tokenLifetime"),
        (json!({ "tokenLifetime": 86_401 }), "tokenLifetime"),
        (json!({ "revealsPerMinute": 0 }), "revealsPerMinute"),
        (json!({ "revealsPerMinute": 1_000_001 }), "revealsPerMinute"),
        (json!({ "revealsPerMinute": 4_294_967_295_u32 }), "revealsPerMinute"),
        (json!({ "requiredScopes": ["tokens:read"] }), "requiredScopes"),
        (json!({ "otherScopes": ["a b"] }), "otherScopes"),
        (json!({ "otherScopes": ["admin"] }), "otherScopes"),
    ] {
        let answer =
            app.api.post(&token, PATH, &crate::support::with(&good, changes.clone())).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{changes}");
        assert_eq!(answer.json["field"], field, "{changes}");
    }
    assert_eq!(app.database.value("SELECT count(*) FROM clients").await, "1");
}

#[tokio::test]
async fn nobody_grants_a_scope_that_they_lack() {
    let app = TestApp::spawn().await;
    let narrow = app.client("admin connections:read").await.token(&app.api).await;
    let powerful = app.client("admin tokens:read").await;
    let grant = |scopes: &str| json!({ "name": "x", "scopes": scopes });
    made(&app, &narrow, grant("connections:read")).await;
    made(&app, &narrow, grant("admin connections:read")).await;
    let refused =
        app.api.post(&narrow, PATH, &grant("connections:read tokens:read users:erase")).await;
    assert_eq!(refused.problem(), (403, "insufficient_scope"));
    assert_eq!(refused.json["scope"], "tokens:read users:erase");
    let of_a_narrow_token = app.token_for("admin").await;
    let refused = app.api.post(&of_a_narrow_token, PATH, &grant("connections:read")).await;
    assert_eq!(refused.problem(), (403, "insufficient_scope"), "the token counts, not its client");
    // Nor by a way around: a secret of a client that may do more, or letting such a one in again.
    let path = format!("{PATH}/{}", powerful.id);
    let secret = app.api.post(&narrow, &format!("{path}/secrets"), &json!({})).await;
    assert_eq!(secret.problem(), (403, "insufficient_scope"));
    let change = async |disabled: bool| {
        call(&app, &narrow, Method::PATCH, &path, Some(json!({ "disabled": disabled }))).await
    };
    assert_eq!(change(true).await.status, 200, "taking away is always allowed");
    assert_eq!(change(false).await.problem(), (403, "insufficient_scope"));
}

#[tokio::test]
async fn a_scope_of_another_api_is_granted_by_who_has_it() {
    let app = TestApp::spawn().await;
    let body = json!({ "name": "x", "scopes": [], "otherScopes": ["conversation:access2api"] });
    let refused = app.api.post(&app.token().await, PATH, &body).await;
    assert_eq!(refused.problem(), (403, "insufficient_scope"));
    let external_scopes = ExternalScopes::new(["conversation:access2api"]).unwrap();
    let terms = Terms { external_scopes, ..Terms::default() };
    let holder = app.client_on("admin", 3600, terms).await;
    app.refresh_directories().await;
    let client = made(&app, &holder.token(&app.api).await, body).await;
    assert_eq!(client.ask(&app.api, None).await.json["scope"], "conversation:access2api");
}

#[tokio::test]
async fn two_secrets_live_side_by_side_until_the_old_one_ends() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let old = made(&app, &token, json!({ "name": "x", "scopes": ["connections:read"] })).await;
    let path = format!("{PATH}/{}/secrets", old.id);
    let answer = app.api.post(&token, &path, &json!({ "oldSecretsEndIn": 600 })).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let new = OauthClient {
        secret: answer.json["clientSecret"].as_str().unwrap().to_owned(),
        ..old.clone()
    };
    let secrets = answer.json["secrets"].as_array().unwrap();
    assert!(secrets[0]["expiresAt"].is_string() && secrets[1]["expiresAt"].is_null());
    assert_eq!(secrets[1]["id"], answer.json["id"]);
    for client in [&old, &new] {
        assert_eq!(client.ask(&app.api, None).await.status, 200);
    }
    let third = app.api.post(&token, &path, &json!({})).await;
    assert_eq!(third.problem(), (409, "two_secrets"));
    app.turn_clock(Duration::from_secs(601)).await;
    assert_eq!(old.ask(&app.api, None).await.status, 401);
    assert_eq!(new.ask(&app.api, None).await.status, 200);
}

#[tokio::test]
async fn a_secret_that_leaked_is_replaced_at_once() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let old = made(&app, &token, json!({ "name": "x", "scopes": ["connections:read"] })).await;
    let path = format!("{PATH}/{}/secrets", old.id);
    let second = app.api.send(app.api.request(Method::POST, &path).bearer_auth(&token)).await;
    assert_eq!(second.status, 201, "no body is needed: {}", second.text);
    let third = app.api.post(&token, &path, &json!({ "oldSecretsEndIn": 0 })).await;
    let with = |answer: &Answer| OauthClient {
        secret: answer.json["clientSecret"].as_str().unwrap().to_owned(),
        ..old.clone()
    };
    app.refresh_directories().await;
    for client in [&old, &with(&second)] {
        assert_eq!(client.ask(&app.api, None).await.status, 401);
    }
    assert_eq!(with(&third).ask(&app.api, None).await.status, 200);
    for body in
        [json!({ "oldSecretsEndIn": "0" }), json!({ "oldSecretsEndIn": 2_592_001 }), json!([])]
    {
        assert_eq!(app.api.post(&token, &path, &body).await.problem(), (400, "invalid_request"));
    }
}

#[tokio::test]
async fn one_secret_is_ended_by_its_id() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let old = made(&app, &token, json!({ "name": "x", "scopes": ["connections:read"] })).await;
    let shown = app.api.get(&token, &format!("{PATH}/{}", old.id)).await;
    let secret = shown.json["secrets"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("{PATH}/{}/secrets/{secret}", old.id);
    assert_eq!(call(&app, &token, Method::DELETE, &path, None).await.status, 204);
    app.refresh_directories().await;
    assert_eq!(old.ask(&app.api, None).await.status, 401);
    assert_eq!(call(&app, &token, Method::DELETE, &path, None).await.problem(), (404, "not_found"));
    assert!(app.database.audit().await.contains(&"client.secret_ended ok".to_owned()));
}

#[tokio::test]
async fn a_client_that_is_disabled_or_deleted_ends_with_its_tokens_on_every_replica() {
    let app = TestApp::spawn().await;
    let other = app.replica().await;
    let token = app.token().await;
    let client = made(&app, &token, json!({ "name": "x", "scopes": ["connections:read"] })).await;
    app.refresh_directories().await;
    let of_client = client.token(&app.api).await;
    let path = format!("{PATH}/{}", client.id);
    let change = async |disabled: bool| {
        let answer =
            call(&app, &token, Method::PATCH, &path, Some(json!({ "disabled": disabled }))).await;
        assert_eq!((answer.status, answer.json["disabledAt"].is_string()), (200, disabled));
        app.refresh_directories().await;
    };
    let statuses = async || {
        let mut statuses = Vec::new();
        for api in [&app.api, &other] {
            statuses.push(api.get(&of_client, "/v1/connections").await.status);
            statuses.push(client.ask(api, None).await.status);
        }
        statuses
    };
    assert_eq!(statuses().await, [200; 4]);
    change(true).await;
    assert_eq!(statuses().await, [401; 4]);
    change(false).await;
    assert_eq!(statuses().await, [200; 4]);
    assert_eq!(call(&app, &token, Method::DELETE, &path, None).await.status, 204);
    app.refresh_directories().await;
    assert_eq!(statuses().await, [401; 4]);
    assert_eq!(call(&app, &token, Method::DELETE, &path, None).await.problem(), (404, "not_found"));
    let audit = app.database.audit().await;
    for action in ["client.disabled ok", "client.enabled ok", "client.deleted ok"] {
        assert_eq!(audit.iter().filter(|event| *event == action).count(), 1, "{action}");
    }
}

#[tokio::test]
async fn the_bootstrap_client_follows_the_environment() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let path = format!("{PATH}/{BOOTSTRAP_ID}");
    let deleted = call(&app, &token, Method::DELETE, &path, None).await;
    assert_eq!(deleted.problem(), (400, "invalid_request"));
    let secret = app.api.post(&token, &format!("{path}/secrets"), &json!({})).await;
    assert_eq!(secret.problem(), (400, "invalid_request"));
}

#[tokio::test]
async fn a_list_has_pages_and_shows_its_own_app_only() {
    let app = TestApp::spawn().await;
    app.token_of_another_app().await;
    let token = app.token().await;
    for n in 0..4 {
        made(&app, &token, json!({ "name": format!("n{n}"), "scopes": ["admin"] })).await;
    }
    let mut names = Vec::new();
    let mut path = format!("{PATH}?limit=2");
    loop {
        let page = app.api.get(&token, &path).await.json;
        names.extend(
            page["clients"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["name"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("{PATH}?limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["n3", "n2", "n1", "n0", "bootstrap"]);
    for query in ["limit=0", "limit=101", "cursor=x", "cursor=", "limit=x"] {
        let answer = app.api.get(&token, &format!("{PATH}?{query}")).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{query}");
    }
}

#[tokio::test]
async fn a_client_is_known_to_its_own_app_alone() {
    let app = TestApp::spawn().await;
    let stranger = app.token_of_another_app().await;
    let client = app.client("connections:read").await;
    let path = format!("{PATH}/{}", client.id);
    for answer in [
        call(&app, &stranger, Method::GET, &path, None).await,
        call(&app, &stranger, Method::PATCH, &path, Some(json!({ "disabled": true }))).await,
        call(&app, &stranger, Method::DELETE, &path, None).await,
        call(&app, &stranger, Method::POST, &format!("{path}/secrets"), Some(json!({}))).await,
        call(&app, &stranger, Method::GET, &format!("{PATH}/%00"), None).await,
        call(&app, &stranger, Method::GET, &format!("{PATH}/a-b"), None).await,
    ] {
        assert_eq!(answer.problem(), (404, "not_found"));
    }
    app.refresh_directories().await;
    assert_eq!(client.ask(&app.api, None).await.status, 200);
}

#[tokio::test]
async fn when_a_client_and_its_secrets_were_last_used_is_written_down_once_for_many_requests() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let client = app.client("connections:read").await;
    app.refresh_directories().await;
    let shown = async || app.api.get(&token, &format!("{PATH}/{}", client.id)).await.json;
    assert!(shown().await["lastUsedAt"].is_null());
    let of_client = client.token(&app.api).await;
    for _ in 0..5 {
        app.api.get(&of_client, "/v1/connections").await;
    }
    app.write_uses().await;
    let first = shown().await;
    assert!(first["lastUsedAt"].is_string() && first["secrets"][0]["lastUsedAt"].is_string());
    app.api.get(&of_client, "/v1/connections").await;
    app.write_uses().await;
    assert_eq!(shown().await["lastUsedAt"], first["lastUsedAt"], "to half a minute is enough");
    app.turn_clock(Duration::from_secs(60)).await;
    app.api.get(&of_client, "/v1/connections").await;
    let generation = "SELECT generation FROM oauth_generations WHERE of = 'directory'";
    let before = app.database.value(generation).await;
    app.write_uses().await;
    let second = shown().await;
    assert_ne!(second["lastUsedAt"], first["lastUsedAt"]);
    assert_eq!(second["secrets"][0]["lastUsedAt"], first["secrets"][0]["lastUsedAt"]);
    assert_eq!(app.database.value(generation).await, before, "no replica reloads for it");
}

async fn cli(app: &TestApp, arguments: &[&str]) -> (bool, Value) {
    let mut command = command(app, &[]);
    command.args(["--output", "json"]).args(arguments).stderr(std::process::Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    let json = serde_json::from_slice(&text);
    (output.status.success(), json.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&text))))
}

#[tokio::test]
async fn the_command_line_can_do_what_the_api_can() {
    let app = TestApp::spawn().await;
    let create = [
        "clients",
        "create",
        "payroll",
        "--scope",
        "connections:read",
        "--other-scope",
        "conversation:access2api",
        "--required-scope",
        "conversation:access2api",
        "--token-lifetime",
        "300",
        "--reveals-per-minute",
        "5",
    ];
    let (_, made) = cli(&app, &create).await;
    let id = made["clientID"].as_str().unwrap();
    assert_eq!(made["otherScopes"], json!(["conversation:access2api"]));
    let with = |secret: &Value| OauthClient {
        id: id.to_owned(),
        secret: secret.as_str().unwrap().to_owned(),
    };
    let old = with(&made["clientSecret"]);
    let scope = Some("conversation:access2api");
    assert_eq!(old.ask(&app.api, scope).await.status, 200);
    let (_, rotated) = cli(&app, &["clients", "rotate-secret", id, "--old-ends-in", "0"]).await;
    app.refresh_directories().await;
    assert_eq!(old.ask(&app.api, scope).await.status, 401);
    let new = with(&rotated["clientSecret"]);
    assert_eq!(new.ask(&app.api, scope).await.status, 200);
    let (_, shown) = cli(&app, &["clients", "show", id]).await;
    assert_eq!(
        (&shown["tokenLifetime"], shown["secrets"].as_array().unwrap().len()),
        (&json!(300), 1)
    );
    for (verb, status) in [("disable", 401), ("enable", 200), ("delete", 401)] {
        assert!(cli(&app, &["clients", verb, id]).await.0);
        app.refresh_directories().await;
        assert_eq!(new.ask(&app.api, scope).await.status, status, "{verb}");
    }
    let (worked, told) = cli(&app, &["clients", "show", id]).await;
    assert!(!worked && told["error"].as_str().unwrap().contains("there is no client"));
}

#[tokio::test]
async fn the_command_line_rotates_and_lists_signing_keys() {
    let app = TestApp::spawn().await;
    let (_, new) = cli(&app, &["keys", "signing", "rotate", "--now", "--algorithm", "EdDSA"]).await;
    let (_, keys) = cli(&app, &["keys", "signing", "list"]).await;
    let states: Vec<_> =
        keys.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["next", "signs"]);
    assert_eq!((&keys[0]["kid"], &keys[0]["algorithm"]), (&new["kid"], &json!("EdDSA")));
    let old = keys[1]["kid"].as_str().unwrap();
    assert!(!cli(&app, &["keys", "signing", "revoke", old]).await.0, "it signs still");
    app.turn_clock(Duration::from_secs(11)).await;
    assert!(cli(&app, &["keys", "signing", "revoke", old]).await.0);
}
