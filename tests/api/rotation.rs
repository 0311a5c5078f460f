//! Rotation: a token that was revealed is replaced, and whatever happens on the way, it is known what the token is.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom::apps::Settings;
use strongroom::common::actor::Actor;
use strongroom::connections::reconcile::{self, Part};
use strongroom_dev::sandbox::{Effect, Fault};

use crate::support::{Answer, Bank, TestApp, id};

pub const INVALIDATE: &str = "plaid/item/access_token/invalidate";
pub const PROBE: &str = "plaid/item/get";
pub const REMOVE: &str = "plaid/item/remove";
pub const ACCOUNTS: &str = "plaid/accounts/get";
pub const PAST_THE_WAIT: Duration = Duration::from_secs(10);

/// An app at Plaid that rotates after a reveal, whose background work the test drives.
pub async fn rotating() -> TestApp {
    let app = Bank::Plaid.by_hand().await;
    rotates(&app).await;
    app
}

/// Lets the app rotate after a reveal.
pub async fn rotates(app: &TestApp) {
    let settings = Settings { rotate_after_reveal: Some(true), ..Settings::default() };
    let mut conn = app.context.pool.acquire().await.unwrap();
    strongroom::apps::change(&mut conn, &Actor::operator(), "plaid", settings).await.unwrap();
}

pub async fn revealed(app: &TestApp, connection: &Value) -> String {
    let answer = app.api.reveal(&app.token().await, id(connection)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["accessToken"].as_str().unwrap().to_owned()
}

pub async fn release(app: &TestApp, connection: &Value) -> Answer {
    let path = format!("/v1/connections/{}/token", id(connection));
    app.api.send(app.api.request(Method::DELETE, &path).bearer_auth(app.token().await)).await
}

pub async fn now(app: &TestApp, connection: &Value) -> Value {
    app.api.connection(&app.token().await, id(connection)).await
}

pub fn lives(app: &TestApp, token: &str) -> bool {
    app.sandbox.plaid().lives(token)
}

pub async fn rotations(app: &TestApp, outcome: &str) -> f64 {
    app.metric(&format!("strongroom_token_rotations_total{{outcome=\"{outcome}\"}}")).await
}

/// A connection whose token was revealed, with that token, and whose reader is done.
pub async fn released(app: &TestApp) -> (Value, String) {
    let (connection, _) = app.active_item("ada").await;
    let token = revealed(app, &connection).await;
    assert_eq!(release(app, &connection).await.status, 202);
    (connection, token)
}

/// Makes the rotations that are due, in a task of their own.
pub fn begin(app: &TestApp) -> tokio::task::JoinHandle<()> {
    let context = app.context.clone();
    tokio::spawn(
        async move { drop(reconcile::part(&context, Part::Rotations).await.finish().await) },
    )
}

/// A rotation whose answer is lost after Plaid did, or did not, what was asked.
pub fn lost(processed: bool) -> Fault {
    let fault = Fault::new(Effect::Drop).on(INVALIDATE).times(1);
    if processed { fault.after() } else { fault.before() }
}

/// A rotation that Plaid has made and whose answer comes when the faults are cleared.
pub fn held_up() -> Fault {
    Fault::new(Effect::Answer).on(INVALIDATE).after().delayed(Duration::from_secs(300))
}

#[tokio::test]
async fn a_token_is_replaced_when_its_reader_is_done() {
    let app = rotating().await;
    let (connection, old) = released(&app).await;
    assert!(lives(&app, &old));
    app.tick().await;
    assert!(!lives(&app, &old));
    let new = revealed(&app, &connection).await;
    assert!(new != old && lives(&app, &new));
    assert_eq!(now(&app, &connection).await["status"], "active");
    let events = app.database.audit().await;
    let events: Vec<_> = events.iter().filter(|event| event.starts_with("token.")).collect();
    assert_eq!(
        events,
        [
            "token.revealed ok",
            "token.released ok",
            "token.rotation_begun begun",
            "token.rotated ok",
            "token.revealed ok"
        ]
    );
    assert_eq!(rotations(&app, "rotated").await, 1.0);
}

#[tokio::test]
async fn a_reader_who_says_nothing_has_the_token_for_five_minutes() {
    let app = rotating().await;
    let (connection, _) = app.active_item("ada").await;
    let old = revealed(&app, &connection).await;
    app.turn_clock(Duration::from_secs(295)).await;
    app.tick().await;
    assert!(lives(&app, &old));
    app.turn_clock(Duration::from_secs(6)).await;
    app.tick().await;
    assert!(!lives(&app, &old));
}

#[tokio::test]
async fn a_further_reader_has_the_token_for_five_minutes_too_but_not_for_ever() {
    let app = rotating().await;
    let (connection, _) = app.active_item("ada").await;
    let old = revealed(&app, &connection).await;
    for _ in 0..4 {
        app.turn_clock(Duration::from_secs(240)).await;
        app.tick().await;
        if !lives(&app, &old) {
            break;
        }
        assert_eq!(revealed(&app, &connection).await, old);
    }
    assert!(!lives(&app, &old), "sixteen minutes after the first reveal");
    assert_eq!(app.sandbox.calls_to(INVALIDATE), 1);
}

#[tokio::test]
async fn a_reader_may_say_again_that_they_are_done() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    assert_eq!(release(&app, &connection).await.status, 202);
    app.tick().await;
    let again = release(&app, &connection).await;
    assert_eq!((again.status, again.connection_status()), (202, "active"));
    app.tick().await;
    assert_eq!(app.sandbox.calls_to(INVALIDATE), 1);
    let told = app.database.audit().await;
    assert_eq!(told.iter().filter(|event| *event == "token.released ok").count(), 1);
}

#[tokio::test]
async fn a_token_that_was_not_read_stays() {
    let app = rotating().await;
    let (connection, _) = app.active_item("ada").await;
    assert_eq!(release(&app, &connection).await.status, 202);
    app.turn_clock(Duration::from_secs(3600)).await;
    app.tick().await;
    assert_eq!(app.sandbox.calls_to(INVALIDATE), 0);
}

#[tokio::test]
async fn where_tokens_are_not_rotated_a_reader_is_told_so() {
    for app in [TestApp::by_hand().await, TestApp::builder().at_plaid().by_hand().spawn().await] {
        let result = if app.environment.get("PLAID_SECRET").is_some() {
            app.linked().0
        } else {
            app.connect()
        };
        let connection = app.active_from("ada", &result).await;
        revealed(&app, &connection).await;
        assert_eq!(release(&app, &connection).await.problem(), (400, "invalid_request"));
        app.turn_clock(Duration::from_secs(3600)).await;
        app.tick().await;
        assert_eq!(app.sandbox.calls_to(INVALIDATE), 0);
    }
}

#[tokio::test]
async fn what_is_not_active_has_no_token_to_be_done_with() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    app.api.delink(&app.token().await, id(&connection)).await;
    assert_eq!(release(&app, &connection).await.problem(), (409, "connection_not_active"));
    app.tick().await;
    // Alone: beside the other parts of a round it skips a connection that one of them has locked.
    begin(&app).await.unwrap();
    assert_eq!(release(&app, &connection).await.problem(), (409, "connection_not_active"));
    assert_eq!(app.sandbox.calls_to(INVALIDATE), 0);
    assert_eq!(app.database.value("SELECT count(*) FROM token_rotations").await, "0");
}

#[tokio::test]
async fn no_call_and_no_reading_begins_while_a_token_is_replaced() {
    let app = rotating().await;
    let (connection, old) = released(&app).await;
    app.sandbox.set_fault(held_up()).unwrap();
    let rotating = begin(&app);
    app.sandbox.calls_reached(INVALIDATE, 1).await;
    let (asked, token) = (app.sandbox.calls_to(ACCOUNTS), app.token().await);
    app.database.execute("UPDATE connections SET details_due_at = strongroom_now()").await;
    reconcile::part(&app.context, Part::Details).await.finish().await;
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), asked);
    assert_eq!(app.api.reveal(&token, id(&connection)).await.problem(), (503, "unavailable"));

    app.sandbox.clear_faults();
    rotating.await.unwrap();
    let seen = now(&app, &connection).await;
    assert_eq!(seen["status"], "active", "{seen}");
    app.turn_clock(Duration::from_secs(3600)).await;
    reconcile::part(&app.context, Part::Details).await.finish().await;
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), asked + 1);
    assert_ne!(revealed(&app, &connection).await, old);
}

#[tokio::test]
async fn a_rotation_waits_for_calls_that_use_the_token_and_keeps_others_from_beginning() {
    let app = rotating().await;
    let (_, old) = released(&app).await;
    app.sandbox.set_fault(Fault::new(Effect::Hang).on(ACCOUNTS)).unwrap();
    app.database.execute("UPDATE connections SET details_due_at = strongroom_now()").await;
    let asked = app.sandbox.calls_to(ACCOUNTS);
    let context = app.context.clone();
    let call = tokio::spawn(async move { drop(reconcile::part(&context, Part::Details).await) });
    app.sandbox.calls_reached(ACCOUNTS, asked + 1).await;
    begin(&app).await.unwrap();
    assert_eq!(app.sandbox.calls_to(INVALIDATE), 0);
    let waits = "SELECT rotation || ' ' || (rotation_until > strongroom_now()) FROM connections";
    assert_eq!(app.database.value(waits).await, "waiting true");

    app.sandbox.clear_faults();
    call.await.unwrap();
    app.turn_clock(Duration::from_secs(1)).await;
    begin(&app).await.unwrap();
    assert!(!lives(&app, &old));
}

#[tokio::test]
async fn a_relayed_call_waits_for_a_rotation_and_is_made_with_the_new_token() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    app.sandbox.set_fault(held_up()).unwrap();
    let rotating = begin(&app);
    app.sandbox.calls_reached(INVALIDATE, 1).await;
    let (api, token) = (app.api.clone(), app.token().await);
    let path = format!("/v1/connections/{}/plaid/auth/get", id(&connection));
    let call = tokio::spawn(async move { api.post(&token, &path, &json!({})).await });
    while app.database.value("SELECT count(*) FROM token_lease_queue").await == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(app.sandbox.calls_to("plaid/auth/get"), 0);
    app.sandbox.clear_faults();
    rotating.await.unwrap();
    let answer = call.await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(now(&app, &connection).await["status"], "active");
}

#[tokio::test]
async fn an_answer_that_was_lost_with_the_token_ends_the_connection_and_says_so() {
    let app = rotating().await;
    let (connection, old) = released(&app).await;
    app.sandbox.set_fault(lost(true)).unwrap();
    app.tick().await;
    assert!(!lives(&app, &old));
    assert_eq!(now(&app, &connection).await["status"], "active", "it is not known yet");
    assert_eq!(rotations(&app, "unanswered").await, 1.0);
    assert_eq!(
        app.api.reveal(&app.token().await, id(&connection)).await.problem(),
        (503, "unavailable")
    );

    app.turn_clock(PAST_THE_WAIT).await;
    app.tick().await;
    assert_eq!((app.sandbox.calls_to(PROBE), app.sandbox.calls_to(INVALIDATE)), (1, 1));
    let seen = now(&app, &connection).await;
    assert_eq!(seen["status"], "invalidated");
    assert_eq!(seen["revocation"]["confirmedAt"], Value::Null);
    let error = seen["revocation"]["lastError"].as_str().unwrap();
    assert!(error.contains("lives on at Plaid"), "{error}");
    let events = app.database.audit().await;
    assert!(events.contains(&"token.lost failed".to_owned()), "{events:?}");
    assert_eq!(rotations(&app, "lost").await, 1.0);
    assert_eq!(app.metric("strongroom_revocations_total{outcome=\"unconfirmed\"}").await, 1.0);
}

#[tokio::test]
async fn an_answer_that_was_lost_before_anything_happened_is_followed_by_another_call() {
    let app = rotating().await;
    let (connection, old) = released(&app).await;
    app.sandbox.set_fault(lost(false)).unwrap();
    app.tick().await;
    assert!(lives(&app, &old));
    app.turn_clock(PAST_THE_WAIT).await;
    app.tick().await;
    assert_eq!((app.sandbox.calls_to(PROBE), app.sandbox.calls_to(INVALIDATE)), (1, 2));
    assert!(!lives(&app, &old) && lives(&app, &revealed(&app, &connection).await));
    assert_eq!((rotations(&app, "recovered").await, rotations(&app, "rotated").await), (1.0, 1.0));
}

#[tokio::test]
async fn while_it_is_not_known_which_token_counts_a_refusal_proves_nothing() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    app.sandbox.set_fault(lost(true)).unwrap();
    app.tick().await;
    let asked = app.sandbox.calls_to(ACCOUNTS);
    app.database.execute("UPDATE connections SET details_due_at = strongroom_now()").await;
    reconcile::part(&app.context, Part::Details).await.finish().await;
    assert_eq!(app.sandbox.calls_to(ACCOUNTS), asked + 1, "Plaid does not know the token");
    assert_eq!(now(&app, &connection).await["status"], "active");
}

#[tokio::test]
async fn while_it_is_not_known_which_token_counts_no_revocation_is_confirmed_by_a_refusal() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    app.sandbox.set_fault(lost(true)).unwrap();
    app.tick().await;
    app.api.delink(&app.token().await, id(&connection)).await;
    app.tick().await;
    assert_eq!(app.sandbox.calls_to(REMOVE), 1);
    let seen = now(&app, &connection).await;
    assert_eq!(seen["status"], "revoking", "{seen}");
    let error = seen["revocation"]["lastError"].as_str().unwrap();
    assert!(error.contains("INVALID_ACCESS_TOKEN"), "{error}");
}

#[tokio::test]
async fn a_revocation_waits_for_the_new_token_and_removes_the_item_with_it() {
    let app = rotating().await;
    let (connection, old) = released(&app).await;
    app.sandbox.set_fault(held_up()).unwrap();
    let rotating = begin(&app);
    app.sandbox.calls_reached(INVALIDATE, 1).await;
    let token = app.token().await;
    let answer = app.api.delink(&token, id(&connection)).await;
    assert_eq!((answer.status, answer.connection_status()), (202, "revoking"));
    reconcile::part(&app.context, Part::Delinks).await.finish().await;
    assert_eq!(app.sandbox.calls_to(REMOVE), 0);

    app.sandbox.clear_faults();
    rotating.await.unwrap();
    assert!(!lives(&app, &old) && app.sandbox.plaid().live_tokens().len() == 1);
    app.turn_clock(Duration::from_secs(1)).await;
    app.tick().await;
    assert_eq!(now(&app, &connection).await["status"], "delinked");
    assert_eq!(app.sandbox.plaid().live_tokens().len(), 0);
    assert_eq!(app.database.value("SELECT count(*) FROM token_rotations").await, "0");
}

#[tokio::test]
async fn a_bulk_revocation_and_an_erasure_remove_the_item_with_the_new_token_too() {
    for erases in [false, true] {
        let app = rotating().await;
        let (connection, _) = released(&app).await;
        app.sandbox.set_fault(held_up()).unwrap();
        let rotating = begin(&app);
        app.sandbox.calls_reached(INVALIDATE, 1).await;
        let token = app.token().await;
        let answer = if erases {
            let request = app.api.request(Method::DELETE, "/v1/users/ada");
            app.api.send(request.bearer_auth(&token)).await
        } else {
            let all = json!({ "kind": "delink", "reason": "test", "filter": { "all": true } });
            app.api.post(&token, "/v1/admin/revocations", &all).await
        };
        assert_eq!(answer.status, 202, "{}", answer.text);
        app.tick().await;
        assert_eq!(app.sandbox.calls_to(REMOVE), 0);
        app.sandbox.clear_faults();
        rotating.await.unwrap();
        for _ in 0..5 {
            app.turn_clock(Duration::from_secs(6)).await;
            app.tick().await;
        }
        assert_eq!(app.sandbox.calls_to(REMOVE), 1);
        assert_eq!(app.sandbox.plaid().live_tokens().len(), 0);
        if !erases {
            assert_eq!(now(&app, &connection).await["status"], "delinked");
        }
    }
}

#[tokio::test]
async fn no_rotation_begins_once_a_bulk_revocation_is_in_force() {
    let app = rotating().await;
    released(&app).await;
    let token = app.token().await;
    let all = json!({ "kind": "delink", "reason": "test", "filter": { "all": true } });
    let answer = app.api.post(&token, "/v1/admin/revocations", &all).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    begin(&app).await.unwrap();
    app.tick().await;
    assert_eq!((app.sandbox.calls_to(INVALIDATE), app.sandbox.calls_to(REMOVE)), (0, 1));
}

#[tokio::test]
async fn a_call_that_plaid_did_not_process_is_made_again_and_changes_nothing_meanwhile() {
    let app = rotating().await;
    let (connection, old) = released(&app).await;
    app.sandbox.set_fault(Fault::plaid_rate_limit(None).on(INVALIDATE).times(1)).unwrap();
    app.tick().await;
    assert_eq!(rotations(&app, "postponed").await, 1.0);
    assert_eq!(revealed(&app, &connection).await, old);
    app.turn_clock(Duration::from_secs(301)).await;
    app.tick().await;
    assert_eq!((app.sandbox.calls_to(PROBE), lives(&app, &old)), (0, false));
}

#[tokio::test]
async fn a_token_that_is_dead_already_ends_its_connection() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    let token = app.sandbox.plaid().live_tokens()[0].token_id;
    app.sandbox.plaid().kill_token(token, "INVALID_ACCESS_TOKEN").unwrap();
    app.tick().await;
    let seen = now(&app, &connection).await;
    assert_eq!(seen["status"], "invalidated");
    assert!(seen["revocation"]["confirmedAt"].is_string(), "{seen}");
    assert_eq!(rotations(&app, "dead").await, 1.0);
}

#[tokio::test]
async fn a_token_stays_dead_in_no_ones_hands_after_many_rotations() {
    let app = rotating().await;
    let (connection, _) = app.active_item("ada").await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(revealed(&app, &connection).await);
        release(&app, &connection).await;
        app.tick().await;
    }
    assert!(seen.iter().all(|token| !lives(&app, token)));
    assert_eq!(app.sandbox.plaid().live_tokens().len(), 1);
    app.api.delink(&app.token().await, id(&connection)).await;
    app.tick().await;
    assert_eq!(now(&app, &connection).await["status"], "delinked");
}
