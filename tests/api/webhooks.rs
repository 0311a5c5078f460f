//! Webhooks: events are sent to an app's endpoints, signed, at least once, and what one endpoint does concerns no other.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Builder, Received, Receiver, Reply, TestApp, id};

const WEBHOOKS: &str = "/v1/admin/webhooks";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn builder() -> Builder {
    TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true")
}

async fn send(app: &TestApp, method: Method, path: &str, body: &Value) -> Answer {
    let request = app.api.request(method, path).bearer_auth(app.token().await);
    app.api.send(request.json(body)).await
}

async fn add(app: &TestApp, body: &Value) -> Value {
    let answer = send(app, Method::POST, WEBHOOKS, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.header("location"), format!("{WEBHOOKS}/{}", id(&answer.json)));
    answer.json
}

async fn look(app: &TestApp, webhook: &Value) -> Value {
    let answer = app.api.get(&app.token().await, &path(webhook, "")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

fn path(webhook: &Value, rest: &str) -> String {
    format!("{WEBHOOKS}/{}{rest}", id(webhook))
}

async fn deliveries(app: &TestApp, webhook: &Value) -> Vec<Value> {
    let answer = app.api.get(&app.token().await, &path(webhook, "/deliveries")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["deliveries"].as_array().unwrap().clone()
}

/// What a receiver computes from the secret that it was given (Standard Webhooks).
fn expected(secret: &str, received: &Received) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    assert_eq!(key.len(), 32);
    let message = format!("{}.{}.{}", received.id, received.timestamp, received.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), message.as_bytes());
    format!("v1,{}", STANDARD.encode(tag))
}

#[tokio::test]
async fn a_webhook_is_shown_with_its_secret_once_and_changed_and_deleted() {
    let app = builder().by_hand().spawn().await;
    let token = app.token().await;
    let body = json!({
        "url": "http://127.0.0.1:9/x", "events": ["user.erased", "connection.active"], "description": "payroll",
    });
    let made = add(&app, &body).await;
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"), "{secret}");
    for (name, value) in [
        ("url", json!("http://127.0.0.1:9/x")),
        ("events", json!(["connection.active", "user.erased"])),
        ("description", json!("payroll")),
        ("signature", json!("v1")),
        ("publicKey", Value::Null),
        ("disabledAt", Value::Null),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    let shown = look(&app, &made).await;
    let listed = app.api.get(&token, WEBHOOKS).await;
    assert_eq!(listed.json["webhooks"], json!([shown]));
    assert!(!listed.text.contains("whsec_"));
    let mut without = made.clone();
    without.as_object_mut().unwrap().remove("secret");
    assert_eq!(shown, without);

    let change = json!({ "events": null, "description": null, "signature": "v1a" });
    let changed = send(&app, Method::PATCH, &path(&made, ""), &change).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(
        (&changed.json["events"], &changed.json["description"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(changed.json["publicKey"], changed.json["secrets"][0]["publicKey"]);
    assert!(changed.json["publicKey"].as_str().unwrap().starts_with("whpk_"));
    assert_eq!(changed.json, look(&app, &made).await);

    for body in [
        json!({}),
        json!({ "url": "ftp://127.0.0.1/x" }),
        json!({ "url": "http://u:p@127.0.0.1/x" }),
        json!({ "url": "http://127.0.0.1/x", "events": ["connection.pending"] }),
        json!({ "url": "http://127.0.0.1/x", "events": [] }),
        json!({ "url": "http://127.0.0.1/x", "signature": "v2" }),
    ] {
        let refused = send(&app, Method::POST, WEBHOOKS, &body).await;
        assert_eq!(refused.problem(), (400, "invalid_request"), "{body}");
    }
    let deleted = app.api.request(Method::DELETE, &path(&made, "")).bearer_auth(&token);
    assert_eq!(app.api.send(deleted).await.status, 204);
    assert_eq!(app.api.get(&token, &path(&made, "")).await.problem(), (404, "not_found"));
    let audit = app.database.audit().await;
    for event in ["webhook.created ok", "webhook.changed ok", "webhook.deleted ok"] {
        assert!(audit.contains(&event.to_owned()), "{event}");
    }
}

#[tokio::test]
async fn a_delivery_is_the_event_of_the_list_signed_with_the_secret() {
    let app = builder().by_hand().spawn().await;
    let receiver = Receiver::spawn();
    let webhook = add(&app, &json!({ "url": receiver.url })).await;
    app.active("ada").await;
    assert_eq!(app.deliver_events().await, 1);
    let received = receiver.received();
    let list = app.api.get(&app.token().await, "/v1/events").await;
    let event = &list.json["events"][0];
    assert_eq!(received[0].json(), *event);
    assert_eq!(received[0].id, event["id"].as_str().unwrap());
    let names: Vec<_> = received[0].json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["id", "type", "timestamp", "sequence", "data"]);
    assert_eq!(received[0].signature, expected(webhook["secret"].as_str().unwrap(), &received[0]));
    let log = deliveries(&app, &webhook).await;
    assert_eq!(log.len(), 1);
    assert_eq!((&log[0]["status"], &log[0]["attempts"]), (&json!("delivered"), &json!(1)));
    assert_eq!((&log[0]["answer"], &log[0]["eventID"]), (&json!(204), &event["id"]));
    assert_eq!(app.deliver_events().await, 0, "delivered once");
}

#[tokio::test]
async fn by_setting_a_delivery_is_signed_with_a_key_whose_public_half_is_shown() {
    let app = builder().by_hand().spawn().await;
    let receiver = Receiver::spawn();
    let webhook = add(&app, &json!({ "url": receiver.url, "signature": "v1a" })).await;
    app.active("ada").await;
    app.deliver_events().await;
    let received = &receiver.received()[0];
    let public =
        STANDARD.decode(webhook["publicKey"].as_str().unwrap().strip_prefix("whpk_").unwrap());
    let signature = STANDARD.decode(received.signature.strip_prefix("v1a,").unwrap()).unwrap();
    let message = format!("{}.{}.{}", received.id, received.timestamp, received.body);
    let key = UnparsedPublicKey::new(&ED25519, public.unwrap());
    key.verify(message.as_bytes(), &signature).unwrap();
    let jwks = app.api.send(app.api.request(Method::GET, "/.well-known/jwks.json")).await;
    assert_eq!(jwks.json["keys"].as_array().unwrap().len(), 1, "not among the keys of tokens");
}

#[tokio::test]
async fn while_two_secrets_are_live_both_sign() {
    let app = builder().by_hand().spawn().await;
    let receiver = Receiver::spawn();
    let webhook = add(&app, &json!({ "url": receiver.url })).await;
    let old = webhook["secret"].as_str().unwrap();
    let added = send(&app, Method::POST, &path(&webhook, "/secrets"), &json!({})).await;
    assert_eq!(added.status, 201, "{}", added.text);
    let new = added.json["secret"].as_str().unwrap();
    let third = send(&app, Method::POST, &path(&webhook, "/secrets"), &json!({})).await;
    assert_eq!(third.problem(), (409, "two_secrets"));
    app.active("ada").await;
    app.deliver_events().await;
    let both = receiver.received()[0].clone();
    assert_eq!(both.signature, format!("{} {}", expected(old, &both), expected(new, &both)));

    let first = webhook["secrets"][0]["id"].as_str().unwrap();
    let end = |secret: &str| {
        app.api.request(Method::DELETE, &path(&webhook, &format!("/secrets/{secret}")))
    };
    let token = app.token().await;
    assert_eq!(app.api.send(end(first).bearer_auth(&token)).await.status, 204);
    assert_eq!(app.api.send(end(first).bearer_auth(&token)).await.problem(), (404, "not_found"));
    let only = app.api.send(end(id(&added.json)).bearer_auth(&token)).await;
    assert_eq!(only.problem(), (400, "invalid_request"), "deliveries are always signed");
    app.active("bob").await;
    app.deliver_events().await;
    let one = receiver.received()[1].clone();
    assert_eq!(one.signature, expected(new, &one));
}

#[tokio::test]
async fn what_is_not_taken_is_sent_again_for_three_days_and_a_redirect_is_not_followed() {
    let app = builder().by_hand().spawn().await;
    let receiver = Receiver::spawn();
    let webhook = add(&app, &json!({ "url": receiver.url })).await;
    receiver.reply(&[Reply::Status(500), Reply::Redirect, Reply::RetryAfter(429, 7200)]);
    app.active("ada").await;
    assert_eq!(app.deliver_events().await, 1);
    let log = deliveries(&app, &webhook).await;
    assert_eq!((&log[0]["status"], &log[0]["error"]), (&json!("pending"), &json!("HTTP 500")));
    assert_eq!(look(&app, &webhook).await["lastError"], "HTTP 500");
    assert_eq!(app.deliver_events().await, 0, "not at once");
    app.turn_clock(Duration::from_secs(7)).await;
    assert_eq!(app.deliver_events().await, 1);
    app.turn_clock(Duration::from_secs(40)).await;
    assert_eq!(app.deliver_events().await, 1);
    app.turn_clock(Duration::from_secs(7000)).await;
    assert_eq!(app.deliver_events().await, 0, "Retry-After is honoured");
    app.turn_clock(Duration::from_secs(300)).await;
    assert_eq!(app.deliver_events().await, 1);
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    assert!(received.iter().all(|each| each.path == "/hook"));
    assert!(received.iter().all(|each| each.id == received[0].id && each.body == received[0].body));
    assert_ne!(received[0].timestamp, received[3].timestamp);
    let shown = look(&app, &webhook).await;
    assert_eq!((&shown["failingSince"], &shown["lastError"]), (&Value::Null, &Value::Null));

    receiver.always(Reply::Status(503));
    app.active("bob").await;
    let mut attempts = 0;
    for _ in 0..76 {
        attempts += app.deliver_events().await;
        app.turn_clock(Duration::from_secs(3600)).await;
    }
    assert!((10..=16).contains(&attempts), "{attempts}");
    let log = deliveries(&app, &webhook).await;
    let of_bob =
        log.iter().find(|each| each["type"] == "connection.active" && each["status"] == "failed");
    assert!(of_bob.is_some(), "{log:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled_at_once_and_told() {
    let app = builder().by_hand().spawn().await;
    let (receiver, other) = (Receiver::spawn(), Receiver::spawn());
    let webhook = add(&app, &json!({ "url": receiver.url })).await;
    add(&app, &json!({ "url": other.url })).await;
    receiver.reply(&[Reply::Status(410)]);
    app.active("ada").await;
    app.deliver_events().await;
    app.deliver_events().await;
    let shown = look(&app, &webhook).await;
    assert_eq!(
        (&shown["disabledReason"], &shown["lastError"]),
        (&json!("gone"), &json!("HTTP 410"))
    );
    assert_eq!(other.kinds(), ["connection.active", "webhook.disabled"]);
    assert_eq!(other.received()[1].json()["data"], shown);
    assert!(app.database.audit().await.contains(&"webhook.disabled gone".to_owned()));
    app.active("bob").await;
    app.deliver_events().await;
    assert_eq!(receiver.received().len(), 1, "nothing more is sent");
    let test = send(&app, Method::POST, &path(&webhook, "/test"), &json!({})).await;
    assert_eq!(test.problem(), (409, "webhook_disabled"));

    let enabled =
        send(&app, Method::PATCH, &path(&webhook, ""), &json!({ "disabled": false })).await;
    assert_eq!((enabled.status, &enabled.json["disabledAt"]), (200, &Value::Null));
    app.active("eve").await;
    app.turn_clock(Duration::from_secs(7)).await;
    app.deliver_events().await;
    let users: Vec<_> = receiver
        .received()
        .iter()
        .map(|each| each.json()["data"]["clientUserID"].clone())
        .collect();
    assert_eq!(users.len(), 3, "what it refused, and what came since");
    assert!(users.contains(&json!("eve")) && !users.contains(&json!("bob")));
}

#[tokio::test]
async fn an_endpoint_that_fails_for_three_days_is_disabled_and_told() {
    let app = builder().by_hand().spawn().await;
    let (receiver, other) = (Receiver::spawn(), Receiver::spawn());
    let webhook = add(&app, &json!({ "url": receiver.url })).await;
    add(&app, &json!({ "url": other.url, "events": ["webhook.disabled"] })).await;
    receiver.always(Reply::Status(500));
    app.active("ada").await;
    for _ in 0..70 {
        app.deliver_events().await;
        app.turn_clock(Duration::from_secs(3600)).await;
    }
    assert_eq!(look(&app, &webhook).await["disabledAt"], Value::Null);
    for _ in 0..4 {
        app.active("bob").await;
        app.deliver_events().await;
        app.turn_clock(Duration::from_secs(3600)).await;
    }
    assert_eq!(look(&app, &webhook).await["disabledReason"], "failing");
    assert_eq!(other.kinds(), ["webhook.disabled"]);
}

#[tokio::test]
async fn the_first_delivery_leaves_within_a_second_of_the_commit() {
    let app = builder().spawn().await;
    let receiver = Receiver::spawn();
    add(&app, &json!({ "url": receiver.url })).await;
    for count in 1..=5 {
        app.active("ada").await;
        let committed = Instant::now();
        let received = receiver.arrived(count).await;
        let took = received[count - 1].at.saturating_duration_since(committed);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_delays_no_other_and_no_request() {
    let app = builder().spawn().await;
    let (hanging, other) = (Receiver::spawn(), Receiver::spawn());
    hanging.always(Reply::Hang);
    add(&app, &json!({ "url": hanging.url })).await;
    add(&app, &json!({ "url": other.url })).await;
    let active = app.active("ada").await;
    let token = app.token().await;
    for n in 0..40_i32 {
        let sql = if n % 2 == 0 {
            "UPDATE connections SET attention_type = 'X', attention_since = now()"
        } else {
            "UPDATE connections SET attention_type = NULL, attention_since = NULL"
        };
        app.database.execute(sql).await;
    }
    let began = Instant::now();
    assert_eq!(app.api.connection(&token, id(&active)).await["status"], "active");
    let received = other.arrived(41).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let mut sequences: Vec<_> =
        received.iter().map(|each| each.json()["sequence"].as_u64().unwrap()).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=41).collect::<Vec<_>>(), "each once");
    assert!(hanging.received().len() <= 16, "{}", hanging.received().len());
}

#[tokio::test]
async fn a_webhook_gets_the_types_that_it_asked_for_and_no_other_apps_events() {
    let app = builder().by_hand().spawn().await;
    let (all, some, foreign) = (Receiver::spawn(), Receiver::spawn(), Receiver::spawn());
    add(&app, &json!({ "url": all.url })).await;
    add(&app, &json!({ "url": some.url, "events": ["connection.delinked"] })).await;
    let stranger = app.token_of_another_app().await;
    let made = app.api.post(&stranger, WEBHOOKS, &json!({ "url": foreign.url })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let active = app.active("ada").await;
    app.api.delink(&app.token().await, id(&active)).await;
    app.tick().await;
    app.deliver_events().await;
    assert_eq!(some.kinds(), ["connection.delinked"]);
    let mut kinds = all.kinds();
    kinds.sort_unstable();
    assert_eq!(kinds, ["connection.active", "connection.delinked", "connection.revoking"]);
    assert_eq!(foreign.kinds(), Vec::<String>::new());
    let own = app.api.get(&app.token().await, &path(&made.json, "")).await;
    assert_eq!(own.problem(), (404, "not_found"));
}

#[tokio::test]
async fn a_test_reaches_its_webhook_alone_and_a_replay_sends_a_range_of_time_again() {
    let app = builder().by_hand().spawn().await;
    let (receiver, other) = (Receiver::spawn(), Receiver::spawn());
    let webhook = add(&app, &json!({ "url": receiver.url })).await;
    add(&app, &json!({ "url": other.url })).await;
    let test = send(&app, Method::POST, &path(&webhook, "/test"), &json!({})).await;
    assert_eq!(test.status, 202, "{}", test.text);
    app.deliver_events().await;
    let received = &receiver.received()[0];
    assert_eq!(
        (received.kind().as_str(), &received.id),
        ("webhook.test", &id(&test.json).to_owned())
    );
    assert_eq!(received.json()["data"], look(&app, &webhook).await);
    assert_eq!(other.received().len(), 0);
    let events = app.api.get(&app.token().await, "/v1/events").await;
    assert_eq!(events.json["events"], json!([]));

    app.active("ada").await;
    app.turn_clock(DAY).await;
    app.active("bob").await;
    app.deliver_events().await;
    let at = |n: usize| receiver.received()[n].json()["timestamp"].clone();
    let range = json!({ "from": at(1), "to": at(2) });
    let replay = send(&app, Method::POST, &path(&webhook, "/replay"), &range).await;
    assert_eq!((replay.status, &replay.json), (202, &json!({ "queued": 1, "continueFrom": null })));
    app.deliver_events().await;
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    assert_eq!((&received[3].id, &received[3].body), (&received[1].id, &received[1].body));
    assert_eq!(other.received().len(), 2);
    let backwards = json!({ "from": at(2), "to": at(1) });
    let refused = send(&app, Method::POST, &path(&webhook, "/replay"), &backwards).await;
    assert_eq!(refused.problem(), (400, "invalid_request"));
    let pages = app.api.get(&app.token().await, &path(&webhook, "/deliveries?limit=2")).await;
    let cursor = pages.json["nextCursor"].as_str().unwrap();
    let next = path(&webhook, &format!("/deliveries?limit=2&cursor={cursor}"));
    let next = app.api.get(&app.token().await, &next).await;
    assert_eq!(
        (next.json["deliveries"].as_array().unwrap().len(), &next.json["nextCursor"]),
        (1, &Value::Null)
    );
}

#[tokio::test]
async fn an_erased_users_deliveries_are_not_made_any_more() {
    let app = builder().spawn().await;
    let receiver = Receiver::spawn();
    receiver.always(Reply::Status(500));
    let webhook = add(&app, &json!({ "url": receiver.url })).await;
    app.active("ada-who-leaves").await;
    receiver.arrived(1).await;
    let request = app.api.request(Method::DELETE, "/v1/users/ada-who-leaves");
    let erased = app.api.send(request.bearer_auth(app.token().await)).await;
    assert_eq!((erased.status, &erased.json["status"]), (200, &json!("erased")));
    receiver.always(Reply::Status(204));
    while !receiver.kinds().contains(&"user.erased".to_owned()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let log = deliveries(&app, &webhook).await;
    let kinds: Vec<_> = log.iter().map(|each| each["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["user.erased"]);
}

#[tokio::test]
async fn an_address_that_is_not_public_is_refused_and_a_name_that_leads_to_one_is_not_called() {
    let app = TestApp::by_hand().await;
    for url in [
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://169.254.169.254/x",
        "http://example.com/x",
    ] {
        let refused = send(&app, Method::POST, WEBHOOKS, &json!({ "url": url })).await;
        assert_eq!(refused.problem(), (400, "invalid_request"), "{url}");
        assert_eq!(refused.json["field"], "url");
    }
    let webhook = add(&app, &json!({ "url": "https://localhost:1/x" })).await;
    app.active("ada").await;
    app.deliver_events().await;
    let log = deliveries(&app, &webhook).await;
    assert_eq!(log[0]["error"], "its address is not a public one");
}

#[tokio::test]
async fn two_replicas_deliver_each_event_once() {
    let app = builder().spawn().await;
    app.replica().await;
    let receiver = Receiver::spawn();
    add(&app, &json!({ "url": receiver.url })).await;
    app.active("ada").await;
    for n in 0..60_i32 {
        let sql = if n % 2 == 0 {
            "UPDATE connections SET attention_type = 'X', attention_since = now()"
        } else {
            "UPDATE connections SET attention_type = NULL, attention_since = NULL"
        };
        app.database.execute(sql).await;
    }
    let received = receiver.arrived(61).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ids: std::collections::HashSet<_> = received.iter().map(|each| each.id.clone()).collect();
    assert_eq!((ids.len(), receiver.received().len()), (61, 61));
}
