//! What lies in PostgreSQL is sealed, bound to its place, and opens with the right master key alone.

use serde_json::json;
use strongroom::base::clock::Clock;
use strongroom::config::Config;
use strongroom::service::{Service, StartError};
use strongroom::vault::{self, MasterKeyId, Vault};

use crate::support::{MASTER_KEY, TestApp, id};

const OTHER: &str = "Q0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0M=";

async fn start(app: &TestApp, master_keys: &str) -> Result<Service, StartError> {
    let mut environment = app.environment.clone();
    environment.set("STRONGROOM_MASTER_KEYS", master_keys);
    Service::build(Config::from_environment(&environment).unwrap(), Clock::system()).await
}

#[tokio::test]
async fn a_ciphertext_moved_to_another_row_or_column_does_not_open() {
    let app = TestApp::spawn().await;
    let (ada, bob) = (app.active("ada").await, app.active("bob").await);
    let token = app.token().await;
    app.database
        .execute(
            "UPDATE connections c SET access_token = o.access_token FROM connections o
             WHERE o.id <> c.id AND c.id = (SELECT max(id::text)::uuid FROM connections)",
        )
        .await;
    assert_eq!(app.api.reveal(&token, id(&ada)).await.status, 200);
    assert_eq!(app.api.reveal(&token, id(&bob)).await.problem(), (500, "internal"));
    app.database.execute("UPDATE connections SET access_token = user_secret").await;
    assert_eq!(app.api.reveal(&token, id(&ada)).await.problem(), (500, "internal"));
}

#[tokio::test]
async fn one_users_token_does_not_open_with_another_users_key() {
    let app = TestApp::spawn().await;
    let ada = app.active("ada").await;
    app.active("bob").await;
    app.database
        .execute(
            "UPDATE data_keys d SET wrapped = o.wrapped FROM data_keys o
             WHERE d.purpose = 'user' AND o.purpose = 'user' AND o.id <> d.id",
        )
        .await;
    let answer = app.api.reveal(&app.token().await, id(&ada)).await;
    assert_eq!(answer.problem(), (500, "internal"));
}

#[tokio::test]
async fn destroying_a_users_key_destroys_what_is_sealed_for_them() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let wrapped = "SELECT length(wrapped) FROM data_keys WHERE purpose = 'user'";
    assert_eq!(app.database.value(wrapped).await, "61");
    app.database
        .execute(
            "UPDATE data_keys SET wrapped = decode(repeat('00', 61), 'hex') WHERE purpose = 'user'",
        )
        .await;
    assert_eq!(app.api.reveal(&app.token().await, id(&active)).await.status, 500);
}

#[tokio::test]
async fn other_bytes_under_a_known_key_id_stop_the_start() {
    let app = TestApp::spawn().await;
    let error = start(&app, &format!("k1:{OTHER}")).await.err().unwrap().to_string();
    assert!(error.contains("`k1`"), "{error}");
    assert!(!error.contains("Q0ND"), "{error}");
}

#[tokio::test]
async fn a_master_key_that_is_still_needed_may_not_be_missing() {
    let app = TestApp::spawn().await;
    let error = start(&app, &format!("k2:{OTHER}")).await.err().unwrap().to_string();
    assert!(error.contains("`k1` is needed"), "{error}");
}

#[tokio::test]
async fn rotation_goes_on_while_tokens_are_read_and_locks_nobody_out() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let result = app.connect();
    app.active_from("bob", &result).await;
    // The new key last, then first.
    assert!(start(&app, &format!("{MASTER_KEY},k2:{OTHER}")).await.is_ok());
    let rotated = format!("k2:{OTHER},{MASTER_KEY}");
    assert!(start(&app, &rotated).await.is_ok());

    let mut conn = app.context.pool.acquire().await.unwrap();
    let vault = Vault::open(&mut conn, rotated.parse_keys()).await.unwrap();
    let old = MasterKeyId::parse("k1").unwrap();
    assert!(!vault::retire(&mut conn, &old).await.unwrap(), "it still wraps data keys");
    // In small steps, as if it were stopped in between.
    while vault::rewrap_some(&mut conn, &vault, 2).await.unwrap() > 0 {}
    let left = "SELECT count(*) FROM data_keys WHERE master_key_id <> 'k2'";
    assert_eq!(app.database.value(left).await, "0");
    assert!(vault::retire(&mut conn, &old).await.unwrap());

    // With the new key alone: tokens open, codes are remembered, clients are known.
    let mut environment = app.environment.clone();
    environment.set("STRONGROOM_MASTER_KEYS", format!("k2:{OTHER}"));
    let config = Config::from_environment(&environment).unwrap();
    let service = Service::build(config, Clock::system()).await.unwrap();
    let api = crate::support::Api::new(service.address());
    tokio::spawn(service.run(std::future::pending()));
    let token =
        api.token(crate::support::BOOTSTRAP_ID, crate::support::BOOTSTRAP_SECRET, None).await;
    assert_eq!(api.reveal(&token, id(&active)).await.status, 200);
    let again = api.hand_in(&token, "eve", &result).await;
    assert_eq!(again.problem(), (409, "code_already_received"));
}

trait ParseKeys {
    fn parse_keys(&self) -> vault::MasterKeys;
}

impl ParseKeys for String {
    fn parse_keys(&self) -> vault::MasterKeys {
        vault::MasterKeys::parse(self).unwrap()
    }
}

#[tokio::test]
async fn the_apps_secret_follows_the_environment() {
    let app = TestApp::spawn().await;
    let mut environment = app.environment.clone();
    environment.set("DAPI_APP_SECRET", "changed");
    let config = Config::from_environment(&environment).unwrap();
    Service::build(config, Clock::system()).await.unwrap();
    // The sandbox does not know the new secret.
    let answer = app.hand_in("ada", &app.connect()).await;
    assert_eq!(answer.problem(), (422, "code_rejected"));
    assert!(answer.text.contains("INVALID_APP_SECRET"));
    assert!(!answer.text.contains("changed"));
}

#[tokio::test]
async fn the_bootstrap_client_lives_as_long_as_the_environment_names_it() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let mut environment = app.environment.clone();
    environment.set("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", "changed0123456789changed0123456789");
    let build = |environment: &strongroom::config::Environment| {
        let config = Config::from_environment(environment).unwrap();
        Service::build(config, Clock::system())
    };
    build(&environment).await.unwrap();
    app.refresh_directories().await;
    let old = json!({ "client_id": "bootstrap", "client_secret": crate::support::BOOTSTRAP_SECRET, "grant_type": "client_credentials" });
    let request = || app.api.request(reqwest::Method::POST, "/oauth2/token").json(&old);
    assert_eq!(app.api.send(request()).await.status, 401);
    environment.set("STRONGROOM_BOOTSTRAP_CLIENT_ID", "");
    environment.set("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", "");
    build(&environment).await.unwrap();
    app.refresh_directories().await;
    assert_eq!(app.api.get(&token, "/v1/connections").await.status, 401);
    build(&app.environment).await.unwrap();
    app.refresh_directories().await;
    assert_eq!(app.api.send(request()).await.status, 200, "set again, it is back");
}

#[tokio::test]
async fn a_row_that_the_code_could_not_have_written_cannot_exist() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    for change in [
        "status = 'revoked'",
        "status = 'delinked'",
        "status = 'pending'",
        "status = 'rejected'",
        "access_token = NULL",
        "user_secret = NULL",
        "activated_at = NULL",
        "due_at = now()",
        "failure_type = 'x'",
        "replaced_by = id",
        "revocation_kind = 'delink'",
        "revocation_confirmed_at = now()",
    ] {
        let sql = format!("UPDATE connections SET {change}");
        let refused = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&app.database.pool).await;
        let error = refused.expect_err(change);
        let error = error.as_database_error().unwrap();
        assert_eq!(error.kind(), sqlx::error::ErrorKind::CheckViolation, "{change}: {error}");
    }
}

#[tokio::test]
async fn the_audit_trail_takes_no_change() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    for sql in [
        "UPDATE audit_events SET outcome = 'x'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
    ] {
        let refused = sqlx::query(sql).execute(&app.database.pool).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{sql}");
    }
}
