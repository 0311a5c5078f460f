//! Several connections of one bank login: who gives way to whom.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom_dev::sandbox::{ConnectOptions, Fault};

use crate::for_each_bank;
use crate::support::{Bank, TestApp, id};

for_each_bank! {
    linking_the_same_login_again_supersedes_the_older_connection_without_delinking_it,
    a_user_may_hold_several_logins,
    an_older_result_whose_token_comes_after_a_newer_one_gives_way,
    a_login_whose_connection_ended_is_free_for_another_user,
    of_two_users_who_link_one_login_at_once_the_loser_is_rejected_and_its_token_dropped,
    a_token_that_comes_while_the_older_link_is_being_delinked_is_held_and_then_used,
    a_delinking_that_was_claimed_is_not_sent_once_another_link_of_the_login_is_active,
}

fn held_up(app: &TestApp, result: &Value) -> Fault {
    app.exchange_is_slow().of_connection(&app.login_of(result))
}

async fn linking_the_same_login_again_supersedes_the_older_connection_without_delinking_it(
    bank: Bank,
) {
    let app = bank.spawn().await;
    let result = app.connect();
    let older = app.active_from("ada", &result).await;
    let newer = app.active_from("ada", &app.connect_again(&result)).await;
    let older = app.api.connection(&app.token().await, id(&older)).await;
    assert_eq!(older["status"], "invalidated");
    assert_eq!(older["replacedBy"], newer["id"]);
    assert!(older["revocation"].is_null());
    assert_eq!(app.revocations(), 0, "it could have cut the new link");
    let held = "SELECT access_token IS NULL AND user_secret IS NULL FROM connections WHERE status = 'invalidated'";
    assert_eq!(app.database.value(held).await, "true");
}

async fn a_user_may_hold_several_logins(bank: Bank) {
    let app = bank.spawn().await;
    app.active("ada").await;
    app.active("ada").await;
    let active = "SELECT count(*) FROM connections WHERE status = 'active'";
    assert_eq!(app.database.value(active).await, "2");
}

async fn an_older_result_whose_token_comes_after_a_newer_one_gives_way(bank: Bank) {
    let app = bank.by_hand().await;
    let result = app.connect();
    app.sandbox.set_fault(held_up(&app, &result).times(1)).unwrap();
    let older = app.hand_in("ada", &result).await.json;
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    let newer = app.active_from("ada", &app.connect_again(&result)).await;
    app.sandbox.clear_faults();
    let older = app.settled(id(&older)).await;
    assert_eq!((&older["status"], &older["replacedBy"]), (&json!("invalidated"), &newer["id"]));
    let newer = app.api.connection(&app.token().await, id(&newer)).await;
    assert_eq!(newer["status"], "active");
    assert_eq!(app.revocations(), 0);
}

#[tokio::test]
async fn a_login_of_another_user_is_refused() {
    let app = TestApp::spawn().await;
    let result = app.connect();
    app.active_from("ada", &result).await;
    let answer = app.hand_in("bob", &app.connect_again(&result)).await;
    assert_eq!(answer.problem(), (409, "connection_of_another_user"));
    assert!(!answer.text.contains("ada"));
    assert_eq!(app.exchanges(), 1);
}

#[tokio::test]
async fn a_login_of_another_user_is_refused_while_it_is_being_revoked() {
    let app = TestApp::by_hand().await;
    let result = app.connect();
    let connection = app.active_from("ada", &result).await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    app.api.delink(&app.token().await, id(&connection)).await;
    let answer = app.hand_in("bob", &app.connect_again(&result)).await;
    assert_eq!(answer.problem(), (409, "connection_of_another_user"));
}

async fn a_login_whose_connection_ended_is_free_for_another_user(bank: Bank) {
    let app = bank.spawn().await;
    let result = app.connect();
    let connection = app.active_from("ada", &result).await;
    // Not told to the bank link, which at Plaid would end the login itself.
    let body = json!({ "reason": "x", "revokeUpstream": false });
    let ended = app.api.invalidate(&app.token().await, id(&connection), &body).await;
    assert_eq!(ended.connection_status(), "invalidated");
    app.active_from("bob", &app.connect_again(&result)).await;
}

async fn of_two_users_who_link_one_login_at_once_the_loser_is_rejected_and_its_token_dropped(
    bank: Bank,
) {
    let app = bank.by_hand().await;
    let result = app.connect();
    app.sandbox.set_fault(held_up(&app, &result).times(1)).unwrap();
    let loser = app.hand_in("bob", &result).await.json;
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    app.active_from("ada", &app.connect_again(&result)).await;
    app.sandbox.clear_faults();
    let loser = app.settled(id(&loser)).await;
    assert_eq!(
        (&loser["status"], &loser["failure"]["type"]),
        (&json!("rejected"), &json!("connection_of_another_user"))
    );
    let again = app.hand_in("bob", &result).await;
    assert_eq!(again.problem(), (409, "connection_of_another_user"));
    assert!(app.metric("strongroom_tokens_dropped_total").await >= 1.0);
}

#[tokio::test]
async fn a_new_link_waits_until_the_older_ones_delinking_is_through() {
    let app = TestApp::by_hand().await;
    let result = app.connect();
    let older = app.active_from("ada", &result).await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    app.api.delink(&app.token().await, id(&older)).await;
    app.tick().await;
    let newer = app.hand_in("ada", &app.connect_again(&result)).await;
    assert_eq!((newer.status, newer.connection_status()), (202, "pending"));
    for _ in 0..3 {
        app.turn_clock(Duration::from_secs(10)).await;
        app.tick().await;
    }
    assert_eq!(app.exchanges(), 1, "the new code has to wait");
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(60)).await;
    app.tick().await;
    app.tick().await;
    let token = app.token().await;
    assert_eq!(app.api.connection(&token, id(&older)).await["status"], "delinked");
    assert_eq!(app.api.connection(&token, id(&newer.json)).await["status"], "active");
}

async fn a_token_that_comes_while_the_older_link_is_being_delinked_is_held_and_then_used(
    bank: Bank,
) {
    let app = bank.by_hand().await;
    let result = app.connect();
    let older = app.active_from("ada", &result).await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    app.sandbox.set_fault(held_up(&app, &result).times(1)).unwrap();
    let newer = app.hand_in("ada", &app.connect_again(&result)).await.json;
    app.sandbox.calls_reached(bank.exchange(), 2).await;
    let token = app.token().await;
    app.api.delink(&token, id(&older)).await;
    app.sandbox.clear_faults();
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    let held = app.settled(id(&newer)).await;
    assert_eq!(held["status"], "pending");
    let kept = "SELECT access_token IS NOT NULL AND code IS NULL FROM connections WHERE status = 'pending'";
    assert_eq!(app.database.value(kept).await, "true");
    assert_eq!(app.api.reveal(&token, id(&newer)).await.problem(), (409, "connection_not_active"));
    app.turn_clock(Duration::from_secs(7200)).await;
    let token = app.token().await;
    app.tick().await;
    assert_eq!(
        app.api.connection(&token, id(&newer)).await["status"],
        "pending",
        "no window ends a token"
    );
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(3600)).await;
    app.tick().await;
    app.tick().await;
    let token = app.token().await;
    assert_eq!(app.api.connection(&token, id(&older)).await["status"], "delinked");
    let ends = match bank {
        Bank::Dapi => "active",
        // With the item every token of it is gone, and Plaid says so when its accounts are asked for.
        Bank::Plaid => {
            app.tick().await;
            "invalidated"
        }
    };
    assert_eq!(app.api.connection(&token, id(&newer)).await["status"], ends);
}

#[tokio::test]
async fn two_apps_may_link_the_same_login() {
    let app = TestApp::spawn().await;
    let result = app.connect();
    app.active_from("ada", &result).await;
    let token = app.token_of_another_app().await;
    // The sandbox knows the other app's secret as little as Dapi would: it refuses, but Strongroom
    // does not take the login for somebody else's.
    let answer = app.api.hand_in(&token, "ada", &app.connect_again(&result)).await;
    assert_eq!(answer.problem(), (422, "code_rejected"));
}

#[tokio::test]
async fn a_code_belongs_to_its_app() {
    let app = TestApp::spawn().await;
    let result = app.connect_with(&ConnectOptions::default());
    app.active_from("ada", &result).await;
    let token = app.token_of_another_app().await;
    let answer = app.api.hand_in(&token, "bob", &result).await;
    assert_eq!(answer.problem(), (422, "code_rejected"), "not code_already_received");
}

async fn a_delinking_that_was_claimed_is_not_sent_once_another_link_of_the_login_is_active(
    bank: Bank,
) {
    let app = bank.by_hand().await;
    let result = app.connect();
    let old = app.active_from("ada", &result).await;
    app.api.delink(&app.token().await, id(&old)).await;
    // Another link becomes active between the claim and the call, as an activation does whose statement
    // began before the revocation was committed.
    app.database
        .execute(
            "CREATE FUNCTION activate_another() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                INSERT INTO users (id, app_id, client_user_id)
                SELECT gen_random_uuid(), app_id, 'eve' FROM users LIMIT 1;
                INSERT INTO connections (id, app_id, user_id, status, login_id, access_token,
                                         user_secret, activated_at, provider)
                SELECT gen_random_uuid(), c.app_id, u.id, 'active', c.login_id, '\\x00', '\\x00', now(),
                       c.provider
                FROM connections c, users u WHERE c.id = NEW.connection_id AND u.client_user_id = 'eve';
                RETURN NULL;
             END $$;
             CREATE TRIGGER activate_another AFTER INSERT ON token_leases
                FOR EACH ROW EXECUTE FUNCTION activate_another()",
        )
        .await;
    app.tick().await;
    assert_eq!(app.revocations(), 0);
    let ended = app.api.connection(&app.token().await, id(&old)).await;
    assert_eq!(ended["status"], "invalidated");
    assert_eq!(ended["revocation"]["confirmedAt"], Value::Null);
}
