//! What an engine that distributes PostgreSQL cannot run stands in docs/scaling.md by name: nothing of the kind comes or goes
//! without a line there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{TestApp, TestDatabase};

/// What a row of the list says is used, and the query that finds in the schema who does.
const IN_THE_SCHEMA: [(&str, &str); 4] = [
    (
        "REFERENCING",
        "SELECT tgname FROM pg_trigger WHERE coalesce(tgoldtable, tgnewtable) IS NOT NULL AND tgparentid = 0",
    ),
    (
        "CONSTRAINT TRIGGER",
        "SELECT tgname FROM pg_trigger WHERE tgconstraint <> 0 AND NOT tgisinternal",
    ),
    (
        "xid8",
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND udt_name = 'xid8'",
    ),
    (
        "txid_current()",
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosrc ~ 'txid_current'",
    ),
];

/// The same, and the words by which a file of `src` gives itself away.
const IN_STATEMENTS: [(&str, &[&str]); 3] = [
    ("ctid", &["ctid ="]),
    ("pg_current_snapshot()", &["pg_current_snapshot()"]),
    ("pg_advisory_lock", &["pg_advisory_lock(", "pg_try_advisory_lock("]),
];

/// What the rows of the list name in their first cell, of those whose second cell names this.
fn listed(used: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scaling.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, list) = text.split_once("\n### What is left, by statement\n").expect("the list");
    let rows = list.lines().skip_while(|line| !line.starts_with('|'));
    let rows =
        rows.take_while(|line| line.starts_with('|')).map(|row| row.split('|').collect::<Vec<_>>());
    let spans =
        |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    rows.filter(|row| spans(row[2]).iter().any(|span| span == used))
        .flat_map(|row| spans(row[1]))
        .collect()
}

/// Files of `src`, by their paths from the root.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs" || ending == "sql") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

#[tokio::test]
async fn what_the_schema_uses_that_other_engines_lack_is_listed_by_name() {
    let database = TestDatabase::new().await;
    for (used, sql) in IN_THE_SCHEMA {
        let found: BTreeSet<_> = database.values(sql).await.into_iter().collect();
        assert_eq!(listed(used), found, "{used}, in docs/scaling.md");
    }
}

#[test]
fn what_statements_use_that_other_engines_lack_is_listed_by_file() {
    let sources = sources();
    for (used, words) in IN_STATEMENTS {
        let found = sources.iter().filter(|(_, text)| words.iter().any(|word| text.contains(word)));
        let found: BTreeSet<_> = found.map(|(name, _)| name.clone()).collect();
        assert_eq!(listed(used), found, "{used}, in docs/scaling.md");
    }
}

/// An advisory lock of the transaction is released with it, whatever a pooler or a failover does to the session.
#[test]
fn no_lock_of_the_service_outlives_its_transaction() {
    for (name, text) in sources() {
        let locks = text.matches("pg_advisory_").count() + text.matches("pg_try_advisory_").count();
        let of_transactions = text.matches("pg_advisory_xact_lock").count();
        assert!(locks == of_transactions || name == "src/service/migrations.rs", "{name}");
    }
}

#[tokio::test]
async fn each_data_key_that_one_statement_rewraps_or_destroys_is_recorded() {
    const RECORDED: &str =
        "SELECT count(DISTINCT data_key_id) || ' ' || bool_and(destroyed) FROM data_key_changes";
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.active("joan").await;
    app.database.execute("DELETE FROM data_key_changes").await;
    app.database.execute("UPDATE data_keys SET wrapped = wrapped WHERE purpose = 'user'").await;
    assert_eq!(app.database.value(RECORDED).await, "2 false");
    app.database.execute("DELETE FROM data_key_changes").await;
    app.database.execute("DELETE FROM data_keys WHERE purpose = 'user'").await;
    assert_eq!(app.database.value(RECORDED).await, "2 true");
}
