//! The plans of the product's statements, as its sessions get them: generic, and made with statistics that were true once.
//!
//! The statements are those of `.sqlx`, so that none is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};
use strongroom::database::Conn;

use crate::named_items::most_rows;
use crate::support::{TestApp, TestDatabase};

/// Tables that grow with users, connections and what happens to them.
const GROWING: [&str; 21] = [
    "approvals",
    "audit_events",
    "audit_links",
    "bulk_revocation_targets",
    "bulk_revocations",
    "connect_session_results",
    "connect_sessions",
    "connection_counts",
    "connections",
    "data_keys",
    "erasures",
    "events",
    "link_tokens",
    "operator_sessions",
    "plaid_webhooks",
    "proxy_tokens",
    "revoked_tokens",
    "token_bindings",
    "token_rotations",
    "users",
    "webhook_deliveries",
];

/// Statements that read a whole table, or an index without a condition, and why they may: by their names or first words.
const WHOLE: [(&str, &str); 9] = [
    ("data_key_groups", "the rotation of data keys asks for every value, in portions of a key"),
    ("count_rotating_data_keys", "the index holds the keys that rotate"),
    ("find_value_without_its_key", "an import has just written all of it"),
    ("last_import_in_the_trail", "a check of the trail reads all of it anyway"),
    ("find_due_rotations", "a skip scan: the first entry of each app"),
    ("hold_paused_delinks", "bulk revocations are as many as operators made"),
    ("DELETE FROM bulk_revocation_targets", "the same"),
    (
        "SELECT m.id AS \"id: MasterKeyId\"",
        "a start and `keys status` ask what each master key wraps",
    ),
    ("SELECT e.at, e.action, e.actor, e.reason", "the demo's page, in development alone"),
];

/// Name, or first words, and text of each statement.
fn statements() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    for entry in std::fs::read_dir(folder).unwrap() {
        let file: Value =
            serde_json::from_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        let text = file["query"].as_str().unwrap().to_owned();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = words.strip_prefix("-- name: ").and_then(|rest| rest.split(' ').next());
        let name = name.map_or_else(|| words.chars().take(100).collect(), str::to_owned);
        found.entry(name).or_default().push(text);
    }
    assert!(found.len() > 200, "{} statements", found.len());
    found
}

/// The text without its comments begins with one of these if it can be explained.
fn can_be_explained(text: &str) -> bool {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    let first = lines.flat_map(str::split_whitespace).next().unwrap_or_default();
    ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&first)
}

/// The generic plan of a statement, executed or not. Nothing of it stays.
async fn plan(conn: &mut Conn, text: &str, arguments: &[String], analyze: bool) -> Value {
    let all = match arguments {
        [] => String::new(),
        some => format!("({})", some.join(", ")),
    };
    let options = if analyze { "ANALYZE, FORMAT JSON" } else { "FORMAT JSON" };
    let run = async |conn: &mut Conn, sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *conn).await
    };
    run(conn, format!("BEGIN; PREPARE explained AS {text}")).await.unwrap();
    let rows = run(conn, format!("EXPLAIN ({options}) EXECUTE explained{all}")).await;
    let rows = rows.unwrap_or_else(|error| panic!("{text}: {error}"));
    run(conn, "ROLLBACK; DEALLOCATE explained".to_owned()).await.unwrap();
    rows[0].get::<sqlx::types::Json<Value>, _>(0).0
}

/// How many parameters a text has.
fn parameters(text: &str) -> usize {
    let numbers = text.split('$').skip(1).map(|rest| {
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
    });
    numbers.max().unwrap_or(0)
}

/// Whether this is the table, or a part of it.
fn is_of(relation: &str, table: &str) -> bool {
    relation.strip_prefix(table).is_some_and(|rest| {
        rest.is_empty() || rest == "_before" || rest == "_rest" || rest.starts_with("_2")
    })
}

/// Adds what reads a growing table, or a whole index of one that holds all its rows, without a condition.
fn whole_reads(node: &Value, partial: &BTreeSet<String>, found: &mut Vec<String>) {
    let text = |name: &str| node[name].as_str().unwrap_or_default();
    let (kind, index) = (text("Node Type"), text("Index Name"));
    let unbounded = node["Index Cond"].is_null() && !partial.contains(index);
    match kind {
        "Seq Scan" if GROWING.iter().any(|table| is_of(text("Relation Name"), table)) => {
            found.push(format!("all of {}", text("Relation Name")));
        }
        "Index Scan" | "Index Only Scan" | "Bitmap Index Scan"
            if unbounded && GROWING.iter().any(|table| index.starts_with(table)) =>
        {
            found.push(format!("all of {index}"));
        }
        kind if kind.starts_with("Gather") => found.push("parallel workers".to_owned()),
        _ => {}
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        whole_reads(below, partial, found);
    }
}

/// A million connections in small: 3,000 users of one app, nearly all connections in one status, and a trail. Then what was
/// analysed changes.
const HISTORY: &str = "
    SET session_replication_role = replica;
    INSERT INTO users (id, app_id, client_user_id)
    SELECT new_uuid_v7(), app_id, 'history ' || n FROM users, generate_series(1, 3000) n;
    INSERT INTO data_keys (id, purpose, app_id, user_id, master_key_id, wrapped)
    SELECT gen_random_uuid(), k.purpose, u.app_id, u.id, k.master_key_id, k.wrapped
    FROM users u, (SELECT * FROM data_keys WHERE purpose = 'user' LIMIT 1) k WHERE u.client_user_id LIKE 'history %';
    CREATE FUNCTION history(first integer, last integer, in_status text) RETURNS void LANGUAGE sql AS $$
        INSERT INTO connections (app_id, id, user_id, status, login_id, access_token, activated_at, provider,
            revocation_kind, revocation_requested_at, revocation_confirmed_at, due_at)
        SELECT c.app_id, new_uuid_v7(), u.id, in_status, 'login ' || n,
            CASE WHEN in_status IN ('active', 'revoking') THEN c.access_token END, c.activated_at, 'plaid',
            CASE WHEN in_status IN ('delinked', 'revoking') THEN 'delink' END,
            CASE WHEN in_status IN ('delinked', 'revoking') THEN strongroom_now() END,
            CASE WHEN in_status = 'delinked' THEN strongroom_now() END,
            CASE WHEN in_status = 'revoking' THEN strongroom_now() + interval '1 hour' END
        FROM (SELECT * FROM connections ORDER BY id LIMIT 1) c, generate_series(first, last) n
        JOIN users u ON u.client_user_id = 'history ' || (1 + n % 3000)
    $$;
    SELECT history(1, 12000, 'active');
    INSERT INTO token_bindings (connection_id, binding)
    SELECT id, substring(uuid_send(id) FROM 1 FOR 16) FROM connections ON CONFLICT DO NOTHING;
    INSERT INTO audit_events (app_id, action, outcome, actor, user_id, connection_id)
    SELECT app_id, 'token.revealed', 'revealed', 'client', user_id, id FROM connections;
    INSERT INTO audit_links (app_id, seq, event_id, version, hash, user_id, connection_id)
    SELECT app_id, 1000 + row_number() OVER (ORDER BY id), id, 1, sha256(uuid_send(id)), user_id, connection_id
    FROM audit_events WHERE action = 'token.revealed';
    SET session_replication_role = origin;
    ANALYZE connections, users, data_keys, token_bindings, audit_events, audit_links;
    -- What happens after the statistics were gathered.
    SET session_replication_role = replica;
    SELECT history(12001, 16000, 'delinked');
    SELECT history(16001, 16030, 'revoking');
    -- One incident that has all of these.
    INSERT INTO bulk_revocations (id, app_id, kind, reason, filter, per_second, request_hash, matched, marked_at)
    SELECT new_uuid_v7(), app_id, 'delink', 'leak', '{}', 20, sha256(''), 4030, strongroom_now()
    FROM connections LIMIT 1;
    UPDATE connections c SET bulk_revocation_id = b.id, revocation_last_error = CASE status WHEN 'revoking' THEN 'HTTP 503' END
    FROM bulk_revocations b WHERE c.status IN ('delinked', 'revoking');
    UPDATE connections SET attention_type = 'X', attention_since = strongroom_now()
    WHERE status = 'active' AND login_id LIKE 'login %7';
    SET session_replication_role = origin;
    SELECT recount_connections();
    SELECT recount_bulk_revocations()";

async fn with_history() -> TestApp {
    // Plans are of one session's settings.
    let database = TestDatabase::new().await.past_the_pooler();
    let app = TestApp::builder().by_hand().on(database).spawn().await;
    app.active("ada").await;
    // A neighbour: by the order of ids its rows are among the others'.
    app.token_of_another_app().await;
    app.database.execute("ALTER TABLE connections SET (autovacuum_enabled = false)").await;
    app.database.execute(HISTORY).await;
    app
}

#[tokio::test]
async fn no_statement_reads_a_whole_table_that_grows() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let partial = "SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE indpred IS NOT NULL";
    let partial: BTreeSet<_> = app.database.values(partial).await.into_iter().collect();
    for filled in [false, true] {
        if filled {
            app.database.execute(HISTORY).await;
        }
        let mut conn = app.context.pool.acquire().await.unwrap();
        let mut wrong = Vec::new();
        for (name, texts) in statements() {
            for text in texts.iter().filter(|text| can_be_explained(text)) {
                let nulls = vec!["NULL".to_owned(); parameters(text)];
                let explained = plan(&mut conn, text, &nulls, false).await;
                let mut found = Vec::new();
                whole_reads(&explained[0]["Plan"], &partial, &mut found);
                let allowed = WHOLE.iter().any(|(whole, _)| name.starts_with(whole));
                if !allowed {
                    wrong.extend(found.into_iter().map(|what| format!("{name} reads {what}")));
                }
            }
        }
        assert!(wrong.is_empty(), "with rows: {filled}\n{}", wrong.join("\n"));
    }
}

/// Arguments with the ids that they name.
async fn values(app: &TestApp, arguments: &[&str]) -> Vec<String> {
    let database = &app.database;
    let own = database.value("SELECT app_id FROM connections LIMIT 1").await;
    let user = database.value("SELECT user_id FROM connections LIMIT 1").await;
    let one = database.value("SELECT id FROM connections WHERE login_id = 'login 6000'").await;
    let order = database.value("SELECT coalesce(min(id::text), '') FROM bulk_revocations").await;
    let filled = arguments.iter().map(|argument| {
        let argument = argument.replace("{app}", &own).replace("{order}", &order);
        argument.replace("{user}", &user).replace("{connection}", &one)
    });
    filled.collect()
}

/// What operators and callers ask: the statement, its arguments, and the most rows that one step of it may touch.
fn asked() -> Vec<(&'static str, Vec<&'static str>, u64)> {
    // What `values` replaces.
    const APP: &str = "'{app}'";
    const USER: &str = "'{user}'";
    const ONE: &str = "'{connection}'";
    const NOBODY: &str = "'nobody'";
    const LAST: &str = "'ffffffff-ffff-ffff-ffff-ffffffffffff'";
    const FIRST: &str = "'00000000-0000-0000-0000-000000000000'";
    const MANY: &str = "12";
    let search = |status: &'static str, text: &'static str, most: &'static str| {
        vec![APP, status, "NULL", "NULL", text, LAST, MANY, FIRST, most, "NULL", "NULL"]
    };
    let mut asked = vec![
        ("list_connections", vec![APP, LAST, MANY, "NULL", FIRST], 30),
        ("list_connections", vec![APP, LAST, MANY, "false", FIRST], 60),
        ("list_connections_by_status", vec![APP, "'revoking'", LAST, MANY, "NULL", FIRST], 30),
        ("list_connections_by_status", vec![APP, "'pending'", LAST, MANY, "NULL", FIRST], 30),
        ("list_connections_by_status", vec![APP, "'orphaned'", LAST, MANY, "NULL", FIRST], 30),
        ("list_connections_by_status", vec![APP, "'delinked'", LAST, MANY, "NULL", FIRST], 30),
        ("list_connections_by_status", vec![APP, "'active'", LAST, MANY, "NULL", FIRST], 30),
        ("list_connections_needing_attention", vec![APP, "NULL", LAST, MANY, FIRST], 30),
        ("list_connections_of_user", vec![APP, NOBODY, "NULL", LAST, MANY, "NULL", FIRST], 30),
        (
            "search_connections_of_user",
            vec![
                APP, "NULL", "NULL", "NULL", "NULL", LAST, MANY, FIRST, MANY, "NULL", "NULL",
                NOBODY,
            ],
            30,
        ),
        ("search_connections", search("NULL", "NULL", MANY), 30),
        ("search_connections", search("NULL", "'nothing like it'", "500"), 500),
        ("search_connections_by_status", search("'revoking'", "NULL", MANY), 30),
        ("search_connections_by_status", search("'delinked'", "'nothing like it'", "500"), 500),
        ("search_connections_needing_attention", search("NULL", "NULL", MANY), 30),
        (
            "search_older_by_name",
            vec![APP, "'login 77'", "NULL", "NULL", LAST, "NULL", "NULL", "NULL", MANY],
            30,
        ),
        ("count_connections", vec![APP], 60),
        ("count_usable_in_app", vec![APP, "NULL", "NULL", "NULL", "10"], 60),
        (
            "count_usable",
            vec![APP, "NULL", "'{login 77}'", "NULL", "NULL", "NULL", "NULL", "10"],
            30,
        ),
        (
            "list_audit_events_about",
            vec![APP, FIRST, LAST, "NULL", "NULL", "NULL", "NULL", "NULL", ONE, "NULL", MANY],
            30,
        ),
        ("view_connections", vec!["ARRAY['{app}']::uuid[]", "ARRAY['{connection}']::uuid[]"], 30),
        ("release_delinks_of_user", vec![USER], 60),
    ];
    asked.extend(of_an_incident());
    asked.extend(of_background_work());
    asked.extend(of_moves());
    asked
}

/// What is asked of an incident of 4,000 connections.
fn of_an_incident() -> Vec<(&'static str, Vec<&'static str>, u64)> {
    const APP: &str = "'{app}'";
    const ORDER: &str = "'{order}'";
    const LAST: &str = "'ffffffff-ffff-ffff-ffff-ffffffffffff'";
    const FIRST: &str = "'00000000-0000-0000-0000-000000000000'";
    const MANY: &str = "12";
    let listed = |progress| vec![APP, ORDER, progress, LAST, MANY, FIRST];
    vec![
        ("find_bulk_revocation", vec![APP, ORDER], 30),
        ("list_bulk_revocations", vec![APP, LAST, "26"], 30),
        ("count_errors_of_bulk_revocation", vec![ORDER, "'{failed,telling,waiting}'", "1000"], 60),
        ("search_connections_of_bulk_revocation", listed("'{told}'"), 30),
        ("search_connections_of_bulk_revocation", listed("'{failed}'"), 30),
        ("search_connections_of_bulk_revocation", listed("'{told,failed,telling,waiting}'"), 60),
        ("finish_bulk_revocations", vec![ORDER, "NULL", "'ord_1'"], 60),
    ]
}

/// What the background work asks.
fn of_background_work() -> Vec<(&'static str, Vec<&'static str>, u64)> {
    vec![
        ("find_due_exchanges", vec!["100", "'{}'", "'{dapi,plaid}'"], 60),
        ("find_due_in_doubt", vec!["100", "'{}'", "'{dapi,plaid}'"], 60),
        ("find_due_delinks", vec!["100", "'{}'"], 60),
        ("find_due_held_tokens", vec!["100", "'{}'"], 60),
        ("find_due_details", vec!["100", "'{}'"], 60),
        ("find_due_rotations", vec!["100", "'{}'"], 60),
        ("summarize_due_rows", vec![], 70),
        ("release_awaited_delinks", vec!["500", "'2 seconds'"], 60),
        ("hold_paused_delinks", vec!["500"], 60),
        ("delete_old_counts", vec![], 60),
    ]
}

/// What is asked of an app that moves: ten times a second, and for a hundred keys each time.
fn of_moves() -> Vec<(&'static str, Vec<&'static str>, u64)> {
    vec![
        ("app_in_flight", vec!["'{app}'", "'15 minutes'", "0", "0"], 60),
        ("data_keys_of_users", vec!["'{app}'", "''", "100"], 100),
    ]
}

#[tokio::test]
async fn what_is_asked_of_many_connections_touches_few_whatever_the_statistics_say() {
    let app = with_history().await;
    let all = statements();
    for current in [false, true] {
        if current {
            app.database
                .execute("ANALYZE connections, audit_events, audit_links, connection_counts")
                .await;
        }
        let mut conn = app.context.pool.acquire().await.unwrap();
        for (name, arguments, most) in asked() {
            let texts = all.get(name).unwrap_or_else(|| panic!("{name} is no statement"));
            let text = texts.iter().find(|text| parameters(text) == arguments.len());
            let text = text.unwrap_or_else(|| panic!("{name} takes other arguments"));
            let given = values(&app, &arguments).await;
            let explained = plan(&mut conn, text, &given, true).await;
            let touched = most_rows(&explained[0]["Plan"]);
            assert!(
                touched <= most,
                "{name} {arguments:?} touched {touched} rows, statistics current: {current}: {explained:#}"
            );
        }
    }
}

#[tokio::test]
async fn a_verification_reads_trail_and_chain_once_beside_each_other() {
    let app = with_history().await;
    let text = &statements()["find_unlinked_audit_events"][0];
    let mut conn = app.context.pool.acquire().await.unwrap();
    let settings = "SET enable_mergejoin = on; SET enable_nestloop = off";
    sqlx::raw_sql(settings).execute(&mut conn).await.unwrap();
    let own = values(&app, &["'{app}'"]).await;
    let explained = plan(&mut conn, text, &own, true).await;
    let touched = most_rows(&explained[0]["Plan"]);
    assert!((12_000..13_000).contains(&touched), "{touched} rows: {explained:#}");
    assert!(!explained.to_string().contains("external"), "nothing is sorted on disk");
}
