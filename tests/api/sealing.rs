//! What lies in PostgreSQL is sealed, bound to its place, and opens with the right master key alone.

use serde_json::{Value, json};
use strongroom::common::clock::Clock;
use strongroom::config::Config;
use strongroom::providers::AccessToken;
use strongroom::service::{Service, StartError};
use strongroom::vault::{self, AadContext, MasterKeyId, Sealed, Vault};

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
    let mut after = None;
    loop {
        let batch = vault::rewrap_some(&mut conn, &vault, after, 2).await.unwrap();
        batch.write(&mut conn).await.unwrap();
        after = batch.next;
        if after.is_none() {
            break;
        }
    }
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

/// Writes a connection's whole row back as it was in `kept`, as a hand or a backup of the table would.
async fn put_back(app: &TestApp) {
    app.database
        .execute(
            "UPDATE connections c SET status = k.status, access_token = k.access_token,
                    user_secret = k.user_secret, activated_at = k.activated_at, due_at = k.due_at,
                    leased_until = k.leased_until, replaced_by = NULL, revocation_binding = NULL,
                    revocation_kind = NULL, revocation_reason = NULL, revocation_requested_at = NULL,
                    revocation_confirmed_at = NULL, bulk_revocation_id = NULL
             FROM kept k WHERE c.id = k.id",
        )
        .await;
}

async fn assert_unusable(app: &TestApp, connection: &Value) {
    let token = app.token().await;
    let shown = app.api.connection(&token, id(connection)).await;
    assert_eq!(shown["status"], "active", "the hand wrote it so");
    let answer = app.api.reveal(&token, id(connection)).await;
    assert_ne!(answer.status, 200, "{}", answer.text);
    assert!(!answer.text.contains("accessToken"), "{}", answer.text);
    let before = app.sandbox.calls_to("data/identity/get");
    let path = format!("/v1/connections/{}/dapi/data/identity/get", id(connection));
    assert_ne!(app.api.post(&token, &path, &json!({})).await.status, 200);
    assert_eq!(app.sandbox.calls_to("data/identity/get"), before);
}

#[tokio::test]
async fn a_status_that_is_written_back_by_hand_brings_no_token_back() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    app.api.delink(&app.token().await, id(&connection)).await;
    app.database
        .execute(
            "UPDATE connections SET status = 'active', due_at = NULL, leased_until = NULL,
                    revocation_binding = NULL, revocation_kind = NULL, revocation_reason = NULL,
                    revocation_requested_at = NULL",
        )
        .await;
    assert_unusable(&app, &connection).await;
}

#[tokio::test]
async fn a_row_that_is_put_back_from_a_backup_brings_no_token_back() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    app.database.execute("CREATE TABLE kept AS SELECT * FROM connections").await;
    app.api.delink(&app.token().await, id(&connection)).await;
    app.tick().await;
    assert_eq!(app.database.value("SELECT status FROM connections").await, "delinked");
    put_back(&app).await;
    assert_unusable(&app, &connection).await;
}

#[tokio::test]
async fn a_revoked_token_still_opens_for_its_delinking() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    app.api.delink(&app.token().await, id(&connection)).await;
    app.tick().await;
    let ended = app.api.connection(&app.token().await, id(&connection)).await;
    assert_eq!(ended["status"], "delinked");
    assert_eq!(app.database.value("SELECT count(*) FROM token_bindings").await, "0");
}

#[tokio::test]
async fn a_token_of_an_earlier_release_opens_and_is_bound_by_the_background_work() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    let token = app.token().await;
    let plain = app.api.reveal(&token, id(&connection)).await.json["accessToken"].clone();
    unbind(&app, &connection, plain.as_str().unwrap()).await;
    assert_eq!(app.api.reveal(&token, id(&connection)).await.json["accessToken"], plain);
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value("SELECT get_byte(access_token, 0) FROM connections").await, "2");
    assert_eq!(app.database.value("SELECT count(*) FROM token_bindings").await, "1");
    assert_eq!(app.api.reveal(&token, id(&connection)).await.json["accessToken"], plain);
}

#[tokio::test]
async fn tokens_that_do_not_open_keep_no_other_from_being_bound() {
    let app = TestApp::by_hand().await;
    let connection = app.active("ada").await;
    let token = app.token().await;
    let plain = app.api.reveal(&token, id(&connection)).await.json["accessToken"].clone();
    unbind(&app, &connection, plain.as_str().unwrap()).await;
    app.database
        .execute(
            "INSERT INTO connections (id, app_id, user_id, status, login_id, activated_at,
                                      access_token, user_secret)
             SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, c.app_id, c.user_id,
                    'active', 'login ' || n, now(), c.access_token, c.user_secret
             FROM connections c, generate_series(1, 150) n",
        )
        .await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value("SELECT count(*) FROM token_bindings").await, "1");
    assert_eq!(app.api.reveal(&token, id(&connection)).await.json["accessToken"], plain);
}

/// Seals a connection's token as the release before bindings did.
async fn unbind(app: &TestApp, connection: &Value, plain: &str) {
    let mut conn = app.context.pool.acquire().await.unwrap();
    let row: uuid::Uuid = id(connection).trim_start_matches("conn_").parse().unwrap();
    let (app_id, user): (uuid::Uuid, uuid::Uuid) =
        sqlx::query_as("SELECT app_id, user_id FROM connections WHERE id = $1")
            .bind(row)
            .fetch_one(&app.database.pool)
            .await
            .unwrap();
    let found = strongroom::users::find(&mut conn, app_id.into(), "ada").await.unwrap().unwrap();
    let key = app.context.vault.unwrap(&found.key).await.unwrap();
    let aad = AadContext {
        table: "connections",
        column: "access_token",
        app: Some(app_id.into()),
        user: Some(user.into()),
        row,
    };
    let plain = AccessToken::new(plain.to_owned());
    let sealed = Sealed::seal(&plain, &key, &aad).unwrap();
    sqlx::query("UPDATE connections SET access_token = $1 WHERE id = $2")
        .bind(sealed.as_bytes())
        .bind(row)
        .execute(&app.database.pool)
        .await
        .unwrap();
    app.database.execute("DELETE FROM token_bindings").await;
}

// ---- What operators see of the master keys.

/// Runs a command; returns whether it succeeded and its result.
async fn keys(app: &TestApp, master_keys: &str, arguments: &[&str]) -> (bool, Value) {
    let mut command = crate::support::command(app, &[("STRONGROOM_MASTER_KEYS", master_keys)]);
    command.args(["--output", "json", "keys"]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[tokio::test]
async fn the_status_of_keys_shows_what_hangs_on_each_and_what_blocks_its_retirement() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    app.active("bob").await;
    let both = format!("k2:{OTHER},{MASTER_KEY}");
    let (ok, status) = keys(&app, &both, &["status"]).await;
    assert!(ok);
    let [old] = status.as_array().unwrap().as_slice() else { panic!("{status}") };
    assert_eq!(
        (&old["id"], &old["state"], &old["wraps"]),
        (&json!("k1"), &json!("opens"), &json!(6))
    );
    let groups = old["dataKeys"].as_array().unwrap();
    let users = groups.iter().find(|group| group["purpose"] == "user").unwrap();
    // A token and a user secret each.
    let counts = (&users["count"], &users["seals"], &users["mostSeals"]);
    assert_eq!(counts, (&json!(2), &json!(4), &json!(2)));
    assert!(old["blockedBy"][0].as_str().unwrap().contains("6 data keys"), "{old}");

    assert!(keys(&app, &both, &["rewrap"]).await.0);
    let (_, status) = keys(&app, &both, &["status"]).await;
    assert_eq!(status[0]["blockedBy"], json!([]), "{status}");
    assert_eq!((&status[1]["id"], &status[1]["state"]), (&json!("k2"), &json!("wraps")));
    assert!(keys(&app, &both, &["retire", "k1"]).await.0);
}

#[tokio::test]
async fn a_kept_copy_of_a_master_key_is_proven_right_or_wrong_without_a_restore() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    for (content, right) in [
        (format!("{MASTER_KEY}\n"), true),
        (format!("k1:{OTHER}\n"), false),
        (format!("k9:{OTHER}\n"), false),
        (format!("{MASTER_KEY}\nk9:{OTHER}\n"), false),
    ] {
        std::fs::write(&copy, &content).unwrap();
        let arguments = ["verify", "--key-file", copy.to_str().unwrap()];
        // The keys of the environment do not matter.
        let (ok, verified) = keys(&app, "", &arguments).await;
        assert_eq!(ok, right, "{verified}");
        assert_eq!(verified[0]["right"].as_bool(), Some(content.starts_with(MASTER_KEY)));
    }
    let known = app.database.value("SELECT string_agg(id, ',') FROM master_keys").await;
    assert_eq!(known, "k1", "nothing is recorded by looking");
}

#[tokio::test]
async fn a_copy_that_is_right_tells_of_a_data_key_that_is_damaged() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    app.database
        .execute("UPDATE data_keys SET wrapped = set_byte(wrapped, 30, get_byte(wrapped, 30) # 1) WHERE purpose = 'user'")
        .await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    std::fs::write(&copy, MASTER_KEY).unwrap();
    let (ok, verified) = keys(&app, "", &["verify", "--key-file", copy.to_str().unwrap()]).await;
    assert!(!ok && verified[0]["what"].as_str().unwrap().contains("damaged"), "{verified}");
}

#[tokio::test]
async fn a_start_that_fails_later_records_no_master_key() {
    let app = TestApp::spawn().await;
    // The environment describes it as one at Dapi: the start fails after the keys were opened.
    app.database.execute("UPDATE apps SET provider = 'plaid' WHERE name = 'default'").await;
    let failed = start(&app, &format!("k2:{OTHER},{MASTER_KEY}")).await;
    assert!(matches!(failed, Err(StartError::App(_))));
    let known = "SELECT string_agg(id, ',' ORDER BY id) FROM master_keys";
    assert_eq!(app.database.value(known).await, "k1");
    app.database.execute("UPDATE apps SET provider = 'dapi' WHERE name = 'default'").await;
    // Other bytes under the same name are no mistake yet.
    let third = "k2:REREREREREREREREREREREREREREREREREREREREREQ=";
    assert!(start(&app, &format!("{third},{MASTER_KEY}")).await.is_ok());
    assert_eq!(app.database.value(known).await, "k1,k2");
}

#[tokio::test]
async fn two_keys_that_are_made_on_one_day_have_names_of_their_own() {
    let app = TestApp::spawn().await;
    let (one, two) = (keys(&app, "", &["generate"]).await, keys(&app, "", &["generate"]).await);
    assert_ne!(one.1["id"], two.1["id"]);
    assert!(MasterKeyId::parse(one.1["id"].as_str().unwrap()).is_some());
}
