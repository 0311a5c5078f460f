//! Tokens that exist once, in the memory of a replica, while their app moves: a fence waits for them, and lets them in.

use std::time::Duration;

use serde_json::Value;
use strongroom::moves::MoveError;
use strongroom::moves::keys::ImportKey;
use strongroom_dev::sandbox::{Effect, Fault};
use tokio::task::JoinHandle;

use crate::moves::Move;
use crate::rotation::{INVALIDATE, PROBE, begin, held_up, released, revealed, rotates};
use crate::support::{Bank, TestApp, id, until};

const FENCED: &str = "SELECT count(*) FROM app_fences";
/// Connections for which a token may be in the memory of a replica that lost its work.
const AWAITED: &str = "SELECT count(*) FROM connections WHERE answer_until > strongroom_now()";
/// Longer than a lease on an exchange lives.
const PAST_THE_LEASE: Duration = Duration::from_secs(131);

/// An app at Plaid that rotates after a reveal, and a deployment for it to move to.
async fn at_plaid() -> Move {
    let source = Bank::Plaid.by_hand().await;
    rotates(&source).await;
    Box::pin(Move::of(source)).await
}

/// An export that does not wait says that replicas lost work whose answer may still come.
async fn assert_replicas_lost_work(it: &Move, key: &ImportKey) {
    let busy = it.export_within(key, Duration::ZERO).await;
    assert!(
        matches!(&busy, Err(error @ MoveError::Busy(_)) if error.to_string().contains("lost their work")),
        "{busy:?}"
    );
}

async fn is_fenced(app: &TestApp) {
    until("the app is fenced", async || app.database.value(FENCED).await == "1").await;
}

#[tokio::test]
async fn a_rotation_that_is_in_flight_at_the_fence_ends_under_it_and_its_token_arrives() {
    let it = at_plaid().await;
    let (connection, old) = released(&it.source).await;
    it.source.sandbox.set_fault(held_up()).unwrap();
    let rotation = begin(&it.source);
    it.source.sandbox.calls_reached(INVALIDATE, 1).await;
    let key = it.receive().await;
    let answering = async {
        is_fenced(&it.source).await;
        it.source.sandbox.clear_faults();
        rotation.await.unwrap();
    };
    let (exported, ()) = tokio::join!(it.export_within(&key, Duration::from_secs(60)), answering);
    exported.unwrap();
    it.import().await;
    let answer = it.reveal_at(&it.target, &connection).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let new = answer.json["accessToken"].as_str().unwrap();
    assert!(new != old && it.source.sandbox.plaid().lives(new), "the token that Plaid gave");
    assert!(!it.source.sandbox.plaid().lives(&old));
}

#[tokio::test]
async fn a_rotation_that_is_due_at_the_fence_is_made_by_the_target() {
    let it = at_plaid().await;
    let (connection, old) = released(&it.source).await;
    it.export().await;
    it.source.turn_clock(Duration::from_hours(1)).await;
    it.source.tick().await;
    assert_eq!(it.source.sandbox.calls_to(INVALIDATE), 0);
    it.import().await;
    it.target.turn_clock(Duration::from_hours(1)).await;
    it.target.tick().await;
    assert_eq!(it.source.sandbox.calls_to(INVALIDATE), 1);
    let answer = it.reveal_at(&it.target, &connection).await;
    let new = answer.json["accessToken"].as_str().unwrap();
    assert!(new != old && it.source.sandbox.plaid().lives(new), "{}", answer.text);
}

/// Whatever keeps the row as it is: the answer is not taken for stored.
#[tokio::test]
async fn a_new_token_that_the_database_does_not_take_is_tried_again_and_not_dropped() {
    let app = Bank::Plaid.by_hand().await;
    rotates(&app).await;
    let (connection, old) = released(&app).await;
    app.database
        .execute(
            "CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER stays BEFORE UPDATE OF access_token ON connections FOR EACH ROW
             WHEN (NEW.access_token IS DISTINCT FROM OLD.access_token) EXECUTE FUNCTION stays()",
        )
        .await;
    let rotation = begin(&app);
    app.sandbox.calls_reached(INVALIDATE, 1).await;
    let waits = async || app.metric("strongroom_exchange_answers_waiting").await > 0.0;
    until("the answer waits", waits).await;
    app.database.execute("DROP TRIGGER stays ON connections").await;
    rotation.await.unwrap();
    let new = revealed(&app, &connection).await;
    assert!(new != old && app.sandbox.plaid().lives(&new));
}

/// A code whose first attempt is held up by the bank, whose lease has run out, and whose second attempt was refused: nobody works
/// on it, and the answer is yet to come.
async fn taken_over(it: &Move, result: &Value) -> Value {
    let held_up = Fault::new(Effect::Answer).on(it.source.bank.exchange()).after();
    it.source.sandbox.set_fault(held_up.delayed(Duration::from_mins(10)).times(1)).unwrap();
    let token = it.token_at(&it.source).await;
    let pending = it.source.api.hand_in(&token, "ada", result).await.json;
    it.source.sandbox.calls_reached(it.source.bank.exchange(), 1).await;
    it.source.turn_clock(PAST_THE_LEASE).await;
    assert_eq!(it.source.tick().await.exchanges, 1);
    let token = it.token_at(&it.source).await;
    assert_eq!(it.source.api.connection(&token, id(&pending)).await["status"], "orphaned");
    pending
}

#[tokio::test]
async fn an_export_waits_for_the_answer_of_a_replica_whose_work_was_taken_over() {
    let it = Move::new().await;
    let pending = taken_over(&it, &it.source.connect()).await;
    let key = it.receive().await;
    assert_replicas_lost_work(&it, &key).await;
    // It comes while the next export waits, and is kept.
    let answering = async {
        is_fenced(&it.source).await;
        it.source.sandbox.clear_faults();
    };
    let (exported, ()) = tokio::join!(it.export_within(&key, Duration::from_secs(60)), answering);
    exported.unwrap();
    it.import().await;
    assert_eq!(it.reveal_at(&it.target, &pending).await.status, 200);
}

#[tokio::test]
async fn an_export_waits_no_longer_than_such_an_answer_may_be_kept() {
    let it = Move::new().await;
    taken_over(&it, &it.source.connect()).await;
    let key = it.receive().await;
    let waiting = async {
        is_fenced(&it.source).await;
        it.source.database.turn_clock(Duration::from_mins(17)).await;
    };
    let (exported, ()) = tokio::join!(it.export_within(&key, Duration::from_secs(60)), waiting);
    exported.unwrap();
}

#[tokio::test]
async fn a_late_token_that_no_connection_takes_is_not_awaited_any_more() {
    let it = Move::new().await;
    let result = it.source.connect();
    taken_over(&it, &result).await;
    it.active_from("ada", &it.source.connect_again(&result)).await;
    assert_eq!(it.source.database.value(AWAITED).await, "1");
    it.source.sandbox.clear_faults();
    until("it came", async || it.source.database.value(AWAITED).await == "0").await;
    assert_eq!(it.source.metric("strongroom_tokens_dropped_total").await, 1.0);
    it.export_within(&it.receive().await, Duration::ZERO).await.unwrap();
}

/// A rotation whose answer is held up by Plaid, and which another replica has taken over and put off.
async fn rotation_taken_over(it: &Move) -> JoinHandle<()> {
    it.source.sandbox.set_fault(held_up().times(1)).unwrap();
    let rotation = begin(&it.source);
    it.source.sandbox.calls_reached(INVALIDATE, 1).await;
    it.source.turn_clock(PAST_THE_LEASE).await;
    for endpoint in [PROBE, INVALIDATE] {
        it.source.sandbox.set_fault(Fault::status(503).on(endpoint)).unwrap();
    }
    begin(&it.source).await.unwrap();
    let free = "SELECT count(*) FROM connections WHERE rotation_until > strongroom_now()";
    assert_eq!(it.source.database.value(free).await, "0", "nobody works on it");
    assert_eq!(it.source.database.value(AWAITED).await, "1");
    rotation
}

#[tokio::test]
async fn a_late_token_that_goes_to_the_superseded_ones_is_not_awaited_any_more() {
    let it = at_plaid().await;
    released(&it.source).await;
    let rotation = rotation_taken_over(&it).await;
    it.source
        .database
        .execute(
            "INSERT INTO superseded_tokens (connection_id, app_id, replaced_by, access_token, binding, ends_at)
             SELECT c.id, c.app_id, gen_random_uuid(), c.access_token, b.binding, now() + interval '1 hour'
             FROM connections c JOIN token_bindings b ON b.connection_id = c.id;
             UPDATE connections SET status = 'invalidated', access_token = NULL",
        )
        .await;
    it.source.sandbox.clear_faults();
    rotation.await.unwrap();
    assert_eq!(it.source.database.value(AWAITED).await, "0");
    it.export_within(&it.receive().await, Duration::ZERO).await.unwrap();
}

/// The replica whose work was taken over has the only copy of the new token.
#[tokio::test]
async fn an_export_waits_for_the_token_of_a_rotation_that_was_taken_over() {
    let it = at_plaid().await;
    let (connection, old) = released(&it.source).await;
    let rotation = rotation_taken_over(&it).await;
    let key = it.receive().await;
    assert_replicas_lost_work(&it, &key).await;
    let answering = async {
        is_fenced(&it.source).await;
        it.source.sandbox.clear_faults();
        rotation.await.unwrap();
    };
    let (exported, ()) = tokio::join!(it.export_within(&key, Duration::from_secs(60)), answering);
    exported.unwrap();
    it.import().await;
    let answer = it.reveal_at(&it.target, &connection).await;
    let new = answer.json["accessToken"].as_str().unwrap();
    assert!(new != old && it.source.sandbox.plaid().lives(new), "{}", answer.text);
}
