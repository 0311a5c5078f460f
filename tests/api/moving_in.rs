//! `strongroom connections import` and `export`: an old store moves in, and a store moves out.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::for_each_bank;

use crate::support::{Bank, TestApp, command, id, with};

for_each_bank! {
    a_file_of_tokens_moves_in,
    what_was_exported_moves_in_elsewhere,
}

/// What a command printed.
struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

/// Runs the command with `input` as its standard input.
async fn run(app: &TestApp, arguments: &[&str], input: &str) -> Ran {
    let mut command = command(app, &[]);
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // Fails if the command has refused its arguments.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Imports these lines of JSON from standard input; `more` are further arguments.
async fn import(app: &TestApp, bank: Bank, lines: &[Value], more: &[&str]) -> Ran {
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let fixed = ["connections", "import", "-", "--format", "jsonl", "--app", bank.app()];
    let fixed = [fixed.as_slice(), &["--output", "json"], more].concat();
    run(app, &fixed, &text).await
}

fn told(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{} {}", ran.stdout, ran.stderr))
}

async fn statuses(app: &TestApp) -> String {
    let sql = "SELECT string_agg(u.client_user_id || ' ' || c.status, ', ' ORDER BY u.client_user_id, c.created_at)
               FROM connections c JOIN users u ON u.id = c.user_id";
    app.database.value(sql).await
}

async fn connection_of(app: &TestApp, user: &str) -> Value {
    let path = format!("/v1/connections?clientUserID={user}");
    app.api.get(&app.token().await, &path).await.json["connections"][0].clone()
}

fn file_in(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn a_file_of_tokens_moves_in(bank: Bank) {
    let app = bank.by_hand().await;
    let lines = [app.held_by_an_app("ada").await, app.held_by_an_app("bob").await];
    let ran = import(&app, bank, &lines, &[]).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let counts =
        json!({ "imported": 2, "alreadyHere": 0, "leftAlone": {}, "wrong": [], "stopped": null });
    assert_eq!(told(&ran), counts);
    for line in &lines {
        let user = line["clientUserID"].as_str().unwrap();
        let revealed =
            app.api.reveal(&app.token().await, id(&connection_of(&app, user).await)).await;
        assert_eq!(revealed.json["accessToken"], line["accessToken"]);
        assert_eq!(revealed.json["userSecret"], line["userSecret"]);
    }
    let trail = app.database.trail().await;
    assert_eq!(trail.iter().filter(|event| *event == "connection.imported active").count(), 2);

    let again = import(&app, bank, &lines, &[]).await;
    assert_eq!(
        (told(&again)["imported"].as_i64(), told(&again)["alreadyHere"].as_i64()),
        (Some(0), Some(2))
    );
}

#[tokio::test]
async fn a_second_run_brings_back_nothing_that_was_revoked_and_replaces_nothing_that_is_newer() {
    let app = TestApp::by_hand().await;
    let revoked = app.held_by_an_app("ada").await;
    let older = app.held_by_an_app("bob").await;
    import(&app, Bank::Dapi, &[revoked.clone(), older.clone()], &[]).await;
    let token = app.token().await;
    app.api.delink(&token, id(&connection_of(&app, "ada").await)).await;
    app.tick().await;
    let newer = with(&older, json!({ "accessToken": "newer" }));
    assert_eq!(app.api.post(&token, "/v1/connections/import", &newer).await.status, 201);
    let before = statuses(&app).await;

    let again = import(&app, Bank::Dapi, &[revoked, older], &[]).await;
    assert_eq!(again.status, 0, "{}", again.stderr);
    assert_eq!(told(&again)["leftAlone"], json!({ "active": 1, "delinked": 1 }));
    assert_eq!(statuses(&app).await, before);
    assert_eq!(before, "ada delinked, bob invalidated, bob active");
}

#[tokio::test]
async fn a_wrong_line_is_named_before_anything_is_imported_and_no_value_is_shown() {
    let app = TestApp::by_hand().await;
    let good = app.held_by_an_app("ada").await;
    let lines = [
        good.clone(),
        with(&good, json!({ "clientUserID": "bob", "accessToken": "two canary words" })),
        with(&good, json!({ "clientUserID": "eve", "userSecret": null })),
        with(&good, json!({ "accessToken": "canary" })),
        json!({ "clientUserID": "dan", "itemID": "item", "accessToken": "canary" }),
    ];
    let ran = import(&app, Bank::Dapi, &lines, &[]).await;
    assert_eq!((ran.status, ran.stdout.as_str()), (2, ""));
    for wrong in [
        "4 lines are wrong. Nothing was imported.",
        "line 2: accessToken:",
        "line 3: userSecret: is missing",
        "line 4: is of the same user and bank login as line 1",
        "line 5: connectionID: is what a token of Dapi comes with",
    ] {
        assert!(ran.stderr.contains(wrong), "{wrong}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
    assert_eq!(statuses(&app).await, "null");
}

#[tokio::test]
async fn a_file_can_be_checked_without_an_import() {
    let app = TestApp::by_hand().await;
    let ran = import(&app, Bank::Dapi, &[app.held_by_an_app("ada").await], &["--check"]).await;
    assert_eq!((ran.status, &told(&ran)), (0, &json!({ "lines": 1, "wrong": [] })));
    assert_eq!(statuses(&app).await, "null");
}

#[tokio::test]
async fn columns_of_an_old_store_are_named_and_decrypted_by_its_own_command() {
    let app = TestApp::by_hand().await;
    let held = app.held_by_an_app("ada").await;
    let text = |field: &str| held[field].as_str().unwrap();
    let reversed = |field: &str| text(field).chars().rev().collect::<String>();
    let csv = format!(
        "id,customer,connectionID,token_enc,secret_enc\n7,ada,{},\"{}\",\"{}\"\n",
        text("connectionID"),
        reversed("accessToken"),
        reversed("userSecret")
    );
    let folder = tempfile::tempdir().unwrap();
    let file = file_in(folder.path(), "old.csv", &csv);
    let ran = run(
        &app,
        &[
            "connections",
            "import",
            file.to_str().unwrap(),
            "--ignore-other-columns",
            "--column",
            "clientUserID=customer",
            "--column",
            "accessToken=token_enc",
            "--column",
            "userSecret=secret_enc",
            "--decrypt",
            "accessToken",
            "--decrypt",
            "userSecret",
            "--decrypt-command",
            "rev",
        ],
        "",
    )
    .await;
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "imported      1\nalready here  0\n"),
        "{}",
        ran.stderr
    );
    let revealed = app.api.reveal(&app.token().await, id(&connection_of(&app, "ada").await)).await;
    assert_eq!(revealed.json["accessToken"], held["accessToken"]);
    assert_eq!(revealed.json["userSecret"], held["userSecret"]);
}

#[tokio::test]
async fn a_command_that_fails_or_loses_a_line_imports_nothing() {
    let app = TestApp::by_hand().await;
    let lines = [app.held_by_an_app("ada").await, app.held_by_an_app("bob").await];
    for (broken, what) in
        [("cat; exit 3", "failed: exit status: 3"), ("head -n 1", "wrote 1 lines for 2 values")]
    {
        let more = ["--decrypt", "accessToken", "--decrypt-command", broken];
        let ran = import(&app, Bank::Dapi, &lines, &more).await;
        assert_eq!(ran.status, 1, "{broken}");
        assert!(ran.stderr.contains(what), "{}", ran.stderr);
    }
    assert_eq!(statuses(&app).await, "null");
}

#[tokio::test]
async fn what_the_provider_refuses_is_named_and_the_rest_is_imported() {
    let app = TestApp::by_hand().await;
    let good = app.held_by_an_app("ada").await;
    let dead = with(&app.held_by_an_app("bob").await, json!({ "accessToken": "canary" }));
    let ran = import(&app, Bank::Dapi, &[dead, good], &["--verify"]).await;
    assert_eq!(ran.status, 1);
    assert_eq!(told(&ran)["imported"], 1);
    assert_eq!(told(&ran)["wrong"][0]["line"], 1);
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    let error = error["error"].as_str().unwrap();
    let said = "1 line is wrong. The rest was imported.\n  line 1: Dapi answered";
    assert!(error.starts_with(said), "{error}");
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("canary"));
    assert_eq!(statuses(&app).await, "ada active");
}

#[tokio::test]
async fn an_import_that_was_killed_goes_on_when_it_is_run_again() {
    let app = TestApp::by_hand().await;
    let template = app.held_by_an_app("ada").await;
    let line = |n: usize| {
        with(
            &template,
            json!({
                "clientUserID": format!("user-{n:04}"), "connectionID": format!("login-{n}"),
                "accessToken": format!("token-{n}"),
            }),
        )
    };
    let text = (0..2000).map(|n| format!("{}\n", line(n))).collect::<String>();
    let folder = tempfile::tempdir().unwrap();
    let file = file_in(folder.path(), "old.jsonl", &text);
    let mut first = command(&app, &[]);
    let mut first = first.args(["connections", "import", file.to_str().unwrap()]).spawn().unwrap();
    let count = "SELECT count(*) FROM connections";
    while app.database.value(count).await.parse::<u32>().unwrap() < 100 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let begun = app.database.value(count).await.parse::<i64>().unwrap();
    assert!(begun < 2000, "it was through already");
    let ran =
        run(&app, &["connections", "import", file.to_str().unwrap(), "--output", "json"], "").await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    // A statement of the killed run may have committed after the count.
    assert!(told(&ran)["alreadyHere"].as_i64().unwrap() >= begun);
    assert_eq!(app.database.value(count).await, "2000");
    let active = "SELECT count(DISTINCT user_id) FROM connections WHERE status = 'active'";
    assert_eq!(app.database.value(active).await, "2000");
}

#[tokio::test]
async fn an_import_that_the_database_refuses_stops_and_goes_on_later() {
    let app = TestApp::by_hand().await;
    let held = app.held_by_an_app("ada").await;
    app.database
        .execute("ALTER TABLE connections ADD CONSTRAINT no_row CHECK (false) NOT VALID")
        .await;
    let ran = import(&app, Bank::Dapi, std::slice::from_ref(&held), &[]).await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("stopped; run it again to go on. line 1:"), "{}", ran.stderr);
    app.database.execute("ALTER TABLE connections DROP CONSTRAINT no_row").await;
    assert_eq!(told(&import(&app, Bank::Dapi, &[held], &[]).await)["imported"], 1);
}

async fn what_was_exported_moves_in_elsewhere(bank: Bank) {
    let from = bank.spawn().await;
    let active = from.active("ada").await;
    let revoked = from.active("bob").await;
    from.api.delink(&from.token().await, id(&revoked)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.jsonl");
    let export = ["connections", "export", "--app", bank.app(), "--reason", "a new region"];
    let ran = run(&from, &[&export[..], &["--to", file.to_str().unwrap()]].concat(), "").await;
    assert_eq!((ran.status, ran.stderr.as_str()), (0, "exported 1 token\n"));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = run(&from, &[&export[..], &["--to", file.to_str().unwrap()]].concat(), "").await;
    assert_eq!(again.status, 2, "an existing file is not overwritten: {}", again.stderr);
    let trail = "SELECT actor || ' ' || reason FROM audit_events WHERE action = 'token.revealed'";
    assert_eq!(from.database.values(trail).await, ["operator a new region"]);

    let to = bank.by_hand().await;
    let ran =
        run(&to, &["connections", "import", file.to_str().unwrap(), "--app", bank.app()], "").await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let here = from.api.reveal(&from.token().await, id(&active)).await.json;
    let there = to.api.reveal(&to.token().await, id(&connection_of(&to, "ada").await)).await.json;
    for field in ["accessToken", "userSecret", "connectionID", "userID", "tokenID"] {
        assert_eq!(here[field], there[field], "{field}");
    }
}

#[tokio::test]
async fn tokens_that_are_replaced_after_a_reading_are_not_exported() {
    let app = Bank::Plaid.spawn().await;
    app.active("ada").await;
    let set = ["apps", "set", "plaid", "--rotate-after-reveal", "true"];
    assert_eq!(run(&app, &set, "").await.status, 0);
    let ran =
        run(&app, &["connections", "export", "--app", "plaid", "--reason", "moving"], "").await;
    assert_eq!((ran.status, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("--rotate-after-reveal false"), "{}", ran.stderr);
}
