//! How many connections an app has, by status and age: kept by triggers, exact in every snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom::connections::reconcile;
use strongroom_dev::sandbox::Fault;

use crate::support::{Bank, TestApp, id};

const COUNTS: &str = "SELECT concat_ws(' ', app_id, span, status, since, n) FROM connection_counts
                      WHERE n <> 0 ORDER BY 1";

async fn stats(app: &TestApp) -> Value {
    let answer = app.api.get(&app.token().await, "/v1/admin/stats").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

/// `status total`, as the API counts them.
async fn counted(app: &TestApp) -> Vec<String> {
    let stats = stats(app).await;
    let statuses = stats["statuses"].as_array().unwrap().iter();
    statuses.map(|it| format!("{} {}", it["status"].as_str().unwrap(), it["total"])).collect()
}

/// The same, as the rows say it.
async fn stored(app: &TestApp) -> Vec<String> {
    let sql = "SELECT status || ' ' || count(*) FROM connections GROUP BY status ORDER BY status";
    app.database.values(sql).await
}

async fn ages(app: &TestApp) -> Value {
    stats(app).await["statuses"][0]["ages"].clone()
}

async fn fold(app: &TestApp) {
    reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value("SELECT count(*) FROM connection_count_changes").await, "0");
}

/// Connections in many statuses, by the ways in which the product gets there.
async fn lives(app: &TestApp) {
    let token = app.token().await;
    for user in ["ada", "bob", "eve"] {
        app.active(user).await;
    }
    let revoking = app.active("bob").await;
    app.api.delink(&token, id(&revoking)).await;
    let delinked = app.active("eve").await;
    app.api.delink(&token, id(&delinked)).await;
    app.tick().await;
    app.sandbox.set_fault(Fault::status(400).times(1)).unwrap();
    app.hand_in("ada", &app.connect()).await;
    app.active("gone").await;
    let erasure = app.api.request(Method::DELETE, "/v1/users/gone").bearer_auth(&token);
    app.api.send(erasure).await;
    for _ in 0..3 {
        app.turn_clock(Duration::from_secs(10)).await;
        app.tick().await;
    }
    app.sandbox.set_fault(Fault::status(503)).unwrap();
    app.hand_in("ada", &app.connect()).await;
}

#[tokio::test]
async fn counts_follow_every_change_of_a_status_whether_it_is_added_yet_or_not() {
    let app = Bank::Dapi.by_hand().await;
    lives(&app).await;
    let rows = stored(&app).await;
    assert!(rows.len() >= 3, "{rows:?}");
    assert_eq!(counted(&app).await, rows);
    fold(&app).await;
    assert_eq!(counted(&app).await, rows);
    let erased = app.database.value("SELECT count(*) FROM erasures WHERE erased_at IS NOT NULL");
    assert_eq!(erased.await, "1", "the connections of an erased user count no more");
    app.turn_clock(Duration::from_hours(2)).await;
    app.tick().await;
    assert_eq!(counted(&app).await, stored(&app).await);
}

#[tokio::test]
async fn counting_anew_finds_what_the_triggers_counted() {
    let app = Bank::Dapi.by_hand().await;
    lives(&app).await;
    fold(&app).await;
    let kept = app.database.values(COUNTS).await;
    app.database
        .execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT recount_connections(); COMMIT")
        .await;
    assert_eq!(app.database.values(COUNTS).await, kept);
}

#[tokio::test]
async fn a_connection_has_each_age_in_turn() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let minute = Duration::from_mins(1);
    let hour = 60 * minute;
    let day = 24 * hour;
    for (later, age) in [
        (Duration::ZERO, "hour"),
        (58 * minute, "hour"),
        (10 * minute, "day"),
        (2 * hour, "day"),
        (2 * day, "week"),
        (6 * day, "month"),
        (20 * day, "month"),
        (3 * day, "older"),
        (9 * day, "older"),
    ] {
        app.turn_clock(later).await;
        for _ in 0..2 {
            let mut expected = json!({ "hour": 0, "day": 0, "week": 0, "month": 0, "older": 0 });
            expected[age] = json!(1);
            assert_eq!(ages(&app).await, expected, "{later:?} later");
            fold(&app).await;
        }
    }
    let rows = app.database.value("SELECT count(*) FROM connection_counts").await;
    assert_eq!(rows, "1", "counts by hours and minutes are deleted when no age needs them");
}

#[tokio::test]
async fn every_snapshot_counts_each_connection_once_while_changes_are_added() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let done = Arc::new(AtomicBool::new(false));
    let (pool, finished) = (app.database.pool.clone(), Arc::clone(&done));
    let writer = tokio::spawn(async move {
        for n in 0..200 {
            sqlx::query(
                "INSERT INTO connections (app_id, id, user_id, status, login_id, access_token, user_secret,
                                          activated_at)
                 SELECT app_id, new_uuid_v7(), user_id, 'active', 'login ' || $1, access_token, user_secret,
                        activated_at
                 FROM connections WHERE login_id NOT LIKE 'login %'",
            )
            .bind(n)
            .execute(&pool)
            .await
            .unwrap();
        }
        finished.store(true, Ordering::SeqCst);
    });
    let mut before = 0;
    while !done.load(Ordering::SeqCst) {
        let total = stats(&app).await["total"].as_i64().unwrap();
        assert!((before..=201).contains(&total), "{total} after {before}");
        before = total;
        reconcile::housekeeping(&app.context).await.unwrap();
    }
    writer.await.unwrap();
    assert_eq!(stats(&app).await["total"], 201);
}

#[tokio::test]
async fn a_dry_run_of_everything_counts_what_is_usable() {
    let app = TestApp::by_hand().await;
    let token = app.token().await;
    let ada = app.active("ada").await;
    let bob = app.active("bob").await;
    app.api.invalidate(&token, id(&ada), &json!({ "reason": "test" })).await;
    app.sandbox.set_fault(Fault::status(503)).unwrap();
    let pending = app.hand_in("eve", &app.connect()).await.json;
    for folded in [false, true] {
        if folded {
            fold(&app).await;
        }
        for filter in [json!({ "all": true }), json!({ "createdAfter": "2020-01-01T00:00:00Z" })] {
            let body =
                json!({ "kind": "delink", "reason": "test", "dryRun": true, "filter": filter });
            let answer = app.api.post(&token, "/v1/admin/revocations", &body).await;
            assert_eq!(answer.json["matched"], 2, "{}", answer.text);
            let text = answer.text;
            assert!(text.contains(id(&bob)) && text.contains(id(&pending)), "{text}");
        }
    }
}
