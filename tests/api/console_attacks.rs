//! What an attacker tries at the console.

use std::time::Duration;

use reqwest::Method;
use strongroom::operators::Role;

use crate::support::{Browser, FORM, TestApp, add_operator, encoded, operator_link};

/// Whether the browser's session is live.
async fn is_signed_in(browser: &Browser) -> bool {
    browser.get("/").await.header("location").starts_with("/apps/")
}

#[tokio::test]
async fn a_form_without_the_sessions_token_does_nothing() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Admin).await;
    let other = Browser::of(&app, "bob", Role::Admin).await.token().await;
    for fields in [vec![], vec![("token", "")], vec![("token", other.as_str())]] {
        let refused = browser.post_bare("/sign-out", &fields).await;
        assert_eq!(refused.status, 403, "{fields:?}");
    }
    assert!(is_signed_in(&browser).await);
}

#[tokio::test]
async fn a_token_of_the_session_before_is_no_good() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Admin).await;
    let before = browser.token().await;
    browser.post("/sign-out", &[]).await;
    browser.sign_in(&app, "ana").await;
    assert_eq!(browser.post_bare("/sign-out", &[("token", &before)]).await.status, 403);
}

#[tokio::test]
async fn a_form_from_elsewhere_does_nothing_even_with_the_token() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Admin).await;
    let body = encoded(&[("token", &browser.token().await)]);
    let post = || {
        let request = browser.request(Method::POST, "/sign-out");
        request.header("content-type", FORM).body(body.clone())
    };
    let port = browser.origin.rsplit(':').next().unwrap();
    let origins = [
        "null",
        "https://evil.example",
        &format!("{}.evil.example", browser.origin),
        &format!("https://localhost:{port}"),
        "",
    ];
    assert_eq!(browser.send(post()).await.status, 403, "without");
    for origin in origins {
        assert_eq!(browser.send(post().header("origin", origin)).await.status, 403, "{origin}");
    }
    let twice = post().header("origin", &browser.origin).header("origin", "https://evil.example");
    assert_eq!(browser.send(twice).await.status, 403);
    assert!(is_signed_in(&browser).await);
    assert_eq!(browser.send(post().header("origin", &browser.origin)).await.status, 303);
}

#[tokio::test]
async fn another_site_cannot_sign_a_browser_in() {
    let app = TestApp::with_console().await;
    add_operator(&app, "mallory", Role::Auditor).await;
    let code = operator_link(&app, "mallory").await;
    let browser = Browser::new(&app);
    let request = browser.request(Method::POST, "/sign-in/link").header("content-type", FORM);
    let request = request.header("origin", "https://evil.example");
    let answer = browser.send(request.body(encoded(&[("code", &code)]))).await;
    assert_eq!((answer.status, browser.cookie()), (403, None));
}

#[tokio::test]
async fn a_planted_session_secret_never_becomes_a_session() {
    let app = TestApp::with_console().await;
    let planted = format!("__Host-strongroom=osess_{}", "A".repeat(43));
    let browser = Browser::new(&app);
    browser.set_cookie(Some(planted.clone()));
    add_operator(&app, "ana", Role::Admin).await;
    browser.sign_in(&app, "ana").await;
    assert_ne!(browser.cookie(), Some(planted.clone()));
    browser.set_cookie(Some(planted));
    assert!(!is_signed_in(&browser).await);
}

#[tokio::test]
async fn the_session_that_a_browser_had_ends_when_another_begins_in_it() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "mallory", Role::Auditor).await;
    let before = browser.cookie();
    add_operator(&app, "ana", Role::Admin).await;
    let code = operator_link(&app, "ana").await;
    assert_eq!(browser.post("/sign-in/link", &[("code", &code)]).await.status, 303);
    browser.set_cookie(before);
    assert!(!is_signed_in(&browser).await);
}

#[tokio::test]
async fn no_page_can_be_framed_cached_or_run_foreign_script() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Auditor).await;
    let now = browser.get("/").await.header("location").to_owned();
    for path in [now.as_str(), "/", "/sign-in", "/nowhere", "/apps/x/now"] {
        let answer = browser.get(path).await;
        let policy = answer.header("content-security-policy");
        for rule in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin", "{path}");
        assert!(!answer.text.contains(" style=") && !answer.text.contains("<style"), "{path}");
    }
}

#[tokio::test]
async fn the_cookie_is_for_this_host_alone_and_out_of_scripts_reach() {
    let app = TestApp::with_console().await;
    add_operator(&app, "ana", Role::Auditor).await;
    let (browser, code) = (Browser::new(&app), operator_link(&app, "ana").await);
    let answer = browser.post_bare("/sign-in/link", &[("code", &code)]).await;
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-strongroom=osess_"), "{cookie}");
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.split("; ").any(|it| it == attribute), "{cookie}");
    }
    assert!(!cookie.to_lowercase().contains("domain"), "{cookie}");
}

#[tokio::test]
async fn a_form_of_a_session_that_has_ended_does_nothing_and_says_so() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Auditor).await;
    let token = browser.token().await;
    app.turn_clock(Duration::from_secs(31 * 60)).await;
    let answer = browser.post_bare("/sign-out", &[("token", &token)]).await;
    assert_eq!(answer.status, 401);
    assert!(answer.text.contains("Nothing was done"), "{}", answer.text);
    assert!(answer.text.contains("href=\"/sign-in?to=%2F\""), "{}", answer.text);
}

#[tokio::test]
async fn what_cannot_be_undone_asks_for_a_new_sign_in_and_leads_back_to_its_page() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Operator).await;
    let start = browser.get("/").await.header("location").to_owned();
    let incident = start.replace("/now", "/incident");
    app.turn_clock(Duration::from_secs(5 * 60 + 1)).await;
    let fields = [("kind", "delink"), ("all", "true")];
    let answer = browser.post(&format!("{incident}/preview"), &fields).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    let (_, rest) = answer.text.split_once("href=\"/sign-in?to=").expect("a way to the sign-in");
    let to = rest.split('"').next().unwrap().replace("%2F", "/").replace("%5F", "_");
    assert_eq!(to.replace("%2D", "-"), incident);
}

#[tokio::test]
async fn what_is_not_in_the_table_does_not_exist() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Admin).await;
    let requests = [
        (Method::GET, "/nowhere"),
        (Method::PUT, "/"),
        (Method::DELETE, "/sign-in"),
        (Method::GET, "/v1/connections"),
        (Method::GET, "/metrics"),
    ];
    for (method, path) in requests {
        let request = browser.request(method.clone(), path).header("origin", &browser.origin);
        assert_eq!(browser.send(request).await.status, 404, "{method} {path}");
    }
}
