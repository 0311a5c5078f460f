//! Webhooks across crashes and outages: killed between any two steps of a delivery, and with a database that comes and
//! goes, every event arrives, under one id.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Bank, Process, Proxy, Receiver, Reply, Stage, TestApp, TestDatabase, Trouble, for_user, until,
};

/// Past the lease of a delivery.
const PAST_THE_LEASE: Duration = Duration::from_secs(60);

async fn stage() -> Stage {
    Bank::Dapi.builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true").stage().await
}

async fn add(process: &Process, url: &str) {
    let token = process.token().await;
    let made = process.api.post(&token, "/v1/admin/webhooks", &json!({ "url": url })).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

/// Kills the process at `point` of an event's way, when `halted` holds, and starts another one. Returns what arrived.
async fn killed_at(
    point: &str,
    receiver: &Receiver,
    halted: impl AsyncFn(&Stage) -> bool,
) -> Vec<String> {
    let stage = stage().await;
    let fault = format!("{point}=pause");
    let process = Process::serve(&stage, &[("FAILPOINTS", &fault)]).await;
    add(&process, &receiver.url).await;
    let (token, body) = (process.token().await, for_user(&stage.connect(), "ada"));
    let active = process.api.post(&token, "/v1/connections", &body).await;
    assert_eq!(active.status, 201, "{}", active.text);
    until(point, async || halted(&stage).await).await;
    // The halt itself cannot be seen from outside; what comes before it can.
    tokio::time::sleep(Duration::from_millis(500)).await;
    process.kill();
    let process = Process::serve(&stage, &[]).await;
    stage.database.turn_clock(PAST_THE_LEASE).await;
    let delivered = "SELECT count(*) FROM webhook_deliveries WHERE delivered_at IS NOT NULL";
    until("delivered", async || stage.database.value(delivered).await == "1").await;
    let list = process.api.get(&process.token().await, "/v1/events").await;
    let events = list.json["events"].as_array().unwrap();
    assert_eq!((events.len(), &events[0]["sequence"]), (1, &json!(1)), "{}", list.text);
    let received = receiver.received();
    assert!(received.iter().all(|each| each.id == events[0]["id"].as_str().unwrap()));
    received.iter().map(|each| each.body.clone()).collect()
}

#[tokio::test]
async fn killed_before_an_event_has_its_position_it_is_dispatched_once() {
    for point in ["events::before_positions", "events::before_commit"] {
        let receiver = Receiver::spawn();
        let waiting = "SELECT count(*) FROM event_outbox";
        let halted = async |stage: &Stage| stage.database.value(waiting).await == "1";
        assert_eq!(killed_at(point, &receiver, halted).await.len(), 1, "{point}");
    }
}

#[tokio::test]
async fn killed_with_a_delivery_claimed_and_nothing_sent_it_is_made_once() {
    let receiver = Receiver::spawn();
    let claimed = "SELECT count(*) FROM webhook_deliveries WHERE attempts = 1";
    let halted = async |stage: &Stage| stage.database.value(claimed).await == "1";
    assert_eq!(killed_at("webhooks::claimed", &receiver, halted).await.len(), 1);
}

#[tokio::test]
async fn killed_with_a_delivery_answered_and_not_recorded_it_is_made_again_with_the_same_body() {
    let receiver = Receiver::spawn();
    let halted = async |_: &Stage| receiver.received().len() == 1;
    let bodies = killed_at("webhooks::sent", &receiver, halted).await;
    assert_eq!((bodies.len(), &bodies[0]), (2, &bodies[1]));
}

#[tokio::test]
async fn killed_before_a_failure_is_recorded_it_counts_as_an_attempt() {
    let receiver = Receiver::spawn();
    receiver.reply(&[Reply::Status(500)]);
    let halted = async |_: &Stage| receiver.received().len() == 1;
    assert_eq!(killed_at("webhooks::before_commit", &receiver, halted).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_befalls_the_database_every_event_arrives() {
    let database = TestDatabase::new().await;
    let proxy = Arc::new(Proxy::before(&database).await);
    let builder = TestApp::builder()
        .set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true")
        .set("DATABASE_URL", proxy.url())
        .set("STRONGROOM_DATABASE_TIMEOUT", "5");
    let app = builder.on(database).spawn().await;
    let receiver = Receiver::spawn();
    let made = app
        .api
        .post(&app.token().await, "/v1/admin/webhooks", &json!({ "url": receiver.url }))
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    app.active("ada").await;
    let proxies = [proxy];
    for trouble in
        [Trouble::Reset, Trouble::Silence, Trouble::HalfOpen, Trouble::Late, Trouble::ReadOnly]
    {
        let changes = async {
            for n in 0..10_i32 {
                let sql = if n % 2 == 0 {
                    "UPDATE connections SET attention_type = 'X', attention_since = now()"
                } else {
                    "UPDATE connections SET attention_type = NULL, attention_since = NULL"
                };
                app.database.execute(sql).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let strike = trouble.strike(&app.database, &proxies, 0, Duration::from_millis(1200));
        tokio::join!(strike, changes);
    }
    // Deliveries whose claim was answered to nobody.
    app.turn_clock(PAST_THE_LEASE).await;
    let sequences = || -> HashSet<u64> {
        let number = |body: Value| body["sequence"].as_u64().unwrap();
        receiver.received().iter().map(|each| number(each.json())).collect()
    };
    until("all of them", async || sequences().len() == 51).await;
    assert_eq!(sequences(), (1..=51).collect());
}
