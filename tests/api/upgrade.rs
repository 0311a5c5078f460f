//! A database that an earlier release wrote opens and verifies with this one.
//!
//! `fixtures/before_standard_terms.sql` was written by the release before the migration `20261126170000`, with the
//! tests' master key and client: three connections, one of them delinked, an upstream, and a chained trail. The
//! names inside associated data and hashes are frozen, so that what it sealed opens and what it chained verifies.

use reqwest::Method;
use serde_json::Value;

use crate::support::{TestApp, TestDatabase, command};

const LAST_MIGRATION: i64 = 20_261_126_160_000;
const ROWS: &str = include_str!("fixtures/before_standard_terms.sql");
const SECRETS: &str = include_str!("fixtures/before_standard_terms.json");

async fn upgraded() -> TestApp {
    let database = TestDatabase::of_an_earlier_release(LAST_MIGRATION, ROWS).await;
    TestApp::builder().on(database).spawn().await
}

fn secrets() -> Vec<Value> {
    let all: Value = serde_json::from_str(SECRETS).unwrap();
    all["connections"].as_array().unwrap().clone()
}

#[tokio::test]
async fn what_an_earlier_release_sealed_opens() {
    let app = upgraded().await;
    let token = app.token().await;
    for held in secrets().iter().filter(|held| held["user"] != "bob") {
        let revealed = app.api.reveal(&token, held["id"].as_str().unwrap()).await;
        assert_eq!(revealed.status, 200, "{}", revealed.text);
        assert_eq!(revealed.json["accessToken"], held["accessToken"]);
        assert_eq!(revealed.json["userSecret"], held["userSecret"]);
    }
    let upstream = app.api.get(&token, "/v1/admin/upstreams/rails").await;
    assert_eq!(upstream.status, 200, "{}", upstream.text);
}

#[tokio::test]
async fn a_code_that_an_earlier_release_received_is_recognised() {
    let app = upgraded().await;
    for held in secrets() {
        let user = held["user"].as_str().unwrap();
        let again = app.hand_in(user, &held["result"]).await;
        assert_eq!(again.status, 200, "{}", again.text);
        assert_eq!(again.json["id"], held["id"]);
    }
}

#[tokio::test]
async fn the_chain_of_an_earlier_release_verifies_and_goes_on() {
    let app = upgraded().await;
    let before = app.database.value("SELECT count(*) FROM audit_links").await;
    let token = app.token().await;
    let id = secrets()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(app.api.reveal(&token, &id).await.status, 200);
    while app.database.value("SELECT count(*) FROM audit_unlinked").await != "0" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_ne!(app.database.value("SELECT count(*) FROM audit_links").await, before);
    let mut conn = app.context.pool.acquire().await.unwrap();
    let default = strongroom::apps::find(&mut conn, "default").await.unwrap().unwrap();
    let report = strongroom::audit::verify(
        &mut conn,
        default.id,
        &strongroom::audit::Known::default(),
        |_, _| {},
    )
    .await
    .unwrap();
    assert!(report.broken.is_none(), "{report:?}");
    let checkpoint = app.api.request(Method::GET, "/v1/admin/audit-checkpoint");
    assert_eq!(app.api.send(checkpoint.bearer_auth(&token)).await.status, 200);
}

#[tokio::test]
async fn the_trail_of_an_earlier_release_becomes_its_first_part_without_being_rewritten() {
    let database = TestDatabase::of_an_earlier_release(LAST_MIGRATION, ROWS).await;
    let files = "SELECT string_agg(pg_relation_filenode(oid)::text, ' ' ORDER BY oid) FROM pg_class
                 WHERE relname IN ('audit_events', 'audit_links', 'audit_events_before', 'audit_links_before')
                   AND relkind = 'r'";
    let (before, rows) = (database.value(files).await, "SELECT count(*) FROM audit_events_before");
    let written = database.value("SELECT count(*) FROM audit_events").await;
    let app = TestApp::builder().on(database).spawn().await;
    assert_eq!(app.database.value(files).await, before);
    assert!(app.database.value(rows).await.parse::<i64>().unwrap() >= written.parse().unwrap());
    let heads = "SELECT bool_and(h.seq = l.seq) FROM audit_heads h
                 JOIN (SELECT app_id, max(seq) AS seq FROM audit_links GROUP BY app_id) l USING (app_id)";
    assert_eq!(app.database.value(heads).await, "true");
}

#[tokio::test]
async fn the_connections_of_an_earlier_release_are_counted() {
    let app = upgraded().await;
    let stats = app.api.get(&app.token().await, "/v1/admin/stats").await.json;
    let statuses = stats["statuses"].as_array().unwrap().iter();
    let counted: Vec<_> =
        statuses.map(|it| format!("{} {}", it["status"].as_str().unwrap(), it["total"])).collect();
    let sql = "SELECT status || ' ' || count(*) FROM connections GROUP BY status ORDER BY status";
    assert_eq!(counted, app.database.values(sql).await);
}

#[tokio::test]
async fn replicas_that_start_together_build_indexes_without_waiting_for_each_other_for_ever() {
    let database = TestDatabase::of_an_earlier_release(LAST_MIGRATION, ROWS).await;
    let stage = TestApp::builder().on(database).stage().await;
    let mut starts = Vec::new();
    for _ in 0..4 {
        let mut migrate = command(&stage, &[]);
        migrate.args(["migrate", "--output", "json"]);
        starts.push(tokio::task::spawn_blocking(move || migrate.output().unwrap()));
    }
    let mut applied = 0;
    for start in starts {
        let output = start.await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        applied += answer["applied"].as_u64().unwrap();
    }
    let all = stage.database.value("SELECT count(*) FROM _sqlx_migrations WHERE success").await;
    let earlier = sqlx::migrate!().iter().filter(|it| it.version <= LAST_MIGRATION).count() as u64;
    assert_eq!(applied, all.parse::<u64>().unwrap() - earlier, "each is applied once");
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(stage.database.value(invalid).await, "0");
}
