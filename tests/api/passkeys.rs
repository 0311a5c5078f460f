//! Passkeys of operators.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom::common::actor::Actor;
use strongroom::operators::{self, Role};

use crate::support::{Answer, Authenticator, Browser, TestApp, base64};

const BEGIN: &str = "/sign-in/passkey/begin";
const FINISH: &str = "/sign-in/passkey";

/// An operator with this passkey, and a browser in which nobody is signed in.
async fn enrolled(app: &TestApp, algorithm: &str) -> (Authenticator, Browser) {
    let first = Browser::of(app, "ana", Role::Operator).await;
    let key = Authenticator::of(&first, algorithm);
    key.enrol(&first).await;
    (key, Browser::new(app))
}

async fn challenge(browser: &Browser) -> Value {
    browser.post_json(BEGIN, &json!({})).await.json["challenge"].clone()
}

async fn sign_in(key: &Authenticator, browser: &Browser) -> Answer {
    let challenge = challenge(browser).await;
    browser.post_json(FINISH, &key.get(&challenge)).await
}

#[tokio::test]
async fn a_passkey_that_a_link_enrolled_signs_in_without_one() {
    let app = TestApp::with_console().await;
    for algorithm in ["ES256", "EdDSA"] {
        let first = Browser::of(&app, &algorithm.to_lowercase(), Role::Auditor).await;
        let mut key = Authenticator::of(&first, algorithm);
        key.enrol(&first).await;
        let browser = Browser::new(&app);
        key.count = 1;
        let answer = sign_in(&key, &browser).await;
        assert_eq!((answer.status, &answer.json["to"]), (200, &json!("/")), "{}", answer.text);
        assert!(browser.get("/passkeys").await.text.contains("Laptop"));
    }
}

#[tokio::test]
async fn a_challenge_is_good_once() {
    let app = TestApp::with_console().await;
    let (mut key, browser) = enrolled(&app, "ES256").await;
    let challenge = challenge(&browser).await;
    let binding = browser.cookie();
    assert_eq!(browser.post_json(FINISH, &key.get(&challenge)).await.status, 200);
    key.count = 5;
    browser.set_cookie(binding);
    let again = browser.post_json(FINISH, &key.get(&challenge)).await;
    assert_eq!(again.status, 403, "{}", again.text);
}

#[tokio::test]
async fn a_challenge_is_good_for_five_minutes() {
    let app = TestApp::with_console().await;
    let (key, browser) = enrolled(&app, "ES256").await;
    let challenge = challenge(&browser).await;
    app.turn_clock(Duration::from_secs(5 * 60 + 1)).await;
    assert_eq!(browser.post_json(FINISH, &key.get(&challenge)).await.status, 403);
}

#[tokio::test]
async fn a_challenge_of_another_browser_or_for_another_purpose_is_refused() {
    let app = TestApp::with_console().await;
    let (key, browser) = enrolled(&app, "ES256").await;
    let others = challenge(&Browser::new(&app)).await;
    challenge(&browser).await;
    assert_eq!(browser.post_json(FINISH, &key.get(&others)).await.status, 403);
    let session = Browser::of(&app, "bob", Role::Operator).await;
    let options = session.post_json("/passkeys/begin", &json!({})).await;
    let answer = browser.post_json(FINISH, &key.get(&options.json["challenge"])).await;
    assert_eq!(answer.status, 403);
    let made_up = json!(base64("chal_x.1.AAAA"));
    assert_eq!(browser.post_json(FINISH, &key.get(&made_up)).await.status, 403);
    // Another session's challenge enrols nothing.
    let other = Browser::of(&app, "eve", Role::Operator).await;
    let new = Authenticator::new(&other);
    let created = new.create(&options.json["challenge"]);
    assert_eq!(other.post_json("/passkeys/finish", &created).await.status, 400);
    assert!(!browser.is_signed_in());
}

#[tokio::test]
async fn another_page_another_site_and_an_unverified_user_are_refused() {
    let app = TestApp::with_console().await;
    let (mut key, browser) = enrolled(&app, "ES256").await;
    let origin = std::mem::replace(&mut key.origin, "https://evil.example".to_owned());
    assert_eq!(sign_in(&key, &browser).await.status, 403);
    key.origin = origin;
    key.rp_id = "evil.example".to_owned();
    assert_eq!(sign_in(&key, &browser).await.status, 403);
    key.rp_id = "localhost".to_owned();
    for flags in [0x00, 0x01, 0x04, 0x15] {
        key.flags = flags;
        assert_eq!(sign_in(&key, &browser).await.status, 403, "{flags:x}");
    }
    assert!(!browser.is_signed_in());
    key.flags = 0x05;
    assert_eq!(sign_in(&key, &browser).await.status, 200);
}

#[tokio::test]
async fn a_signature_of_another_key_or_over_something_else_is_refused() {
    let app = TestApp::with_console().await;
    let (key, browser) = enrolled(&app, "ES256").await;
    let mut thief = Authenticator::new(&browser);
    thief.id.clone_from(&key.id);
    assert_eq!(sign_in(&thief, &browser).await.status, 403);
    let (one, two) = (challenge(&browser).await, challenge(&browser).await);
    let mut mixed = key.get(&one);
    mixed["clientData"] = key.get(&two)["clientData"].clone();
    assert_eq!(browser.post_json(FINISH, &mixed).await.status, 403);
    let mut of_another = key.get(&challenge(&browser).await);
    of_another["userHandle"] = json!(base64([0; 16]));
    assert_eq!(browser.post_json(FINISH, &of_another).await.status, 403);
    let unknown = Authenticator::new(&browser);
    assert_eq!(sign_in(&unknown, &browser).await.status, 403);
}

#[tokio::test]
async fn a_counter_that_does_not_grow_is_refused_and_in_the_trail() {
    let app = TestApp::with_console().await;
    let (mut key, browser) = enrolled(&app, "ES256").await;
    // An authenticator without a counter says 0 every time.
    assert_eq!(sign_in(&key, &browser).await.status, 200);
    let again = Browser::new(&app);
    assert_eq!(sign_in(&key, &again).await.status, 200);
    key.count = 7;
    assert_eq!(sign_in(&key, &Browser::new(&app)).await.status, 200);
    for count in [7, 6, 0] {
        key.count = count;
        let copied = Browser::new(&app);
        let refused = sign_in(&key, &copied).await;
        assert_eq!(refused.status, 403, "{count}");
        assert!(refused.text.contains("copied") && !copied.is_signed_in(), "{}", refused.text);
    }
    let path = "/v1/admin/audit-events?action=operator.passkey_refused";
    let trail = app.api.get(&app.token().await, path).await;
    assert_eq!(trail.json["events"].as_array().unwrap().len(), 3, "{}", trail.text);
    assert_eq!(trail.json["events"][0]["actor"], "operator: ana");
}

#[tokio::test]
async fn a_passkey_that_was_removed_signs_nobody_in_and_only_its_operator_removes_it() {
    let app = TestApp::with_console().await;
    let (key, browser) = enrolled(&app, "ES256").await;
    let stranger = Browser::of(&app, "eve", Role::Admin).await;
    let field = [("id", base64(&key.id))];
    let field = [(field[0].0, field[0].1.as_str())];
    assert_eq!(stranger.post("/passkeys/remove", &field).await.status, 404);
    assert_eq!(sign_in(&key, &browser).await.status, 200);
    assert_eq!(browser.post("/passkeys/remove", &field).await.status, 303);
    assert_eq!(sign_in(&key, &Browser::new(&app)).await.status, 403);
}

#[tokio::test]
async fn a_session_adds_a_passkey_only_right_after_the_sign_in() {
    let app = TestApp::with_console().await;
    let browser = Browser::of(&app, "ana", Role::Operator).await;
    let key = Authenticator::new(&browser);
    let options = browser.post_json("/passkeys/begin", &json!({})).await;
    app.turn_clock(Duration::from_secs(5 * 60 - 10)).await;
    let created = key.create(&options.json["challenge"]);
    app.turn_clock(Duration::from_secs(11)).await;
    assert_eq!(browser.post_json("/passkeys/finish", &created).await.status, 403);
    assert_eq!(browser.post_json("/passkeys/begin", &json!({})).await.status, 403);
    let page = browser.get("/passkeys").await;
    assert_eq!((page.status, page.header("location")), (303, "/sign-in?to=%2Fpasskeys"));
}

#[tokio::test]
async fn the_same_passkey_is_enrolled_once_and_no_operator_takes_anothers() {
    let app = TestApp::with_console().await;
    let (key, _) = enrolled(&app, "ES256").await;
    let other = Browser::of(&app, "eve", Role::Operator).await;
    let options = other.post_json("/passkeys/begin", &json!({})).await;
    let created = key.create(&options.json["challenge"]);
    let refused = other.post_json("/passkeys/finish", &created).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("enrolled already"), "{}", refused.text);
}

#[tokio::test]
async fn a_disabled_operators_passkey_signs_nobody_in() {
    let app = TestApp::with_console().await;
    let (key, browser) = enrolled(&app, "ES256").await;
    let mut conn = app.context.pool.acquire().await.unwrap();
    operators::disable(&mut conn, &Actor::operator(), &"ana".parse().unwrap()).await.unwrap();
    assert_eq!(sign_in(&key, &browser).await.status, 403);
}
