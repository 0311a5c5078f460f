//! Operators at the command line: who the trail says it was.

use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::{TestApp, command};

async fn run(app: &TestApp, arguments: &[&str]) -> Output {
    let mut command = command(app, &[]);
    command.args(["--output", "json"]).args(arguments).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn creates_a_client(app: &TestApp, identity: &[&str], name: &str) -> Output {
    let create = ["clients", "create", name, "--scope", "connections:read"];
    run(app, &[identity, create.as_slice()].concat()).await
}

/// The actors of the clients that were created, in their order, but for the bootstrap client's.
async fn creators(app: &TestApp) -> String {
    let creators = "SELECT coalesce(string_agg(actor, ', ' ORDER BY id), '') FROM audit_events
                    WHERE action = 'client.created' AND actor LIKE 'operator%'";
    app.database.value(creators).await
}

#[tokio::test]
async fn the_trail_names_the_operator_that_a_command_names() {
    let app = TestApp::spawn().await;
    json(&run(&app, &["operators", "add", "ana", "--role", "admin"]).await);
    json(&creates_a_client(&app, &["--as", "ana"], "one").await);
    json(&creates_a_client(&app, &[], "two").await);
    assert_eq!(creators(&app).await, "operator: ana, operator");
}

#[tokio::test]
async fn a_command_of_an_operator_who_is_disabled_or_unknown_changes_nothing() {
    let app = TestApp::spawn().await;
    json(&run(&app, &["operators", "add", "ana", "--role", "operator"]).await);
    json(&run(&app, &["operators", "disable", "ana"]).await);
    for (name, why) in
        [("ana", "is disabled"), ("bob", "there is no operator named"), ("A B", "--as")]
    {
        let refused = creates_a_client(&app, &["--as", name], "one").await;
        assert_eq!(refused.status.code(), Some(2), "{name}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(creators(&app).await, "");
}

#[tokio::test]
async fn an_operator_is_added_once_listed_and_given_another_role() {
    let app = TestApp::spawn().await;
    json(&run(&app, &["operators", "add", "ana", "--role", "auditor"]).await);
    let again = run(&app, &["operators", "add", "ana", "--role", "admin"]).await;
    assert_eq!(again.status.code(), Some(2), "a second one of the name");
    json(&run(&app, &["operators", "set-role", "ana", "--role", "operator"]).await);
    let role = "SELECT string_agg(name || ' ' || role, ', ') FROM operators";
    assert_eq!(app.database.value(role).await, "ana operator");
    let listed = run(&app, &["operators", "list"]).await;
    assert!(String::from_utf8_lossy(&listed.stdout).contains("ana"), "{listed:?}");
    let unknown = run(&app, &["operators", "set-role", "bob", "--role", "operator"]).await;
    assert_eq!(unknown.status.code(), Some(2), "there is no bob");
}
