//! Tokens that come late, under an old lease: each is still an answer, and none makes a second token
//! or delinks a live login.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault, RulesChange, SecondExchange};

use crate::for_each_bank;
use crate::support::{Bank, TestApp, id};

for_each_bank! {
    a_dead_lease_is_taken_over_and_a_refusal_then_makes_an_orphan,
    an_orphan_whose_token_comes_after_all_becomes_active,
    an_orphan_stays_one_where_the_user_has_connected_again,
    of_two_tokens_for_one_code_the_first_to_come_stays,
    a_pending_connection_takes_a_late_token_though_another_attempt_is_under_way,
    a_late_token_of_a_revoked_connection_is_delinked,
    a_late_token_for_what_has_ended_is_dropped_and_counted,
    a_revoked_codes_token_never_costs_a_live_login_its_link,
}

/// Longer than a lease on an exchange lives.
const PAST_THE_LEASE: Duration = Duration::from_secs(131);

/// A connection whose first attempt consumed the code and whose answer is held up until the sandbox's
/// faults are cleared. Its lease has run out.
async fn sleeping_attempt(app: &TestApp, result: &Value) -> Value {
    let held_up = Fault::new(Effect::Answer)
        .on(app.bank.exchange())
        .after()
        .delayed(Duration::from_secs(600));
    app.sandbox.set_fault(held_up.times(1)).unwrap();
    let pending = app.hand_in("ada", result).await.json;
    app.sandbox.calls_reached(app.bank.exchange(), 1).await;
    app.turn_clock(PAST_THE_LEASE).await;
    pending
}

async fn status(app: &TestApp, connection: &Value) -> String {
    let connection = app.api.connection(&app.token().await, id(connection)).await;
    connection["status"].as_str().unwrap().to_owned()
}

/// Lets the sleeping attempt's answer through and waits until it is dealt with.
async fn answer_comes(app: &TestApp) {
    let counted = app.metric("strongroom_exchange_duration_seconds_count").await;
    app.sandbox.clear_faults();
    while app.metric("strongroom_exchange_duration_seconds_count").await <= counted {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn a_dead_lease_is_taken_over_and_a_refusal_then_makes_an_orphan(bank: Bank) {
    let app = bank.by_hand().await;
    let pending = sleeping_attempt(&app, &app.connect()).await;
    assert_eq!(app.tick().await.exchanges, 1);
    assert_eq!(status(&app, &pending).await, "orphaned");
}

async fn an_orphan_whose_token_comes_after_all_becomes_active(bank: Bank) {
    let app = bank.by_hand().await;
    let pending = sleeping_attempt(&app, &app.connect()).await;
    app.tick().await;
    answer_comes(&app).await;
    assert_eq!(status(&app, &pending).await, "active");
    let revealed = app.api.reveal(&app.token().await, id(&pending)).await;
    assert_eq!(
        revealed.status, 200,
        "the user secret, if there is one, is back as well: {}",
        revealed.text
    );
}

async fn an_orphan_stays_one_where_the_user_has_connected_again(bank: Bank) {
    let app = bank.by_hand().await;
    let result = app.connect();
    let pending = sleeping_attempt(&app, &result).await;
    app.tick().await;
    let newer = app.active_from("ada", &app.connect_again(&result)).await;
    answer_comes(&app).await;
    assert_eq!(status(&app, &pending).await, "orphaned");
    assert_eq!(status(&app, &newer).await, "active");
    assert_eq!(app.metric("strongroom_tokens_dropped_total").await, 1.0);
    assert_eq!(app.revocations(), 0);
}

async fn of_two_tokens_for_one_code_the_first_to_come_stays(bank: Bank) {
    let app = bank.by_hand().await;
    let rules = RulesChange {
        second_exchange: Some(SecondExchange::MintAnother),
        ..RulesChange::default()
    };
    app.sandbox.change_rules(rules);
    let pending = sleeping_attempt(&app, &app.connect()).await;
    app.tick().await;
    let token = app.token().await;
    let first = app.api.reveal(&token, id(&pending)).await.json["accessToken"].clone();
    answer_comes(&app).await;
    assert_eq!(app.api.reveal(&token, id(&pending)).await.json["accessToken"], first);
    assert_eq!(app.metric("strongroom_tokens_dropped_total").await, 1.0);
}

async fn a_pending_connection_takes_a_late_token_though_another_attempt_is_under_way(bank: Bank) {
    let app = bank.by_hand().await;
    let pending = sleeping_attempt(&app, &app.connect()).await;
    // The second attempt is refused, but its refusal comes later than the first one's token.
    app.sandbox.set_fault(Fault::status(503).on(bank.exchange()).times(1)).unwrap();
    app.tick().await;
    assert_eq!(status(&app, &pending).await, "pending");
    answer_comes(&app).await;
    assert_eq!(status(&app, &pending).await, "active");
    app.turn_clock(Duration::from_secs(60)).await;
    assert_eq!(app.tick().await.exchanges, 0);
}

async fn a_late_token_of_a_revoked_connection_is_delinked(bank: Bank) {
    let app = bank.by_hand().await;
    let pending = sleeping_attempt(&app, &app.connect()).await;
    app.api.delink(&app.token().await, id(&pending)).await;
    answer_comes(&app).await;
    assert_eq!(app.tick().await.delinks, 1);
    assert_eq!(status(&app, &pending).await, "delinked");
}

async fn a_late_token_for_what_has_ended_is_dropped_and_counted(bank: Bank) {
    let app = bank.by_hand().await;
    let pending = sleeping_attempt(&app, &app.connect()).await;
    let body = json!({ "reason": "x", "revokeUpstream": false });
    app.api.invalidate(&app.token().await, id(&pending), &body).await;
    answer_comes(&app).await;
    assert_eq!(status(&app, &pending).await, "invalidated");
    assert_eq!(app.metric("strongroom_tokens_dropped_total").await, 1.0);
}

async fn a_revoked_codes_token_never_costs_a_live_login_its_link(bank: Bank) {
    let app = bank.by_hand().await;
    let result = app.connect();
    let live = app.active_from("ada", &result).await;
    let held_up =
        Fault::new(Effect::Answer).on(bank.exchange()).after().delayed(Duration::from_secs(600));
    app.sandbox.set_fault(held_up.times(1)).unwrap();
    let revoked = app.hand_in("ada", &app.connect_again(&result)).await.json;
    app.sandbox.calls_reached(bank.exchange(), 2).await;
    app.api.delink(&app.token().await, id(&revoked)).await;
    answer_comes(&app).await;
    app.tick().await;
    assert_eq!(status(&app, &live).await, "active");
    let ended = app.api.connection(&app.token().await, id(&revoked)).await;
    assert_eq!((&ended["status"], &ended["replacedBy"]), (&json!("invalidated"), &live["id"]));
    assert_eq!(app.revocations(), 0);
}
