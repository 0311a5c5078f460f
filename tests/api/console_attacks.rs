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

/// An app, the browser of its operator Ana, and the path to which the form of an incident is sent.
async fn at_an_incident() -> (TestApp, Browser, String) {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Operator).await;
    let incident = format!("{}/incident", browser.pages().await);
    (app, browser, incident)
}

/// Signs the browser's operator in again, in another tab of it.
async fn prove_again(app: &TestApp, browser: &Browser, name: &str) -> Answer {
    let code = operator_link(app, name).await;
    browser.post("/sign-in/link", &[("code", &code)]).await
}

#[tokio::test]
async fn a_form_that_is_sent_too_late_is_kept_and_sent_again_after_the_proof() {
    let (app, browser, incident) = at_an_incident().await;
    app.active("ada").await;
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
    let (app, browser, path) = at_an_incident().await;
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

const INCIDENT: [(&str, &str); 3] =
    [("kind", "delink"), ("users", "ada"), ("reason", "an old laptop")];

fn with_token<'a>(token: &'a str, fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("token", token)], fields].concat()
}

#[tokio::test]
async fn a_form_of_a_session_that_has_ended_is_kept_and_confirmed_in_the_next() {
    let (app, browser, incident) = at_an_incident().await;
    app.active("ada").await;
    let before = browser.token().await;
    app.turn_clock(Duration::from_secs(31 * 60)).await;
    let late = browser.post_bare(&incident, &with_token(&before, &INCIDENT)).await;
    assert_eq!(late.status, 401, "{}", late.text);
    let kept = |token: &str| {
        let reason = "name=\"reason\" value=\"an old laptop\"".to_owned();
        let action = format!("action=\"{incident}\" data-again");
        ["Nothing was done".to_owned(), action, format!("name=\"token\" value=\"{token}\""), reason]
    };
    for shown in kept(&before) {
        assert!(late.text.contains(&shown), "{shown}: {}", late.text);
    }
    assert!(late.text.contains("incident%2Fnew\" target=\"_blank\""), "{}", late.text);

    browser.sign_in(&app, "ana").await;
    let asked = browser.post_bare(&incident, &with_token(&before, &INCIDENT)).await;
    assert_eq!(asked.status, 403, "{}", asked.text);
    let token = browser.token().await;
    assert_ne!(token, before);
    for shown in kept(&token) {
        assert!(asked.text.contains(&shown), "{shown}: {}", asked.text);
    }
    assert_eq!(app.database.value("SELECT count(*) FROM bulk_revocations").await, "0");
    let sent = browser.post_bare(&incident, &with_token(&token, &INCIDENT)).await;
    assert!(sent.header("location").contains("/incident/ord_"), "{}", sent.text);
}

#[tokio::test]
async fn a_form_of_a_session_that_has_ended_is_kept_for_its_own_operator_alone() {
    let (app, browser, incident) = at_an_incident().await;
    let token = browser.token().await;
    let sent = |token| with_token(token, &INCIDENT);
    let gone = |answer: &Answer| !answer.text.contains("an old laptop");
    app.turn_clock(Duration::from_secs(31 * 60)).await;
    let planted = browser.post_bare(&incident, &sent("x")).await;
    assert!(planted.status == 401 && gone(&planted), "{}", planted.text);
    let cookie = browser.cookie();
    let stranger = Browser::new(&app).post_bare(&incident, &sent(&token)).await;
    assert!(stranger.status == 401 && gone(&stranger), "{}", stranger.text);

    add_operator(&app, "bob", Role::Operator).await;
    browser.sign_in(&app, "bob").await;
    let other = browser.post_bare(&incident, &sent(&token)).await;
    assert!(other.status == 403 && gone(&other), "{}", other.text);

    browser.set_cookie(cookie);
    assert!(!gone(&browser.post_bare(&incident, &sent(&token)).await));
    app.database
        .execute("UPDATE operators SET disabled_at = strongroom_now() WHERE name = 'ana'")
        .await;
    let disabled = browser.post_bare(&incident, &sent(&token)).await;
    assert!(disabled.status == 401 && gone(&disabled), "{}", disabled.text);
}

#[tokio::test]
async fn a_form_of_a_session_that_began_more_than_a_day_ago_is_not_kept() {
    let (app, browser, incident) = at_an_incident().await;
    let token = browser.token().await;
    app.turn_clock(Duration::from_hours(24)).await;
    let late = browser.post_bare(&incident, &with_token(&token, &INCIDENT)).await;
    assert!(late.status == 401 && !late.text.contains("an old laptop"), "{}", late.text);
    browser.sign_in(&app, "ana").await;
    let late = browser.post_bare(&incident, &with_token(&token, &INCIDENT)).await;
    assert!(late.text.contains("The form is not of this session"), "{}", late.text);
}

#[tokio::test]
async fn the_code_of_a_link_is_never_kept_on_a_page() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Operator).await;
    let before = browser.token().await;
    app.turn_clock(Duration::from_secs(31 * 60)).await;
    browser.sign_in(&app, "ana").await;
    let code = operator_link(&app, "ana").await;
    let fields = [("token", before.as_str()), ("code", &code)];
    let refused = browser.post_bare("/sign-in/link", &fields).await;
    assert!(refused.status == 403 && !refused.text.contains(&code), "{}", refused.text);
}

#[tokio::test]
async fn pages_say_that_the_session_ends_within_the_hour() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Operator).await;
    let list = format!("{}/connections?status=active", browser.pages().await);
    let says = async || browser.get(&list).await.text.contains("This session ends at");
    for _ in 0..22 {
        app.turn_clock(Duration::from_mins(29)).await;
        assert!(!says().await);
    }
    app.turn_clock(Duration::from_mins(23)).await;
    let page = browser.get(&list).await.text;
    assert!(page.contains("This session ends at"), "{page}");
    assert!(page.contains("%2Fconnections%3Fstatus%3Dactive\">Sign in again"), "{page}");
    assert_eq!(prove_again(&app, &browser, "ana").await.status, 303);
    assert!(!says().await, "another session has begun");
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
