//! What an attacker tries at the console.

use std::time::Duration;

use reqwest::Method;
use strongroom::operators::Role;

use crate::support::{Answer, Browser, FORM, TestApp, add_operator, encoded, operator_link};

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

/// Signs the browser's operator in again, in another tab of it.
async fn prove_again(app: &TestApp, browser: &Browser, name: &str) -> Answer {
    let code = operator_link(app, name).await;
    browser.post("/sign-in/link", &[("code", &code)]).await
}

#[tokio::test]
async fn a_form_that_is_sent_too_late_is_kept_and_sent_again_after_the_proof() {
    let app = TestApp::with_console().await;
    app.active("ada").await;
    let browser = Browser::of(&app, "ana", Role::Operator).await;
    let incident = format!("{}/incident", browser.pages().await);
    app.turn_clock(Duration::from_secs(5 * 60 + 1)).await;
    let fields = [("kind", "delink"), ("users", "ada\nbob"), ("reason", "an \"old\" <laptop>")];
    let preview = browser.post(&format!("{incident}/preview"), &fields).await;
    assert_eq!(preview.status, 200, "counting needs no new proof: {}", preview.text);
    let (token, before) = (browser.token().await, browser.cookie());
    let late = browser.post(&incident, &fields).await;
    assert_eq!(late.status, 403, "{}", late.text);
    for shown in [
        "Nothing was done",
        &format!("action=\"{incident}\" data-again"),
        "name=\"users\" value=\"ada\nbob\"",
        "name=\"reason\" value=\"an &quot;old&quot; &lt;laptop&gt;\"",
        "incident%2Fnew\" target=\"_blank\"",
    ] {
        assert!(late.text.contains(shown), "{shown}: {}", late.text);
    }
    assert_eq!(app.database.value("SELECT count(*) FROM bulk_revocations").await, "0");
    assert_eq!(prove_again(&app, &browser, "ana").await.status, 303);
    let again = [&[("token", token.as_str())], fields.as_slice()].concat();
    let sent = browser.post_bare(&incident, &again).await;
    assert!(sent.header("location").contains("/incident/ord_"), "{}", sent.text);
    // The session goes on under another secret.
    assert_eq!(app.database.value("SELECT count(*) FROM operator_sessions").await, "1");
    assert_ne!(browser.cookie(), before);
    browser.set_cookie(before);
    assert!(!is_signed_in(&browser).await, "the secret before is no good any more");
}

#[tokio::test]
async fn a_form_that_is_sent_too_late_is_kept_for_its_own_session_alone() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Operator).await;
    let path = format!("{}/incident", browser.pages().await);
    app.turn_clock(Duration::from_secs(5 * 60 + 1)).await;
    let token = browser.token().await;
    let stranger = browser.post_bare(&path, &[("token", "x"), ("reason", "planted")]).await;
    assert!(stranger.status == 403 && !stranger.text.contains("planted"), "{}", stranger.text);
    add_operator(&app, "bob", Role::Operator).await;
    assert_eq!(prove_again(&app, &browser, "bob").await.status, 303);
    let refused = browser.post_bare(&path, &[("token", &token), ("kind", "delink")]).await;
    assert!(refused.text.contains("The form is not of this session"), "{}", refused.text);
    let live = "SELECT count(*) FROM operator_sessions WHERE ended_at IS NULL";
    assert_eq!(app.database.value(live).await, "1", "the session of the other ended");
}

#[tokio::test]
async fn a_session_whose_hours_are_over_begins_anew_with_a_proof() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Operator).await;
    for _ in 0..23 {
        app.turn_clock(Duration::from_mins(29)).await;
        assert!(is_signed_in(&browser).await);
    }
    assert_eq!(prove_again(&app, &browser, "ana").await.status, 303);
    let left = "SELECT expires_at > strongroom_now() + interval '11 hours' FROM operator_sessions
                WHERE ended_at IS NULL";
    assert_eq!(app.database.value(left).await, "true");
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
