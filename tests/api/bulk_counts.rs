//! How far a bulk revocation is: kept by triggers, exact in every snapshot, read without its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom::connections::reconcile;
use strongroom_dev::sandbox::Fault;

use crate::support::{Bank, TestApp, id};

const ORDERS: &str = "/v1/admin/revocations";
/// What the API shows as `told`, `failed`, `telling`, `waiting`, by the rows.
const ROWS: &str = "
    SELECT concat_ws(' ', count(*) FILTER (WHERE revocation_confirmed_at IS NOT NULL),
        count(*) FILTER (WHERE status <> 'revoking' AND revocation_confirmed_at IS NULL),
        count(*) FILTER (WHERE status = 'revoking' AND due_at IS NOT NULL),
        count(*) FILTER (WHERE status = 'revoking' AND due_at IS NULL))
    FROM connections WHERE bulk_revocation_id IS NOT NULL";
const COUNTS: &str =
    "SELECT concat_ws(' ', progress, n) FROM bulk_revocation_counts WHERE n <> 0 ORDER BY 1";
const WAITING_CHANGES: &str = "SELECT count(*) FROM bulk_revocation_count_changes";

async fn revoke_all(app: &TestApp, per_second: i32) -> Value {
    let body = json!({ "kind": "delink", "reason": "incident 7", "perSecond": per_second, "filter": { "all": true } });
    let answer = app.api.post(&app.token().await, ORDERS, &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json
}

async fn look(app: &TestApp, order: &Value) -> Value {
    app.api.get(&app.token().await, &format!("{ORDERS}/{}", id(order))).await.json
}

async fn change(app: &TestApp, order: &Value, what: &str) {
    let path = format!("{ORDERS}/{}/{what}", id(order));
    assert_eq!(app.api.post_empty(&app.token().await, &path).await.status, 200);
}

fn figures(order: &Value) -> String {
    let figures = ["told", "failed", "telling", "waiting"].map(|name| order[name].to_string());
    figures.join(" ")
}

/// Adds the changes that wait, as a round of the background work does last.
async fn fold(app: &TestApp) {
    fold_once(&app.database.pool).await;
    assert_eq!(app.database.value(WAITING_CHANGES).await, "0");
}

async fn fold_once(pool: &sqlx::PgPool) {
    let statement = include_str!("../../src/connections/bulk_revocation/store/fold_counts.sql");
    sqlx::query(statement).bind(5000_i64).execute(pool).await.unwrap();
}

/// The figures, in the page of the one and in the list, before what waits is added and after, are what the rows say.
async fn agree(app: &TestApp, order: &Value, expected: &str) {
    assert_eq!(app.database.value(ROWS).await, expected, "the rows");
    for folded in [false, true] {
        if folded {
            fold(app).await;
        }
        assert_eq!(figures(&look(app, order).await), expected, "folded: {folded}");
        let list = app.api.get(&app.token().await, ORDERS).await.json;
        assert_eq!(figures(&list["revocations"][0]), expected, "in the list, folded: {folded}");
    }
}

async fn rounds(app: &TestApp, count: u32) {
    for _ in 0..count {
        app.tick().await;
    }
}

#[tokio::test]
async fn the_figures_are_those_of_the_rows_from_the_marking_to_the_end() {
    let app = Bank::Dapi.by_hand().await;
    for user in ["ada", "bob", "eve", "kim", "lea", "mia"] {
        app.active(user).await;
    }
    let order = revoke_all(&app, 2).await;
    assert_eq!(order["matched"], 6);
    agree(&app, &order, "0 0 0 6").await;
    rounds(&app, 2).await;
    agree(&app, &order, "2 0 0 4").await;
    app.sandbox.set_fault(Fault::status(503)).unwrap();
    app.turn_clock(Duration::from_secs(1)).await;
    rounds(&app, 2).await;
    agree(&app, &order, "2 0 2 2").await;
    let errors = look(&app, &order).await["errors"].clone();
    assert_eq!(errors[0]["count"], 2, "{errors}");
    change(&app, &order, "pause").await;
    agree(&app, &order, "2 0 0 4").await;
    assert_eq!(look(&app, &order).await["errors"], errors, "also of what is held again");
    change(&app, &order, "resume").await;
    app.turn_clock(Duration::from_secs(1)).await;
    rounds(&app, 1).await;
    change(&app, &order, "cancel").await;
    agree(&app, &order, "2 4 0 0").await;
    app.turn_clock(Duration::from_secs(5)).await;
    rounds(&app, 2).await;
    let done = look(&app, &order).await;
    assert!(done["finishedAt"].is_string(), "{done}");
    agree(&app, &order, "2 4 0 0").await;
}

#[tokio::test]
async fn one_that_has_finished_has_its_figures_on_its_row_alone_whatever_is_erased_of_it() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.active("bob").await;
    let order = revoke_all(&app, 10).await;
    rounds(&app, 2).await;
    app.turn_clock(Duration::from_secs(5)).await;
    rounds(&app, 2).await;
    assert_eq!(figures(&look(&app, &order).await), "2 0 0 0");
    reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.values(COUNTS).await, Vec::<String>::new());
    let erasure = app.api.request(Method::DELETE, "/v1/users/ada").bearer_auth(app.token().await);
    app.api.send(erasure).await;
    rounds(&app, 3).await;
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "1");
    fold(&app).await;
    assert_eq!(app.database.values(COUNTS).await, Vec::<String>::new());
    assert_eq!(figures(&look(&app, &order).await), "2 0 0 0");
}

#[tokio::test]
async fn what_an_erasure_deletes_of_one_under_way_is_counted_no_more() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.active("bob").await;
    let order = revoke_all(&app, 1).await;
    change(&app, &order, "pause").await;
    let erasure = app.api.request(Method::DELETE, "/v1/users/ada").bearer_auth(app.token().await);
    app.api.send(erasure).await;
    for _ in 0..4 {
        rounds(&app, 1).await;
        app.turn_clock(Duration::from_secs(5)).await;
    }
    agree(&app, &order, "0 0 0 1").await;
}

#[tokio::test]
async fn what_an_earlier_release_writes_is_counted_and_counting_anew_finds_the_same() {
    let app = TestApp::by_hand().await;
    for user in ["ada", "bob", "eve"] {
        app.active(user).await;
    }
    let order = revoke_all(&app, 1).await;
    change(&app, &order, "pause").await;
    // By its own statements: whatever they are, each writes the row.
    let confirmed =
        "UPDATE connections SET status = 'delinked', access_token = NULL, user_secret = NULL,
                            revocation_confirmed_at = strongroom_now()
                     WHERE id = (SELECT min(id::text)::uuid FROM connections)";
    app.database.execute(confirmed).await;
    agree(&app, &order, "1 0 0 2").await;
    let kept = app.database.values(COUNTS).await;
    assert_eq!(kept, ["told 1", "waiting 2"]);
    app.database.execute("UPDATE bulk_revocation_counts SET n = 7").await;
    app.database
        .execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT recount_bulk_revocations(); COMMIT")
        .await;
    assert_eq!(app.database.values(COUNTS).await, kept);
}

#[tokio::test]
async fn every_snapshot_counts_each_connection_once_while_two_replicas_add_the_changes() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let order = revoke_all(&app, 1).await;
    change(&app, &order, "pause").await;
    fold(&app).await;
    let done = Arc::new(AtomicBool::new(false));
    let (pool, finished) = (app.database.pool.clone(), Arc::clone(&done));
    let writer = tokio::spawn(async move {
        for n in 0..200 {
            let due = if n % 2 == 0 { "strongroom_now() + interval '1 day'" } else { "NULL" };
            let sql = format!("UPDATE connections SET due_at = {due}");
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        }
        finished.store(true, Ordering::SeqCst);
    });
    while !done.load(Ordering::SeqCst) {
        let found = look(&app, &order).await;
        let total = found["telling"].as_i64().unwrap() + found["waiting"].as_i64().unwrap();
        assert_eq!(total, 1, "{found}");
        tokio::join!(fold_once(&app.database.pool), fold_once(&app.database.pool));
    }
    writer.await.unwrap();
    agree(&app, &order, "0 0 0 1").await;
}

#[tokio::test]
async fn a_round_leaves_no_change_that_a_reader_has_to_add_up() {
    let app = TestApp::by_hand().await;
    for _ in 0..3 {
        app.active("ada").await;
    }
    revoke_all(&app, 1).await;
    assert_ne!(app.database.value(WAITING_CHANGES).await, "0");
    rounds(&app, 1).await;
    // What became known after the round's own addition.
    let left: i64 = app.database.value(WAITING_CHANGES).await.parse().unwrap();
    assert!(left <= 1, "{left}");
}

/// An app with 6,100 connections and a paused bulk revocation that has marked them all.
async fn six_thousand_paused() -> (TestApp, Value) {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.database
        .execute(
            "INSERT INTO connections (id, app_id, user_id, status, login_id, activated_at, access_token, user_secret)
             SELECT gen_random_uuid(), c.app_id, c.user_id, 'active', 'login ' || n, now(), c.access_token, c.user_secret
             FROM connections c, generate_series(1, 6099) n",
        )
        .await;
    let order = revoke_all(&app, 1).await;
    change(&app, &order, "pause").await;
    while look(&app, &order).await["matched"].is_null() {
        rounds(&app, 1).await;
    }
    (app, order)
}

#[tokio::test]
async fn a_cancellation_of_more_than_it_ends_at_once_goes_on_in_the_background() {
    let (app, order) = six_thousand_paused().await;
    change(&app, &order, "cancel").await;
    agree(&app, &order, "0 5000 0 1100").await;
    let said = "SELECT reason FROM audit_events WHERE action = 'revocations.cancelled'";
    let said = app.database.value(said).await;
    assert!(said.ends_with(": 5000 connections given up, and others follow"), "{said}");
    rounds(&app, 1).await;
    agree(&app, &order, "0 6100 0 0").await;
    app.turn_clock(Duration::from_secs(5)).await;
    rounds(&app, 1).await;
    assert!(look(&app, &order).await["finishedAt"].is_string());
    let done = "SELECT reason FROM audit_events WHERE action = 'revocations.finished'";
    let done = app.database.value(done).await;
    assert!(done.ends_with(": 6100 met, 0 told, 6100 unconfirmed"), "{done}");
    assert_eq!(app.metric("strongroom_revocations_total{outcome=\"unconfirmed\"}").await, 6100.0);
    assert_eq!(app.revocations(), 0, "the bank was not told");
}

#[tokio::test]
async fn a_pause_of_more_than_it_holds_at_once_sends_none_of_them_and_goes_on_in_the_background() {
    let (app, order) = six_thousand_paused().await;
    change(&app, &order, "resume").await;
    app.database.execute("UPDATE connections SET due_at = strongroom_now()").await;
    change(&app, &order, "pause").await;
    assert_eq!(figures(&look(&app, &order).await), "0 0 1100 5000");
    while figures(&look(&app, &order).await) != "0 0 0 6100" {
        rounds(&app, 1).await;
    }
    assert_eq!(app.database.value(ROWS).await, "0 0 0 6100");
    assert_eq!(app.revocations(), 0, "the bank was not told");
}
