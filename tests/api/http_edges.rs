//! HTTP at its edges: everything answers as a problem, in bounded memory and time.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, TestApp, for_user};

async fn raw(app: &TestApp, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.api.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn post_raw(
    app: &TestApp,
    media_type: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> Answer {
    let request =
        app.api.request(Method::POST, "/v1/connections").bearer_auth(app.token().await).body(body);
    app.api
        .send(match media_type {
            Some(media_type) => request.header("content-type", media_type),
            None => request,
        })
        .await
}

#[tokio::test]
async fn what_does_not_exist_answers_as_a_problem() {
    let app = TestApp::spawn().await;
    for path in [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v1/connections/x/y/z",
        "/v1/connections/",
        "//v1/connections",
        "/v1/%00",
        "/%ff",
    ] {
        let answer = app.api.send(app.api.request(Method::GET, path)).await;
        assert_eq!(answer.problem(), (404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn another_method_is_told_which_ones_there_are() {
    let app = TestApp::spawn().await;
    for (method, path, allow) in [
        (Method::DELETE, "/v1/connections", "GET, POST"),
        (Method::PUT, "/v1/connections/conn_x", "GET"),
        (Method::GET, "/v1/connections/conn_x/token", "POST, DELETE"),
        (Method::GET, "/v1/connect-sessions", "POST"),
        (Method::PATCH, "/healthz", "GET, HEAD"),
    ] {
        let answer = app.api.send(app.api.request(method, path)).await;
        assert_eq!(answer.problem(), (405, "method_not_allowed"), "{path}");
        assert_eq!(answer.header("allow"), allow);
    }
}

#[tokio::test]
async fn a_body_of_another_media_type_is_refused() {
    let app = TestApp::spawn().await;
    for media_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonp"),
    ] {
        let answer = post_raw(&app, media_type, "{}").await;
        assert_eq!(answer.problem(), (415, "unsupported_media_type"), "{media_type:?}");
    }
    let request = app.api.request(Method::POST, "/v1/connections").bearer_auth(app.token().await);
    let request = request
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body("x");
    assert_eq!(app.api.send(request).await.problem(), (415, "unsupported_media_type"));
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let app = TestApp::spawn().await;
    let json = Some("application/json; charset=utf-8");
    let nested = format!("{{\"success\":{}", "[".repeat(100_000));
    let nested = &nested[..60_000];
    let bodies: [&[u8]; 8] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\"x\"",
        b"{\"success\":true,\"success\":true}",
        b"{\"success\":true,\"accessCode\":\"\xff\xfe\"}",
        nested.as_bytes(),
    ];
    for body in bodies {
        let answer = post_raw(&app, json, body.to_vec()).await;
        assert_eq!(
            answer.problem(),
            (400, "invalid_request"),
            "{}",
            String::from_utf8_lossy(&body[..body.len().min(60)])
        );
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_it_says_so_or_not() {
    let app = TestApp::spawn().await;
    let json = Some("application/json");
    let answer = post_raw(&app, json, vec![b' '; 64 * 1024 + 1]).await;
    assert_eq!(answer.problem(), (413, "body_too_large"));
    let token = app.token().await;
    let mut stream = TcpStream::connect(app.api.address).await.unwrap();
    let head = format!(
        "POST /v1/connections HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 4096, " ".repeat(4096));
    // Endless: it is the service that ends it.
    for _ in 0..100_000 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
        let mut answer = [0; 12];
        if let Ok(Ok(12)) =
            tokio::time::timeout(Duration::from_micros(1), stream.peek(&mut answer)).await
        {
            assert_eq!(&answer, b"HTTP/1.1 413");
            return;
        }
    }
    panic!("it swallowed everything");
}

#[tokio::test]
async fn a_head_that_is_no_http_is_refused_and_a_slow_one_is_cut() {
    let app = TestApp::spawn().await;
    assert!(raw(&app, b"NONSENSE\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let mut slow = TcpStream::connect(app.api.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut answer = String::new();
    let cut = tokio::time::timeout(Duration::from_secs(30), slow.read_to_string(&mut answer)).await;
    assert!(cut.is_ok(), "a head that never ends is cut off");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_body_that_never_arrives_is_given_up() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let head = format!(
        "POST /v1/connections HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    let answer = raw(&app, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("request_timeout"));
}

#[tokio::test]
async fn idle_connections_leave_the_health_check_quick() {
    let app = TestApp::spawn().await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(TcpStream::connect(app.api.address).await.unwrap());
    }
    let health = app.api.send(app.api.request(Method::GET, "/healthz"));
    let answer = tokio::time::timeout(Duration::from_secs(5), health).await.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_request_id_stands_in_every_answer() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let mut seen = std::collections::HashSet::new();
    for path in ["/healthz", "/v1/connections", "/v1/nothing", "/openapi.json", "/docs/"] {
        let answer = app.api.get(&token, path).await;
        let id = answer.header("x-request-id").to_owned();
        assert!(id.parse::<uuid::Uuid>().is_ok(), "{path}: {id}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(seen.insert(id));
    }
}

#[tokio::test]
async fn every_problem_leads_to_what_it_means() {
    let app = TestApp::spawn().await;
    let problem = app.api.send(app.api.request(Method::GET, "/v1/connections")).await;
    let leads_to = problem.json["type"].as_str().unwrap();
    let meaning = app.api.send(app.api.request(Method::GET, leads_to)).await;
    assert_eq!(meaning.status, 200);
    assert!(meaning.text.starts_with("unauthorized (401)"), "{}", meaning.text);
    let unknown = app.api.send(app.api.request(Method::GET, "/problems/nothing")).await;
    assert_eq!(unknown.problem(), (404, "not_found"));
}

#[tokio::test]
async fn the_document_is_served_and_can_be_browsed() {
    let app = TestApp::spawn().await;
    let document = app.api.send(app.api.request(Method::GET, "/openapi.json")).await;
    assert_eq!(document.status, 200);
    assert_eq!(document.json["info"]["title"], "Strongroom");
    let page = app.api.send(app.api.request(Method::GET, "/docs")).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("swagger-ui"), "{}", page.text);
}

#[tokio::test]
async fn what_can_be_read_answers_head_without_a_body() {
    let app = TestApp::spawn().await;
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/docs/",
        "/docs/swagger-ui.css",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/problems/not_found",
    ] {
        let got = app.api.send(app.api.request(Method::GET, path)).await;
        let head = app.api.send(app.api.request(Method::HEAD, path)).await;
        assert_eq!((got.status, head.status, head.text.as_str()), (200, 200, ""), "{path}");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(got.header(name), head.header(name), "{path}");
        }
    }
}

#[tokio::test]
async fn the_front_page_leads_on() {
    let app = TestApp::spawn().await;
    let front = app.api.send(app.api.request(Method::GET, "/")).await;
    for name in ["documentation", "openapi", "health"] {
        let leads_to = front.json[name].as_str().unwrap();
        assert_eq!(app.api.send(app.api.request(Method::GET, leads_to)).await.status, 200);
    }
    let browser = app.api.request(Method::GET, "/").header("accept", "text/html,*/*;q=0.8");
    assert!(app.api.send(browser).await.text.contains("swagger-ui"));
}

#[tokio::test]
async fn the_pages_of_the_document_offer_no_client_outside_of_dev() {
    let app = TestApp::spawn().await;
    let script = "/docs/swagger-initializer.js";
    let script = app.api.send(app.api.request(Method::GET, script)).await;
    assert!(script.text.contains("SwaggerUIBundle") && !script.text.contains("initOAuth("));
}

async fn preflight(app: &TestApp, path: &str, origin: &str) -> Answer {
    preflight_with(app, path, origin, "authorization,content-type").await
}

async fn preflight_with(app: &TestApp, path: &str, origin: &str, headers: &str) -> Answer {
    let request = app
        .api
        .request(Method::OPTIONS, path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", headers);
    app.api.send(request).await
}

#[tokio::test]
async fn what_traces_browsers_may_send_headers_of_its_own() {
    let origins = "https://app.example,capacitor://localhost,app://bank.example";
    let app = TestApp::builder().set("STRONGROOM_CORS_ORIGINS", origins).spawn().await;
    let traced = "authorization,content-type,traceparent,tracestate,baggage,sentry-trace,b3,\
                  x-b3-traceid,x-datadog-trace-id,x-datadog-anything,x-requested-with,newrelic,\
                  idempotency-key,x-request-id";
    for origin in origins.split(',') {
        for path in ["/v1/connections", "/v1/connections/conn_x"] {
            let answer = preflight_with(&app, path, origin, traced).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert_eq!(answer.header("access-control-allow-origin"), origin);
            let allowed = answer.header("access-control-allow-headers").to_ascii_lowercase();
            for header in traced.split(',') {
                assert!(allowed.contains(header), "{header} in {allowed}");
            }
        }
    }
    for origin in ["https://evil.example", "capacitor://elsewhere", "app://bank.example:1"] {
        let answer = preflight_with(&app, "/v1/connections", origin, traced).await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
    }
}

#[tokio::test]
async fn only_configured_origins_and_only_what_a_browser_calls_have_cors() {
    let app =
        TestApp::builder().set("STRONGROOM_CORS_ORIGINS", "https://app.example").spawn().await;
    let allowed = |answer: &Answer| answer.header("access-control-allow-origin").to_owned();
    assert_eq!(
        allowed(&preflight(&app, "/v1/connections", "https://app.example").await),
        "https://app.example"
    );
    for origin in ["https://evil.example", "https://app.example.evil", "http://app.example", "null"]
    {
        assert_eq!(allowed(&preflight(&app, "/v1/connections", origin).await), "", "{origin}");
    }
    for path in [
        "/oauth2/token",
        "/v1/connect-sessions",
        "/v1/connections/import",
        "/v1/connections/x/token",
        "/v1/connections/x/delink",
    ] {
        assert_eq!(allowed(&preflight(&app, path, "https://app.example").await), "", "{path}");
    }
    let session = app.api.session(&app.token().await, "ada").await;
    let request = app.api.request(Method::POST, "/v1/connections").bearer_auth(&session);
    let request = request.header("origin", "https://app.example").json(&app.connect());
    let answer = app.api.send(request).await;
    assert_eq!((answer.status, allowed(&answer).as_str()), (201, "https://app.example"));
    assert!(answer.header("access-control-expose-headers").contains("location"));
    // A refusal can be read by the page as well.
    let request =
        app.api.request(Method::POST, "/v1/connections").header("origin", "https://app.example");
    let answer = app.api.send(request.json(&json!({}))).await;
    assert_eq!((answer.problem().0, allowed(&answer).as_str()), (401, "https://app.example"));
}

#[tokio::test]
async fn without_configured_origins_there_is_no_cors_at_all() {
    let app = TestApp::spawn().await;
    let answer = preflight(&app, "/v1/connections", "https://app.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn the_callers_address_comes_from_trusted_proxies_only() {
    for (trusted, expected) in [("", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.9")] {
        let app = TestApp::builder().set("STRONGROOM_TRUSTED_PROXIES", trusted).spawn().await;
        let request = app
            .api
            .request(Method::POST, "/v1/connections")
            .bearer_auth(app.token().await)
            .header("x-forwarded-for", "203.0.113.9")
            .json(&for_user(&app.connect(), "ada"));
        assert_eq!(app.api.send(request).await.status, 201);
        let ip = "SELECT ip FROM audit_events WHERE action = 'connection.received'";
        assert_eq!(app.database.value(ip).await, expected);
    }
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_not_by_path() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    for n in 0..3 {
        app.api.get(&token, &format!("/v1/connections/conn_{n}")).await;
        app.api.get(&token, &format!("/nothing/{n}")).await;
    }
    let name = "strongroom_http_requests_total{method=\"GET\",route=\"/v1/connections/{id}\",status=\"404\"}";
    assert_eq!(app.metric(name).await, 3.0);
    let name = "strongroom_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"}";
    assert_eq!(app.metric(name).await, 3.0);
    let metrics = app.metrics().await;
    for name in [
        "exchanges",
        "exchange_duration_seconds",
        "connections_pending",
        "connections_revoking",
        "background_rounds",
        "database_connections_open",
        "dapi_calls",
    ] {
        assert!(metrics.contains(&format!("strongroom_{name}")), "{name}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_path_that_does_not_exist_on_the_metrics_listener_is_not_found() {
    let app = TestApp::spawn().await;
    let url = app.metrics_url.replace("/metrics", "/v1/connections");
    assert_eq!(reqwest::get(url).await.unwrap().status(), 404);
}

#[tokio::test]
async fn the_document_names_a_schema_for_what_it_answers() {
    let app = TestApp::spawn().await;
    let document: Value = app.api.send(app.api.request(Method::GET, "/openapi.json")).await.json;
    let connection = &document["components"]["schemas"]["Connection"]["properties"];
    let active = app.active("ada").await;
    for name in active.as_object().unwrap().keys() {
        assert!(connection[name].is_object(), "{name} is not in the document");
    }
}
