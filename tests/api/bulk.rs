//! Revoking many connections at once: unusable with the answer, told to Dapi at a rate, paused, resumed,
//! given up, and never usable again.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::for_each_bank;
use crate::support::{Answer, BOOTSTRAP_ID, Bank, TestApp, id};

for_each_bank! {
    everything_that_is_meant_is_unusable_with_the_answer_and_told_to_the_provider_at_the_orders_rate,
    each_part_of_a_filter_narrows_it,
    a_paused_order_tells_the_provider_nothing_until_it_is_resumed_and_is_not_given_up_meanwhile,
    a_cancelled_order_gives_up_what_the_provider_was_not_told_of_and_nothing_becomes_usable,
    what_the_provider_is_being_told_of_while_an_order_is_cancelled_ends_with_the_answer,
    a_code_that_was_never_sent_ends_at_once_and_one_under_way_brings_a_token_to_be_delinked,
    no_reading_that_begins_after_the_acknowledgement_succeeds,
    links_that_are_made_while_everything_is_revoked_are_met_or_left_whole,
}

const ORDERS: &str = "/v1/admin/revocations";

async fn order(app: &TestApp, body: &Value) -> Answer {
    app.api.post(&app.token().await, ORDERS, body).await
}

fn all() -> Value {
    json!({ "kind": "delink", "reason": "incident 7", "perSecond": 2, "filter": { "all": true } })
}

fn filtered(filter: Value) -> Value {
    json!({ "kind": "invalidate", "reason": "incident 7", "filter": filter })
}

async fn look(app: &TestApp, order: &Value) -> Value {
    let answer = app.api.get(&app.token().await, &format!("{ORDERS}/{}", id(order))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

async fn change(app: &TestApp, order: &Value, what: &str) -> Answer {
    app.api.post_empty(&app.token().await, &format!("{ORDERS}/{}/{what}", id(order))).await
}

/// The order once its connections are counted, which the answer need not wait for.
async fn counted(app: &TestApp, order: &Value) -> Value {
    for _ in 0..2000 {
        let order = look(app, order).await;
        if !order["matched"].is_null() {
            return order;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("an order is never counted");
}

async fn some_active(app: &TestApp, count: usize) -> Vec<Value> {
    let mut made = Vec::new();
    for _ in 0..count {
        made.push(app.active("ada").await);
    }
    made
}

async fn status(app: &TestApp, connection: &Value) -> String {
    let found = app.api.connection(&app.token().await, id(connection)).await;
    found["status"].as_str().unwrap().to_owned()
}

async fn held_secrets(app: &TestApp) -> String {
    let held = "SELECT count(*) FROM connections
                WHERE code IS NOT NULL OR access_token IS NOT NULL OR user_secret IS NOT NULL";
    app.database.value(held).await
}

async fn everything_that_is_meant_is_unusable_with_the_answer_and_told_to_the_provider_at_the_orders_rate(
    bank: Bank,
) {
    let app = bank.by_hand().await;
    let active = some_active(&app, 5).await;
    let answer = order(&app, &all()).await;
    assert_eq!((answer.status, &answer.json["status"]), (202, &json!("running")));
    assert_eq!((&answer.json["matched"], &answer.json["waiting"]), (&json!(5), &json!(5)));
    assert_eq!(answer.header("location"), format!("{ORDERS}/{}", id(&answer.json)));
    let token = app.token().await;
    for connection in &active {
        assert_eq!(status(&app, connection).await, "revoking");
        let refused = app.api.reveal(&token, id(connection)).await;
        assert_eq!(refused.problem(), (409, "connection_not_active"));
    }
    for told in [2, 4, 5] {
        app.tick().await;
        app.tick().await;
        assert_eq!(app.revocations(), told);
        app.turn_clock(Duration::from_secs(1)).await;
    }
    let done = look(&app, &answer.json).await;
    assert_eq!(
        (&done["status"], &done["told"], &done["failed"]),
        (&json!("done"), &json!(5), &json!(0))
    );
    assert_eq!(status(&app, &active[0]).await, "delinked");
    assert_eq!(held_secrets(&app).await, "0");
}

#[tokio::test]
async fn an_order_is_one_audit_row_and_its_end_another() {
    let app = TestApp::by_hand().await;
    some_active(&app, 3).await;
    let before = app.database.audit().await.len();
    let made = order(&app, &all()).await.json;
    assert_eq!(app.database.audit().await[before..], ["revocations.ordered running"]);
    let carried = "SELECT count(DISTINCT bulk_revocation_id) = 1 AND count(bulk_revocation_id) = 3 FROM connections";
    assert_eq!(app.database.value(carried).await, "true");
    for _ in 0..4 {
        app.tick().await;
        app.turn_clock(Duration::from_secs(5)).await;
    }
    assert!(look(&app, &made).await["finishedAt"].is_string());
    let trail = app.database.audit().await;
    assert_eq!(trail.last().unwrap(), "revocations.finished done");
    let reason = "SELECT reason FROM audit_events WHERE action = 'revocations.ordered'";
    assert!(app.database.value(reason).await.ends_with("delink: incident 7"));
    let ended = "SELECT reason FROM audit_events WHERE action = 'revocations.finished'";
    assert!(app.database.value(ended).await.ends_with("3 met, 3 told, 0 unconfirmed"));
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let app = TestApp::by_hand().await;
    let active = some_active(&app, 2).await;
    let before = app.database.audit().await;
    let body = crate::support::with(&all(), json!({ "dryRun": true }));
    let answer = order(&app, &body).await;
    let newest_first = json!([active[1]["id"], active[0]["id"]]);
    assert_eq!(
        (answer.status, answer.json),
        (200, json!({ "matched": 2, "sample": newest_first }))
    );
    assert_eq!(status(&app, &active[0]).await, "active");
    assert_eq!(app.database.audit().await, before);
    let list = app.api.get(&app.token().await, ORDERS).await.json;
    assert_eq!(list, json!({ "revocations": [], "nextCursor": null }));
}

#[tokio::test]
async fn a_filter_that_says_nothing_or_is_mistyped_is_refused_and_revokes_nothing() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    for filter in [
        json!({}),
        json!({ "all": false }),
        json!({ "clientUserIDs": [] }),
        json!({ "connectionIDs": [], "clientID": "x" }),
        json!({ "all": true, "clientID": "x" }),
        json!({ "clientUserIds": ["ada"], "createdAfter": "2020-01-01T00:00:00Z" }),
        json!({ "createdBefore": "yesterday" }),
        json!({ "clientUserIDs": ["a\u{0}b"] }),
    ] {
        let refused = order(&app, &filtered(filter.clone())).await;
        assert_eq!(refused.problem(), (400, "invalid_request"), "{filter}");
    }
    for wrong in [json!({ "kind": "destroy" }), json!({ "reason": "" }), json!({ "perSecond": 0 })]
    {
        let body = crate::support::with(&all(), wrong);
        assert_eq!(order(&app, &body).await.problem(), (400, "invalid_request"));
    }
    assert_eq!(status(&app, &active).await, "active");
}

async fn each_part_of_a_filter_narrows_it(bank: Bank) {
    let app = bank.by_hand().await;
    let ada = app.active("ada").await;
    app.turn_clock(Duration::from_secs(100)).await;
    let bob = app.active("bob").await;
    let client = app.client("sessions:create").await;
    let session = app.api.session(&client.token(&app.api).await, "eve").await;
    let eve = app.api.post(&session, "/v1/connections", &app.connect()).await.json;
    app.settled(id(&eve)).await;
    let of_bob = bob["createdAt"].clone();
    for (filter, meant) in [
        (json!({ "clientUserIDs": ["ada", "nobody"] }), vec![&ada]),
        (json!({ "connectionIDs": [ada["id"], bob["connectionID"]] }), vec![&bob, &ada]),
        (json!({ "connectionIDs": [ada["id"]], "clientUserIDs": ["bob"] }), vec![]),
        (json!({ "createdBefore": of_bob }), vec![&ada]),
        (json!({ "createdAfter": of_bob }), vec![&eve, &bob]),
        (json!({ "createdAfter": of_bob, "clientUserIDs": ["ada", "bob"] }), vec![&bob]),
        (json!({ "clientID": client.id }), vec![&eve]),
        (json!({ "clientID": BOOTSTRAP_ID }), vec![&bob, &ada]),
        (json!({ "all": true }), vec![&eve, &bob, &ada]),
    ] {
        let dry = crate::support::with(&filtered(filter.clone()), json!({ "dryRun": true }));
        let sample: Vec<_> = meant.iter().map(|connection| connection["id"].clone()).collect();
        assert_eq!(order(&app, &dry).await.json["sample"], json!(sample), "{filter}");
    }
    let answer = order(&app, &filtered(json!({ "clientID": client.id }))).await.json;
    assert_eq!(
        (&answer["matched"], &answer["filter"]),
        (&json!(1), &json!({ "clientID": client.id }))
    );
    assert_eq!(status(&app, &eve).await, "revoking");
    assert_eq!(status(&app, &ada).await, "active");
}

#[tokio::test]
async fn nothing_of_another_app_is_ever_met() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    let stranger = app.token_of_another_app().await;
    for filter in [
        json!({ "all": true }),
        json!({ "connectionIDs": [active["id"], active["connectionID"]] }),
        json!({ "clientUserIDs": ["ada"] }),
        json!({ "clientID": BOOTSTRAP_ID }),
    ] {
        let answer = app.api.post(&stranger, ORDERS, &filtered(filter)).await;
        assert_eq!((answer.status, &answer.json["matched"]), (202, &json!(0)));
        assert_eq!(answer.json["status"], "done");
        let path = format!("{ORDERS}/{}", id(&answer.json));
        assert_eq!(app.api.get(&app.token().await, &path).await.problem(), (404, "not_found"));
    }
    assert_eq!(status(&app, &active).await, "active");
}

#[tokio::test]
async fn the_same_request_under_the_same_key_is_the_same_order() {
    let app = TestApp::by_hand().await;
    some_active(&app, 2).await;
    let token = app.token().await;
    let give = async |key: &'static str, body: Value| {
        let request = app.api.request(Method::POST, ORDERS).bearer_auth(&token);
        app.api.send(request.header("idempotency-key", key).json(&body)).await
    };
    let first = give("\"k-1\"", all()).await;
    app.active("ada").await;
    for key in ["\"k-1\"", "k-1"] {
        let again = give(key, all()).await;
        assert_eq!((again.status, &again.json["id"]), (202, &first.json["id"]));
        assert_eq!(again.json["matched"], 2);
    }
    let other = crate::support::with(&all(), json!({ "kind": "invalidate" }));
    assert_eq!(give("k-1", other).await.problem(), (422, "idempotency_key_reused"));
    assert_eq!(give("k-2", all()).await.json["matched"], 1);
    for key in ["", "\"\"", "a b", "\"a\"b\""] {
        assert_eq!(give(key, all()).await.problem(), (400, "invalid_request"), "{key}");
    }
    let orders = "SELECT count(*) FROM bulk_revocations";
    assert_eq!(app.database.value(orders).await, "2");
}

#[tokio::test]
async fn one_key_sent_many_times_at_once_is_one_order() {
    let app = TestApp::by_hand().await;
    some_active(&app, 2).await;
    let token = app.token().await;
    let sent = (0..8).map(|_| {
        let request = app.api.request(Method::POST, ORDERS).bearer_auth(&token);
        app.api.send(request.header("idempotency-key", "k").json(&all()))
    });
    let answers = futures_util::future::join_all(sent).await;
    assert!(answers.iter().all(|answer| answer.status == 202));
    assert!(answers.iter().all(|answer| answer.json["id"] == answers[0].json["id"]));
}

async fn a_paused_order_tells_the_provider_nothing_until_it_is_resumed_and_is_not_given_up_meanwhile(
    bank: Bank,
) {
    let app = bank.by_hand().await;
    let active = some_active(&app, 3).await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    let made = order(&app, &all()).await.json;
    app.tick().await;
    assert_eq!(app.revocations(), 2);
    let paused = change(&app, &made, "pause").await;
    assert_eq!((paused.status, &paused.json["status"]), (200, &json!("paused")));
    assert_eq!(paused.json["waiting"], 3, "what was let through in vain is held back as well");
    assert_eq!(paused.json["errors"][0]["count"], 2);
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_hours(24 * 8)).await;
    app.tick().await;
    assert_eq!(app.revocations(), 2);
    assert_eq!(change(&app, &made, "pause").await.json["status"], "paused");
    let metric =
        app.database.value("SELECT count(*) FROM connections WHERE status = 'revoking'").await;
    assert_eq!(metric, "3");
    assert_eq!(change(&app, &made, "resume").await.json["status"], "running");
    for _ in 0..2 {
        app.tick().await;
        app.turn_clock(Duration::from_secs(1)).await;
    }
    let done = look(&app, &made).await;
    assert_eq!((&done["status"], &done["told"]), (&json!("done"), &json!(3)));
    assert_eq!(status(&app, &active[2]).await, "delinked");
}

async fn a_cancelled_order_gives_up_what_the_provider_was_not_told_of_and_nothing_becomes_usable(
    bank: Bank,
) {
    let app = bank.by_hand().await;
    let active = some_active(&app, 5).await;
    let made = order(&app, &all()).await.json;
    app.tick().await;
    let cancelled = change(&app, &made, "cancel").await;
    assert_eq!((cancelled.status, &cancelled.json["status"]), (200, &json!("cancelled")));
    assert_eq!((&cancelled.json["told"], &cancelled.json["failed"]), (&json!(2), &json!(3)));
    assert_eq!(held_secrets(&app).await, "0");
    app.turn_clock(Duration::from_hours(1)).await;
    app.tick().await;
    assert_eq!(app.revocations(), 2);
    let token = app.token().await;
    for connection in &active {
        let refused = app.api.reveal(&token, id(connection)).await;
        assert_eq!(refused.problem(), (409, "connection_not_active"));
    }
    let last = app.api.connection(&token, id(&active[4])).await;
    assert_eq!(
        (&last["status"], &last["revocation"]["confirmedAt"]),
        (&json!("invalidated"), &Value::Null)
    );
    assert_eq!(change(&app, &made, "cancel").await.status, 200);
    for what in ["pause", "resume"] {
        assert_eq!(change(&app, &made, what).await.problem(), (409, "order_ended"));
    }
    assert_eq!(app.metric("strongroom_revocations_total{outcome=\"unconfirmed\"}").await, 3.0);
}

async fn what_the_provider_is_being_told_of_while_an_order_is_cancelled_ends_with_the_answer(
    bank: Bank,
) {
    let app = bank.by_hand().await;
    let active = app.active("ada").await;
    let slow = app.revocation_fails().delayed(Duration::from_secs(300));
    app.sandbox.set_fault(slow.times(1)).unwrap();
    let made = order(&app, &all()).await.json;
    let calls = strongroom::connections::reconcile::round(&app.context).await.unwrap();
    app.sandbox.calls_reached(bank.revoke(), 1).await;
    assert_eq!(change(&app, &made, "cancel").await.json["telling"], 1);
    app.sandbox.clear_faults();
    calls.finish().await;
    assert_eq!(status(&app, &active).await, "revoking");
    app.turn_clock(Duration::from_secs(10)).await;
    app.tick().await;
    assert_eq!(status(&app, &active).await, "invalidated");
    assert_eq!(app.revocations(), 1, "nobody tells it again");
}

async fn a_code_that_was_never_sent_ends_at_once_and_one_under_way_brings_a_token_to_be_delinked(
    bank: Bank,
) {
    let app = bank.builder().by_hand().set("DAPI_MAX_CONCURRENT_CALLS", "1").spawn().await;
    let result = app.connect();
    let slow = app.exchange_is_slow();
    app.sandbox.set_fault(slow.times(1)).unwrap();
    let sent = app.hand_in("ada", &result).await.json;
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    let unsent = app.hand_in("bob", &app.connect()).await.json;
    let made = order(&app, &all()).await.json;
    assert_eq!(
        (&made["matched"], &made["told"], &made["telling"]),
        (&json!(2), &json!(1), &json!(1))
    );
    let ended = app.api.connection(&app.token().await, id(&unsent)).await;
    assert_eq!(ended["status"], "delinked");
    assert!(ended["revocation"]["confirmedAt"].is_string());
    assert_eq!(status(&app, &sent).await, "revoking");
    app.sandbox.clear_faults();
    app.settled(id(&sent)).await;
    app.tick().await;
    assert_eq!(status(&app, &sent).await, "delinked");
    assert_eq!((app.exchanges(), app.revocations()), (1, 1));
    assert_eq!(held_secrets(&app).await, "0");
}

#[tokio::test]
async fn what_is_at_its_end_or_revoked_already_is_not_met() {
    let app = TestApp::by_hand().await;
    let active = some_active(&app, 2).await;
    app.api.delink(&app.token().await, id(&active[0])).await;
    assert_eq!(order(&app, &all()).await.json["matched"], 1);
    assert_eq!(order(&app, &all()).await.json["matched"], 0);
}

#[tokio::test]
async fn what_a_new_link_of_the_login_waits_for_goes_first_even_past_a_pause() {
    let app = TestApp::by_hand().await;
    let result = app.connect();
    let older = app.active_from("ada", &result).await;
    some_active(&app, 2).await;
    let made = order(&app, &all()).await.json;
    change(&app, &made, "pause").await;
    let newer = app.hand_in("ada", &app.connect_again(&result)).await.json;
    assert_eq!(newer["status"], "pending");
    for _ in 0..3 {
        app.turn_clock(Duration::from_secs(5)).await;
        app.tick().await;
    }
    assert_eq!(status(&app, &older).await, "delinked");
    assert_eq!(status(&app, &newer).await, "active");
    assert_eq!(look(&app, &made).await["waiting"], 2);
}

#[tokio::test]
async fn orders_are_listed_newest_first() {
    let app = TestApp::by_hand().await;
    let first = order(&app, &all()).await.json;
    let second = order(&app, &all()).await.json;
    let token = app.token().await;
    let page = app.api.get(&token, &format!("{ORDERS}?limit=1")).await.json;
    assert_eq!(page["revocations"][0]["id"], second["id"]);
    let cursor = page["nextCursor"].as_str().unwrap();
    let page = app.api.get(&token, &format!("{ORDERS}?limit=1&cursor={cursor}")).await.json;
    assert_eq!(page["revocations"][0]["id"], first["id"]);
    assert!(page["nextCursor"].is_null());
}

/// Readings that began after the acknowledgement never succeed, whatever is going on meanwhile.
async fn no_reading_that_begins_after_the_acknowledgement_succeeds(bank: Bank) {
    let app = bank.spawn().await;
    let active = some_active(&app, 8).await;
    let token = app.token().await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (api, token, stop) = (app.api.clone(), token.clone(), stop.clone());
            let ids: Vec<_> = active.iter().map(|connection| id(connection).to_owned()).collect();
            tokio::spawn(async move {
                let mut history = Vec::new();
                for turn in reader.. {
                    // Each reader tries once more after the acknowledgement, however busy the machine is.
                    let last = stop.load(std::sync::atomic::Ordering::Relaxed);
                    let began = Instant::now();
                    let read = api.reveal(&token, &ids[turn % ids.len()]).await;
                    history.push((began, read.status));
                    if last {
                        break;
                    }
                }
                history
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = order(&app, &all()).await;
    let acknowledged = Instant::now();
    assert_eq!(answer.status, 202);
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut after = 0;
    for reader in readers {
        for (began, status) in reader.await.unwrap() {
            assert!([200, 409].contains(&status), "{status}");
            assert!(began < acknowledged || status == 409, "read after the acknowledgement");
            after += usize::from(began >= acknowledged);
        }
    }
    assert!(after > 0, "somebody tried");
    assert_eq!(counted(&app, &answer.json).await["matched"], 8);
}

/// Links that are being made while everything is revoked: each is either met, and ends, or came later.
async fn links_that_are_made_while_everything_is_revoked_are_met_or_left_whole(bank: Bank) {
    let app = bank.spawn().await;
    let token = app.token().await;
    let links = (0..24).map(|n| {
        let (api, token, result) = (app.api.clone(), token.clone(), app.connect());
        async move { api.hand_in(&token, &format!("user-{}", n % 4), &result).await }
    });
    let orders = async {
        for _ in 0..5 {
            let answer = order(&app, &all()).await;
            assert_eq!(answer.status, 202, "{}", answer.text);
        }
    };
    let (made, ()) = tokio::join!(futures_util::future::join_all(links), orders);
    assert!(made.iter().all(|answer| [200, 201, 202].contains(&answer.status)));
    for answer in &made {
        app.settled(id(&answer.json)).await;
    }
    let wrong = "SELECT count(*) FROM connections
                 WHERE (status IN ('pending', 'active')) <> (bulk_revocation_id IS NULL)";
    assert_eq!(app.database.value(wrong).await, "0");
    let uncounted = "SELECT count(*) FROM bulk_revocations WHERE matched IS NULL";
    while app.database.value(uncounted).await != "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let met = "SELECT sum(matched) = (SELECT count(*) FROM connections WHERE bulk_revocation_id IS NOT NULL)
               FROM bulk_revocations";
    assert_eq!(app.database.value(met).await, "true");
}
