//! What migrations lock, and how they are applied beside traffic.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use strongroom::config::{DatabaseConfig, DatabaseUrl};
use strongroom::service::{check_migrations, migrate};

use crate::support::{TestDatabase, until};

/// The last but one, and the table that the last one changes.
const BEFORE_ROTATION: i64 = 20_261_127_200_001;
const CHANGED: &str = "data_keys";

fn config(database: &TestDatabase) -> DatabaseConfig {
    DatabaseConfig {
        service: DatabaseUrl::parse(database.url()).unwrap(),
        connections: 4,
        console: 0,
        timeout: Duration::from_secs(5),
        migrate: true,
        owner: None,
    }
}

async fn connect(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(database.url()).await.unwrap()
}

/// The tables that there are, with what a migration could change of them, by their oid.
async fn tables(conn: &mut PgConnection) -> BTreeMap<String, Value> {
    let sql = "SELECT c.oid::text AS oid, c.relname::text AS name,
                      pg_relation_filenode(c.oid)::text AS filenode,
                      pg_stat_get_xact_numscans(c.oid) AS scans,
                      ARRAY(SELECT indexrelid::text FROM pg_index WHERE indrelid = c.oid) AS indexes
               FROM pg_class c
               WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
                 AND c.relname <> '_sqlx_migrations'";
    let rows = conn.fetch_all(sql).await.unwrap();
    let table = |row: &sqlx::postgres::PgRow| {
        let table = json!({
            "name": row.get::<String, _>("name"),
            "filenode": row.get::<Option<String>, _>("filenode"),
            "scans": row.get::<i64, _>("scans"),
            "indexes": row.get::<Vec<String>, _>("indexes"),
        });
        (row.get("oid"), table)
    };
    rows.iter().map(table).collect()
}

/// The strongest lock on each table that this transaction holds, by oid: what readers alone take left out.
async fn locks(conn: &mut PgConnection) -> Vec<(String, String)> {
    let sql = "SELECT DISTINCT ON (l.relation) l.relation::text, m.name
               FROM pg_locks l
               JOIN (VALUES ('RowExclusiveLock', 3, 'ROW EXCLUSIVE'),
                            ('ShareUpdateExclusiveLock', 4, 'SHARE UPDATE EXCLUSIVE'),
                            ('ShareLock', 5, 'SHARE'), ('ShareRowExclusiveLock', 6, 'SHARE ROW EXCLUSIVE'),
                            ('ExclusiveLock', 7, 'EXCLUSIVE'),
                            ('AccessExclusiveLock', 8, 'ACCESS EXCLUSIVE')) AS m(mode, strength, name)
                 ON m.mode = l.mode
               WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted
               ORDER BY l.relation, m.strength DESC";
    let rows = conn.fetch_all(sql).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What was done to a table, from the least to the most.
fn work(before: &Value, after: Option<&Value>) -> &'static str {
    let Some(after) = after else { return "catalogue" };
    let old: Vec<_> = before["indexes"].as_array().unwrap().iter().collect();
    let is_new = |index: &Value| !old.contains(&index);
    if before["filenode"] != after["filenode"] {
        "rewrite"
    } else if after["indexes"].as_array().unwrap().iter().any(is_new) {
        "index"
    } else if before["scans"] != after["scans"] {
        "scan"
    } else {
        "catalogue"
    }
}

/// Applies a migration, and returns what it locked of the tables that there were.
async fn observe(conn: &mut PgConnection, migration: &sqlx::migrate::Migration) -> Vec<Value> {
    if migration.no_tx {
        // Such a migration is one statement that builds beside traffic.
        conn.execute(migration.sql.clone()).await.unwrap();
        return Vec::new();
    }
    let before = tables(conn).await;
    let mut tx = conn.begin().await.unwrap();
    tx.execute(migration.sql.clone()).await.unwrap();
    let (after, held) = (tables(&mut tx).await, locks(&mut tx).await);
    tx.commit().await.unwrap();
    let mut found: Vec<_> = held
        .iter()
        .filter_map(|(oid, lock)| {
            let table = before.get(oid)?;
            Some(json!({ "table": table["name"], "lock": lock, "work": work(table, after.get(oid)) }))
        })
        .collect();
    found.sort_by_key(|lock| lock["table"].as_str().unwrap().to_owned());
    found
}

/// `STRONGROOM_TEST_RECORD=1` writes the record anew.
#[tokio::test]
async fn what_each_migration_locks_stands_in_its_record() {
    let database = TestDatabase::migrated_until(0).await;
    let mut seen = serde_json::Map::new();
    for migration in sqlx::migrate!().iter() {
        // A session of its own, whose statistics begin with it.
        let mut conn = connect(&database).await;
        let locks = observe(&mut conn, migration).await;
        if !locks.is_empty() {
            seen.insert(migration.version.to_string(), locks.into());
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/locks.json");
    if std::env::var_os("STRONGROOM_TEST_RECORD").is_some() {
        let text = serde_json::to_string_pretty(&seen).unwrap();
        std::fs::write(path, text + "\n").unwrap();
    }
    let record: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(record, Value::Object(seen), "STRONGROOM_TEST_RECORD=1 records what is new");
}

#[tokio::test]
async fn a_check_shows_what_is_pending_and_waits_for_no_lock() {
    let database = TestDatabase::migrated_until(BEFORE_ROTATION).await;
    let mut holder = connect(&database).await;
    let mut held = holder.begin().await.unwrap();
    held.execute(AssertSqlSafe(format!("LOCK TABLE {CHANGED} IN ACCESS EXCLUSIVE MODE")))
        .await
        .unwrap();
    let pending = check_migrations(&config(&database)).await.unwrap();
    let first = serde_json::to_value(&pending[0]).unwrap();
    assert_eq!(first["version"], json!(20_261_127_210_000_i64));
    let changed = first["locks"].as_array().unwrap().iter().find(|it| it["table"] == CHANGED);
    assert_eq!(changed.unwrap()["lock"], "ACCESS EXCLUSIVE");
    assert_eq!(changed.unwrap()["blocks"], "everything");
    held.rollback().await.unwrap();
    migrate(&config(&database)).await.unwrap();
    assert!(check_migrations(&config(&database)).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_time_that_a_check_expects_grows_with_the_table() {
    let database = TestDatabase::migrated_until(20_261_127_120_000).await;
    let seconds = async || {
        let pending = check_migrations(&config(&database)).await.unwrap();
        let locks = pending.into_iter().flat_map(|it| it.locks);
        locks.map(|it| it.seconds).sum::<i64>()
    };
    assert_eq!(seconds().await, 0);
    // As if a table had grown to 80 GB.
    let grow = "UPDATE pg_class SET relpages = 10000000 WHERE relname IN ('connections', 'data_keys', 'users')";
    database.execute(grow).await;
    assert!(seconds().await > 60);
}

#[tokio::test]
async fn a_migration_gives_way_to_a_forgotten_transaction_and_others_do_not_wait_for_it() {
    let database = TestDatabase::migrated_until(BEFORE_ROTATION).await;
    let mut holder = connect(&database).await;
    let mut forgotten = holder.begin().await.unwrap();
    let read = format!("SELECT count(*) FROM {CHANGED}");
    forgotten.execute(AssertSqlSafe(read.clone())).await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'data_keys'::regclass";
    let others = async {
        until("the migration waits", async || database.value(waiting).await != "0").await;
        // It stands behind the migration, and is let through as soon as that gives way: within a statement's own deadline.
        let mut reader = connect(&database).await;
        reader.execute("SET statement_timeout = '4500ms'").await.unwrap();
        reader.execute(AssertSqlSafe(read)).await.unwrap();
        until("the migration tries again", async || database.value(waiting).await != "0").await;
        forgotten.rollback().await.unwrap();
    };
    let config = config(&database);
    let (migrated, ()) = tokio::join!(migrate(&config), others);
    assert!(migrated.unwrap().applied >= 1);
}

#[tokio::test]
async fn replicas_that_start_together_apply_each_migration_once() {
    let database = TestDatabase::migrated_until(BEFORE_ROTATION).await;
    let config = config(&database);
    let all = futures_util::future::join_all((0..6).map(|_| migrate(&config))).await;
    let applied: usize = all.into_iter().map(|one| one.unwrap().applied).sum();
    let since = format!("SELECT count(*) FROM _sqlx_migrations WHERE version > {BEFORE_ROTATION}");
    let mut conn = connect(&database).await;
    let there: i64 = conn.fetch_one(AssertSqlSafe(since)).await.unwrap().get(0);
    assert_eq!(i64::try_from(applied).unwrap(), there);
}

#[tokio::test]
async fn an_index_whose_construction_was_broken_off_is_built_again() {
    let database = TestDatabase::migrated_until(20_261_127_210_000).await;
    let mut conn = connect(&database).await;
    // What a process leaves that dies meanwhile: PostgreSQL lets a superuser say so.
    let broken = "CREATE INDEX connections_by_end ON connections (created_at);
                  UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'connections_by_end'::regclass";
    conn.execute(broken).await.unwrap();
    migrate(&config(&database)).await.unwrap();
    let valid = "SELECT indisvalid AND pg_get_indexdef(indexrelid) LIKE '%GREATEST%'
                 FROM pg_index WHERE indexrelid = 'connections_by_end'::regclass";
    assert_eq!(database.value(valid).await, "true");
}

#[tokio::test]
async fn who_could_use_the_trail_can_from_the_moment_in_which_it_is_divided_and_no_more() {
    let database = TestDatabase::migrated_until(20_261_130_090_100).await;
    let tag = database.value("SELECT right(current_database(), 12)").await;
    let mut conn = connect(&database).await;
    let roles = format!(
        "CREATE ROLE \"Service-{tag}\";
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO \"Service-{tag}\";
         GRANT SELECT, INSERT ON audit_events, audit_links TO \"Service-{tag}\""
    );
    conn.execute(AssertSqlSafe(roles)).await.unwrap();
    // With one role configured: nothing is granted after the migrations.
    migrate(&config(&database)).await.unwrap();
    let may = "SELECT string_agg(c.relname || ' ' || a.privilege_type, ', ' ORDER BY c.relname, a.privilege_type DESC)
               FROM pg_class c, aclexplode(c.relacl) a
               WHERE c.relname ~ '^audit_(events|links|heads|months|archives)' AND a.grantee <> c.relowner";
    let expected = "audit_archives SELECT, audit_events SELECT, audit_events INSERT, audit_heads SELECT, \
                    audit_links SELECT, audit_links INSERT, audit_months SELECT";
    assert_eq!(database.value(may).await, expected);
}
