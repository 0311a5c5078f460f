//! Where parts meet: orders, erasures, kept tokens, bindings and pauses, all about the same connections.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use strongroom::connections::reconcile;
use strongroom_dev::sandbox::{Effect, Fault};

use crate::support::{Answer, TestApp, id, with};

const DELINK: &str = "users/DelinkUser";
const METADATA: &str = "metadata/accounts/get";
const ORDERS: &str = "/v1/admin/revocations";
const IMPORT: &str = "/v1/connections/import";
const EVERY_CONNECTION: &str = "SELECT id FROM connections FOR UPDATE";
const DAY: Duration = Duration::from_hours(24);

fn all() -> Value {
    json!({ "kind": "delink", "reason": "incident 8", "perSecond": 100, "filter": { "all": true } })
}

async fn order(app: &TestApp, token: &str) -> Value {
    let given = app.api.post(token, ORDERS, &all()).await;
    assert_eq!(given.status, 202, "{}", given.text);
    given.json
}

async fn look(app: &TestApp, token: &str, order: &Value) -> Value {
    app.api.get(token, &format!("{ORDERS}/{}", id(order))).await.json
}

async fn pause(app: &TestApp, order: &Value) {
    let path = format!("{ORDERS}/{}/pause", id(order));
    assert_eq!(app.api.post_empty(&app.token().await, &path).await.json["status"], "paused");
}

async fn erase(app: &TestApp, user: &str) -> Answer {
    let request = app.api.request(Method::DELETE, &format!("/v1/users/{user}"));
    app.api.send(request.bearer_auth(app.token().await)).await
}

async fn status(app: &TestApp, connection: &Value) -> String {
    let shown = app.api.connection(&app.token().await, id(connection)).await;
    shown["status"].as_str().unwrap().to_owned()
}

/// Somebody who has rows locked until the transaction ends, as an operator at the database may.
async fn locked(app: &TestApp, sql: &'static str) -> Transaction<'static, Postgres> {
    let mut tx = app.database.pool.begin().await.unwrap();
    sqlx::query(sql).fetch_all(&mut *tx).await.unwrap();
    tx
}

/// Works in the background until an order's connections are counted.
async fn counted(app: &TestApp, token: &str, order: &Value) -> Value {
    for _ in 0..200 {
        let order = look(app, token, order).await;
        if !order["matched"].is_null() {
            return order;
        }
        app.turn_clock(Duration::from_secs(2)).await;
        app.tick().await;
    }
    panic!("an order is never counted");
}

/// What an app holds of a user that it links elsewhere: a token that works.
async fn held(app: &TestApp, user: &str) -> Value {
    let result = app.connect();
    let active = app.active_from(user, &result).await;
    let token = app.token().await;
    let revealed = app.api.reveal(&token, id(&active)).await.json;
    let body = json!({ "reason": "moved", "revokeUpstream": false });
    assert_eq!(app.api.invalidate(&token, id(&active), &body).await.status, 200);
    json!({
        "clientUserID": user,
        "connectionID": result["connectionID"],
        "accessToken": revealed["accessToken"],
        "userSecret": result["userSecret"],
    })
}

#[tokio::test]
async fn an_order_that_cannot_be_marked_holds_up_no_other_apps_order() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let (token, stranger) = (app.token().await, app.token_of_another_app().await);
    let import = json!({ "clientUserID": "eve", "connectionID": "c", "accessToken": "t", "userSecret": "s" });
    assert_eq!(app.api.post(&stranger, IMPORT, &import).await.status, 201);
    app.database
        .execute(
            "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'this row cannot be written'; END $$;
             CREATE TRIGGER fails BEFORE UPDATE ON connections
                FOR EACH ROW WHEN (OLD.login_id <> 'c') EXECUTE FUNCTION fails()",
        )
        .await;
    let lock = locked(&app, EVERY_CONNECTION).await;
    let mine = order(&app, &token).await;
    let theirs = order(&app, &stranger).await;
    lock.commit().await.unwrap();
    assert_eq!(counted(&app, &stranger, &theirs).await["matched"], 1);
    assert_eq!(look(&app, &token, &mine).await["matched"], Value::Null);
    app.database.execute("DROP TRIGGER fails ON connections").await;
    assert_eq!(counted(&app, &token, &mine).await["matched"], 1);
}

#[tokio::test]
async fn a_binding_that_somebody_has_locked_holds_up_its_own_connection_alone() {
    let app = TestApp::by_hand().await;
    let connections = [app.active("ada").await, app.active("bob").await];
    let lock = locked(&app, "SELECT * FROM token_bindings LIMIT 1 FOR UPDATE").await;
    let token = app.token().await;
    let given = order(&app, &token).await;
    app.tick().await;
    assert_eq!(app.sandbox.calls_to(DELINK), 1);
    assert_eq!(look(&app, &token, &given).await["matched"], Value::Null);
    for connection in &connections {
        let refused = app.api.reveal(&token, id(connection)).await;
        assert_eq!(refused.problem(), (409, "connection_not_active"));
    }
    lock.commit().await.unwrap();
    assert_eq!(counted(&app, &token, &given).await["matched"], 2);
}

#[tokio::test]
async fn dapi_is_told_of_a_link_whose_login_was_in_use_by_another_that_is_revoked_meanwhile() {
    let app = TestApp::by_hand().await;
    let old = app.active("ada").await;
    app.sandbox.set_fault(Fault::status(503).on(DELINK)).unwrap();
    let token = app.token().await;
    app.api.delink(&token, id(&old)).await;
    app.tick().await;
    app.active("ada").await;
    // As if it had become active while the older one still was a code.
    app.database
        .execute(
            "UPDATE connections SET login_id =
                (SELECT login_id FROM connections WHERE status = 'revoking')",
        )
        .await;
    let lock = locked(&app, EVERY_CONNECTION).await;
    order(&app, &token).await;
    lock.commit().await.unwrap();
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(10)).await;
    reconcile::part(&app.context, reconcile::Part::Delinks).await.finish().await;
    for _ in 0..5 {
        app.turn_clock(Duration::from_secs(10)).await;
        app.tick().await;
    }
    assert_eq!(status(&app, &old).await, "delinked");
    assert_eq!(app.sandbox.tokens(10).iter().filter(|token| token.live).count(), 0);
}

#[tokio::test]
async fn what_an_erasure_waits_for_is_given_up_in_time_though_its_order_is_paused() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    app.sandbox.set_fault(Fault::status(503).on(DELINK)).unwrap();
    let given = order(&app, &app.token().await).await;
    pause(&app, &given).await;
    let erasure = erase(&app, "ada").await.json;
    let mut erased = Value::Null;
    for _ in 0..10 {
        app.tick().await;
        app.turn_clock(DAY).await;
        let path = format!("/v1/users/erasures/{}", id(&erasure));
        erased = app.api.get(&app.token().await, &path).await.json;
    }
    assert_eq!(erased["upstream"], "unconfirmed", "{erased}");
    assert!(app.sandbox.calls_to(DELINK) > 1);
}

#[tokio::test]
async fn what_a_new_link_waits_for_is_given_up_in_time_though_its_order_is_paused() {
    let app = TestApp::by_hand().await;
    let held = held(&app, "ada").await;
    let token = app.token().await;
    let older = app.api.post(&token, IMPORT, &held).await.json;
    app.sandbox.set_fault(Fault::status(503).on(DELINK)).unwrap();
    let given = order(&app, &token).await;
    pause(&app, &given).await;
    let newer = with(&held, json!({ "accessToken": "another" }));
    let newer = app.api.post(&token, IMPORT, &newer).await.json;
    assert_eq!(newer["status"], "pending", "{newer}");
    for _ in 0..12 {
        app.tick().await;
        app.turn_clock(DAY).await;
    }
    assert_eq!(
        (status(&app, &older).await.as_str(), status(&app, &newer).await.as_str()),
        ("invalidated", "active")
    );
}

#[tokio::test]
async fn a_row_that_somebody_has_locked_keeps_no_kept_token_beyond_its_hour() {
    for lock in [
        "SELECT id FROM connect_sessions FOR UPDATE",
        "SELECT * FROM reveal_budgets FOR UPDATE",
        "SELECT * FROM superseded_tokens LIMIT 1 FOR UPDATE",
    ] {
        let app = TestApp::by_hand().await;
        let token = app.token().await;
        app.api.session(&token, "ada").await;
        for user in ["ada", "bob"] {
            let held = held(&app, user).await;
            let mistyped = with(&held, json!({ "accessToken": "mistyped" }));
            for body in [held, mistyped] {
                assert_eq!(app.api.post(&token, IMPORT, &body).await.status, 201);
            }
        }
        app.turn_clock(2 * DAY).await;
        let rows = locked(&app, lock).await;
        let _ = reconcile::housekeeping(&app.context).await;
        let left = app.database.value("SELECT count(*) FROM superseded_tokens").await;
        assert_eq!(left, if lock.contains("superseded") { "1" } else { "0" }, "{lock}");
        rows.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_token_that_two_imports_verify_at_once_is_proven_by_one_call_after_the_other() {
    let app = TestApp::spawn().await;
    let held = with(&held(&app, "ada").await, json!({ "verify": true }));
    let slow = Fault::new(Effect::Answer).on(METADATA).delayed(Duration::from_secs(50));
    app.sandbox.set_fault(slow).unwrap();
    let replica = app.replica().await;
    let token = app.token().await;
    let import = |api: &crate::support::Api| {
        let (api, token, body) = (api.clone(), token.clone(), held.clone());
        tokio::spawn(async move { api.post(&token, IMPORT, &body).await })
    };
    let first = import(&app.api);
    app.sandbox.calls_reached(METADATA, 1).await;
    let second = import(&replica);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(app.sandbox.calls_to(METADATA), 1, "two calls at once with one token both fail");
    app.sandbox.clear_faults();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.status, second.status), (201, 200), "{} {}", first.text, second.text);
    assert_eq!(id(&first.json), id(&second.json));
    assert_eq!(app.database.value("SELECT count(*) FROM token_leases").await, "0");
}

#[tokio::test]
async fn a_session_that_is_made_while_its_user_is_erased_is_a_conflict() {
    let app = TestApp::by_hand().await;
    let token = app.token().await;
    app.api.session(&token, "ada").await;
    let make = || {
        let (api, token) = (app.api.clone(), token.clone());
        let body = json!({ "clientUserID": "ada" });
        tokio::spawn(async move { api.post(&token, "/v1/connect-sessions", &body).await })
    };
    let mut lock = locked(&app, "SELECT id FROM users FOR UPDATE").await;
    let made = make();
    app.database.waits_for_locks("1").await;
    for sql in [
        "DELETE FROM connect_sessions",
        "DELETE FROM data_keys WHERE purpose = 'user'",
        "DELETE FROM users",
    ] {
        sqlx::query(sql).execute(&mut *lock).await.unwrap();
    }
    lock.commit().await.unwrap();
    assert_eq!(made.await.unwrap().problem(), (409, "user_being_erased"));
    // Many at once, while it really happens: made, refused, or for a new user of the name.
    app.api.session(&token, "ada").await;
    let makers: Vec<_> = (0..20).map(|_| make()).collect();
    let erasure = erase(&app, "ada").await;
    assert!([200, 202].contains(&erasure.status), "{}", erasure.text);
    for made in futures_util::future::join_all(makers).await {
        let made = made.unwrap();
        assert!([201, 409].contains(&made.status), "{} {}", made.status, made.text);
    }
}

#[tokio::test]
async fn what_a_new_link_waits_for_is_let_through_though_the_new_link_has_just_been_put_off() {
    let app = TestApp::by_hand().await;
    let result = app.connect();
    let older = app.active_from("ada", &result).await;
    let given = order(&app, &app.token().await).await;
    pause(&app, &given).await;
    let newer = app.hand_in("ada", &app.connect_again(&result)).await.json;
    assert_eq!(newer["status"], "pending");
    app.turn_clock(Duration::from_secs(5)).await;
    for part in [reconcile::Part::Exchanges, reconcile::Part::Rows, reconcile::Part::Delinks] {
        reconcile::part(&app.context, part).await.finish().await;
    }
    assert_eq!(status(&app, &older).await, "delinked");
}

#[tokio::test]
async fn a_transaction_inside_another_is_committed_and_rolled_back_with_it() {
    let app = TestApp::by_hand().await;
    app.database.execute("CREATE TABLE marks (mark text)").await;
    let mark = async |inner_commits: bool, outer_commits: bool| {
        let mut conn = app.context.pool.acquire().await.unwrap();
        let mut outer = conn.begin().await.unwrap();
        let mut inner = outer.begin().await.unwrap();
        sqlx::query("INSERT INTO marks VALUES ('made')").execute(&mut *inner).await.unwrap();
        if inner_commits {
            inner.commit().await.unwrap();
        } else {
            drop(inner);
        }
        let committed = if outer_commits {
            outer.commit().await.is_ok()
        } else {
            drop(outer);
            false
        };
        let marks = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM marks");
        (committed, marks.fetch_one(&mut conn).await.unwrap())
    };
    assert_eq!(mark(true, false).await, (false, 0));
    assert_eq!(mark(false, true).await, (false, 0));
    assert_eq!(mark(true, true).await, (true, 1));
}
