//! Revoking everything in constant time: whatever is locked, however many rows there are, nothing that an
//! order means is usable once it is acknowledged.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use strongroom::connections::reconcile;
use strongroom_dev::sandbox::{Effect, Fault};

use crate::for_each_bank;
use crate::support::{Answer, Bank, TestApp, for_user, id, with};

for_each_bank! {
    what_somebody_has_locked_is_unusable_with_the_answer_and_told_to_the_provider_once_it_is_free,
    each_kind_of_filter_is_in_force_while_everything_is_locked,
    a_token_that_comes_while_its_connection_cannot_be_marked_is_never_usable,
    an_orphan_that_an_order_meant_is_delinked_should_its_token_come_after_all,
    what_is_imported_after_an_order_is_not_met_though_the_order_is_still_in_force,
    a_pause_holds_what_was_locked_and_what_a_dead_replica_had_begun,
    an_erasure_begins_whatever_of_the_user_is_locked,
}

const DELINK: &str = "users/DelinkUser";
const ORDERS: &str = "/v1/admin/revocations";

fn all() -> Value {
    json!({ "kind": "delink", "reason": "incident 7", "perSecond": 100, "filter": { "all": true } })
}

fn only(filter: Value) -> Value {
    with(&all(), json!({ "filter": filter }))
}

async fn order(app: &TestApp, body: &Value) -> Answer {
    app.api.post(&app.token().await, ORDERS, body).await
}

async fn look(app: &TestApp, order: &Value) -> Value {
    app.api.get(&app.token().await, &format!("{ORDERS}/{}", id(order))).await.json
}

async fn change(app: &TestApp, order: &Value, what: &str) -> Answer {
    app.api.post_empty(&app.token().await, &format!("{ORDERS}/{}/{what}", id(order))).await
}

/// Somebody who has rows locked until the transaction ends, as an operator at the database may.
async fn locked(app: &TestApp, sql: &'static str) -> Transaction<'static, Postgres> {
    let mut tx = app.database.pool.begin().await.unwrap();
    sqlx::query(sql).fetch_all(&mut *tx).await.unwrap();
    tx
}

const EVERY_CONNECTION: &str = "SELECT id FROM connections FOR UPDATE";

/// Works in the background until an order's connections are counted.
async fn counted(app: &TestApp, order: &Value) -> Value {
    for _ in 0..1000 {
        let order = look(app, order).await;
        if !order["matched"].is_null() {
            return order;
        }
        app.tick().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("an order is never counted");
}

/// Nothing of a connection can be used, and it says so.
async fn assert_unusable(app: &TestApp, connection: &Value) {
    let token = app.token().await;
    let refused = app.api.reveal(&token, id(connection)).await;
    assert_eq!(refused.problem(), (409, "connection_not_active"));
    assert_eq!(refused.json["connectionStatus"], "revoking");
    let call = app.bank.relayed(connection);
    let refused = app.api.post(&token, &call, &json!({})).await;
    assert_eq!(refused.problem(), (409, "connection_not_active"));
    let shown = app.api.connection(&token, id(connection)).await;
    assert_eq!(shown["status"], "revoking");
    assert_eq!(shown["revocation"]["reason"], "incident 7");
    assert!(shown["revocation"]["requestedAt"].is_string());
}

async fn what_somebody_has_locked_is_unusable_with_the_answer_and_told_to_the_provider_once_it_is_free(
    bank: Bank,
) {
    let app = bank.by_hand().await;
    let held = app.active("ada").await;
    let free = app.active("bob").await;
    let lock = locked(&app, EVERY_CONNECTION).await;
    let answer = order(&app, &all()).await;
    assert_eq!((answer.status, &answer.json["status"]), (202, &json!("running")));
    assert_eq!(answer.json["matched"], Value::Null);
    for connection in [&held, &free] {
        assert_unusable(&app, connection).await;
    }
    app.tick().await;
    assert_eq!(look(&app, &answer.json).await["matched"], Value::Null);
    assert_eq!(app.revocations(), 0);
    lock.commit().await.unwrap();
    assert_eq!(counted(&app, &answer.json).await["matched"], 2);
    app.turn_clock(Duration::from_secs(5)).await;
    app.tick().await;
    assert_eq!(app.revocations(), 2);
    assert_eq!(app.api.connection(&app.token().await, id(&held)).await["status"], "delinked");
}

#[tokio::test]
async fn one_apps_order_and_locks_leave_another_apps_connections_as_they_are() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let stranger = app.token_of_another_app().await;
    let import = json!({ "clientUserID": "ada", "connectionID": "c", "accessToken": "t", "userSecret": "s" });
    let theirs = app.api.post(&stranger, "/v1/connections/import", &import).await.json;
    let lock = locked(&app, EVERY_CONNECTION).await;
    let filter = json!({ "connectionIDs": [theirs["id"], "c"] });
    for body in [all(), only(filter), only(json!({ "clientUserIDs": ["ada"] }))] {
        assert_eq!(order(&app, &body).await.status, 202);
    }
    lock.commit().await.unwrap();
    assert_eq!(app.api.reveal(&stranger, id(&theirs)).await.json["accessToken"], "t");
    app.tick().await;
    assert_eq!(app.api.connection(&stranger, id(&theirs)).await["status"], "active");
}

async fn each_kind_of_filter_is_in_force_while_everything_is_locked(bank: Bank) {
    let app = bank.by_hand().await;
    let before = app.active("ada").await;
    app.turn_clock(Duration::from_secs(100)).await;
    let meant = app.active("bob").await;
    let time = meant["createdAt"].clone();
    for filter in [
        json!({ "clientUserIDs": ["bob"] }),
        json!({ "connectionIDs": [meant["id"]] }),
        json!({ "connectionIDs": [meant["connectionID"]] }),
        json!({ "createdAfter": time }),
        json!({ "clientUserIDs": ["bob", "ada"], "connectionIDs": [meant["id"]] }),
    ] {
        let lock = locked(&app, EVERY_CONNECTION).await;
        let made = order(&app, &only(filter.clone())).await;
        assert_eq!((made.status, &made.json["matched"]), (202, &Value::Null), "{filter}");
        let other = app.api.connection(&app.token().await, id(&before)).await;
        assert_eq!(other["status"], "active", "{filter}");
        assert_unusable(&app, &meant).await;
        lock.rollback().await.unwrap();
        app.database.execute("DELETE FROM bulk_revocations").await;
        assert_eq!(app.api.reveal(&app.token().await, id(&meant)).await.status, 200);
    }
}

#[tokio::test]
async fn twenty_thousand_connections_are_unusable_with_the_answer_and_counted_later() {
    let app = TestApp::by_hand().await;
    let real = app.active("ada").await;
    app.database
        .execute(
            "INSERT INTO connections (id, app_id, user_id, status, login_id, activated_at,
                                      access_token, user_secret)
             SELECT gen_random_uuid(), c.app_id, c.user_id, 'active', 'login ' || n, now(),
                    c.access_token, c.user_secret
             FROM connections c, generate_series(1, 20000) n",
        )
        .await;
    let lock = locked(&app, "SELECT id FROM connections LIMIT 1 FOR UPDATE").await;
    let made = order(&app, &all()).await;
    assert_eq!((made.status, &made.json["matched"]), (202, &Value::Null));
    assert_unusable(&app, &real).await;
    let some = "SELECT 'conn_' || id FROM connections WHERE status = 'active' LIMIT 1";
    assert_unusable(&app, &json!({ "id": app.database.value(some).await })).await;
    lock.commit().await.unwrap();
    assert_eq!(counted(&app, &made.json).await["matched"], 20001);
    let left = "SELECT count(*) FROM connections WHERE status IN ('active', 'pending')";
    assert_eq!(app.database.value(left).await, "0");
}

#[tokio::test]
async fn an_order_waits_for_the_readings_that_have_begun_and_for_nothing_else() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    let reading = locked(&app, "SELECT begin_use(app_id) FROM connections").await;
    let (api, token) = (app.api.clone(), app.token().await);
    let given = tokio::spawn(async move { api.post(&token, ORDERS, &all()).await });
    app.database.waits_for_locks("1").await;
    assert!(!given.is_finished());
    reading.commit().await.unwrap();
    assert_eq!(given.await.unwrap().status, 202);
    assert_unusable(&app, &active).await;
}

async fn a_token_that_comes_while_its_connection_cannot_be_marked_is_never_usable(bank: Bank) {
    let app = bank.by_hand().await;
    let held_up = app.exchange_is_slow();
    app.sandbox.set_fault(held_up.times(1)).unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    let lock = locked(&app, EVERY_CONNECTION).await;
    let made = order(&app, &all()).await;
    app.sandbox.clear_faults();
    assert_unusable(&app, &pending).await;
    lock.commit().await.unwrap();
    let settled = app.settled(id(&pending)).await;
    assert_eq!(settled["status"], "revoking");
    assert_eq!(counted(&app, &made.json).await["matched"], 1);
    app.tick().await;
    assert_eq!(app.api.connection(&app.token().await, id(&pending)).await["status"], "delinked");
    assert!(!app.database.trail().await.contains(&"connection.activated active".to_owned()));
    assert_eq!(app.live_tokens(), 0);
}

async fn an_orphan_that_an_order_meant_is_delinked_should_its_token_come_after_all(bank: Bank) {
    let app = bank.by_hand().await;
    let held_up =
        Fault::new(Effect::Answer).on(bank.exchange()).after().delayed(Duration::from_secs(600));
    app.sandbox.set_fault(held_up.times(1)).unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    app.turn_clock(Duration::from_secs(131)).await;
    app.tick().await;
    let token = app.token().await;
    assert_eq!(app.api.connection(&token, id(&pending)).await["status"], "orphaned");
    assert_eq!(order(&app, &all()).await.json["matched"], 0);
    let counted = app.metric("strongroom_exchange_duration_seconds_count").await;
    app.sandbox.clear_faults();
    while app.metric("strongroom_exchange_duration_seconds_count").await <= counted {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_unusable(&app, &pending).await;
    app.tick().await;
    assert_eq!(app.api.connection(&token, id(&pending)).await["status"], "delinked");
}

async fn what_is_imported_after_an_order_is_not_met_though_the_order_is_still_in_force(bank: Bank) {
    let app = bank.by_hand().await;
    let before = app.active("ada").await;
    let lock = locked(&app, EVERY_CONNECTION).await;
    let made = order(&app, &all()).await.json;
    let token = app.token().await;
    let import = bank.import("ada", "c", "t");
    let after = app.api.post(&token, "/v1/connections/import", &import).await;
    assert_eq!(after.status, 201, "{}", after.text);
    assert_eq!(app.api.reveal(&token, id(&after.json)).await.json["accessToken"], "t");
    assert_unusable(&app, &before).await;
    lock.commit().await.unwrap();
    assert_eq!(counted(&app, &made).await["matched"], 1);
    assert_eq!(app.api.reveal(&token, id(&after.json)).await.status, 200);
}

#[tokio::test]
async fn a_retry_that_fails_after_the_pause_is_not_repeated_until_the_order_is_resumed() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    let slow = Fault::status(503).on(DELINK).delayed(Duration::from_secs(300));
    app.sandbox.set_fault(slow.times(1)).unwrap();
    let made = order(&app, &all()).await.json;
    let calls = reconcile::round(&app.context).await.unwrap();
    app.sandbox.calls_reached(DELINK, 1).await;
    assert_eq!(change(&app, &made, "pause").await.json["telling"], 1);
    app.sandbox.clear_faults();
    calls.finish().await;
    assert_eq!(look(&app, &made).await["waiting"], 1);
    for _ in 0..3 {
        app.turn_clock(Duration::from_hours(1)).await;
        app.tick().await;
    }
    assert_eq!(app.sandbox.calls_to(DELINK), 1);
    change(&app, &made, "resume").await;
    app.tick().await;
    assert_eq!(app.sandbox.calls_to(DELINK), 2);
    assert_eq!(app.api.connection(&app.token().await, id(&active)).await["status"], "delinked");
}

async fn a_pause_holds_what_was_locked_and_what_a_dead_replica_had_begun(bank: Bank) {
    let app = bank.by_hand().await;
    app.active("ada").await;
    app.active("bob").await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    let made = order(&app, &all()).await.json;
    app.tick().await;
    assert_eq!(app.revocations(), 2);
    app.database
        .execute(
            "UPDATE connections SET leased_until = due_at
             WHERE id = (SELECT min(id::text)::uuid FROM connections)",
        )
        .await;
    let lock = locked(&app, EVERY_CONNECTION).await;
    assert_eq!(change(&app, &made, "pause").await.json["status"], "paused");
    lock.commit().await.unwrap();
    app.turn_clock(Duration::from_hours(2)).await;
    // Not even where the delinkings are looked at before anything holds what is due.
    reconcile::part(&app.context, reconcile::Part::Delinks).await.finish().await;
    assert_eq!(app.revocations(), 2);
    app.tick().await;
    assert_eq!(app.revocations(), 2);
    assert_eq!(look(&app, &made).await["waiting"], 2);
}

#[tokio::test]
async fn a_cancelled_order_goes_on_marking_and_gives_up_what_was_locked() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    let lock = locked(&app, EVERY_CONNECTION).await;
    let made = order(&app, &all()).await.json;
    assert_eq!(change(&app, &made, "cancel").await.json["status"], "cancelled");
    assert_unusable(&app, &active).await;
    lock.commit().await.unwrap();
    counted(&app, &made).await;
    app.tick().await;
    let ended = app.api.connection(&app.token().await, id(&active)).await;
    assert_eq!((&ended["status"], app.sandbox.calls_to(DELINK)), (&json!("invalidated"), 0));
}

#[tokio::test]
async fn a_key_whose_first_request_is_under_way_is_told_to_wait() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let token = app.token().await;
    let send = || {
        let request = app.api.request(Method::POST, ORDERS).bearer_auth(&token);
        app.api.send(request.header("idempotency-key", "k").json(&all()))
    };
    let first = locked(
        &app,
        "INSERT INTO bulk_revocations (id, app_id, kind, reason, filter, per_second, request_hash,
                                        idempotency_key)
         SELECT gen_random_uuid(), id, 'delink', 'x', '{}', 1, sha256('x'), 'k' FROM apps",
    )
    .await;
    let second = send().await;
    assert_eq!(second.problem(), (409, "request_in_progress"));
    assert_eq!(second.header("retry-after"), "1");
    first.rollback().await.unwrap();
    assert_eq!(send().await.status, 202);
    assert_eq!(app.database.value("SELECT count(*) FROM bulk_revocations").await, "1");
}

#[tokio::test]
async fn sessions_end_with_the_client_that_made_them_on_every_replica() {
    let app = TestApp::by_hand().await;
    let replica = app.replica().await;
    for how in ["disable", "delete"] {
        let (client, other) =
            (app.client("sessions:create").await, app.client("sessions:create").await);
        app.refresh_directories().await;
        let ended = app.api.session(&client.token(&app.api).await, "ada").await;
        let stays = app.api.session(&other.token(&app.api).await, "ada").await;
        let path = format!("/v1/admin/clients/{}", client.id);
        let admin = app.token().await;
        let rotated = app.api.post(&admin, &format!("{path}/secrets"), &json!({})).await;
        assert_eq!(rotated.status, 201, "{}", rotated.text);
        assert_eq!(app.api.get(&ended, "/v1/connections").await.status, 200);
        let request = match how {
            "disable" => app.api.request(Method::PATCH, &path).json(&json!({ "disabled": true })),
            _ => app.api.request(Method::DELETE, &path),
        };
        assert!(app.api.send(request.bearer_auth(&admin)).await.status < 300);
        for api in [&app.api, &replica] {
            let refused = api.post(&ended, "/v1/connections", &app.connect()).await;
            assert_eq!(refused.problem(), (401, "unauthorized"), "{how}");
            assert_eq!(api.get(&stays, "/v1/connections").await.status, 200);
        }
    }
}

#[tokio::test]
async fn sessions_end_with_an_order_that_means_their_client_their_user_or_everything() {
    let app = TestApp::by_hand().await;
    let (one, two) = (app.client("sessions:create").await, app.client("sessions:create").await);
    app.refresh_directories().await;
    let (one_token, two_token) = (one.token(&app.api).await, two.token(&app.api).await);
    for (filter, ended) in [
        (json!({ "clientID": one.id }), [true, false, false]),
        (json!({ "clientUserIDs": ["bob"] }), [false, false, true]),
        (json!({ "clientUserIDs": ["bob"], "clientID": one.id }), [false, false, false]),
        (json!({ "connectionIDs": ["c"] }), [false, false, false]),
        (json!({ "createdAfter": "2020-01-01T00:00:00Z" }), [false, false, false]),
        (json!({ "all": true }), [true, true, true]),
    ] {
        let sessions = [
            app.api.session(&one_token, "ada").await,
            app.api.session(&two_token, "ada").await,
            app.api.session(&two_token, "bob").await,
        ];
        assert_eq!(order(&app, &only(filter.clone())).await.status, 202);
        for (session, ended) in sessions.iter().zip(ended) {
            let status = app.api.get(session, "/v1/connections").await.status;
            assert_eq!(status, if ended { 401 } else { 200 }, "{filter}");
        }
    }
    let later = app.api.session(&one_token, "ada").await;
    assert_eq!(app.api.get(&later, "/v1/connections").await.status, 200);
}

async fn erase(app: &TestApp, user: &str) -> Answer {
    let request = app.api.request(Method::DELETE, &format!("/v1/users/{user}"));
    app.api.send(request.bearer_auth(app.token().await)).await
}

/// Works in the background until an erasure is through.
async fn erased(app: &TestApp, erasure: &Value) -> Value {
    for _ in 0..200 {
        let path = format!("/v1/users/erasures/{}", id(erasure));
        let answer = app.api.get(&app.token().await, &path).await;
        if answer.status == 200 {
            return answer.json;
        }
        app.turn_clock(Duration::from_secs(5)).await;
        app.tick().await;
    }
    panic!("an erasure never ends");
}

async fn an_erasure_begins_whatever_of_the_user_is_locked(bank: Bank) {
    for lock in [
        EVERY_CONNECTION,
        "SELECT id FROM users FOR UPDATE",
        "SELECT id FROM connect_sessions FOR UPDATE",
        "SELECT id FROM apps FOR UPDATE",
    ] {
        let app = bank.by_hand().await;
        let active = app.active("ada").await;
        let token = app.token().await;
        let session = app.api.session(&token, "ada").await;
        let held = locked(&app, lock).await;
        let begun = erase(&app, "ada").await;
        assert_eq!(begun.status, 202, "{lock}: {}", begun.text);
        let refused = app.api.reveal(&token, id(&active)).await;
        assert_eq!(refused.problem(), (409, "connection_not_active"), "{lock}");
        assert_eq!(app.api.get(&session, "/v1/connections").await.status, 401, "{lock}");
        let refused = app.hand_in("ada", &app.connect()).await;
        assert_eq!(refused.problem(), (409, "user_being_erased"), "{lock}");
        held.commit().await.unwrap();
        assert_eq!(erased(&app, &begun.json).await["upstream"], "confirmed", "{lock}");
        assert_eq!(app.database.value("SELECT count(*) FROM bulk_revocations").await, "0");
    }
}

#[tokio::test]
async fn a_user_with_many_sessions_is_erased() {
    let app = TestApp::by_hand().await;
    let token = app.token().await;
    let session = app.api.session(&token, "ada").await;
    app.database
        .execute(
            "INSERT INTO connect_sessions (id, app_id, user_id, token_hash, created_by, expires_at)
             SELECT gen_random_uuid(), app_id, user_id, sha256(n::text::bytea), created_by, expires_at
             FROM connect_sessions, generate_series(1, 20000) n",
        )
        .await;
    let begun = erase(&app, "ada").await;
    assert_eq!(app.api.get(&session, "/v1/connections").await.status, 401);
    assert_eq!(erased(&app, &begun.json).await["destroyed"]["sessions"], 20001);
    assert_eq!(app.database.value("SELECT count(*) FROM connect_sessions").await, "0");
}

#[tokio::test]
async fn a_session_that_hands_in_while_its_user_is_erased_is_told_so() {
    let app = TestApp::by_hand().await;
    let session = app.api.session(&app.token().await, "ada").await;
    let mut lock = locked(&app, "SELECT id FROM connect_sessions FOR UPDATE").await;
    let (api, result) = (app.api.clone(), app.connect());
    let handed = tokio::spawn(async move { api.post(&session, "/v1/connections", &result).await });
    app.database.waits_for_locks("1").await;
    for sql in [
        "DELETE FROM connect_sessions",
        "DELETE FROM data_keys WHERE purpose = 'user'",
        "DELETE FROM users",
    ] {
        sqlx::query(sql).execute(&mut *lock).await.unwrap();
    }
    lock.commit().await.unwrap();
    assert_eq!(handed.await.unwrap().problem(), (409, "user_being_erased"));
    assert_eq!(app.database.value("SELECT count(*) FROM users").await, "0", "and is not made anew");
}

#[tokio::test]
async fn whatever_is_added_for_a_user_while_they_are_erased_is_refused_as_that() {
    let app = TestApp::by_hand().await;
    let session = app.api.session(&app.token().await, "ada").await;
    let import = json!({ "clientUserID": "ada", "connectionID": "c", "accessToken": "t", "userSecret": "s" });
    let result = app.connect();
    let ways = [
        (app.token().await, "/v1/connections/import", import),
        (app.token().await, "/v1/connections", for_user(&result, "ada")),
        (session, "/v1/connections", result.clone()),
    ];
    // Nothing is inserted until this ends, and by then the erasure is in force.
    let lock = locked(&app, "SELECT pg_advisory_xact_lock(arrival_lock(id)) FROM apps").await;
    let sent = ways.map(|(token, path, body)| {
        let api = app.api.clone();
        tokio::spawn(async move { api.post(&token, path, &body).await })
    });
    app.database.waits_for_locks("3").await;
    let mut other = app.database.pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO erasures (id, app_id, user_id, sessions, sealed)
         SELECT gen_random_uuid(), app_id, id, 0, 0 FROM users",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    other.commit().await.unwrap();
    lock.commit().await.unwrap();
    for answer in futures_util::future::join_all(sent).await {
        assert_eq!(answer.unwrap().problem(), (409, "user_being_erased"));
    }
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "0");
}
