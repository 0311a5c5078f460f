//! Items that Plaid names otherwise than the app that imported their token, or that an exchange did not name.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom::apps::{self, Settings};
use strongroom::common::actor::Actor;
use strongroom::connections::reconcile::{self, Part};
use strongroom_dev::sandbox::{Effect, Fault, LinkOptions, Status};

use crate::support::{Answer, Bank, TestApp, id, with};

const ACCOUNTS: &str = "plaid/accounts/get";

async fn shown(app: &TestApp, connection: &Value) -> Value {
    app.api.connection(&app.token().await, id(connection)).await
}

async fn import(app: &TestApp, body: &Value) -> Answer {
    app.api.post(&app.token().await, "/v1/connections/import", body).await
}

async fn supersede_duplicates(app: &TestApp) {
    let mut conn = app.context.pool.acquire().await.unwrap();
    let settings = Settings { supersede_duplicates: Some(true), ..Settings::default() };
    apps::change(&mut conn, &Actor::operator(), "plaid", settings).await.unwrap().unwrap();
}

/// Whether the item of a login lives at Plaid.
fn lives(app: &TestApp, login: &Value) -> bool {
    app.sandbox.plaid().item(login.as_str().unwrap()).unwrap().live
}

async fn calls_work(app: &TestApp, connection: &Value) -> bool {
    app.api.read(&app.token().await, Bank::Plaid, connection).await.status == 200
}

#[tokio::test]
async fn an_import_that_names_another_item_gives_the_link_back_that_it_superseded() {
    let app = Bank::Plaid.by_hand().await;
    let older = app.active("ada").await;
    let held = app.held_by_an_app("ada").await;
    let mistaken = with(&held, json!({ "itemID": older["connectionID"] }));
    let imported = import(&app, &mistaken).await.json;
    assert_eq!(shown(&app, &older).await["status"], "invalidated");
    app.tick().await;
    let (back, now) = (shown(&app, &older).await, shown(&app, &imported).await);
    assert_eq!((&back["status"], &back["replacedBy"]), (&json!("active"), &Value::Null));
    assert_eq!((&now["status"], &now["connectionID"]), (&json!("active"), &held["itemID"]));
    assert!(calls_work(&app, &older).await && calls_work(&app, &imported).await);
    assert_eq!(app.database.value("SELECT count(*) FROM superseded_tokens").await, "0");
    let corrected = "SELECT reason FROM audit_events WHERE action = 'connection.login_corrected'";
    assert_eq!(app.database.value(corrected).await, older["connectionID"]);

    app.api.delink(&app.token().await, id(&imported)).await;
    app.tick().await;
    assert_eq!(shown(&app, &imported).await["status"], "delinked");
    assert!(lives(&app, &older["connectionID"]) && !lives(&app, &held["itemID"]));
    assert!(calls_work(&app, &older).await);
}

#[tokio::test]
async fn a_call_that_succeeds_does_not_prove_that_a_token_is_of_the_item_that_was_named() {
    let app = Bank::Plaid.by_hand().await;
    let older = app.active("ada").await;
    let held = app.held_by_an_app("ada").await;
    app.sandbox.set_fault(Fault::status(503).on(ACCOUNTS)).unwrap();
    let mistaken = with(&held, json!({ "itemID": older["connectionID"] }));
    let imported = import(&app, &mistaken).await.json;
    app.tick().await;
    assert!(calls_work(&app, &imported).await);
    assert_eq!(app.database.value("SELECT count(*) FROM superseded_tokens").await, "1");
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_mins(2)).await;
    app.tick().await;
    assert_eq!(shown(&app, &older).await["status"], "active");
    assert_eq!(shown(&app, &imported).await["connectionID"], held["itemID"]);
}

#[tokio::test]
async fn importing_again_with_the_right_item_ends_nothing_at_the_bank_link() {
    for supersedes in [false, true] {
        for between in [false, true] {
            let app = Bank::Plaid.by_hand().await;
            if supersedes {
                supersede_duplicates(&app).await;
            }
            let right = app.held_by_an_app("ada").await;
            let mistaken = import(&app, &with(&right, json!({ "itemID": "mistyped" }))).await.json;
            if between {
                app.tick().await;
            }
            let answer = import(&app, &right).await;
            for _ in 0..3 {
                app.tick().await;
                app.turn_clock(Duration::from_secs(5)).await;
            }
            let (mistaken, now) = (shown(&app, &mistaken).await, shown(&app, &answer.json).await);
            let case = format!("supersedes {supersedes}, between {between}: {mistaken} {now}");
            assert_eq!(
                (&now["status"], &now["connectionID"]),
                (&json!("active"), &right["itemID"])
            );
            if between {
                // The first has found its item, and the second is a repetition.
                assert_eq!((answer.status, id(&now)), (200, id(&mistaken)), "{case}");
            } else {
                assert_eq!(mistaken["status"], "invalidated", "{case}");
                assert_eq!(mistaken["replacedBy"], now["id"], "{case}");
            }
            assert_eq!(app.revocations(), 0, "{case}");
            assert!(calls_work(&app, &now).await, "{case}");
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_token_under_another_name_gives_way_to_the_link_that_has_it() {
    let app = Bank::Plaid.by_hand().await;
    let right = app.held_by_an_app("ada").await;
    let first = import(&app, &right).await.json;
    app.tick().await;
    let copy = import(&app, &with(&right, json!({ "itemID": "mistyped" }))).await.json;
    app.tick().await;
    let ended = shown(&app, &copy).await;
    assert_eq!((&ended["status"], &ended["replacedBy"]), (&json!("invalidated"), &first["id"]));
    assert_eq!(shown(&app, &first).await["status"], "active");
    assert_eq!(app.revocations(), 0);
    assert!(calls_work(&app, &first).await);
}

#[tokio::test]
async fn an_import_of_another_users_item_ends_without_a_call() {
    let app = Bank::Plaid.by_hand().await;
    let right = app.held_by_an_app("ada").await;
    let theirs = import(&app, &right).await.json;
    app.tick().await;
    let changes = json!({ "itemID": "mistyped", "clientUserID": "bob" });
    let copy = import(&app, &with(&right, changes)).await.json;
    app.tick().await;
    app.tick().await;
    let ended = shown(&app, &copy).await;
    assert_eq!(ended["status"], "invalidated");
    assert_eq!(ended["revocation"]["confirmedAt"], Value::Null);
    assert_eq!(shown(&app, &theirs).await["status"], "active");
    assert_eq!(app.revocations(), 0);
    assert!(calls_work(&app, &theirs).await);
}

#[tokio::test]
async fn a_link_that_a_mistaken_import_superseded_comes_back_though_the_import_ends() {
    let app = Bank::Plaid.by_hand().await;
    let older = app.active("ada").await;
    let other = app.active("ada").await;
    let revealed = app.api.reveal(&app.token().await, id(&other)).await.json;
    let login = older["connectionID"].as_str().unwrap();
    let token = revealed["accessToken"].as_str().unwrap();
    let mistaken = import(&app, &Bank::Plaid.import("ada", login, token)).await.json;
    app.tick().await;
    let ended = shown(&app, &mistaken).await;
    assert_eq!((&ended["status"], &ended["replacedBy"]), (&json!("invalidated"), &other["id"]));
    for connection in [&older, &other] {
        assert_eq!(shown(&app, connection).await["status"], "active");
        assert!(calls_work(&app, connection).await);
    }
    assert_eq!(app.revocations(), 0);
}

#[tokio::test]
async fn revoking_a_mistaken_import_before_plaid_has_named_its_item_costs_no_other_link() {
    let app = Bank::Plaid.by_hand().await;
    let right = app.held_by_an_app("ada").await;
    let mistaken = import(&app, &with(&right, json!({ "itemID": "mistyped" }))).await.json;
    let now = import(&app, &right).await.json;
    let token = app.token().await;
    assert_eq!(app.api.delink(&token, id(&mistaken)).await.status, 202);
    for _ in 0..3 {
        reconcile::part(&app.context, Part::Delinks).await.finish().await;
        app.turn_clock(Duration::from_secs(5)).await;
    }
    let ended = shown(&app, &mistaken).await;
    assert_eq!((&ended["status"], &ended["replacedBy"]), (&json!("invalidated"), &now["id"]));
    assert_eq!(ended["revocation"]["confirmedAt"], Value::Null);
    assert_eq!(app.revocations(), 0);
    assert!(calls_work(&app, &now).await);
}

#[tokio::test]
async fn a_revocation_says_of_which_item_it_is_confirmed() {
    let app = Bank::Plaid.by_hand().await;
    let other = app.active("bob").await;
    let held = app.held_by_an_app("ada").await;
    let mistaken = import(&app, &with(&held, json!({ "itemID": "mistyped" }))).await.json;
    app.sandbox.set_fault(Fault::status(503).on(ACCOUNTS).times(1)).unwrap();
    app.api.delink(&app.token().await, id(&mistaken)).await;
    for _ in 0..3 {
        reconcile::part(&app.context, Part::Delinks).await.finish().await;
        app.turn_clock(Duration::from_secs(5)).await;
    }
    let ended = shown(&app, &mistaken).await;
    assert_eq!((&ended["status"], &ended["connectionID"]), (&json!("delinked"), &held["itemID"]));
    assert!(!lives(&app, &held["itemID"]) && lives(&app, &other["connectionID"]));
}

#[tokio::test]
async fn what_a_bulk_revocation_has_taken_supersedes_nothing() {
    let app = Bank::Plaid.by_hand().await;
    supersede_duplicates(&app).await;
    let name = LinkOptions { username: Some("countess".to_owned()), ..LinkOptions::default() };
    let older = app.active_from("ada", &app.link_with(&name)).await;
    let slow = Fault::new(Effect::Answer).on(ACCOUNTS).delayed(Duration::from_secs(300));
    app.sandbox.set_fault(slow.times(1)).unwrap();
    let newer = app.hand_in("ada", &app.link_with(&name)).await.json;
    app.sandbox.calls_reached(ACCOUNTS, 2).await;
    // So that it is acknowledged and not marked.
    let mut tx = app.database.pool.begin().await.unwrap();
    let lock = "SELECT FROM token_bindings WHERE connection_id = $1 FOR UPDATE";
    let uuid: uuid::Uuid = id(&newer).trim_start_matches("conn_").parse().unwrap();
    sqlx::query(lock).bind(uuid).fetch_all(&mut *tx).await.unwrap();
    let order = json!({
        "kind": "invalidate", "reason": "incident", "filter": { "connectionIDs": [newer["id"]] },
    });
    let token = app.token().await;
    assert_eq!(app.api.post(&token, "/v1/admin/revocations", &order).await.status, 202);
    assert_eq!(shown(&app, &newer).await["status"], "revoking");
    app.sandbox.clear_faults();
    let leased = "SELECT count(*) FROM token_leases WHERE ends_at > strongroom_now()";
    while app.database.value(leased).await != "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    reconcile::part(&app.context, Part::Details).await.finish().await;
    tx.commit().await.unwrap();
    for _ in 0..4 {
        app.tick().await;
        app.turn_clock(Duration::from_secs(61)).await;
    }
    assert_eq!(shown(&app, &newer).await["status"], "invalidated");
    assert_eq!(shown(&app, &older).await["status"], "active");
    assert!(lives(&app, &older["connectionID"]));
}

#[tokio::test]
async fn the_search_for_due_details_and_rotations_reads_a_bounded_number_of_rows() {
    let app = Bank::Plaid.by_hand().await;
    app.active("ada").await;
    app.token_of_another_app().await;
    app.database
        .execute(
            "ALTER TABLE connections DISABLE TRIGGER USER;
             INSERT INTO connections (app_id, id, user_id, status, login_id, access_token, provider, activated_at,
                                      details_due_at)
             SELECT app_id, new_uuid_v7(), user_id, 'active', 'login ' || n, access_token, provider, activated_at,
                    strongroom_now() - make_interval(secs => n)
             FROM connections, generate_series(1, 20000) n;
             INSERT INTO token_rotations (connection_id, app_id, due_at)
             SELECT id, app_id, strongroom_now() - interval '1 hour' FROM connections;
             ALTER TABLE connections ENABLE TRIGGER USER;
             ANALYZE connections, token_rotations",
        )
        .await;
    for sql in [
        include_str!("../../src/connections/details/due.sql"),
        include_str!("../../src/connections/rotation/due.sql"),
    ] {
        let mut conn = app.database.pool.acquire().await.unwrap();
        let explain = format!("EXPLAIN (ANALYZE, FORMAT JSON) {sql}");
        let plan: sqlx::types::Json<Value> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
            .bind(100_i64)
            .bind(Vec::<uuid::Uuid>::new())
            .fetch_one(&mut *conn)
            .await
            .unwrap();
        let most = most_rows(&plan.0[0]["Plan"]);
        assert!((100..300).contains(&most), "{most} rows: {:#}", plan.0);
    }
}

/// The most rows that any step of a plan touched.
pub fn most_rows(plan: &Value) -> u64 {
    let number = |name: &str| plan[name].as_f64().unwrap_or(0.0);
    let touched =
        (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops");
    let below = plan["Plans"].as_array().into_iter().flatten().map(most_rows).max();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of rows")]
    let touched = touched as u64;
    touched.max(below.unwrap_or(0))
}

#[tokio::test]
async fn details_that_have_been_due_for_long_are_told_as_overdue() {
    let app = Bank::Plaid.by_hand().await;
    app.active("ada").await;
    app.database
        .execute("UPDATE connections SET details_due_at = strongroom_now() - interval '1 hour'")
        .await;
    reconcile::housekeeping(&app.context).await.unwrap();
    assert!(app.metric("strongroom_background_overdue_seconds").await >= 3600.0);
}

#[tokio::test]
async fn an_item_id_that_postgresql_cannot_hold_costs_no_details() {
    let app = Bank::Plaid.by_hand().await;
    let active = app.active("ada").await;
    let answer = json!({
        "accounts": [{ "account_id": "a", "name": "n", "mask": "1234", "type": "depository" }],
        "item": { "item_id": format!("{}\u{0}", active["connectionID"].as_str().unwrap()) },
        "request_id": "r",
    });
    let body = answer.to_string();
    let status = Status { code: 200, headers: std::collections::BTreeMap::new(), body };
    app.sandbox.set_fault(Fault::new(Effect::Status(status)).on(ACCOUNTS)).unwrap();
    app.database.execute("UPDATE connections SET details_due_at = strongroom_now()").await;
    app.tick().await;
    let seen = shown(&app, &active).await;
    assert_eq!(seen["accounts"][0]["mask"], "1234", "{seen}");
    assert_eq!(
        app.database.value("SELECT count(*) FROM connections WHERE details_due_at IS NULL").await,
        "1"
    );
}
