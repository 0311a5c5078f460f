//! The crash table: the real binary is killed around the call, and what must hold afterwards holds.
//!
//! A failpoint halts the process at the point in question; SIGKILL does the rest.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault};

use crate::for_each_bank;
use crate::support::{Answer, Bank, Process, Stage, for_user, id};

for_each_bank! {
    killed_before_the_intent_commits_it_never_happened_and_the_same_request_works,
    killed_with_the_lease_taken_and_nothing_sent_another_worker_goes_on,
    killed_while_the_provider_has_the_code_it_is_probed_for_and_a_refusal_makes_an_orphan,
    killed_with_the_answer_in_memory_it_is_probed_for_all_the_same,
    killed_after_the_outcome_committed_a_repeat_returns_it,
    killed_before_a_revocation_commits_the_token_is_as_it_was,
    killed_after_a_revocation_committed_it_stays_refused_and_a_repeat_answers_the_same,
    killed_with_the_providers_confirmation_in_memory_it_is_told_again_and_already_gone_confirms,
    a_worker_that_slept_past_its_lease_brings_an_answer_that_still_counts,
    killed_before_a_superseded_token_is_restored_it_is_kept_and_the_next_call_restores_it,
}

const PAST_THE_LEASE: Duration = Duration::from_secs(131);

/// A stage for the real binary, whose clock is the system's; only the database's can be turned.
async fn stage(bank: Bank) -> Stage {
    bank.builder().set("STRONGROOM_ANSWER_WITHIN", "5").stage().await
}

/// A request whose answer nobody will ever get.
fn post_into_the_void(process: &Process, token: &str, path: &str, body: &Value) {
    let request = process.api.request(reqwest::Method::POST, path).bearer_auth(token).json(body);
    tokio::spawn(request.send());
}

async fn hand_in(process: &Process, result: &Value) -> Answer {
    process.api.hand_in(&process.token().await, "ada", result).await
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

async fn count(stage: &Stage) -> String {
    stage.database.value("SELECT count(*) FROM connections").await
}

async fn status(stage: &Stage) -> String {
    stage.database.value("SELECT status FROM connections").await
}

/// Kills the process while a result's exchange is halted at `point`, when `halted` holds.
async fn killed_at(stage: &Stage, point: &str, result: &Value, halted: impl AsyncFn() -> bool) {
    let fault = format!("{point}=pause");
    let process = Process::serve(stage, &[("FAILPOINTS", &fault)]).await;
    let token = process.token().await;
    post_into_the_void(&process, &token, "/v1/connections", &for_user(result, "ada"));
    until(point, true, halted).await;
    // The halt itself cannot be seen from outside; what comes before it can.
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.kill();
}

async fn killed_before_the_intent_commits_it_never_happened_and_the_same_request_works(bank: Bank) {
    let stage = stage(bank).await;
    let result = stage.connect();
    let user_exists = async || stage.database.value("SELECT count(*) FROM users").await == "1";
    killed_at(&stage, "exchange::before_intent", &result, user_exists).await;
    assert_eq!((count(&stage).await.as_str(), stage.exchanges()), ("0", 0));
    let process = Process::serve(&stage, &[]).await;
    let answer = hand_in(&process, &result).await;
    assert_eq!((answer.status, answer.connection_status()), (201, "active"));
}

async fn killed_with_the_lease_taken_and_nothing_sent_another_worker_goes_on(bank: Bank) {
    let stage = stage(bank).await;
    let result = stage.connect();
    killed_at(&stage, "exchange::leased", &result, async || count(&stage).await == "1").await;
    assert_eq!(stage.exchanges(), 0);
    let kept = stage.database.value("SELECT id FROM connections").await;

    let process = Process::serve(&stage, &[("STRONGROOM_ANSWER_WITHIN", "0")]).await;
    let answer = hand_in(&process, &result).await;
    assert_eq!((answer.status, id(&answer.json)), (202, format!("conn_{kept}").as_str()));
    assert_eq!(stage.exchanges(), 0, "the lease is alive");
    stage.database.turn_clock(PAST_THE_LEASE).await;
    until("status", "active".to_owned(), async || status(&stage).await).await;
    assert_eq!(stage.database.value("SELECT lease_epoch FROM connections").await, "2");
    assert_eq!(stage.exchanges(), 1);
}

async fn killed_while_the_provider_has_the_code_it_is_probed_for_and_a_refusal_makes_an_orphan(
    bank: Bank,
) {
    let stage = stage(bank).await;
    let result = stage.connect();
    stage.sandbox.set_fault(Fault::new(Effect::Hang).on(bank.exchange()).after().times(1)).unwrap();
    let process = Process::serve(&stage, &[]).await;
    let token = process.token().await;
    post_into_the_void(&process, &token, "/v1/connections", &for_user(&result, "ada"));
    stage.sandbox.calls_reached(bank.exchange(), 1).await;
    process.kill();
    stage.sandbox.clear_faults();

    let process = Process::serve(&stage, &[]).await;
    stage.database.turn_clock(PAST_THE_LEASE).await;
    let turned = std::time::Instant::now();
    until("status", "orphaned".to_owned(), async || status(&stage).await).await;
    assert!(turned.elapsed() < Duration::from_secs(60), "within 60 s of the lease's end");
    assert_eq!(hand_in(&process, &result).await.problem(), (409, "code_orphaned"));
}

async fn killed_with_the_answer_in_memory_it_is_probed_for_all_the_same(bank: Bank) {
    let stage = stage(bank).await;
    let result = stage.connect();
    let consumed = async || stage.exchanges() == 1;
    killed_at(&stage, "exchange::answered", &result, consumed).await;
    assert_eq!(status(&stage).await, "pending");
    let _process = Process::serve(&stage, &[]).await;
    stage.database.turn_clock(PAST_THE_LEASE).await;
    until("status", "orphaned".to_owned(), async || status(&stage).await).await;
}

async fn killed_after_the_outcome_committed_a_repeat_returns_it(bank: Bank) {
    let stage = stage(bank).await;
    let result = stage.connect();
    let active = async || count(&stage).await == "1" && status(&stage).await == "active";
    killed_at(&stage, "exchange::concluded", &result, active).await;
    let process = Process::serve(&stage, &[]).await;
    let answer = hand_in(&process, &result).await;
    assert_eq!((answer.status, answer.connection_status()), (200, "active"));
    assert_eq!(stage.exchanges(), 1);
}

/// An active connection, made by a process that is killed then.
async fn active_connection(stage: &Stage) -> Value {
    let process = Process::serve(stage, &[]).await;
    let answer = hand_in(&process, &stage.connect()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    process.kill();
    answer.json
}

async fn killed_before_a_revocation_commits_the_token_is_as_it_was(bank: Bank) {
    let stage = stage(bank).await;
    let active = active_connection(&stage).await;
    let process =
        Process::serve(&stage, &[("FAILPOINTS", "revocation::before_commit=pause")]).await;
    let token = process.token().await;
    let path = format!("/v1/connections/{}/delink", id(&active));
    post_into_the_void(&process, &token, &path, &json!({}));
    tokio::time::sleep(Duration::from_millis(500)).await;
    process.kill();
    let process = Process::serve(&stage, &[]).await;
    let token = process.token().await;
    assert_eq!(process.api.reveal(&token, id(&active)).await.status, 200);
    assert_eq!(process.api.delink(&token, id(&active)).await.connection_status(), "delinked");
}

async fn killed_after_a_revocation_committed_it_stays_refused_and_a_repeat_answers_the_same(
    bank: Bank,
) {
    let stage = stage(bank).await;
    let active = active_connection(&stage).await;
    stage.sandbox.set_fault(stage.revocation_fails()).unwrap();
    let process = Process::serve(&stage, &[("FAILPOINTS", "revocation::committed=pause")]).await;
    let token = process.token().await;
    let path = format!("/v1/connections/{}/delink", id(&active));
    post_into_the_void(&process, &token, &path, &json!({}));
    until("status", "revoking".to_owned(), async || status(&stage).await).await;
    process.kill();

    let process = Process::serve(&stage, &[("STRONGROOM_ANSWER_WITHIN", "0")]).await;
    let token = process.token().await;
    let refused = process.api.reveal(&token, id(&active)).await;
    assert_eq!(refused.problem(), (409, "connection_not_active"));
    let again = process.api.delink(&token, id(&active)).await;
    assert_eq!((again.status, again.connection_status()), (202, "revoking"));
    stage.sandbox.clear_faults();
    stage.database.turn_clock(Duration::from_secs(60)).await;
    until("status", "delinked".to_owned(), async || status(&stage).await).await;
}

async fn killed_with_the_providers_confirmation_in_memory_it_is_told_again_and_already_gone_confirms(
    bank: Bank,
) {
    let stage = stage(bank).await;
    let active = active_connection(&stage).await;
    let process = Process::serve(&stage, &[("FAILPOINTS", "delink::answered=pause")]).await;
    let token = process.token().await;
    let path = format!("/v1/connections/{}/delink", id(&active));
    post_into_the_void(&process, &token, &path, &json!({}));
    stage.sandbox.calls_reached(bank.revoke(), 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.kill();
    assert_eq!(status(&stage).await, "revoking");

    let _process = Process::serve(&stage, &[]).await;
    stage.database.turn_clock(PAST_THE_LEASE).await;
    until("status", "delinked".to_owned(), async || status(&stage).await).await;
    assert_eq!(stage.revocations(), 2);
}

async fn killed_before_a_superseded_token_is_restored_it_is_kept_and_the_next_call_restores_it(
    bank: Bank,
) {
    let stage = stage(bank).await;
    let process = Process::serve(&stage, &[("FAILPOINTS", "dead::before_commit=pause")]).await;
    let result = stage.connect();
    let older = hand_in(&process, &result).await.json;
    let login = stage.login_of(&result);
    let import = bank.import("ada", &login, "mistyped");
    let token = process.token().await;
    let newer = process.api.post(&token, "/v1/connections/import", &import).await.json;
    let path = bank.relayed(&newer);
    match bank {
        Bank::Dapi => {
            post_into_the_void(&process, &token, &path, &json!({}));
            stage.sandbox.calls_reached(bank.read(), 1).await;
        }
        // The first call with the token is Strongroom's own, for the accounts; so was one with the older token.
        Bank::Plaid => stage.sandbox.calls_reached("plaid/accounts/get", 2).await,
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.kill();
    let kept = "SELECT count(*) FROM superseded_tokens";
    assert_eq!(stage.database.value(kept).await, "1");

    let process = Process::serve(&stage, &[]).await;
    stage.database.turn_clock(PAST_THE_LEASE).await;
    let token = process.token().await;
    if bank == Bank::Dapi {
        let refused = process.api.post(&token, &path, &json!({})).await;
        assert_eq!(refused.json[bank.error()], bank.gone()[1], "{}", refused.text);
    }
    let older = async || process.api.connection(&token, id(&older)).await["status"].clone();
    until("the older one's status", json!("active"), older).await;
    assert_eq!(process.api.connection(&token, id(&newer)).await["status"], "invalidated");
    assert_eq!(stage.database.value(kept).await, "0");
}

async fn a_worker_that_slept_past_its_lease_brings_an_answer_that_still_counts(bank: Bank) {
    let stage = stage(bank).await;
    let result = stage.connect();
    let held_up =
        Fault::new(Effect::Answer).on(bank.exchange()).after().delayed(Duration::from_secs(300));
    stage.sandbox.set_fault(held_up.times(1)).unwrap();
    let sleeper = Process::serve(&stage, &[]).await;
    let token = sleeper.token().await;
    post_into_the_void(&sleeper, &token, "/v1/connections", &for_user(&result, "ada"));
    stage.sandbox.calls_reached(bank.exchange(), 1).await;
    sleeper.freeze();

    let other = Process::serve(&stage, &[]).await;
    stage.database.turn_clock(PAST_THE_LEASE).await;
    until("status", "orphaned".to_owned(), async || status(&stage).await).await;
    stage.sandbox.clear_faults();
    sleeper.thaw();
    until("status", "active".to_owned(), async || status(&stage).await).await;
    assert_eq!(stage.live_tokens(), 1);
    let connection = stage.database.value("SELECT id FROM connections").await;
    let revealed = other.api.reveal(&other.token().await, &format!("conn_{connection}")).await;
    assert_eq!(revealed.status, 200, "{}", revealed.text);
}
