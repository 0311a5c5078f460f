//! The main job: a bank link's result becomes an active connection, or a truthful account of why not.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom_dev::sandbox::{
    ConnectOptions, Effect, Fault, Huge, RulesChange, SecondExchange, Status,
};

use crate::for_each_bank;
use crate::support::{Answer, Bank, TestApp, for_user, id, with};

for_each_bank! {
    a_result_becomes_an_active_connection,
    the_same_code_again_gives_the_same_connection,
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    a_code_posted_two_hundred_times_at_once_to_two_replicas_is_exchanged_once,
    a_refused_code_is_told_in_the_providers_words_and_stays_as_rejected,
    a_code_of_another_user_is_refused_before_anything_else_is_looked_at,
    a_slow_provider_makes_a_pending_connection_that_becomes_active_by_itself,
    whatever_settles_nothing_leaves_the_connection_pending_until_the_provider_settles_it,
    a_probe_comes_after_two_seconds_at_the_earliest_and_then_ever_later,
    a_retry_after_of_the_providers_is_honoured,
    a_refusal_after_an_unanswered_attempt_makes_an_orphan,
    a_refusal_after_too_many_requests_is_a_plain_rejection,
    a_lost_answer_is_fetched_again_where_the_provider_gives_a_token_twice,
    without_probing_the_first_unanswered_attempt_makes_an_orphan,
    a_code_that_the_provider_never_settles_expires_with_its_window,
    a_provider_that_cannot_be_reached_consumes_nothing,
    the_sweep_does_not_end_a_code_whose_lease_is_alive,
    more_than_may_be_called_at_once_waits_safely_for_its_turn,
    a_client_that_hangs_up_changes_nothing,
    a_callers_trace_reaches_the_provider,
    an_exchange_leaves_its_trail,
}

fn code_lives(seconds: u64) -> ConnectOptions {
    ConnectOptions { code_lifetime: Some(seconds), ..ConnectOptions::default() }
}

fn status(bank: Bank, code: u16, headers: &[(&str, &str)]) -> Fault {
    let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let status = Status { code, headers, body: String::new() };
    Fault::new(Effect::Status(status)).on(bank.exchange())
}

/// The codes' windows close in 20 seconds.
async fn windows_close_soon(app: &TestApp) {
    let soon = "UPDATE connections SET code_expires_at = strongroom_now() + interval '20 seconds'
                WHERE code IS NOT NULL";
    app.database.execute(soon).await;
}

/// Hands in a result while the background work waits for its tick, and lets the first attempt end.
async fn first_attempt(app: &TestApp, result: &Value) -> Value {
    let answer = app.hand_in("ada", result).await;
    // A problem names the connection as well, should the attempt have ended it by now.
    app.settled(id(&answer.json)).await
}

async fn a_result_becomes_an_active_connection(bank: Bank) {
    let app = bank.spawn().await;
    let result = app.connect();
    let answer = app.hand_in("ada", &result).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let connection = &answer.json;
    assert_eq!(connection["status"], "active");
    assert_eq!(connection["clientUserID"], "ada");
    assert_eq!(connection["provider"], bank.provider().as_str());
    assert_eq!(connection["connectionID"], app.login_of(&result));
    for name in ["userID", "tokenID"] {
        assert_eq!(connection[name], result[name], "{name}");
    }
    for name in ["failure", "revocation", "replacedBy"] {
        assert!(connection[name].is_null(), "{name}");
    }
    assert_eq!(answer.header("location"), format!("/v1/connections/{}", id(connection)));
    assert!(connection["activatedAt"].is_string() && connection["codeExpiresAt"].is_string());
    assert_eq!(app.exchanges(), 1);
    let found = app.api.get(&app.token().await, answer.header("location")).await;
    assert_eq!(found.json, *connection);
    assert_eq!(app.live_tokens(), 1);
}

async fn the_same_code_again_gives_the_same_connection(bank: Bank) {
    let app = bank.spawn().await;
    let result = app.connect();
    let first = app.hand_in("ada", &result).await;
    let again = app.hand_in("ada", &result).await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.json, again.json);
    let other_fields = with(&result, json!({ "userSecret": "other", "connectionID": "other" }));
    let again = app.hand_in("ada", &other_fields).await;
    assert_eq!((again.status, &again.json), (200, &first.json), "the first body's fields stand");
    assert_eq!(app.exchanges(), 1);
}

async fn a_code_posted_two_hundred_times_at_once_to_two_replicas_is_exchanged_once(bank: Bank) {
    // However busy the machine is, what is looked at is how they end.
    let app = bank.builder().set("STRONGROOM_ANSWER_WITHIN", "60").spawn().await;
    let other = app.replica().await;
    let token = app.token().await;
    app.sandbox
        .set_fault(
            Fault::new(Effect::Answer).on(bank.exchange()).delayed(Duration::from_millis(300)),
        )
        .unwrap();
    let body = for_user(&app.connect(), "ada");
    let mut posts = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (api, token, body) = (
            if number % 2 == 0 { app.api.clone() } else { other.clone() },
            token.clone(),
            body.clone(),
        );
        posts.spawn(async move { api.post(&token, "/v1/connections", &body).await });
    }
    let answers: Vec<Answer> = posts.join_all().await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    let expected: Vec<_> = std::iter::repeat_n(200, 199).chain([201]).collect();
    assert_eq!(statuses, expected);
    assert!(answers.iter().all(|answer| answer.json == answers[0].json));
    assert_eq!(app.exchanges(), 1);
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "1");
}

async fn a_refused_code_is_told_in_the_providers_words_and_stays_as_rejected(bank: Bank) {
    let app = bank.spawn().await;
    app.sandbox.set_fault(bank.code_refused().times(1)).unwrap();
    let result = app.connect();
    let answer = app.hand_in("ada", &result).await;
    assert_eq!(answer.problem(), (422, "code_rejected"));
    assert_eq!(answer.json["failure"], json!({ "type": bank.bad_code(), "detail": "no" }));
    let connection = app.api.connection(&app.token().await, id(&answer.json)).await;
    assert_eq!(connection["status"], "rejected");
    assert_eq!(connection["failure"]["type"], bank.bad_code());
    let again = app.hand_in("ada", &result).await;
    assert_eq!(again.problem(), (422, "code_rejected"));
    assert_eq!(app.exchanges(), 1, "a settled refusal is not asked again");
}

#[tokio::test]
async fn a_connect_that_failed_has_nothing_to_exchange() {
    let app = TestApp::spawn().await;
    for result in
        [json!({ "success": false }), json!({ "success": false, "error": { "type": "X" } })]
    {
        assert_eq!(app.hand_in("ada", &result).await.problem(), (422, "connect_failed"));
    }
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "0");
}

async fn a_code_of_another_user_is_refused_before_anything_else_is_looked_at(bank: Bank) {
    let app = bank.spawn().await;
    let result = app.connect();
    app.hand_in("ada", &result).await;
    // The login is another user's as well, and this is told first.
    let answer = app.hand_in("bob", &result).await;
    assert_eq!(answer.problem(), (409, "code_already_received"));
    assert!(!answer.text.contains("ada") && !answer.text.contains("conn_"));
}

#[tokio::test]
async fn a_code_whose_window_is_closed_is_refused_without_a_call() {
    let app = TestApp::spawn().await;
    let result = app.connect_with(&code_lives(20));
    app.turn_clock(Duration::from_secs(81)).await;
    assert_eq!(app.hand_in("ada", &result).await.problem(), (410, "code_expired"));
    assert_eq!(app.exchanges(), 0);
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "0");
}

#[tokio::test]
async fn the_window_is_thirty_minutes_capped_by_the_codes_own_end_and_a_minute_for_clocks() {
    let app = TestApp::spawn().await;
    let minutes =
        "SELECT round(extract(epoch FROM code_expires_at - created_at) / 60, 1) FROM connections";
    app.active_from("ada", &app.connect_with(&code_lives(300))).await;
    app.active_from("ada", &app.connect_with(&code_lives(7200))).await;
    let opaque = ConnectOptions { opaque: true, ..code_lives(300) };
    app.active_from("ada", &app.connect_with(&opaque)).await;
    assert_eq!(app.database.values(minutes).await, ["6.0", "30.0", "30.0"]);
}

#[tokio::test]
async fn the_cap_by_the_codes_own_end_can_be_turned_off() {
    let app = TestApp::builder().set("STRONGROOM_CODE_EXP_CAP", "false").spawn().await;
    let minutes =
        "SELECT round(extract(epoch FROM code_expires_at - created_at) / 60, 1) FROM connections";
    app.active_from("ada", &app.connect_with(&code_lives(300))).await;
    assert_eq!(app.database.value(minutes).await, "30.0");
}

async fn a_slow_provider_makes_a_pending_connection_that_becomes_active_by_itself(bank: Bank) {
    let app = bank.builder().set("STRONGROOM_ANSWER_WITHIN", "1").spawn().await;
    app.sandbox.set_fault(Fault::new(Effect::Hang).on(bank.exchange()).before()).unwrap();
    let result = app.connect();
    let answer = app.hand_in("ada", &result).await;
    assert_eq!((answer.status, answer.connection_status()), (202, "pending"));
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(answer.header("location"), format!("/v1/connections/{}", id(&answer.json)));
    let again = app.hand_in("ada", &result).await;
    assert_eq!((again.status, id(&again.json)), (202, id(&answer.json)));
    app.sandbox.clear_faults();
    // A hanging call is let go without an answer, so the background work asks again.
    let token = app.token().await;
    for _ in 0..1000 {
        if app.api.connection(&token, id(&answer.json)).await["status"] == "active" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it stays pending");
}

async fn whatever_settles_nothing_leaves_the_connection_pending_until_the_provider_settles_it(
    bank: Bank,
) {
    let faults = [
        status(bank, 408, &[]),
        status(bank, 429, &[]),
        status(bank, 302, &[("Location", "/v2/elsewhere")]),
        status(bank, 500, &[]),
        status(bank, 503, &[]),
        Fault::new(Effect::Garbage).on(bank.exchange()).before(),
        Fault::new(Effect::HalfAnswer).on(bank.exchange()).before(),
        Fault::new(Effect::Drop).on(bank.exchange()),
        Fault::new(Effect::Huge(Huge { bytes: 50 << 20, content_length: false }))
            .on(bank.exchange())
            .before(),
        Fault::new(Effect::Huge(Huge { bytes: 50 << 20, content_length: true }))
            .on(bank.exchange())
            .before(),
    ];
    let app = bank.by_hand().await;
    for fault in faults {
        let name = format!("{:?}", fault.effect);
        app.sandbox.set_fault(fault.times(1)).unwrap();
        let pending = first_attempt(&app, &app.connect()).await;
        assert_eq!(pending["status"], "pending", "{name}");
        app.turn_clock(Duration::from_secs(2)).await;
        assert_eq!(app.tick().await.exchanges, 1, "{name}");
        let connection = app.api.connection(&app.token().await, id(&pending)).await;
        assert_eq!(connection["status"], "active", "{name} {connection}");
    }
}

async fn a_probe_comes_after_two_seconds_at_the_earliest_and_then_ever_later(bank: Bank) {
    let app = bank.by_hand().await;
    app.sandbox.set_fault(status(bank, 503, &[])).unwrap();
    first_attempt(&app, &app.connect()).await;
    assert_eq!(app.tick().await.exchanges, 0);
    let wait = "SELECT ceil(extract(epoch FROM due_at - strongroom_now())) FROM connections";
    let mut waits = Vec::new();
    for _ in 0..8 {
        let seconds: u64 = app.database.value(wait).await.parse().unwrap();
        waits.push(seconds);
        app.turn_clock(Duration::from_secs(seconds - 1)).await;
        assert_eq!(app.tick().await.exchanges, 0, "a second before its time");
        app.turn_clock(Duration::from_secs(1)).await;
        assert_eq!(app.tick().await.exchanges, 1);
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 120, 120]);
}

async fn a_retry_after_of_the_providers_is_honoured(bank: Bank) {
    let app = bank.by_hand().await;
    app.sandbox.set_fault(status(bank, 503, &[("Retry-After", "40")]).times(1)).unwrap();
    first_attempt(&app, &app.connect()).await;
    app.turn_clock(Duration::from_secs(39)).await;
    assert_eq!(app.tick().await.exchanges, 0);
    app.turn_clock(Duration::from_secs(1)).await;
    assert_eq!(app.tick().await.exchanges, 1);
}

async fn a_refusal_after_an_unanswered_attempt_makes_an_orphan(bank: Bank) {
    let half = Fault::new(Effect::HalfAnswer).on(bank.exchange()).after();
    let lost = [
        Fault::new(Effect::Drop).on(bank.exchange()).after(),
        // Half of Plaid's answer has the whole token in it.
        if bank == Bank::Dapi {
            half
        } else {
            Fault::new(Effect::Drop).on(bank.exchange()).after()
        },
        status(bank, 502, &[]).after(),
    ];
    let app = bank.by_hand().await;
    for fault in lost {
        app.sandbox.set_fault(fault.times(1)).unwrap();
        let result = app.connect();
        let pending = first_attempt(&app, &result).await;
        assert_eq!(pending["status"], "pending");
        app.turn_clock(Duration::from_secs(2)).await;
        app.tick().await;
        let orphan = app.api.connection(&app.token().await, id(&pending)).await;
        assert_eq!(orphan["status"], "orphaned");
        assert_eq!(orphan["failure"]["type"], "answer_lost");
        let answer = app.hand_in("ada", &result).await;
        assert_eq!(answer.problem(), (409, "code_orphaned"));
    }
}

async fn a_refusal_after_too_many_requests_is_a_plain_rejection(bank: Bank) {
    let app = bank.by_hand().await;
    app.sandbox.set_fault(status(bank, 429, &[]).times(1)).unwrap();
    let pending = first_attempt(&app, &app.connect()).await;
    app.sandbox.set_fault(bank.code_refused().times(1)).unwrap();
    app.turn_clock(Duration::from_secs(2)).await;
    app.tick().await;
    let connection = app.api.connection(&app.token().await, id(&pending)).await;
    assert_eq!(connection["status"], "rejected");
}

async fn a_lost_answer_is_fetched_again_where_the_provider_gives_a_token_twice(bank: Bank) {
    let app = bank.by_hand().await;
    for truth in [SecondExchange::SameToken, SecondExchange::MintAnother] {
        app.sandbox
            .change_rules(RulesChange { second_exchange: Some(truth), ..RulesChange::default() });
        app.sandbox
            .set_fault(Fault::new(Effect::Drop).on(bank.exchange()).after().times(1))
            .unwrap();
        let pending = first_attempt(&app, &app.connect()).await;
        app.turn_clock(Duration::from_secs(2)).await;
        app.tick().await;
        let connection = app.api.connection(&app.token().await, id(&pending)).await;
        assert_eq!(connection["status"], "active", "{truth:?}");
    }
}

async fn without_probing_the_first_unanswered_attempt_makes_an_orphan(bank: Bank) {
    let app = bank.builder().set(&bank.variable("EXCHANGE_PROBE"), "false").by_hand().spawn().await;
    app.sandbox.set_fault(Fault::new(Effect::Drop).on(bank.exchange()).times(1)).unwrap();
    let orphan = first_attempt(&app, &app.connect()).await;
    assert_eq!(orphan["status"], "orphaned");
    // Too many requests is an answer: nothing was looked at, so asking again is safe.
    app.sandbox.set_fault(status(bank, 429, &[]).times(1)).unwrap();
    let pending = first_attempt(&app, &app.connect()).await;
    assert_eq!(pending["status"], "pending");
    app.turn_clock(Duration::from_secs(2)).await;
    app.tick().await;
    let connection = app.api.connection(&app.token().await, id(&pending)).await;
    assert_eq!(connection["status"], "active");
}

async fn a_code_that_the_provider_never_settles_expires_with_its_window(bank: Bank) {
    let app = bank.by_hand().await;
    for (fault, told) in
        [(status(bank, 503, &[]), "outcome_unknown"), (status(bank, 429, &[]), "code_expired")]
    {
        app.sandbox.set_fault(fault).unwrap();
        let result = app.connect();
        let pending = first_attempt(&app, &result).await;
        windows_close_soon(&app).await;
        app.turn_clock(Duration::from_secs(81)).await;
        assert_eq!(app.tick().await.expired, 1);
        let connection = app.api.connection(&app.token().await, id(&pending)).await;
        assert_eq!(
            (&connection["status"], &connection["failure"]["type"]),
            (&json!("expired"), &json!(told))
        );
        assert_eq!(app.hand_in("ada", &result).await.problem(), (410, "code_expired"));
        app.sandbox.clear_faults();
    }
    let held = "SELECT count(*) FROM connections WHERE code IS NOT NULL OR user_secret IS NOT NULL";
    assert_eq!(app.database.value(held).await, "0");
}

async fn a_provider_that_cannot_be_reached_consumes_nothing(bank: Bank) {
    // Nothing listens on port 1.
    let app = bank
        .builder()
        .set(&bank.variable("BASE_URL"), "http://127.0.0.1:1/v2")
        .by_hand()
        .spawn()
        .await;
    let pending = first_attempt(&app, &app.connect()).await;
    assert_eq!(pending["status"], "pending");
    windows_close_soon(&app).await;
    app.turn_clock(Duration::from_secs(81)).await;
    app.tick().await;
    let connection = app.api.connection(&app.token().await, id(&pending)).await;
    assert_eq!(connection["failure"]["type"], "code_expired");
}

async fn the_sweep_does_not_end_a_code_whose_lease_is_alive(bank: Bank) {
    let app = bank.by_hand().await;
    app.sandbox
        .set_fault(
            Fault::new(Effect::Answer)
                .on(bank.exchange())
                .before()
                .delayed(Duration::from_secs(60)),
        )
        .unwrap();
    let lasting = RulesChange { code_lifetime: Some(20), ..RulesChange::default() };
    app.sandbox.change_rules(lasting);
    let answer = app.hand_in("ada", &app.connect()).await;
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    windows_close_soon(&app).await;
    app.turn_clock(Duration::from_secs(81)).await;
    assert_eq!(app.tick().await.expired, 0);
    app.sandbox.clear_faults();
    let connection = app.settled(id(&answer.json)).await;
    // The sandbox's clock was turned as well, so that it refuses the code itself by now.
    assert_eq!(connection["status"], "rejected");
}

async fn more_than_may_be_called_at_once_waits_safely_for_its_turn(bank: Bank) {
    let app = bank.builder().set("DAPI_MAX_CONCURRENT_CALLS", "1").spawn().await;
    app.sandbox
        .set_fault(
            Fault::new(Effect::Answer).on(bank.exchange()).delayed(Duration::from_millis(100)),
        )
        .unwrap();
    let (one, two, three) = (app.connect(), app.connect(), app.connect());
    let answers = tokio::join!(
        app.hand_in("ada", &one),
        app.hand_in("bob", &two),
        app.hand_in("eve", &three)
    );
    for answer in [answers.0, answers.1, answers.2] {
        assert_eq!((answer.status, answer.connection_status()), (201, "active"));
    }
}

async fn a_client_that_hangs_up_changes_nothing(bank: Bank) {
    let app = bank.spawn().await;
    app.sandbox
        .set_fault(
            Fault::new(Effect::Answer)
                .on(bank.exchange())
                .delayed(Duration::from_millis(200))
                .times(1),
        )
        .unwrap();
    let (token, body) = (app.token().await, for_user(&app.connect(), "ada"));
    let request =
        app.api.request(reqwest::Method::POST, "/v1/connections").bearer_auth(&token).json(&body);
    let hung_up = tokio::spawn(request.send());
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    hung_up.abort();
    let again = app.api.post(&token, "/v1/connections", &body).await;
    assert_eq!((again.status, again.connection_status()), (200, "active"));
    assert_eq!(app.exchanges(), 1);
}

async fn a_callers_trace_reaches_the_provider(bank: Bank) {
    let app = bank.spawn().await;
    let body = for_user(&app.connect(), "ada");
    let request = app
        .api
        .request(reqwest::Method::POST, "/v1/connections")
        .bearer_auth(app.token().await)
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .json(&body);
    assert_eq!(app.api.send(request).await.status, 201);
    let calls = serde_json::to_value(app.sandbox.calls(10)).unwrap().to_string();
    assert!(calls.contains("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{calls}");
    assert!(!calls.contains("00f067aa0ba902b7"), "the position is Strongroom's own: {calls}");
}

async fn an_exchange_leaves_its_trail(bank: Bank) {
    let app = bank.spawn().await;
    app.active("zoe@example.com").await;
    assert_eq!(
        app.database.trail().await,
        ["connection.received pending", "connection.activated active"]
    );
    let named = "SELECT count(*) FROM audit_events a WHERE a::text LIKE '%zoe%'";
    assert_eq!(
        app.database.value(named).await,
        "0",
        "the trail knows a user by the random id alone"
    );
}

#[tokio::test]
async fn a_body_that_lacks_something_or_has_it_wrong_is_refused_by_name() {
    let app = TestApp::spawn().await;
    let result = for_user(&app.connect(), "ada");
    let wrong = [
        ("success", json!(null)),
        ("success", json!("true")),
        ("accessCode", json!(null)),
        ("accessCode", json!("")),
        ("accessCode", json!(7)),
        ("accessCode", json!("a\u{0}b")),
        ("accessCode", json!("x".repeat(16 * 1024 + 1))),
        ("userSecret", json!(null)),
        ("userSecret", json!(["x"])),
        ("connectionID", json!(null)),
        ("connectionID", json!("  ")),
        ("connectionID", json!("x".repeat(1025))),
        ("userID", json!({})),
        ("tokenID", json!("\u{0}")),
        ("clientUserID", json!(null)),
        ("clientUserID", json!("x".repeat(257))),
        ("clientUserID", json!("a\u{0}")),
    ];
    let token = app.token().await;
    for (field, value) in wrong {
        let body = with(&result, json!({ field: value.clone() }));
        let answer = app.api.post(&token, "/v1/connections", &body).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{field} {value}");
        assert_eq!(answer.json["field"], field, "{}", answer.text);
    }
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "0");
}
