//! Plaid's webhooks: what a genuine one does, and that a forged or replayed one does nothing.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use strongroom::connections::reconcile::{self, Part};
use strongroom_dev::sandbox::{Effect, Fault, Forgery, Webhook, WebhookOptions};

use crate::support::{Bank, Cut, Proxy, TestApp, TestDatabase, id};

const KEYS: &str = "plaid/webhook_verification_key/get";
const REMOVE: &str = "plaid/item/remove";
const RECEIVED: &str = "SELECT count(*) FROM plaid_webhooks";

async fn plaid() -> TestApp {
    TestApp::builder().at_plaid().by_hand().spawn().await
}

fn webhook(app: &TestApp, item: &str, code: &str) -> Webhook {
    app.sandbox.plaid().webhook(item, &WebhookOptions::new(code)).unwrap()
}

fn forged(app: &TestApp, item: &str, forgery: Forgery) -> Webhook {
    let options = WebhookOptions::new("USER_PERMISSION_REVOKED").forged(forgery);
    app.sandbox.plaid().webhook(item, &options).unwrap()
}

async fn connection(app: &TestApp, connection: &Value) -> Value {
    app.api.connection(&app.token().await, id(connection)).await
}

/// Asserts that a webhook is taken, and how it is counted.
async fn taken(app: &TestApp, webhook: &Webhook, outcome: &str) {
    counted(app, webhook, 200, outcome).await;
}

async fn counted(app: &TestApp, webhook: &Webhook, status: u16, outcome: &str) {
    let name = format!("strongroom_plaid_webhooks_total{{outcome=\"{outcome}\"}}");
    let before = app.metric(&name).await;
    let answer = app.deliver("plaid", webhook).await;
    assert_eq!(answer.status, status, "{outcome}: {}", answer.text);
    assert_eq!(app.metric(&name).await, before + 1.0, "{outcome}");
}

#[tokio::test]
async fn a_login_that_needs_its_user_needs_attention_until_it_is_repaired() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    taken(&app, &webhook(&app, &item, "ERROR"), "applied").await;
    let seen = connection(&app, &active).await;
    assert_eq!(
        (&seen["status"], &seen["attention"]["type"]),
        (&json!("active"), &json!("ITEM_LOGIN_REQUIRED"))
    );
    let since = seen["attention"]["since"].clone();

    app.turn_clock(Duration::from_secs(10)).await;
    taken(&app, &webhook(&app, &item, "ERROR"), "applied").await;
    assert_eq!(connection(&app, &active).await["attention"]["since"], since);

    taken(&app, &webhook(&app, &item, "LOGIN_REPAIRED"), "applied").await;
    assert_eq!(connection(&app, &active).await["attention"], Value::Null);
    let trail = app.database.trail().await;
    let about_attention = trail.iter().filter(|event| event.contains("attention"));
    assert_eq!(
        about_attention.collect::<Vec<_>>(),
        ["connection.attention_set ok", "connection.attention_cleared ok"]
    );
}

#[tokio::test]
async fn an_item_whose_user_withdrew_the_permission_is_removed_and_its_connection_ends() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    taken(&app, &webhook(&app, &item, "USER_PERMISSION_REVOKED"), "applied").await;
    let seen = connection(&app, &active).await;
    assert_eq!(seen["status"], "revoking");
    let reason = seen["revocation"]["reason"].as_str().unwrap();
    assert!(reason.contains("USER_PERMISSION_REVOKED"), "{reason}");
    let refused = app.api.reveal(&app.token().await, id(&active)).await;
    assert_eq!(refused.problem(), (409, "connection_not_active"));

    app.tick().await;
    let seen = connection(&app, &active).await;
    assert_eq!(seen["status"], "invalidated");
    assert!(seen["revocation"]["confirmedAt"].is_string(), "{seen}");
    assert_eq!(app.sandbox.calls_to(REMOVE), 1);
    assert!(!app.sandbox.plaid().item(&item).unwrap().live);
}

#[tokio::test]
async fn a_login_that_will_stop_to_work_is_on_record_and_works_on() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    for code in ["PENDING_DISCONNECT", "PENDING_EXPIRATION"] {
        taken(&app, &webhook(&app, &item, code), "applied").await;
    }
    let seen = connection(&app, &active).await;
    assert_eq!((&seen["status"], &seen["attention"]), (&json!("active"), &Value::Null));
    let reasons =
        "SELECT reason FROM audit_events WHERE action = 'connection.login_expiring' ORDER BY id";
    assert_eq!(app.database.values(reasons).await, ["PENDING_DISCONNECT", "PENDING_EXPIRATION"]);
}

#[tokio::test]
async fn what_concerns_no_connection_is_taken_and_leaves_nothing() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let before = connection(&app, &active).await;
    for code in ["SYNC_UPDATES_AVAILABLE", "NEW_ACCOUNTS_AVAILABLE", "USER_ACCOUNT_REVOKED"] {
        taken(&app, &webhook(&app, &item, code), "ignored").await;
    }
    let error = json!({ "error_type": "INSTITUTION_ERROR", "error_code": "INSTITUTION_DOWN" });
    let down = WebhookOptions::new("ERROR").with("error", error);
    let down = app.sandbox.plaid().webhook(&item, &down).unwrap();
    taken(&app, &down, "ignored").await;
    assert_eq!(connection(&app, &active).await, before);
    assert_eq!(app.database.value(RECEIVED).await, "0");
}

#[tokio::test]
async fn a_forged_webhook_is_refused_in_one_way_and_changes_nothing() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let before = connection(&app, &active).await;
    let trail = app.database.audit().await;
    // The genuine key is known, so that nothing here is refused for lack of one.
    taken(&app, &webhook(&app, &item, "SYNC_UPDATES_AVAILABLE"), "ignored").await;
    let mut details = Vec::new();
    for (forgery, outcome) in [
        (Forgery::NoHeader, "unsigned"),
        (Forgery::NoJwt, "unsigned"),
        (Forgery::Unsigned, "unsigned"),
        (Forgery::OtherAlgorithm, "unsigned"),
        (Forgery::IssuedSecondsAgo(302), "stale"),
        (Forgery::IssuedSecondsAgo(-62), "stale"),
        (Forgery::OtherBody, "altered"),
        (Forgery::WrongKey, "forged"),
        (Forgery::UnknownKey, "forged"),
    ] {
        let forged = forged(&app, &item, forgery);
        counted(&app, &forged, 400, outcome).await;
        let answer = app.deliver("plaid", &forged).await;
        assert_eq!(answer.problem(), (400, "invalid_request"));
        details.push(answer.json["detail"].clone());
    }
    let genuine = webhook(&app, &item, "USER_PERMISSION_REVOKED");
    for name in ["nobody", "default", "PLAID", "..", "plaid%00"] {
        let answer = app.deliver(name, &genuine).await;
        assert!([400, 404].contains(&answer.status), "{name}: {}", answer.text);
    }
    details.push(app.deliver("nobody", &genuine).await.json["detail"].clone());
    details.dedup();
    assert_eq!(details.len(), 1, "{details:?}");
    assert_eq!(connection(&app, &active).await, before);
    assert_eq!(app.database.audit().await, trail);
    assert_eq!(app.database.value(RECEIVED).await, "0");
    taken(&app, &genuine, "applied").await;
}

#[tokio::test]
async fn any_byte_that_differs_refuses_a_webhook() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let genuine = webhook(&app, &item, "USER_PERMISSION_REVOKED");
    for body in [format!("{} ", genuine.body), genuine.body.replace(':', ": "), String::new()] {
        counted(&app, &Webhook { body, ..genuine.clone() }, 400, "altered").await;
    }
    let jwt = genuine.verification.clone().unwrap();
    let mut parts: Vec<_> = jwt.split('.').map(str::to_owned).collect();
    let claims = URL_SAFE_NO_PAD.decode(&parts[1]).unwrap();
    let claims = String::from_utf8(claims).unwrap().replace("\"iat\":", "\"iat\": ");
    parts[1] = URL_SAFE_NO_PAD.encode(claims);
    let altered = Webhook { verification: Some(parts.join(".")), ..genuine };
    counted(&app, &altered, 400, "forged").await;
    assert_eq!(connection(&app, &active).await["status"], "active");
}

/// The other signature that is as valid as this one: `(r, n - s)`.
fn other_signature(jwt: &str) -> String {
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ];
    let (message, signature) = jwt.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for (s, n) in bytes[32..].iter_mut().zip(N).rev() {
        let difference = i16::from(n) - i16::from(*s) - borrow;
        borrow = i16::from(difference < 0);
        *s = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test]
async fn a_replayed_webhook_changes_nothing_whatever_its_signature() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let error = webhook(&app, &item, "ERROR");
    taken(&app, &error, "applied").await;
    let token = app.token().await;
    let path = format!("/v1/connections/{}/attention", id(&active));
    app.api.send(app.api.request(Method::DELETE, &path).bearer_auth(&token)).await;
    let trail = app.database.audit().await;

    taken(&app, &error, "repeated").await;
    let jwt = error.verification.clone().unwrap();
    let other = other_signature(&jwt);
    assert_ne!(other, jwt);
    taken(&app, &Webhook { verification: Some(other), ..error }, "repeated").await;
    assert_eq!(connection(&app, &active).await["attention"], Value::Null);
    assert_eq!(app.database.audit().await, trail);
}

#[tokio::test]
async fn two_deliveries_at_once_are_applied_once() {
    let app = plaid().await;
    let (_, item) = app.active_item("ada").await;
    let expiring = webhook(&app, &item, "PENDING_EXPIRATION");
    let all = futures_util::future::join_all((0..8).map(|_| app.deliver("plaid", &expiring))).await;
    assert!(all.iter().all(|answer| answer.status == 200), "{all:?}");
    let records = "SELECT count(*) FROM audit_events WHERE action = 'connection.login_expiring'";
    assert_eq!(app.database.value(records).await, "1");
    assert_eq!(app.sandbox.calls_to(KEYS), 1, "one look-up serves all");
}

#[tokio::test]
async fn a_webhook_about_another_apps_item_changes_nothing() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let secret = strongroom::common::secret::SecretText::new(
        strongroom_dev::sandbox::DEFAULT_PLAID_SECRET.to_owned(),
    );
    let new = strongroom::apps::NewApp {
        name: "shop",
        provider: strongroom::providers::Provider::Plaid,
        app_key: strongroom_dev::sandbox::DEFAULT_PLAID_CLIENT_ID,
        app_secret: &secret,
    };
    let mut conn = app.context.pool.acquire().await.unwrap();
    let actor = strongroom::common::actor::Actor::operator();
    strongroom::apps::add(&mut conn, &app.context.vault, &actor, &new).await.unwrap();
    let revoked = webhook(&app, &item, "USER_PERMISSION_REVOKED");
    assert_eq!(app.deliver("shop", &revoked).await.status, 200);
    app.tick().await;
    assert_eq!(connection(&app, &active).await["status"], "active");
    taken(&app, &revoked, "applied").await;
}

#[tokio::test]
async fn a_webhook_that_comes_before_its_item_is_known_is_applied_when_it_is() {
    let app = plaid().await;
    let (result, item) = app.linked();
    taken(&app, &webhook(&app, &item, "USER_PERMISSION_REVOKED"), "kept").await;
    app.tick().await;
    let active = app.active_from("ada", &result).await;
    app.tick().await;
    let seen = connection(&app, &active).await;
    assert_eq!(seen["status"], "invalidated", "{seen}");
    assert_eq!(app.sandbox.calls_to(REMOVE), 1);
}

#[tokio::test]
async fn what_was_wrong_before_a_login_was_linked_or_repaired_is_past() {
    let app = plaid().await;
    let (result, item) = app.linked();
    taken(&app, &webhook(&app, &item, "ERROR"), "kept").await;
    app.turn_clock(Duration::from_secs(120)).await;
    let active = app.active_from("ada", &result).await;
    app.tick().await;
    assert_eq!(connection(&app, &active).await["attention"], Value::Null);

    let late = webhook(&app, &item, "ERROR");
    app.turn_clock(Duration::from_secs(2)).await;
    taken(&app, &webhook(&app, &item, "LOGIN_REPAIRED"), "applied").await;
    taken(&app, &late, "applied").await;
    assert_eq!(connection(&app, &active).await["attention"], Value::Null);
}

#[tokio::test]
async fn a_repair_from_before_the_trouble_repairs_nothing() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let late = webhook(&app, &item, "LOGIN_REPAIRED");
    app.turn_clock(Duration::from_secs(30)).await;
    taken(&app, &webhook(&app, &item, "ERROR"), "applied").await;
    taken(&app, &late, "applied").await;
    assert_eq!(connection(&app, &active).await["attention"]["type"], "ITEM_LOGIN_REQUIRED");
    let in_time = webhook(&app, &item, "LOGIN_REPAIRED");
    taken(&app, &in_time, "applied").await;
    assert_eq!(connection(&app, &active).await["attention"], Value::Null);
}

#[tokio::test]
async fn a_repair_from_before_a_call_that_was_refused_repairs_nothing() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let late = webhook(&app, &item, "LOGIN_REPAIRED");
    app.turn_clock(Duration::from_secs(30)).await;
    let _ = app.sandbox.plaid().require_login(&item).unwrap();
    let refused = app.api.read(&app.token().await, Bank::Plaid, &active).await;
    assert_eq!(refused.json["error_code"], "ITEM_LOGIN_REQUIRED");
    taken(&app, &late, "applied").await;
    assert_eq!(connection(&app, &active).await["attention"]["type"], "ITEM_LOGIN_REQUIRED");
}

#[tokio::test]
async fn trouble_from_before_a_client_said_that_it_is_over_is_past() {
    for had_attention in [false, true] {
        let app = plaid().await;
        let (active, item) = app.active_item("ada").await;
        let late = webhook(&app, &item, "ERROR");
        app.turn_clock(Duration::from_secs(60)).await;
        if had_attention {
            taken(&app, &webhook(&app, &item, "ERROR"), "applied").await;
        }
        let path = format!("/v1/connections/{}/attention", id(&active));
        let request = app.api.request(Method::DELETE, &path).bearer_auth(app.token().await);
        assert_eq!(app.api.send(request).await.status, 200);
        taken(&app, &late, "applied").await;
        assert_eq!(connection(&app, &active).await["attention"], Value::Null);
        app.turn_clock(Duration::from_secs(2)).await;
        taken(&app, &webhook(&app, &item, "ERROR"), "applied").await;
        assert_eq!(connection(&app, &active).await["attention"]["type"], "ITEM_LOGIN_REQUIRED");
    }
}

#[tokio::test]
async fn a_call_that_began_before_the_repair_and_is_refused_after_it_stops_no_other() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let _ = app.sandbox.plaid().require_login(&item).unwrap();
    let read = Bank::Plaid.read();
    let slow = Fault::new(Effect::Answer).on(read).after().delayed(Duration::from_secs(300));
    app.sandbox.set_fault(slow).unwrap();
    let (api, token, about) = (app.api.clone(), app.token().await, active.clone());
    let call = tokio::spawn(async move { api.read(&token, Bank::Plaid, &about).await });
    app.sandbox.calls_reached(read, 1).await;
    app.turn_clock(Duration::from_secs(2)).await;
    let _ = app.sandbox.plaid().repair_login(&item);
    taken(&app, &webhook(&app, &item, "LOGIN_REPAIRED"), "applied").await;
    app.sandbox.clear_faults();
    assert_eq!(call.await.unwrap().json["error_code"], "ITEM_LOGIN_REQUIRED");
    assert_eq!(connection(&app, &active).await["attention"], Value::Null);
    assert_eq!(app.api.read(&app.token().await, Bank::Plaid, &active).await.status, 200);
}

#[tokio::test]
async fn while_the_database_is_silent_no_webhook_waits_for_another() {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database).await;
    let builder = TestApp::builder().at_plaid().by_hand().set("DATABASE_URL", proxy.url());
    let app = builder.set("STRONGROOM_DATABASE_TIMEOUT", "5").on(database).spawn().await;
    let (_, item) = app.active_item("ada").await;
    let genuine = webhook(&app, &item, "PENDING_EXPIRATION");
    proxy.cut(Cut::HalfOpen);
    let began = std::time::Instant::now();
    let names: Vec<_> = (0..8).map(|n| format!("nobody-{n}")).collect();
    let all = names.iter().map(|name| app.deliver(name, &genuine));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(|answer| answer.status == 503), "{all:?}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    proxy.cut(Cut::Never);
}

#[tokio::test]
async fn rows_that_are_locked_hold_up_a_pass_over_kept_webhooks_for_a_moment_alone() {
    let app = plaid().await;
    let mut items = Vec::new();
    for n in 0..5 {
        let (result, item) = app.linked();
        taken(&app, &webhook(&app, &item, "PENDING_EXPIRATION"), "kept").await;
        app.active_from(&format!("user-{n}"), &result).await;
        items.push(item);
    }
    let mut tx = app.database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM connections FOR UPDATE").fetch_all(&mut *tx).await.unwrap();
    let failed = "strongroom_reconciler_failures_total{reconciler=\"webhooks\"}";
    assert_eq!(app.metric(failed).await, 0.0);
    reconcile::part(&app.context, Part::Rows).await.finish().await;
    assert_eq!(app.metric(failed).await, 3.0);
    tx.commit().await.unwrap();
    app.turn_clock(Duration::from_secs(61)).await;
    app.tick().await;
    let waiting = "SELECT count(*) FROM plaid_webhooks WHERE applied_at IS NULL";
    assert_eq!(app.database.value(waiting).await, "0");
}

#[tokio::test]
async fn a_key_that_has_expired_signs_nothing_any_more() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let before = webhook(&app, &item, "USER_PERMISSION_REVOKED");
    app.sandbox.plaid().rotate_webhook_key().unwrap();
    counted(&app, &before, 400, "forged").await;
    assert_eq!(connection(&app, &active).await["status"], "active");
    taken(&app, &webhook(&app, &item, "USER_PERMISSION_REVOKED"), "applied").await;
}

#[tokio::test]
async fn plaid_is_asked_again_whether_a_known_key_has_expired() {
    let app = plaid().await;
    let (_, item) = app.active_item("ada").await;
    for _ in 0..3 {
        taken(&app, &webhook(&app, &item, "SYNC_UPDATES_AVAILABLE"), "ignored").await;
    }
    assert_eq!(app.sandbox.calls_to(KEYS), 1);
    app.turn_clock(Duration::from_secs(601)).await;
    taken(&app, &webhook(&app, &item, "SYNC_UPDATES_AVAILABLE"), "ignored").await;
    assert_eq!(app.sandbox.calls_to(KEYS), 2);
}

#[tokio::test]
async fn forged_keys_make_few_calls_and_keep_no_known_key_out() {
    let app = plaid().await;
    let (_, item) = app.active_item("ada").await;
    taken(&app, &webhook(&app, &item, "SYNC_UPDATES_AVAILABLE"), "ignored").await;
    let genuine = forged(&app, &item, Forgery::UnknownKey);
    let jwt = genuine.verification.clone().unwrap();
    let rest = jwt.split_once('.').unwrap().1;
    for n in 0..50 {
        let head = format!(r#"{{"alg":"ES256","kid":"forged-{n}","typ":"JWT"}}"#);
        let jwt = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(head));
        let forged = Webhook { verification: Some(jwt), ..genuine.clone() };
        let answer = app.deliver("plaid", &forged).await;
        assert!([400, 503].contains(&answer.status), "{}", answer.text);
    }
    assert!(app.sandbox.calls_to(KEYS) <= 21, "{}", app.sandbox.calls_to(KEYS));
    taken(&app, &webhook(&app, &item, "PENDING_EXPIRATION"), "applied").await;
    assert_eq!(app.database.value(RECEIVED).await, "1");
}

#[tokio::test]
async fn while_plaid_does_not_tell_the_key_the_webhook_is_to_be_sent_again() {
    let app = plaid().await;
    let (active, item) = app.active_item("ada").await;
    let fault = app.sandbox.set_fault(Fault::status(500).on(KEYS));
    assert!(fault.is_ok());
    let error = webhook(&app, &item, "ERROR");
    counted(&app, &error, 503, "failed").await;
    assert_eq!(app.deliver("plaid", &error).await.problem(), (503, "unavailable"));
    assert_eq!(app.sandbox.calls_to(KEYS), 1, "not again at once");
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(6)).await;
    taken(&app, &error, "applied").await;
    assert_eq!(connection(&app, &active).await["attention"]["type"], "ITEM_LOGIN_REQUIRED");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let app = plaid().await;
    let (_, item) = app.active_item("ada").await;
    let padding = json!("x".repeat(70_000));
    let options = WebhookOptions::new("ERROR").with("padding", padding);
    let large = app.sandbox.plaid().webhook(&item, &options).unwrap();
    assert_eq!(app.deliver("plaid", &large).await.problem(), (413, "body_too_large"));
    assert_eq!(app.sandbox.calls_to(KEYS), 0);
}

#[tokio::test]
async fn webhooks_about_a_users_items_are_forgotten_with_the_user() {
    let app = plaid().await;
    let (_, item) = app.active_item("ada").await;
    let (_, other) = app.active_item("bob").await;
    for item in [&item, &other] {
        taken(&app, &webhook(&app, item, "PENDING_EXPIRATION"), "applied").await;
    }
    let request = app.api.request(Method::DELETE, "/v1/users/ada");
    let answer = app.api.send(request.bearer_auth(app.token().await)).await;
    assert!([200, 202].contains(&answer.status), "{}", answer.text);
    // The removal is sent, then the user is destroyed.
    for _ in 0..1000 {
        app.tick().await;
        if app.database.value("SELECT count(*) FROM users").await == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(app.database.value("SELECT item_id FROM plaid_webhooks").await, other);
}

#[tokio::test]
async fn webhooks_are_forgotten_after_a_day() {
    let app = plaid().await;
    let (_, item) = app.active_item("ada").await;
    taken(&app, &webhook(&app, &item, "PENDING_EXPIRATION"), "applied").await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value(RECEIVED).await, "1");
    app.turn_clock(Duration::from_secs(24 * 3600 + 1)).await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value(RECEIVED).await, "0");
}
