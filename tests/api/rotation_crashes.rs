//! The crash table of a rotation: the real binary is killed around the call that replaces a token.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use strongroom_dev::sandbox::{Effect, Fault};

use crate::support::{Process, Stage, TestApp, id};

const INVALIDATE: &str = "plaid/item/access_token/invalidate";
const PROBE: &str = "plaid/item/get";
const PAST_THE_LEASE: Duration = Duration::from_secs(131);

/// A stage for the real binary, whose clock is the system's; only the database's can be turned.
async fn stage() -> Stage {
    TestApp::builder().at_plaid().set("STRONGROOM_ANSWER_WITHIN", "5").stage().await
}

async fn until<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, look: impl AsyncFn() -> T) {
    let mut last = None;
    for _ in 0..3000 {
        let seen = look().await;
        if seen == expected {
            return;
        }
        last = Some(seen);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: {last:?}, not {expected:?}");
}

async fn status(stage: &Stage) -> String {
    stage.database.value("SELECT status FROM connections").await
}

async fn rotation(stage: &Stage) -> String {
    stage.database.value("SELECT coalesce(rotation, 'none') FROM connections").await
}

/// A connection whose token was revealed, by a process that halts at `point` of the rotation that follows.
async fn halted_at(stage: &Stage, point: &str) -> (Process, Value, String) {
    let process = Process::serve(stage, &[("FAILPOINTS", &format!("{point}=pause"))]).await;
    stage.database.execute("UPDATE apps SET rotate_after_reveal = true").await;
    let token = process.token().await;
    let answer = process.api.hand_in(&token, "ada", &stage.linked().0).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let asked = "SELECT count(*) FROM connections WHERE details_due_at IS NOT NULL";
    until("details", "0".to_owned(), async || stage.database.value(asked).await).await;
    let revealed = process.api.reveal(&token, id(&answer.json)).await;
    let old = revealed.json["accessToken"].as_str().unwrap().to_owned();
    let path = format!("/v1/connections/{}/token", id(&answer.json));
    let released = process.api.request(Method::DELETE, &path).bearer_auth(&token);
    assert_eq!(process.api.send(released).await.status, 202);
    (process, answer.json, old)
}

/// Kills the process once `halted` holds.
async fn kill(process: Process, halted: impl AsyncFn() -> bool) {
    until("halted", true, halted).await;
    // The halt itself cannot be seen from outside; what comes before it can.
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.kill();
}

async fn reveals(process: &Process, connection: &Value) -> String {
    let revealed = process.api.reveal(&process.token().await, id(connection)).await;
    assert_eq!(revealed.status, 200, "{}", revealed.text);
    revealed.json["accessToken"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn killed_with_the_lease_taken_and_nothing_sent_the_token_is_replaced_afterwards() {
    let stage = stage().await;
    let (process, connection, old) = halted_at(&stage, "rotation::leased").await;
    kill(process, async || rotation(&stage).await == "sent").await;
    assert_eq!(stage.sandbox.calls_to(INVALIDATE), 0);

    let process = Process::serve(&stage, &[]).await;
    let token = process.token().await;
    let refused = process.api.reveal(&token, id(&connection)).await;
    assert_eq!(refused.problem(), (503, "unavailable"), "the lease is alive");
    stage.database.turn_clock(PAST_THE_LEASE).await;
    let replaced = async || !stage.sandbox.plaid().lives(&old) && rotation(&stage).await == "none";
    until("replaced", true, replaced).await;
    assert_eq!((stage.sandbox.calls_to(PROBE), stage.sandbox.calls_to(INVALIDATE)), (1, 1));
    assert!(stage.sandbox.plaid().lives(&reveals(&process, &connection).await));
}

#[tokio::test]
async fn killed_with_the_new_token_in_memory_it_is_lost_and_the_connection_ends() {
    for point in ["rotation::answered", "rotation::before_commit"] {
        let stage = stage().await;
        let (process, connection, old) = halted_at(&stage, point).await;
        kill(process, async || !stage.sandbox.plaid().lives(&old)).await;
        assert_eq!(
            (status(&stage).await, rotation(&stage).await),
            ("active".into(), "sent".into())
        );

        let process = Process::serve(&stage, &[]).await;
        stage.database.turn_clock(PAST_THE_LEASE).await;
        until(point, "invalidated".to_owned(), async || status(&stage).await).await;
        let seen = process.api.connection(&process.token().await, id(&connection)).await;
        assert_eq!(seen["revocation"]["confirmedAt"], Value::Null, "{seen}");
        let lost = "SELECT count(*) FROM audit_events WHERE action = 'token.lost'";
        assert_eq!(stage.database.value(lost).await, "1");
    }
}

#[tokio::test]
async fn killed_after_the_new_token_committed_it_is_the_connections() {
    let stage = stage().await;
    let (process, connection, old) = halted_at(&stage, "rotation::concluded").await;
    kill(process, async || !stage.sandbox.plaid().lives(&old) && rotation(&stage).await == "none")
        .await;
    let process = Process::serve(&stage, &[]).await;
    assert!(stage.sandbox.plaid().lives(&reveals(&process, &connection).await));
    assert_eq!(stage.sandbox.calls_to(INVALIDATE), 1);
}

#[tokio::test]
async fn killed_before_a_loss_commits_it_is_found_again() {
    let stage = stage().await;
    stage.sandbox.set_fault(Fault::new(Effect::Drop).on(INVALIDATE).after().times(1)).unwrap();
    let (process, ..) = halted_at(&stage, "rotation::before_loss").await;
    until("in doubt", "unanswered".to_owned(), async || rotation(&stage).await).await;
    stage.database.turn_clock(Duration::from_secs(10)).await;
    kill(process, async || stage.sandbox.calls_to(PROBE) == 1).await;
    assert_eq!(status(&stage).await, "active");
    let _process = Process::serve(&stage, &[]).await;
    stage.database.turn_clock(PAST_THE_LEASE).await;
    until("status", "invalidated".to_owned(), async || status(&stage).await).await;
    assert_eq!(stage.sandbox.calls_to(PROBE), 2);
}

#[tokio::test]
async fn a_worker_that_slept_past_its_lease_brings_the_token_that_a_revocation_needs() {
    let stage = stage().await;
    let held_up = Fault::new(Effect::Answer).on(INVALIDATE).after();
    stage.sandbox.set_fault(held_up.delayed(Duration::from_secs(300)).times(1)).unwrap();
    let (sleeper, connection, old) = halted_at(&stage, "nowhere").await;
    stage.sandbox.calls_reached(INVALIDATE, 1).await;
    until("replaced", false, async || stage.sandbox.plaid().lives(&old)).await;
    sleeper.freeze();

    let other = Process::serve(&stage, &[("STRONGROOM_ANSWER_WITHIN", "0")]).await;
    let token = other.token().await;
    other.api.delink(&token, id(&connection)).await;
    stage.database.turn_clock(PAST_THE_LEASE).await;
    stage.sandbox.calls_reached("plaid/item/remove", 1).await;
    assert_eq!(status(&stage).await, "revoking", "a refusal of the old token confirms nothing");
    stage.sandbox.clear_faults();
    sleeper.thaw();
    until("status", "delinked".to_owned(), async || status(&stage).await).await;
    assert_eq!(stage.sandbox.plaid().live_tokens().len(), 0);
}
