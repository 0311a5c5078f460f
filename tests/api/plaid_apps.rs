//! Apps at Plaid: by the command line and by the environment.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use strongroom::apps;
use strongroom::config::{Config, Environment};
use strongroom::service::Service;
use strongroom_dev::sandbox::{DEFAULT_PLAID_CLIENT_ID, DEFAULT_PLAID_SECRET, Fault};

use crate::support::{Bank, Stage, TestApp, command, id};

/// Runs a command with this standard input.
fn run(stage: &Stage, arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut command = command(stage, &[]);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Starts a service in this environment and stops it; returns why it does not start.
async fn start(stage: &Stage, environment: &Environment) -> Result<(), String> {
    let config = Config::from_environment(environment).map_err(|error| error.to_string())?;
    let service = Service::build(config, stage.clock.clone()).await;
    service.map(drop).map_err(|error| error.to_string())
}

/// The stage's environment with these variables.
fn with(stage: &Stage, variables: &[(&str, &str)]) -> Environment {
    let mut environment = stage.environment.clone();
    for (name, value) in variables {
        environment.set(name, *value);
    }
    environment
}

const PLAID: [(&str, &str); 2] =
    [("PLAID_CLIENT_ID", DEFAULT_PLAID_CLIENT_ID), ("PLAID_SECRET", DEFAULT_PLAID_SECRET)];
const APPS: &str = "SELECT string_agg(name || ' ' || provider, ', ' ORDER BY name) FROM apps";
const BOOTSTRAP: &str =
    "SELECT a.name FROM clients c JOIN apps a ON a.id = c.app_id WHERE c.id = 'bootstrap'";

#[tokio::test]
async fn an_app_at_plaid_is_added_by_its_client_id_and_its_secret_on_standard_input_or_in_a_file() {
    let app = TestApp::spawn().await;
    let add = ["apps", "add", "shop", "--provider", "plaid", "--client-id", "plaid-shop"];
    let output = run(&app, &add, "CANARY-secret\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("shop") && !said.contains("CANARY"), "{said}");
    let file = std::env::temp_dir().join(format!("plaid-secret-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "CANARY-file\n").unwrap();
    let mut add = add;
    add[2] = "shop-2";
    let file_name = file.to_str().unwrap();
    let output = run(&app, &[&add[..], &["--secret-file", file_name]].concat(), "");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut conn = app.context.pool.acquire().await.unwrap();
    for (name, secret) in [("shop", "CANARY-secret"), ("shop-2", "CANARY-file")] {
        let found = apps::find(&mut conn, name).await.unwrap().unwrap();
        let sealed = apps::credentials(&mut conn, found.id).await.unwrap().unwrap();
        let opened = sealed.open(&app.context.vault).await.unwrap();
        assert_eq!((opened.app_key.as_str(), opened.app_secret.expose()), ("plaid-shop", secret));
    }
    let listed = run(&app, &["apps", "list", "--output", "json"], "");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed[1]["provider"], "plaid", "{listed}");
    let again = run(&app, &add, "s");
    assert!(error(&again).contains("there is an app named `shop-2` already"), "{again:?}");
}

#[tokio::test]
async fn options_of_the_other_bank_link_are_refused_by_name() {
    let app = TestApp::spawn().await;
    for (options, told) in [
        (&["--provider", "plaid", "--app-key", "k"][..], "--client-id"),
        (&["--provider", "plaid"][..], "--client-id"),
        (&["--client-id", "k"][..], "--app-key"),
        (&["--provider", "dapi", "--client-id", "k"][..], "--app-key"),
        (&["--provider", "plaid", "--app-key", "k", "--client-id", "c"][..], "cannot be used with"),
        (&["--provider", "tink", "--client-id", "c"][..], "must be dapi or plaid"),
        (&["--provider", "plaid", "--client-id", "a\nb"][..], "--client-id"),
    ] {
        let output = run(&app, &[&["apps", "add", "shop"], options].concat(), "CANARY");
        assert_eq!(output.status.code(), Some(2), "{options:?} {output:?}");
        let said = error(&output);
        assert!(said.contains(told) && !said.contains("CANARY"), "{options:?}: {said}");
    }
    assert_eq!(app.database.value(APPS).await, "default dapi");
}

#[tokio::test]
async fn settings_of_an_app_at_plaid_are_changed_and_those_of_an_app_at_dapi_are_refused() {
    let app = Bank::Plaid.spawn().await;
    let set = ["apps", "set", "plaid", "--supersede-duplicates", "true"];
    assert_eq!(run(&app, &set, "").status.code(), Some(0));
    let set = ["apps", "set", "plaid", "--rotate-after-reveal", "true"];
    assert_eq!(run(&app, &set, "").status.code(), Some(0));
    let both = "SELECT supersede_duplicates AND rotate_after_reveal FROM apps";
    assert_eq!(app.database.value(both).await, "true");
    let unknown = run(&app, &["apps", "set", "nowhere", "--supersede-duplicates", "true"], "");
    assert!(error(&unknown).contains("there is no app named `nowhere`"), "{unknown:?}");
    let dapi = TestApp::spawn().await;
    let refused = run(&dapi, &["apps", "set", "default", "--supersede-duplicates", "true"], "");
    assert_eq!(refused.status.code(), Some(2));
    assert!(error(&refused).contains("`default` is at Dapi"), "{refused:?}");
}

#[tokio::test]
async fn the_environment_of_plaid_alone_makes_the_app_plaid_and_its_bootstrap_client() {
    let app = Bank::Plaid.spawn().await;
    assert_eq!(app.database.value(APPS).await, "plaid plaid");
    assert_eq!(app.database.value(BOOTSTRAP).await, "plaid");
    app.active("ada").await;
}

#[tokio::test]
async fn beside_dapis_it_makes_a_second_app_and_the_bootstrap_client_is_of_the_first() {
    let stage = Bank::Dapi.builder().stage().await;
    start(&stage, &with(&stage, &PLAID)).await.unwrap();
    assert_eq!(stage.database.value(APPS).await, "default dapi, plaid plaid");
    assert_eq!(stage.database.value(BOOTSTRAP).await, "default");
}

#[tokio::test]
async fn half_of_plaids_credentials_is_a_mistake_that_names_the_other_half() {
    let stage = Bank::Dapi.builder().stage().await;
    for (set, missing) in [(0, "PLAID_SECRET"), (1, "PLAID_CLIENT_ID")] {
        let refused = start(&stage, &with(&stage, &PLAID[set..=set])).await.unwrap_err();
        assert!(refused.contains(missing), "{refused}");
        assert!(!refused.contains(DEFAULT_PLAID_SECRET), "{refused}");
    }
}

#[tokio::test]
async fn a_changed_client_id_is_refused_while_the_app_holds_tokens_of_the_old_one() {
    let app = Bank::Plaid.by_hand().await;
    let other = with(&app, &[("PLAID_CLIENT_ID", "another")]);
    let key = "SELECT app_key FROM apps";
    let refused = async || {
        let refused = start(&app, &other).await.unwrap_err();
        assert!(refused.contains("PLAID_CLIENT_ID is another than before"), "{refused}");
        assert_eq!(app.database.value(key).await, DEFAULT_PLAID_CLIENT_ID);
    };
    let active = app.active("ada").await;
    refused().await;
    app.sandbox.set_fault(app.revocation_fails().times(1)).unwrap();
    app.api.delink(&app.token().await, id(&active)).await;
    app.tick().await;
    refused().await;
    app.turn_clock(std::time::Duration::from_secs(5)).await;
    app.tick().await;
    app.sandbox.set_fault(Fault::status(503).on(Bank::Plaid.exchange())).unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.settled(id(&pending)).await;
    refused().await;
    let body = json!({ "reason": "x", "revokeUpstream": false });
    app.api.invalidate(&app.token().await, id(&pending), &body).await;
    start(&app, &other).await.unwrap();
    assert_eq!(app.database.value(key).await, "another");
}

#[tokio::test]
async fn a_changed_secret_is_taken_over_at_any_time() {
    let app = Bank::Plaid.by_hand().await;
    app.active("ada").await;
    start(&app, &with(&app, &[("PLAID_SECRET", "rotated")])).await.unwrap();
    let mut conn = app.context.pool.acquire().await.unwrap();
    let found = apps::find(&mut conn, "plaid").await.unwrap().unwrap();
    let sealed = apps::credentials(&mut conn, found.id).await.unwrap().unwrap();
    assert_eq!(sealed.open(&app.context.vault).await.unwrap().app_secret.expose(), "rotated");
}

#[tokio::test]
async fn an_app_named_plaid_that_is_at_dapi_keeps_the_service_from_starting() {
    let stage = Bank::Dapi.builder().stage().await;
    start(&stage, &stage.environment).await.unwrap();
    let add = run(&stage, &["apps", "add", "plaid", "--app-key", "k"], "secret");
    assert_eq!(add.status.code(), Some(0), "{add:?}");
    let refused = start(&stage, &with(&stage, &PLAID)).await.unwrap_err();
    assert!(refused.contains("the app `plaid` is registered with Dapi"), "{refused}");
}
