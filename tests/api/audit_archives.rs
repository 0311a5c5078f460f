//! Months of the audit trail that leave as files: the files, the chain across them, and what a kill leaves.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sqlx::Executor as _;
use strongroom::audit::{self, Filter, Linked};
use tempfile::TempDir;

use crate::support::{TestApp, id, run_command};

/// How many parts with rows were dropped. The one after the first is empty, and may be due as well.
const MONTHS: &str =
    "SELECT count(*) FROM audit_months WHERE name = 'before' AND dropped_at IS NOT NULL";
const LATER: Duration = Duration::from_hours(24 * 130);

/// An app whose first part is over for longer than it is kept, and a folder.
async fn with_a_finished_month() -> (TestApp, TempDir) {
    let app =
        TestApp::builder().set("STRONGROOM_AUDIT_RETENTION_MONTHS", "1").by_hand().spawn().await;
    let connection = app.active("ada").await;
    let token = app.token().await;
    for _ in 0..3 {
        assert_eq!(app.api.reveal(&token, id(&connection)).await.status, 200);
    }
    app.link().await;
    app.turn_clock(LATER).await;
    app.prepare_months().await;
    (app, tempfile::tempdir().unwrap())
}

async fn archive(app: &TestApp, folder: &Path) -> (i32, Value, String) {
    run_command(app, &["audit", "archive", folder.to_str().unwrap()], &[]).await
}

async fn verify(app: &TestApp) -> (i32, Value) {
    let (status, told, _) = run_command(app, &["audit", "verify", "--app", "default"], &[]).await;
    (status, told["apps"][0].clone())
}

async fn verify_file(app: &TestApp, file: &Path) -> (i32, String) {
    let (status, told, errors) =
        run_command(app, &["audit", "verify", "--archive", file.to_str().unwrap()], &[]).await;
    let broken = told["archives"][0]["broken"].as_str().unwrap_or_default().to_owned();
    assert_eq!(status == 0, broken.is_empty(), "{errors}");
    (status, broken)
}

fn archives(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.to_str().unwrap().ends_with(".jsonl.zst")).collect();
    files.sort();
    files
}

/// Changes the trail as only a superuser can, with the triggers off.
async fn tamper(app: &TestApp, statements: &[&'static str]) {
    let mut tx = app.database.pool.begin().await.unwrap();
    tx.execute("SET LOCAL session_replication_role = replica").await.unwrap();
    for sql in statements {
        tx.execute(*sql).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_finished_month_leaves_as_a_file_and_the_chain_is_followed_across_it() {
    let (app, folder) = with_a_finished_month().await;
    let written = app.database.value("SELECT count(*) FROM audit_events WHERE app_id = (SELECT id FROM apps WHERE name = 'default')").await;
    let (status, told, errors) = archive(&app, folder.path()).await;
    assert_eq!(status, 0, "{errors}");
    assert_eq!(told["archived"][0]["links"].to_string(), written);
    assert_eq!(
        app.database.value("SELECT to_regclass('audit_events_before') IS NULL").await,
        "true"
    );
    let (status, report) = verify(&app).await;
    assert_eq!((status, report["archived"].to_string()), (0, written.clone()), "{report}");
    let [file] = archives(folder.path()).try_into().unwrap();
    assert_eq!(verify_file(&app, &file).await, (0, String::new()));
    // Every row is in the file, in words.
    let lines =
        String::from_utf8(zstd::decode_all(std::fs::File::open(&file).unwrap()).unwrap()).unwrap();
    assert_eq!(lines.matches("\"action\"").count().to_string(), written);
    // The chain goes on, and says so.
    app.active("bob").await;
    app.link().await;
    let (status, report) = verify(&app).await;
    assert_eq!(status, 0, "{report}");
    let trail = "SELECT reason FROM audit_events WHERE action = 'audit.archived'";
    assert!(
        app.database.value(trail).await.starts_with(&format!("before: {written} links, sha256 "))
    );
}

#[tokio::test]
async fn the_first_row_after_an_archived_month_is_shown_as_one_that_continues_the_chain() {
    let (app, folder) = with_a_finished_month().await;
    assert_eq!(archive(&app, folder.path()).await.0, 0);
    let mut conn = app.context.pool.acquire().await.unwrap();
    let of = strongroom::apps::find(&mut conn, "default").await.unwrap().unwrap().id;
    let events = audit::list(&mut conn, &Filter::of(of), None, 100).await.unwrap();
    let links = audit::check(&mut conn, of, &events).await.unwrap();
    assert!(!links.is_empty() && links.values().all(|link| *link == Linked::Holds), "{links:?}");
}

#[tokio::test]
async fn one_month_after_the_other_leaves_and_the_chain_is_followed_across_all() {
    let (app, folder) = with_a_finished_month().await;
    assert_eq!(archive(&app, folder.path()).await.0, 0);
    app.active("bob").await;
    app.link().await;
    app.turn_clock(LATER).await;
    app.prepare_months().await;
    let (status, told, errors) = archive(&app, folder.path()).await;
    assert_eq!((status, told["archived"].as_array().unwrap().len()), (0, 1), "{errors}");
    assert_eq!(archives(folder.path()).len(), 2);
    let (status, report) = verify(&app).await;
    assert_eq!(status, 0, "{report}");
    // Empty parts of months in between have gone without a file.
    let old = "SELECT count(*) FROM audit_months WHERE dropped_at IS NULL
               AND ends_at + interval '1 month' <= strongroom_now()";
    assert_eq!(app.database.value(old).await, "0");
}

#[tokio::test]
async fn a_run_that_is_killed_at_any_step_loses_nothing_and_the_next_one_goes_on() {
    for point in ["archive::written", "archive::recorded", "archive::dropping"] {
        let (app, folder) = with_a_finished_month().await;
        let path = folder.path().to_str().unwrap();
        let fault = format!("{point}=panic");
        let (status, ..) =
            run_command(&app, &["audit", "archive", path], &[("FAILPOINTS", &fault)]).await;
        assert_ne!(status, 0, "{point}");
        assert_eq!(app.database.value(MONTHS).await, "0", "{point}");
        assert_eq!(verify(&app).await.0, 0, "{point}");
        let (status, _, errors) = archive(&app, folder.path()).await;
        assert_eq!(status, 0, "{point}: {errors}");
        assert_eq!(app.database.value(MONTHS).await, "1", "{point}");
        assert_eq!(verify(&app).await.0, 0, "{point}");
        let [file] = archives(folder.path()).try_into().unwrap();
        assert_eq!(verify_file(&app, &file).await.0, 0, "{point}");
        let told = "SELECT count(*) FROM audit_events WHERE action = 'audit.archived'";
        assert_eq!(app.database.value(told).await, "1", "{point}");
    }
}

#[tokio::test]
async fn a_file_that_was_edited_cut_off_or_written_anew_is_found() {
    let (app, folder) = with_a_finished_month().await;
    assert_eq!(archive(&app, folder.path()).await.0, 0);
    let [file] = archives(folder.path()).try_into().unwrap();
    let text = zstd::decode_all(std::fs::File::open(&file).unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let without = |index: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != index);
        kept.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let last = lines.len() - 1;
    for (changed, what) in [
        (text.replace("\"token.revealed\"", "\"token.hidden\""), "was edited"),
        (without(last - 2), "stands in another's place"),
        (without(last - 1), "was rewritten"),
        (without(last), "cut off"),
        (format!("{text}{}\n", lines[0]), "not one of an archive"),
        (text.replace("\"month\":\"before\"", "\"month\":\"2030_01\""), "was rewritten"),
    ] {
        let mut encoder = zstd::Encoder::new(std::fs::File::create(&file).unwrap(), 0).unwrap();
        encoder.write_all(changed.as_bytes()).unwrap();
        encoder.finish().unwrap();
        let (status, broken) = verify_file(&app, &file).await;
        assert_eq!(status, 1);
        assert!(broken.contains(what), "{broken} for {what}");
    }
}

#[tokio::test]
async fn a_record_that_nobody_here_signed_leads_across_nothing() {
    let (app, folder) = with_a_finished_month().await;
    assert_eq!(archive(&app, folder.path()).await.0, 0);
    let forged = "UPDATE audit_archives SET statement = left(statement, -4) || 'AAAA'";
    app.database.execute(forged).await;
    let (status, report) = verify(&app).await;
    assert_eq!((status, report["unproved"].as_i64()), (1, Some(1)), "{report}");
    assert_eq!(report["broken"]["fault"], "link_removed");
}

#[tokio::test]
async fn a_month_whose_chain_does_not_hold_stays() {
    let (app, folder) = with_a_finished_month().await;
    let changed = "UPDATE audit_events SET reason = 'changed' WHERE action = 'token.revealed'";
    tamper(&app, &[changed]).await;
    let (status, _, errors) = archive(&app, folder.path()).await;
    assert_eq!(status, 1);
    assert!(errors.contains("not what was written"), "{errors}");
    assert_eq!(app.database.value(MONTHS).await, "0");
    assert!(archives(folder.path()).is_empty());
}

#[tokio::test]
async fn what_is_not_over_for_long_enough_stays_and_without_a_setting_everything_does() {
    let (app, folder) = with_a_finished_month().await;
    let path = folder.path().to_str().unwrap();
    let unset = [("STRONGROOM_AUDIT_RETENTION_MONTHS", "0")];
    let (status, _, errors) = run_command(&app, &["audit", "archive", path], &unset).await;
    assert_eq!(status, 2, "{errors}");
    let longer = [("STRONGROOM_AUDIT_RETENTION_MONTHS", "12")];
    let (status, told, _) = run_command(&app, &["audit", "archive", path], &longer).await;
    assert_eq!((status, told["archived"].as_array().unwrap().len()), (0, 0));
    let (status, told, _) = run_command(&app, &["audit", "archive", path, "--check"], &[]).await;
    assert_eq!((status, told["due"][0].as_str()), (0, Some("before")));
    assert_eq!(app.database.value(MONTHS).await, "0");
}

#[tokio::test]
async fn a_chain_that_was_rewritten_before_it_was_archived_does_not_match_a_checkpoint() {
    let (app, folder) = with_a_finished_month().await;
    let (_, told, _) = run_command(&app, &["audit", "checkpoint"], &[]).await;
    let points = folder.path().join("checkpoints");
    std::fs::write(&points, told["checkpoint"].as_str().unwrap()).unwrap();
    tamper(
        &app,
        &[
            "UPDATE audit_events SET reason = 'nothing' WHERE action = 'token.revealed'",
            "DELETE FROM audit_links",
            "DELETE FROM audit_heads",
            "INSERT INTO audit_unlinked SELECT app_id, id FROM audit_events",
        ],
    )
    .await;
    assert_eq!(archive(&app, folder.path()).await.0, 0, "it holds together");
    assert_eq!(verify(&app).await.0, 0);
    let points = points.to_str().unwrap();
    let (status, told, _) =
        run_command(&app, &["audit", "verify", "--checkpoint", points], &[]).await;
    let default = told["apps"].as_array().unwrap().iter().find(|it| it["app"] == "default");
    assert_eq!((status, &default.unwrap()["broken"]["fault"]), (1, &"rewritten".into()));
    let [file] = archives(folder.path()).try_into().unwrap();
    let compare = ["audit", "verify", "--checkpoint", points, "--archive", file.to_str().unwrap()];
    let (status, told, _) = run_command(&app, &compare, &[]).await;
    let broken = told["archives"][0]["broken"].as_str().unwrap();
    assert!(status == 1 && broken.contains("not the one of a checkpoint"), "{broken}");
}
