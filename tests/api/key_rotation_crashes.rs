//! Runs that replace keys end at every step that they make, and the next run finishes.
//!
//! A failpoint ends the process in the middle of the step: its connection to PostgreSQL is gone as after SIGKILL.

use std::time::Duration;

use serde_json::Value;

use crate::key_rotation::{Command, assert_opens, assert_rotated};
use crate::outages::{read_only, read_only_ends};
use crate::support::{Cut, MASTER_KEY, Proxy, TestApp, TestDatabase};

const OTHER: &str = "k2:Q0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0M=";
const KEYS: &str = "SELECT id FROM data_keys WHERE purpose IN ('app', 'user') ORDER BY id";

/// Every point of a run of `rotate-data`, and of `rewrap`.
const ROTATION: [&str; 7] = [
    "rotate_data::wrapped",
    "rotate_data::published",
    "rotate_data::switched",
    "rotate_data::opened",
    "rotate_data::sealed",
    "rotate_data::destroying",
    "rotate_data::destroyed",
];
const REWRAP: [&str; 3] = ["rewrap::wrapped", "rewrap::written", "rewrap::committed"];

async fn active(app: &TestApp) -> Vec<Value> {
    let mut all = Vec::new();
    for user in ["ada", "bob"] {
        all.push(app.active(user).await);
    }
    all
}

async fn assert_all_open(app: &TestApp, connections: &[Value]) {
    for connection in connections {
        assert_opens(app, &app.api, connection).await;
    }
}

#[tokio::test]
async fn a_rotation_that_is_killed_at_any_step_is_finished_by_the_next() {
    let app = TestApp::spawn().await;
    let connections = active(&app).await;
    for point in ROTATION {
        let before = app.database.values(KEYS).await;
        let mut killed = 0;
        // Of each step: the first, the second, and so on, until a run has fewer of them.
        loop {
            let passed = if killed > 0 { format!("{killed}*off->") } else { String::new() };
            let fault = format!("{point}={passed}panic");
            // The first begins, and all others go on with what it has published; if it died before that, they begin.
            let begun = killed > 0 && app.database.values(KEYS).await != before;
            let older = if begun { "1" } else { "0" };
            let arguments = ["rotate-data", "--all", "--older-than", older];
            let run = Command::begin(&app, &[("FAILPOINTS", &fault)], &arguments);
            let ended = run.turned(&app).await;
            assert_all_open(&app, &connections).await;
            if ended.is_some() {
                break;
            }
            killed += 1;
        }
        assert!(killed > 0, "{point} is not on the way");
        assert_rotated(&app, &before).await;
    }
}

#[tokio::test]
async fn a_rewrap_that_is_killed_at_any_step_is_finished_by_the_next() {
    let both = format!("{MASTER_KEY},{OTHER}");
    let app = TestApp::builder().set("STRONGROOM_MASTER_KEYS", &both).spawn().await;
    let connections = active(&app).await;
    let masters = [format!("{OTHER},{MASTER_KEY}"), both];
    for (n, point) in REWRAP.into_iter().enumerate() {
        let first = masters[n % 2].as_str();
        let fault = format!("{point}=panic");
        let variables = [("STRONGROOM_MASTER_KEYS", first), ("FAILPOINTS", &fault)];
        assert_eq!(Command::begin(&app, &variables, &["rewrap"]).ended().await, None, "{point}");
        assert_all_open(&app, &connections).await;
        let again = Command::begin(&app, &variables[..1], &["rewrap"]).ended().await;
        assert!(again.is_some(), "{point}");
        let masters = "SELECT string_agg(DISTINCT master_key_id, ',') FROM data_keys";
        assert_eq!(app.database.value(masters).await, &first[..2]);
        assert_all_open(&app, &connections).await;
    }
}

async fn until(app: &TestApp, sql: &'static str, expected: &str) {
    for _ in 0..6000 {
        if app.database.value(sql).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{sql} is not {expected}");
}

const SWITCHED: &str = "SELECT count(*) FROM data_keys WHERE rotation = 'switched'";
const PUBLISHED: &str = "SELECT count(*) FROM data_keys WHERE rotation = 'published'";

#[tokio::test]
async fn a_rotation_whose_database_goes_silent_ends_and_the_next_one_finishes() {
    let app = TestApp::spawn().await;
    let connections = active(&app).await;
    let before = app.database.values(KEYS).await;
    let proxy = Proxy::before(&app.database).await;
    let variables = [("DATABASE_URL", proxy.url()), ("STRONGROOM_DATABASE_TIMEOUT", "1")];
    for (phase, older) in [(PUBLISHED, "0"), (SWITCHED, "1")] {
        let arguments = ["rotate-data", "--all", "--older-than", older];
        let run = Command::begin(&app, &variables, &arguments);
        if phase == SWITCHED {
            app.database.turn_clock(Duration::from_secs(11)).await;
        }
        until(&app, phase, "3").await;
        // Each waits for its time now, and asks what it is.
        proxy.cut(Cut::Silence);
        assert_eq!(run.ended().await, None);
        proxy.cut(Cut::Never);
        assert_all_open(&app, &connections).await;
    }
    let run = Command::begin(&app, &[], &["rotate-data", "--all", "--older-than", "1"]);
    assert!(run.turned(&app).await.is_some());
    assert_rotated(&app, &before).await;
    assert_all_open(&app, &connections).await;
}

#[tokio::test]
async fn a_rewrap_whose_commit_is_not_answered_ends_and_the_next_one_finishes() {
    let both = format!("{MASTER_KEY},{OTHER}");
    let app = TestApp::builder().set("STRONGROOM_MASTER_KEYS", &both).spawn().await;
    let connections = active(&app).await;
    let proxy = Proxy::before(&app.database).await;
    proxy.cut(Cut::AnswerTo("rewrap_data_keys"));
    let first = format!("{OTHER},{MASTER_KEY}");
    let variables = [("STRONGROOM_MASTER_KEYS", first.as_str()), ("DATABASE_URL", proxy.url())];
    assert_eq!(Command::begin(&app, &variables, &["rewrap"]).ended().await, None);
    assert_eq!(proxy.struck(), 1);
    assert_all_open(&app, &connections).await;
    assert!(Command::begin(&app, &variables[..1], &["rewrap"]).ended().await.is_some());
    let left = "SELECT count(*) FROM data_keys WHERE master_key_id = 'k1'";
    assert_eq!(app.database.value(left).await, "0");
    assert_all_open(&app, &connections).await;
}

#[tokio::test]
async fn a_database_that_becomes_read_only_ends_a_run_and_the_next_one_finishes() {
    let both = format!("{MASTER_KEY},{OTHER}");
    let database = TestDatabase::new().await.past_the_pooler();
    let builder = TestApp::builder().set("STRONGROOM_MASTER_KEYS", &both);
    let app = builder.on(database).spawn().await;
    let connections = active(&app).await;
    let before = app.database.values(KEYS).await;
    let begin = |arguments: &[&str]| {
        let first = format!("{OTHER},{MASTER_KEY}");
        Command::begin(&app, &[("STRONGROOM_MASTER_KEYS", &first)], arguments)
    };
    let run = begin(&["rotate-data", "--all"]);
    until(&app, PUBLISHED, "3").await;
    app.database.turn_clock(Duration::from_secs(11)).await;
    until(&app, SWITCHED, "3").await;
    read_only(&app, true).await;
    assert_eq!(run.ended().await, None);
    for arguments in [&["rotate-data", "--all"][..], &["rewrap"]] {
        assert_eq!(begin(arguments).ended().await, None, "{arguments:?}");
    }
    assert_eq!(app.database.value(SWITCHED).await, "3");
    read_only_ends(&app).await;
    // The service finds out for itself.
    assert_all_open(&app, &connections).await;
    assert!(begin(&["rewrap"]).ended().await.is_some());
    let run = begin(&["rotate-data", "--all", "--older-than", "1"]);
    assert!(run.turned(&app).await.is_some());
    assert_rotated(&app, &before).await;
    assert_all_open(&app, &connections).await;
}
