//! How much a client may read within a minute.

use std::time::Duration;

use strongroom::oauth::clients::Terms;

use crate::support::{TestApp, id};

fn terms(reveals_per_minute: u32) -> Terms {
    Terms { reveals_per_minute: Some(reveals_per_minute), ..Terms::default() }
}

#[tokio::test]
async fn a_client_reads_as_much_as_it_may_on_all_replicas_together_and_then_waits() {
    let app = TestApp::spawn().await;
    let other = app.replica().await;
    let active = app.active("ada").await;
    let client = app.client_on("tokens:read", 3600, terms(5)).await;
    app.refresh_directories().await;
    let token = client.token(&app.api).await;
    for n in 0..5 {
        let api = if n % 2 == 0 { &app.api } else { &other };
        assert_eq!(api.reveal(&token, id(&active)).await.status, 200, "{n}");
    }
    for api in [&app.api, &other] {
        let answer = api.reveal(&token, id(&active)).await;
        assert_eq!(answer.problem(), (429, "too_many_requests"));
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=61).contains(&seconds), "{seconds}");
    }
    assert_eq!(app.metric("strongroom_token_reveals_refused_total").await, 1.0);
    let unbounded = app.token().await;
    assert_eq!(app.api.reveal(&unbounded, id(&active)).await.status, 200, "another's budget");
    app.turn_clock(Duration::from_secs(61)).await;
    assert_eq!(other.reveal(&token, id(&active)).await.status, 200);
}

#[tokio::test]
async fn what_comes_at_once_gets_no_more_than_the_budget() {
    let app = TestApp::spawn().await;
    let other = app.replica().await;
    let active = app.active("ada").await;
    let client = app.client_on("tokens:read", 3600, terms(100)).await;
    app.refresh_directories().await;
    let token = client.token(&app.api).await;
    let reveal = |n: usize| {
        let api = if n < 65 { &app.api } else { &other };
        api.reveal(&token, id(&active))
    };
    let answers = futures_util::future::join_all((0..130).map(reveal)).await;
    let read = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((98..=100).contains(&read), "{read}: at most a portion of 2 is left with a replica");
}

#[tokio::test]
async fn the_services_setting_holds_for_clients_of_whom_nothing_else_is_said() {
    let app = TestApp::builder().set("STRONGROOM_REVEALS_PER_MINUTE", "2").spawn().await;
    let active = app.active("ada").await;
    let token = app.token().await;
    let generous = app.client_on("tokens:read", 3600, terms(10)).await.token(&app.api).await;
    app.refresh_directories().await;
    for status in [200, 200, 429] {
        assert_eq!(app.api.reveal(&token, id(&active)).await.status, status);
    }
    for _ in 0..10 {
        assert_eq!(app.api.reveal(&generous, id(&active)).await.status, 200);
    }
}
