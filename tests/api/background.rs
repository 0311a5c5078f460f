//! The background work by itself, and the command that runs one round of it.

use std::time::Duration;

use serde_json::Value;
use strongroom_dev::sandbox::{ConnectOptions, Fault};

use crate::support::{TestApp, command, id};

const EXCHANGE: &str = "auth/ExchangeToken";

#[tokio::test]
async fn without_anybody_asking_a_pending_connection_becomes_active() {
    let app = TestApp::builder().set("STRONGROOM_ANSWER_WITHIN", "0").spawn().await;
    app.sandbox.set_fault(Fault::status(503).on(EXCHANGE).times(1)).unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.sandbox.calls_reached(EXCHANGE, 1).await;
    // The retry is due in two seconds of real time: the loop has to know by itself.
    let token = app.token().await;
    let started = std::time::Instant::now();
    while app.api.connection(&token, id(&pending)).await["status"] != "active" {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn rounds_of_several_replicas_at_once_do_everything_once() {
    let app = TestApp::by_hand().await;
    app.sandbox.set_fault(Fault::status(503).on(EXCHANGE)).unwrap();
    for _ in 0..20 {
        app.hand_in("ada", &app.connect()).await;
    }
    app.sandbox.calls_reached(EXCHANGE, 20).await;
    let leased = "SELECT count(*) FROM connections WHERE leased_until IS NOT NULL";
    while app.database.value(leased).await != "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(3)).await;
    let rounds = futures_util::future::join_all((0..4).map(|_| app.tick())).await;
    assert_eq!(rounds.iter().map(|round| round.exchanges).sum::<usize>(), 20);
    assert_eq!(app.sandbox.calls_to(EXCHANGE), 40);
    let active = "SELECT count(*) FROM connections WHERE status = 'active'";
    assert_eq!(app.database.value(active).await, "20");
}

#[tokio::test]
async fn a_large_sweep_is_done_in_batches() {
    let app = TestApp::by_hand().await;
    app.sandbox.set_fault(Fault::status(503).on(EXCHANGE)).unwrap();
    let result =
        app.connect_with(&ConnectOptions { code_lifetime: Some(20), ..ConnectOptions::default() });
    let pending = app.hand_in("ada", &result).await.json;
    app.settled(id(&pending)).await;
    app.database
        .execute(
            "INSERT INTO connections (app_id, id, user_id, status, login_id, code_hash, code, user_secret,
                                      code_expires_at, due_at)
             SELECT app_id, gen_random_uuid(), user_id, status, 'c' || n, sha256(n::text::bytea), code, user_secret,
                    code_expires_at, code_expires_at
             FROM connections, generate_series(1, 1200) n",
        )
        .await;
    app.turn_clock(Duration::from_secs(81)).await;
    assert_eq!(app.tick().await.expired, 1201);
    let trail = "SELECT count(*) FROM audit_events WHERE action = 'connection.expired'";
    assert_eq!(app.database.value(trail).await, "1201");
    assert_eq!(app.tick().await.expired, 0);
    assert_eq!(app.metric("strongroom_codes_swept_total").await, 1201.0);
}

#[tokio::test]
async fn gauges_tell_what_waits_and_for_how_long() {
    let app = TestApp::by_hand().await;
    app.sandbox.set_fault(Fault::status(503)).unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.settled(id(&pending)).await;
    app.turn_clock(Duration::from_secs(60)).await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.metric("strongroom_connections_pending").await, 1.0);
    assert!(app.metric("strongroom_connections_pending_oldest_seconds").await >= 60.0);
    app.api.delink(&app.token().await, id(&pending)).await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.metric("strongroom_connections_pending").await, 0.0);
    assert_eq!(app.metric("strongroom_connections_revoking").await, 1.0);
}

#[tokio::test]
async fn strongroom_sweep_runs_one_round_and_says_what_it_did() {
    let app = TestApp::by_hand().await;
    app.sandbox.set_fault(Fault::status(503).on(EXCHANGE)).unwrap();
    let lives =
        |seconds| ConnectOptions { code_lifetime: Some(seconds), ..ConnectOptions::default() };
    for seconds in [20, 1800] {
        let pending = app.hand_in("ada", &app.connect_with(&lives(seconds))).await.json;
        app.settled(id(&pending)).await;
    }
    let active = async || {
        app.sandbox.clear_faults();
        let active = app.active("bob").await;
        app.sandbox.set_fault(Fault::status(503).on("users/DelinkUser")).unwrap();
        app.api.delink(&app.token().await, id(&active)).await;
        app.sandbox.clear_faults();
    };
    active().await;
    app.turn_clock(Duration::from_secs(90)).await;
    let sweep = |arguments: &'static [&'static str]| {
        let mut command = command(&app, &[]);
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let output = sweep(&["sweep", "--output", "json"]).await.unwrap();
    assert!(output.status.success());
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        told,
        serde_json::json!({
            "expired": 1, "exchanges": 1, "delinks": 1, "released": 0, "erased": 0, "settled": 0,
        })
    );
    let output = sweep(&["sweep"]).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("expired    0\n"), "{text}");
    let left = "SELECT string_agg(status, ' ' ORDER BY status) FROM connections";
    assert_eq!(app.database.value(left).await, "active delinked expired");
}
