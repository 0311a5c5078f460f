//! SIGTERM: readiness goes off, what is under way ends, nothing is stranded.

use std::time::Duration;

use strongroom_dev::sandbox::{Effect, Fault};

use crate::support::{Process, TestApp, for_user, id, until};

const EXCHANGE: &str = "auth/ExchangeToken";

fn held_up() -> Fault {
    Fault::new(Effect::Answer).on(EXCHANGE).delayed(Duration::from_secs(300))
}

#[tokio::test]
async fn a_shutdown_waits_for_the_exchange_that_is_under_way() {
    let stage = TestApp::builder().set("STRONGROOM_SHUTDOWN_GRACE", "60").stage().await;
    stage.sandbox.set_fault(held_up()).unwrap();
    let process = Process::serve(&stage, &[]).await;
    let token = process.token().await;
    let (api, body) = (process.api.clone(), for_user(&stage.connect(), "ada"));
    let post = tokio::spawn(async move { api.post(&token, "/v1/connections", &body).await });
    stage.sandbox.calls_reached(EXCHANGE, 1).await;
    process.terminate();
    let ready =
        async || process.api.send(process.api.request(reqwest::Method::GET, "/readyz")).await;
    while ready().await.status == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ready().await.problem(), (503, "unavailable"));
    stage.sandbox.clear_faults();
    let answer = post.await.unwrap();
    assert_eq!((answer.status, answer.connection_status()), (201, "active"));
    let ended = process.ended().await;
    assert!(ended.success(), "{ended}");
}

#[tokio::test]
async fn what_comes_in_during_the_shutdown_is_kept_for_another_replica() {
    let stage = TestApp::builder()
        .set("STRONGROOM_SHUTDOWN_GRACE", "60")
        .set("STRONGROOM_ANSWER_WITHIN", "0")
        .stage()
        .await;
    stage.sandbox.set_fault(held_up().times(1)).unwrap();
    let process = Process::serve(&stage, &[]).await;
    let token = process.token().await;
    let first = process.api.hand_in(&token, "ada", &stage.connect()).await;
    assert_eq!(first.status, 202);
    stage.sandbox.calls_reached(EXCHANGE, 1).await;
    process.terminate();
    let ready = async || {
        process.api.send(process.api.request(reqwest::Method::GET, "/readyz")).await.status
    };
    while ready().await == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let late = process.api.hand_in(&token, "bob", &stage.connect()).await;
    assert_eq!((late.status, late.connection_status()), (202, "pending"));
    assert_eq!(stage.sandbox.calls_to(EXCHANGE), 1, "no new call begins");
    stage.sandbox.clear_faults();
    assert!(process.ended().await.success());
    let _other = Process::serve(&stage, &[]).await;
    let active = async || {
        stage.database.value("SELECT count(*) FROM connections WHERE status = 'active'").await
    };
    while active().await != "2" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_waits_for_what_another_replica_will_do_is_answered_before_the_end() {
    let stage = TestApp::builder().set("STRONGROOM_ANSWER_WITHIN", "600").stage().await;
    let process = Process::serve(&stage, &[]).await;
    let token = process.token().await;
    let connected = process.api.hand_in(&token, "ada", &stage.connect()).await;
    stage.sandbox.set_fault(stage.revocation_fails()).unwrap();
    let (api, id) = (process.api.clone(), id(&connected.json).to_owned());
    let delink = tokio::spawn(async move { api.delink(&token, &id).await });
    // The next try is an hour away, as it is after many.
    let postpone = "UPDATE connections SET due_at = strongroom_now() + interval '1 hour'
                    WHERE revocation_attempts > 0 AND leased_until IS NULL";
    let postponed =
        "SELECT count(*) FROM connections WHERE due_at > strongroom_now() + interval '50 minutes'";
    until("the first try has failed", async || {
        stage.database.execute(postpone).await;
        stage.database.value(postponed).await == "1"
    })
    .await;
    process.terminate();
    let answer = delink.await.unwrap();
    assert_eq!((answer.status, answer.connection_status()), (202, "revoking"));
    assert!(process.ended().await.success());
}

#[tokio::test]
async fn an_idle_service_ends_at_once() {
    let stage = TestApp::builder().stage().await;
    let process = Process::serve(&stage, &[]).await;
    // A connection that is kept open is nothing to wait for.
    process.token().await;
    let started = std::time::Instant::now();
    process.terminate();
    assert!(process.ended().await.success());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_terminal_that_closes_drains_it_however_often_it_says_so() {
    let stage = TestApp::builder().set("STRONGROOM_SHUTDOWN_GRACE", "60").stage().await;
    stage.sandbox.set_fault(held_up()).unwrap();
    let process = Process::serve(&stage, &[("STRONGROOM_ANSWER_WITHIN", "0")]).await;
    process.api.hand_in(&process.token().await, "ada", &stage.connect()).await;
    stage.sandbox.calls_reached(EXCHANGE, 1).await;
    process.hang_up();
    while !process.log().contains("draining") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.hang_up();
    stage.sandbox.clear_faults();
    assert!(process.ended().await.success());
    let active = "SELECT status FROM connections";
    assert_eq!(stage.database.value(active).await, "active");
}

#[tokio::test]
async fn a_second_signal_ends_it_without_waiting() {
    let stage = TestApp::builder().set("STRONGROOM_SHUTDOWN_GRACE", "600").stage().await;
    stage.sandbox.set_fault(held_up()).unwrap();
    let process = Process::serve(&stage, &[("STRONGROOM_ANSWER_WITHIN", "0")]).await;
    process.api.hand_in(&process.token().await, "ada", &stage.connect()).await;
    stage.sandbox.calls_reached(EXCHANGE, 1).await;
    process.terminate();
    while !process.log().contains("draining") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(130));
    stage.sandbox.clear_faults();
}
