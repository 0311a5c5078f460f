//! The console's sessions: how they begin and end.

use std::time::Duration;

use serde_json::Value;
use strongroom::approvals::Permitted;
use strongroom::common::actor::Actor;
use strongroom::config::FourEyes;
use strongroom::operators::{self, Role};

use crate::support::{Browser, TestApp, add_operator, operator_link};

/// The path of the app's page.
async fn now_page(browser: &Browser) -> String {
    browser.get("/").await.header("location").to_owned()
}

#[tokio::test]
async fn a_one_time_link_signs_its_operator_in() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Auditor).await;
    let page = browser.get(&now_page(&browser).await).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.text.contains("ana, auditor"), "{}", page.text);
}

#[tokio::test]
async fn a_page_leads_to_the_sign_in_and_from_there_back() {
    let app = TestApp::with_console().await;
    let browser = Browser::new(&app);
    let asked = browser.get("/?a=b&c=d").await;
    assert_eq!((asked.status, asked.header("location")), (303, "/sign-in?to=%2F%3Fa%3Db%26c%3Dd"));
    let form = browser.get(asked.header("location")).await;
    assert!(form.text.contains("name=\"to\" value=\"/?a=b&amp;c=d\""), "{}", form.text);
    add_operator(&app, "ana", Role::Auditor).await;
    let code = operator_link(&app, "ana").await;
    let answer = browser.post_bare("/sign-in/link", &[("code", &code), ("to", "/?a=b&c=d")]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/?a=b&c=d"));
    let code = operator_link(&app, "ana").await;
    let fields = [("code", code.as_str()), ("to", "//evil.example/")];
    let answer = browser.post("/sign-in/link", &fields).await;
    // The start, and since there is no passkey yet, the page on which to add one.
    assert_eq!((answer.status, answer.header("location")), (303, "/passkeys"));
}

#[tokio::test]
async fn a_link_is_good_once_and_for_five_minutes_and_a_newer_one_ends_it() {
    let app = TestApp::with_console().await;
    add_operator(&app, "ana", Role::Auditor).await;
    let older = operator_link(&app, "ana").await;
    let code = operator_link(&app, "ana").await;
    let status = async |code: &str| {
        let browser = Browser::new(&app);
        browser.post_bare("/sign-in/link", &[("code", code)]).await.status
    };
    assert_eq!(status(&older).await, 403);
    assert_eq!(status(&code).await, 303);
    assert_eq!(status(&code).await, 403);
    let late = operator_link(&app, "ana").await;
    app.turn_clock(Duration::from_secs(5 * 60 + 1)).await;
    assert_eq!(status(&late).await, 403);
    assert_eq!(status("olink_").await, 403);
}

#[tokio::test]
async fn an_idle_session_ends_after_half_an_hour() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Auditor).await;
    let now = now_page(&browser).await;
    for _ in 0..3 {
        app.turn_clock(Duration::from_secs(29 * 60)).await;
        assert_eq!(browser.get(&now).await.status, 200);
    }
    app.turn_clock(Duration::from_secs(31 * 60)).await;
    assert_eq!(browser.get(&now).await.status, 303);
}

#[tokio::test]
async fn a_session_that_is_used_ends_after_twelve_hours() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Auditor).await;
    let now = now_page(&browser).await;
    for _ in 0..25 {
        app.turn_clock(Duration::from_secs(28 * 60)).await;
        assert_eq!(browser.get(&now).await.status, 200);
    }
    app.turn_clock(Duration::from_secs(21 * 60)).await;
    assert_eq!(browser.get(&now).await.status, 303);
}

#[tokio::test]
async fn signing_out_ends_the_session_and_not_only_the_cookie() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Auditor).await;
    let (now, cookie) = (now_page(&browser).await, browser.cookie());
    assert_eq!(browser.post("/sign-out", &[]).await.status, 303);
    assert_eq!(browser.cookie(), None);
    browser.set_cookie(cookie);
    assert_eq!(browser.get(&now).await.status, 303);
}

#[tokio::test]
async fn a_disabled_operators_session_and_link_end_at_once() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Admin).await;
    let (now, code) = (now_page(&browser).await, operator_link(&app, "ana").await);
    let mut conn = app.context.pool.acquire().await.unwrap();
    let disabled = operators::disable(&mut conn, &Actor::operator(), &"ana".parse().unwrap()).await;
    assert!(disabled.unwrap());
    assert_eq!(browser.get(&now).await.status, 303);
    let refused = browser.post_bare("/sign-in/link", &[("code", &code)]).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn a_role_that_is_taken_away_is_gone_with_the_next_request() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Admin).await;
    let now = now_page(&browser).await;
    let mut conn = app.context.pool.acquire().await.unwrap();
    let (actor, name) = (Actor::operator(), "ana".parse().unwrap());
    let permitted = Permitted::without(FourEyes::OFF).unwrap();
    operators::change_role(&mut conn, &permitted, &actor, &name, Role::Auditor).await.unwrap();
    assert!(browser.get(&now).await.text.contains("ana, auditor"));
}

#[tokio::test]
async fn the_trail_says_who_signed_in_and_from_where() {
    let app = TestApp::with_console().await;
    Browser::of(&app, "ana", Role::Auditor).await;
    let token = app.token().await;
    let path = "/v1/admin/audit-events?action=operator.signed_in";
    let answer = app.api.get(&token, path).await;
    let event = &answer.json["events"][0];
    assert_eq!(event["actor"], "operator: ana", "{}", answer.text);
    let session = app.database.value("SELECT id FROM operator_sessions").await;
    assert_eq!(event["reason"], format!("ana: ops_{session}: link"));
    assert!(event["ip"].is_string() && event["requestID"].is_string());
    let of_operators = app.api.get(&token, "/v1/admin/audit-events?actor=operator").await;
    let actors = of_operators.json["events"].as_array().unwrap().iter();
    let actors: Vec<_> = actors.map(|event| &event["actor"]).collect();
    assert!(actors.contains(&&Value::from("operator: ana")), "{actors:?}");
    assert!(actors.contains(&&Value::from("operator")), "{actors:?}");
}

#[tokio::test]
async fn sessions_are_deleted_ninety_one_days_after_they_began_and_no_live_one_is() {
    let app = TestApp::with_console().await;
    Browser::of(&app, "ana", Role::Auditor).await;
    Browser::of(&app, "bob", Role::Auditor).await;
    let config = strongroom::config::Config::from_environment(&app.environment).unwrap().oauth;
    let left = async || {
        strongroom::background::housekeeping(&app.context, &config).await.unwrap();
        app.database.value("SELECT count(*) FROM operator_sessions").await
    };
    app.turn_clock(Duration::from_mins(91 * 24 * 60 - 10)).await;
    let browser = Browser::new(&app);
    browser.sign_in(&app, "ana").await;
    assert_eq!(left().await, "3");
    app.turn_clock(Duration::from_mins(15)).await;
    assert_eq!(left().await, "1");
    let start = browser.get("/").await;
    assert!(start.header("location").starts_with("/apps/"), "{}", start.text);
    let signed_in = "SELECT count(*) FROM audit_events WHERE action = 'operator.signed_in'";
    assert_eq!(app.database.value(signed_in).await, "3", "the trail keeps them");
}

#[tokio::test]
async fn what_a_page_asks_for_by_itself_keeps_no_session_alive_and_its_reader_does() {
    let app = TestApp::with_console().await;
    let (left, read) = (
        Browser::of(&app, "ana", Role::Operator).await,
        Browser::of(&app, "bob", Role::Operator).await,
    );
    let live = format!("{}/now/live", left.pages().await);
    for _ in 0..4 {
        app.turn_clock(Duration::from_mins(9)).await;
        left.get(&live).await;
        read.get(&live).await;
        assert_eq!(read.get("/seen").await.status, 204);
    }
    assert!(left.get("/").await.header("location").starts_with("/sign-in?"));
    assert!(read.get("/").await.header("location").starts_with("/apps/"));
}

#[tokio::test]
async fn whose_session_was_ended_is_in_the_trail_after_the_session_is_gone() {
    let app = TestApp::with_console().await;
    Browser::of(&app, "ana", Role::Auditor).await;
    let session = app.database.value("SELECT id FROM operator_sessions").await;
    let admin = Browser::of(&app, "iris", Role::Admin).await;
    let ended = admin.post(&format!("/operators/sessions/ops_{session}/end"), &[]).await;
    assert_eq!(ended.status, 303, "{}", ended.text);
    let said =
        "SELECT actor || ', ' || reason FROM audit_events WHERE action = 'operator.session_ended'";
    assert_eq!(app.database.value(said).await, format!("operator: iris, ana: ops_{session}"));
}
