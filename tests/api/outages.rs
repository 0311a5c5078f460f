//! PostgreSQL goes away and comes back: nothing that Dapi answered is lost, and callers hear 503.

use std::time::Duration;

use strongroom::sandbox::{Effect, Fault};

use crate::support::{Cut, Proxy, TestApp, TestDatabase, for_user, id};

const EXCHANGE: &str = "auth/ExchangeToken";

struct Outage {
    app: TestApp,
    proxy: Proxy,
}

/// A service that reaches its database through a proxy.
async fn behind_a_proxy() -> Outage {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database).await;
    let builder =
        TestApp::builder().set("DATABASE_URL", proxy.url()).set("STRONGROOM_ANSWER_WITHIN", "0");
    let app = builder.on(database).spawn().await;
    Outage { app, proxy }
}

#[tokio::test]
async fn an_answer_waits_in_memory_until_the_database_takes_it() {
    let Outage { app, proxy } = behind_a_proxy().await;
    app.sandbox
        .set_fault(Fault::new(Effect::Answer).on(EXCHANGE).delayed(Duration::from_secs(300)))
        .unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.sandbox.calls_reached(EXCHANGE, 1).await;
    proxy.cut(Cut::Now);
    app.sandbox.clear_faults();
    while app.metric("strongroom_exchange_answers_waiting").await == 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.cut(Cut::Never);
    let settled = || app.database.value("SELECT status FROM connections");
    while settled().await != "active" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(app.sandbox.calls_to(EXCHANGE), 1);
    while app.metric("strongroom_exchange_answers_waiting").await != 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _ = pending;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_read_back_and_leaves_exactly_one_token() {
    let Outage { app, proxy } = behind_a_proxy().await;
    proxy.cut(Cut::AnswerTo("connection.activated"));
    let body = for_user(&app.connect(), "ada");
    app.api.post(&app.token().await, "/v1/connections", &body).await;
    while proxy.struck() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.cut(Cut::Never);
    while app.metric("strongroom_exchanges_total{outcome=\"active\"}").await == 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(app.metric("strongroom_tokens_dropped_total").await, 0.0);
    let activated = "SELECT count(*) FROM audit_events WHERE action = 'connection.activated'";
    assert_eq!(app.database.value(activated).await, "1");
    assert_eq!(app.sandbox.calls_to(EXCHANGE), 1);
}

#[tokio::test]
async fn without_a_database_callers_hear_503_and_the_process_stays_alive() {
    let Outage { app, proxy } = behind_a_proxy().await;
    let active = app.active("ada").await;
    let token = app.token().await;
    proxy.cut(Cut::Now);
    let get = |path: &'static str| app.api.send(app.api.request(reqwest::Method::GET, path));
    assert_eq!(get("/healthz").await.status, 200);
    assert_eq!(get("/readyz").await.problem(), (503, "unavailable"));
    let answer = app.api.get(&token, "/v1/connections").await;
    assert_eq!(answer.problem(), (503, "unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(app.api.reveal(&token, id(&active)).await.problem(), (503, "unavailable"));
    let answer = app.api.hand_in(&token, "ada", &app.connect()).await;
    assert_eq!(answer.problem(), (503, "unavailable"));
    proxy.cut(Cut::Never);
    while get("/readyz").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(app.api.get(&token, "/v1/connections").await.status, 200);
}
