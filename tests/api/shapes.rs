//! What cannot be meant is refused where it enters.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Cut, Proxy, TestApp, TestDatabase, id};

async fn get(app: &TestApp, path: &str) -> Answer {
    app.api.get(&app.token().await, path).await
}

#[tokio::test]
async fn a_parameter_that_an_endpoint_does_not_take_is_refused_by_name() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let connection = format!("/v1/connections/{}", id(&active));
    for (path, field) in [
        ("/v1/connections?clientUserId=ada", "clientUserId"),
        ("/v1/connections?clientUserID=ada&statsu=active", "statsu"),
        ("/v1/admin/connections?client_user_id=ada", "client_user_id"),
        ("/v1/admin/revocations?status=running", "status"),
        ("/v1/admin/audit-events?actoin=x", "actoin"),
        ("/v1/admin/clients?Limit=1", "Limit"),
        ("/v1/admin/upstreams?name=x", "name"),
        ("/v1/admin/stats?clientUserID=ada", "clientUserID"),
        (&format!("{connection}?expand=token"), "expand"),
    ] {
        let answer = get(&app, path).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{path}");
        assert_eq!(answer.json["field"], field, "{path}");
    }
    let delink = format!("{connection}/delink?dryRun=true");
    let answer = app.api.post_empty(&app.token().await, &delink).await;
    assert_eq!(
        (answer.problem(), &answer.json["field"]),
        ((400, "invalid_request"), &json!("dryRun"))
    );
    assert_eq!(get(&app, &connection).await.connection_status(), "active");
}

#[tokio::test]
async fn a_parameter_given_twice_or_out_of_range_is_refused() {
    let app = TestApp::spawn().await;
    for (path, field) in [
        ("/v1/connections?clientUserID=ada&clientUserID=bob", "clientUserID"),
        ("/v1/connections?clientUserID=ada&client%55serID=ada", "clientUserID"),
        ("/v1/admin/clients?limit=1&limit=1", "limit"),
        ("/v1/connections?limit=0", "limit"),
        ("/v1/admin/connections?limit=0", "limit"),
        ("/v1/admin/revocations?limit=0", "limit"),
        ("/v1/admin/audit-events?limit=0", "limit"),
        ("/v1/admin/clients?limit=0", "limit"),
        ("/v1/connections?limit=", "limit"),
        ("/v1/connections?=x", "query"),
    ] {
        let answer = get(&app, path).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{path}");
        assert_eq!(answer.json["field"], field, "{path}");
    }
}

#[tokio::test]
async fn a_parameter_that_might_be_a_secret_is_not_repeated() {
    let app = TestApp::spawn().await;
    let secret = "canary0123456789canary0123456789";
    let answer = get(&app, &format!("/v1/connections?{secret}")).await;
    assert_eq!(answer.problem(), (400, "invalid_request"));
    assert!(!answer.text.contains("canary"), "{}", answer.text);
}

#[tokio::test]
async fn queries_elsewhere_are_nobodys_business() {
    let app = TestApp::spawn().await;
    for path in ["/healthz?x=1", "/readyz?x=1", "/.well-known/jwks.json?x=1", "/?x=1"] {
        assert_eq!(app.api.send(app.api.request(Method::GET, path)).await.status, 200, "{path}");
    }
    let token =
        app.api.request(Method::POST, "/oauth2/token?utm=1").json(&json!({ "grant_type": "x" }));
    assert_eq!(app.api.send(token).await.json["error"], "invalid_client");
    let active = app.active("ada").await;
    let url = format!("/v1/connections/{}/dapi/data/accounts/get?x=1&x=2", id(&active));
    assert_eq!(app.api.post(&app.token().await, &url, &json!({})).await.status, 200);
    // Who is not let in hears of that first.
    let stranger = app.api.send(app.api.request(Method::GET, "/v1/connections?x=1")).await;
    assert_eq!(stranger.problem(), (401, "unauthorized"));
}

#[tokio::test]
async fn what_cannot_be_a_session_costs_no_query() {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database).await;
    let app = TestApp::builder().set("DATABASE_URL", proxy.url()).on(database).spawn().await;
    proxy.cut(Cut::Now);
    for garbage in
        ["cs_", "cs_x", &format!("cs_{}", "!".repeat(43)), &format!("cs_{}", "A".repeat(44))]
    {
        let answer = app.api.get(garbage, "/v1/connections").await;
        assert_eq!(answer.problem(), (401, "unauthorized"), "{garbage}");
    }
    let possible = format!("cs_{}", "A".repeat(43));
    assert_eq!(app.api.get(&possible, "/v1/connections").await.problem(), (503, "unavailable"));
}

#[tokio::test]
async fn a_token_request_that_is_compressed_hears_what_is_wrong() {
    let app = TestApp::spawn().await;
    let request = app
        .api
        .request(Method::POST, "/oauth2/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("content-encoding", "gzip")
        .body("\x1f");
    let answer = app.api.send(request).await;
    assert_eq!((answer.status, &answer.json["error"]), (400, &json!("invalid_request")));
    let told = answer.json["error_description"].as_str().unwrap();
    assert!(told.contains("Content-Encoding"), "{told}");
}
