//! Where a rotation meets other things: revocations, new links of the item, imports, readers, outages, and its own late
//! answers. A living token is held or removed, never forgotten, and nothing is called dead that lives.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use strongroom::connections::reconcile::{self, Part};
use strongroom_dev::sandbox::{Effect, Fault, LinkOptions};

use crate::rotation::{
    ACCOUNTS, INVALIDATE, PAST_THE_WAIT, PROBE, REMOVE, begin, held_up, lives, lost, now, release,
    released, revealed, rotates, rotating, rotations,
};
use crate::support::{Bank, Cut, Proxy, TestApp, TestDatabase, id};

const EXCHANGE: &str = "plaid/item/public_token/exchange";
const PAST_THE_LEASE: Duration = Duration::from_secs(131);
const KEPT: &str = "SELECT count(*) FROM superseded_tokens";

fn living(app: &TestApp) -> usize {
    app.sandbox.plaid().live_tokens().len()
}

/// A rotation whose answer comes only when the faults are cleared, and the task that waits for it.
async fn in_flight(app: &TestApp) -> tokio::task::JoinHandle<()> {
    app.sandbox.set_fault(held_up()).unwrap();
    let calls = app.sandbox.calls_to(INVALIDATE);
    let rotating = begin(app);
    app.sandbox.calls_reached(INVALIDATE, calls + 1).await;
    rotating
}

/// A connection whose rotation was concluded to be lost while its answer is still on its way.
async fn given_up(app: &TestApp) -> (Value, tokio::task::JoinHandle<()>) {
    let (connection, old) = released(app).await;
    let rotating = in_flight(app).await;
    // The sandbox counts a call before it acts on it.
    while lives(app, &old) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.turn_clock(PAST_THE_LEASE).await;
    begin(app).await.unwrap();
    assert_eq!((app.sandbox.calls_to(PROBE), rotations(app, "lost").await), (1, 1.0));
    assert_eq!(now(app, &connection).await["status"], "invalidated");
    (connection, rotating)
}

/// Works in the background for a minute.
async fn a_minute_of_work(app: &TestApp) {
    for _ in 0..10 {
        app.turn_clock(Duration::from_secs(6)).await;
        app.tick().await;
    }
}

async fn dropped(app: &TestApp) -> f64 {
    app.metric("strongroom_tokens_dropped_total").await
}

#[tokio::test]
async fn a_new_token_that_comes_after_its_loss_was_concluded_is_the_connections() {
    let app = rotating().await;
    let (connection, rotating) = given_up(&app).await;
    app.sandbox.clear_faults();
    rotating.await.unwrap();
    let seen = now(&app, &connection).await;
    assert_eq!((&seen["status"], &seen["revocation"]), (&json!("active"), &Value::Null));
    assert!(lives(&app, &revealed(&app, &connection).await));
    let events = app.database.audit().await;
    assert!(events.contains(&"connection.restored active".to_owned()), "{events:?}");
    assert_eq!(dropped(&app).await, 0.0);
}

#[tokio::test]
async fn a_lost_token_that_comes_after_a_revocation_removes_its_item_and_nothing_else() {
    for how in ["delink", "bulk"] {
        let app = rotating().await;
        let (connection, rotating) = given_up(&app).await;
        let token = app.token().await;
        if how == "delink" {
            assert!(app.api.delink(&token, id(&connection)).await.status < 300);
        } else {
            let all = json!({ "kind": "delink", "reason": "test", "filter": { "all": true } });
            assert_eq!(app.api.post(&token, "/v1/admin/revocations", &all).await.status, 202);
        }
        app.sandbox.clear_faults();
        rotating.await.unwrap();
        let reveal = app.api.reveal(&token, id(&connection)).await;
        assert_eq!(reveal.problem(), (409, "connection_not_active"), "{how}");
        app.tick().await;
        assert_eq!((app.sandbox.calls_to(REMOVE), living(&app)), (1, 0), "{how}");
        assert!(now(&app, &connection).await["revocation"]["confirmedAt"].is_string(), "{how}");
        assert_eq!((rotations(&app, "removed").await, dropped(&app).await), (1.0, 0.0), "{how}");
    }
}

#[tokio::test]
async fn a_token_whose_connection_ended_without_a_call_meanwhile_removes_its_item() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    let rotating = in_flight(&app).await;
    let body = json!({ "reason": "moved", "revokeUpstream": false });
    let ended = app.api.invalidate(&app.token().await, id(&connection), &body).await;
    assert_eq!((ended.status, ended.connection_status()), (200, "invalidated"));
    app.sandbox.clear_faults();
    rotating.await.unwrap();
    app.tick().await;
    assert_eq!((app.sandbox.calls_to(REMOVE), living(&app)), (1, 0));
    let seen = now(&app, &connection).await;
    assert_eq!(seen["status"], "invalidated");
    assert!(seen["revocation"]["confirmedAt"].is_string(), "{seen}");
}

#[tokio::test]
async fn a_token_whose_user_was_erased_meanwhile_removes_its_item() {
    let app = rotating().await;
    let (_, rotating) = given_up(&app).await;
    let token = app.token().await;
    let erase = app.api.request(Method::DELETE, "/v1/users/ada").bearer_auth(&token);
    assert!(app.api.send(erase).await.status < 300);
    a_minute_of_work(&app).await;
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "0");
    app.sandbox.clear_faults();
    rotating.await.unwrap();
    assert_eq!((app.sandbox.calls_to(REMOVE), living(&app)), (1, 0));
    assert_eq!(dropped(&app).await, 0.0);
}

#[tokio::test]
async fn a_new_token_finds_the_old_one_where_a_supersession_put_it_at_the_same_moment() {
    let app = rotating().await;
    released(&app).await;
    let rotating = in_flight(&app).await;
    let mut tx = app.database.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM connections FOR UPDATE").execute(&mut *tx).await.unwrap();
    app.sandbox.clear_faults();
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while app.database.value(waiting).await == "0" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for sql in [
        "INSERT INTO superseded_tokens (connection_id, app_id, replaced_by, access_token, binding, ends_at)
         SELECT c.id, c.app_id, gen_random_uuid(), c.access_token, b.binding, now() + interval '1 hour'
         FROM connections c JOIN token_bindings b ON b.connection_id = c.id",
        "CREATE TABLE before AS SELECT access_token FROM superseded_tokens",
        "UPDATE connections SET status = 'invalidated', access_token = NULL",
    ] {
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    rotating.await.unwrap();
    let same = "SELECT count(*) FROM superseded_tokens JOIN before USING (access_token)";
    assert_eq!(
        (app.database.value(KEPT).await, app.database.value(same).await),
        ("1".into(), "0".into())
    );
    assert_eq!((rotations(&app, "rotated").await, dropped(&app).await), (1.0, 0.0));
}

#[tokio::test]
async fn a_mistyped_import_during_a_rotation_costs_no_token() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    let rotating = in_flight(&app).await;
    let item = now(&app, &connection).await["connectionID"].as_str().unwrap().to_owned();
    let typo = Bank::Plaid.import("ada", &item, "access-sandbox-mistyped");
    let imported = app.api.post(&app.token().await, "/v1/connections/import", &typo).await;
    assert_eq!(imported.status, 201, "{}", imported.text);
    app.sandbox.clear_faults();
    rotating.await.unwrap();
    app.turn_clock(Duration::from_mins(2)).await;
    app.tick().await;
    assert_eq!(now(&app, &imported.json).await["status"], "invalidated");
    assert_eq!(now(&app, &connection).await["status"], "active");
    assert!(lives(&app, &revealed(&app, &connection).await));
}

/// The exchange of another link of an item, on whose answer the token's rotation gains.
async fn linked_again(app: &TestApp, item: String, delay: Duration) -> Value {
    let exchanges = app.sandbox.calls_to(EXCHANGE);
    let options = LinkOptions { item_id: Some(item), ..LinkOptions::default() };
    let again = app.link_with(&options);
    let slow = Fault::new(Effect::Answer).on(EXCHANGE).after().delayed(delay);
    app.sandbox.set_fault(slow).unwrap();
    let pending = app.hand_in("ada", &again).await.json;
    app.sandbox.calls_reached(EXCHANGE, exchanges + 1).await;
    pending
}

/// Asserts that of these connections one is active, and holds the item's token.
async fn one_holds_the_living_token(app: &TestApp, connections: [&Value; 2]) {
    let mut active = Vec::new();
    for connection in connections {
        let seen = now(app, connection).await;
        match seen["status"].as_str().unwrap() {
            "active" => active.push(connection),
            status => assert_eq!(status, "invalidated", "{seen}"),
        }
    }
    assert_eq!((active.len(), living(app)), (1, 1));
    assert!(lives(app, &revealed(app, active[0]).await));
    assert_eq!(dropped(app).await, 0.0);
}

#[tokio::test]
async fn a_new_link_of_an_item_whose_token_was_replaced_during_its_exchange_loses_no_token() {
    let app = rotating().await;
    let (connection, item) = app.active_item("ada").await;
    revealed(&app, &connection).await;
    let newer = linked_again(&app, item, Duration::from_secs(300)).await;
    release(&app, &connection).await;
    begin(&app).await.unwrap();
    assert_eq!(rotations(&app, "rotated").await, 1.0);
    app.sandbox.clear_faults();
    app.settled(id(&newer)).await;
    app.details_asked(id(&newer)).await;
    a_minute_of_work(&app).await;
    one_holds_the_living_token(&app, [&connection, &newer]).await;
}

#[tokio::test]
async fn a_new_link_of_an_item_whose_token_is_being_replaced_gets_the_new_token() {
    let app = rotating().await;
    let (connection, item) = app.active_item("ada").await;
    revealed(&app, &connection).await;
    let newer = linked_again(&app, item, Duration::from_secs(2)).await;
    release(&app, &connection).await;
    let rotating = in_flight(&app).await;
    assert_eq!(app.settled(id(&newer)).await["status"], "active");
    app.sandbox.clear_faults();
    rotating.await.unwrap();
    a_minute_of_work(&app).await;
    a_minute_of_work(&app).await;
    one_holds_the_living_token(&app, [&connection, &newer]).await;
    assert_eq!(now(&app, &newer).await["status"], "active");
    assert_eq!(app.database.value(KEPT).await, "0", "the new token has worked");
}

#[tokio::test]
async fn a_token_that_a_new_link_brings_again_is_replaced_all_the_same() {
    let app = rotating().await;
    let (connection, item) = app.active_item("ada").await;
    let read = revealed(&app, &connection).await;
    let options = LinkOptions { item_id: Some(item), ..LinkOptions::default() };
    app.active_from("ada", &app.link_with(&options)).await;
    assert!(lives(&app, &read));
    app.turn_clock(Duration::from_secs(301)).await;
    app.tick().await;
    assert!(!lives(&app, &read));
}

#[tokio::test]
async fn a_revocation_that_meets_the_rotation_of_a_dead_token_is_confirmed() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    let token = app.sandbox.plaid().live_tokens()[0].token_id;
    app.sandbox.plaid().kill_token(token, "INVALID_ACCESS_TOKEN").unwrap();
    let rotating = in_flight(&app).await;
    let answer = app.api.delink(&app.token().await, id(&connection)).await;
    assert_eq!((answer.status, answer.connection_status()), (202, "revoking"));
    app.sandbox.clear_faults();
    rotating.await.unwrap();
    a_minute_of_work(&app).await;
    assert_eq!(now(&app, &connection).await["status"], "delinked");
}

#[tokio::test]
async fn a_call_whose_refusal_comes_after_another_attempt_began_ends_nothing() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    let token = app.sandbox.plaid().live_tokens()[0].token_id;
    app.sandbox.plaid().kill_token(token, "INVALID_ACCESS_TOKEN").unwrap();
    let rotating = in_flight(&app).await;
    app.database.execute("UPDATE connections SET rotation_epoch = rotation_epoch + 1").await;
    app.sandbox.clear_faults();
    rotating.await.unwrap();
    assert_eq!(now(&app, &connection).await["status"], "active");
}

#[tokio::test]
async fn a_refusal_of_another_kind_is_conclusive_although_an_earlier_answer_was_lost() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    app.sandbox.set_fault(lost(false)).unwrap();
    app.tick().await;
    let refusal = Bank::Plaid.refusal("ITEM_ERROR/ITEM_LOGIN_REQUIRED").on(INVALIDATE);
    app.sandbox.set_fault(refusal).unwrap();
    app.turn_clock(PAST_THE_WAIT).await;
    app.tick().await;
    assert_eq!((app.sandbox.calls_to(PROBE), app.sandbox.calls_to(INVALIDATE)), (1, 2));
    revealed(&app, &connection).await;
    assert_eq!(
        (rotations(&app, "recovered").await, rotations(&app, "postponed").await),
        (1.0, 1.0)
    );
}

#[tokio::test]
async fn the_old_token_is_asked_about_every_minute() {
    let app = rotating().await;
    released(&app).await;
    app.sandbox.set_fault(lost(true)).unwrap();
    app.sandbox.set_fault(Fault::status(503).on(PROBE)).unwrap();
    app.tick().await;
    for n in 1..=8 {
        app.turn_clock(Duration::from_secs(61)).await;
        app.tick().await;
        assert_eq!(app.sandbox.calls_to(PROBE), n);
    }
}

#[tokio::test]
async fn after_a_lost_answer_a_refusal_proves_nothing_until_the_token_is_replaced() {
    let app = rotating().await;
    let (connection, _) = released(&app).await;
    app.sandbox.set_fault(lost(false)).unwrap();
    app.tick().await;
    app.sandbox.set_fault(Fault::plaid_rate_limit(None).on(INVALIDATE)).unwrap();
    app.turn_clock(PAST_THE_WAIT).await;
    app.tick().await;
    assert_eq!(rotations(&app, "recovered").await, 1.0);
    // As if the lost call were carried out only now.
    let token = app.sandbox.plaid().live_tokens()[0].token_id;
    app.sandbox.plaid().kill_token(token, "INVALID_ACCESS_TOKEN").unwrap();
    let call = app.api.read(&app.token().await, Bank::Plaid, &connection).await;
    assert_eq!(call.json["error_code"], "INVALID_ACCESS_TOKEN", "{}", call.text);
    assert_eq!(now(&app, &connection).await["status"], "active");
    app.api.delink(&app.token().await, id(&connection)).await;
    a_minute_of_work(&app).await;
    assert_eq!(now(&app, &connection).await["status"], "revoking");
}

#[tokio::test]
async fn an_imported_token_is_replaced_once_it_has_worked() {
    let app = rotating().await;
    app.sandbox.set_fault(Fault::status(503).on(ACCOUNTS)).unwrap();
    let body = app.held_by_an_app("ada").await;
    let imported = app.api.post(&app.token().await, "/v1/connections/import", &body).await;
    assert_eq!(imported.status, 201, "{}", imported.text);
    let old = revealed(&app, &imported.json).await;
    release(&app, &imported.json).await;
    app.tick().await;
    app.turn_clock(Duration::from_secs(61)).await;
    app.tick().await;
    assert_eq!((app.sandbox.calls_to(INVALIDATE), lives(&app, &old)), (0, true));
    app.sandbox.clear_faults();
    for _ in 0..5 {
        app.turn_clock(Duration::from_mins(2)).await;
        app.tick().await;
    }
    assert_eq!((app.sandbox.calls_to(INVALIDATE), lives(&app, &old)), (1, false));
}

#[tokio::test]
async fn a_reader_after_a_rotation_that_failed_for_long_has_the_token_for_minutes() {
    let app = rotating().await;
    let (connection, old) = released(&app).await;
    app.sandbox.set_fault(Fault::plaid_rate_limit(None).on(INVALIDATE)).unwrap();
    app.tick().await;
    for _ in 0..10 {
        app.turn_clock(Duration::from_secs(301)).await;
        app.tick().await;
    }
    app.sandbox.clear_faults();
    let tried = app.sandbox.calls_to(INVALIDATE);
    assert_eq!(revealed(&app, &connection).await, old);
    app.turn_clock(Duration::from_secs(55)).await;
    app.tick().await;
    assert_eq!((app.sandbox.calls_to(INVALIDATE), lives(&app, &old)), (tried, true));
    app.turn_clock(Duration::from_hours(1)).await;
    app.tick().await;
    assert!(!lives(&app, &old));
}

#[tokio::test]
async fn a_reader_shortly_before_the_limit_has_the_token_for_a_minute_and_no_reader_has_it_for_ever()
 {
    let app = rotating().await;
    let (connection, _) = app.active_item("ada").await;
    let old = revealed(&app, &connection).await;
    for _ in 0..3 {
        app.turn_clock(Duration::from_secs(290)).await;
        app.tick().await;
        assert_eq!(revealed(&app, &connection).await, old);
    }
    // Half a minute before the fifteen minutes are over.
    app.turn_clock(Duration::from_secs(50)).await;
    app.tick().await;
    assert!(lives(&app, &old));
    for _ in 0..60 {
        app.turn_clock(Duration::from_secs(30)).await;
        app.tick().await;
        if !lives(&app, &old) {
            return;
        }
        revealed(&app, &connection).await;
    }
    panic!("a reader who comes every half minute has the token for ever");
}

#[tokio::test]
async fn a_rotation_that_hangs_delays_no_other() {
    let app = rotating().await;
    let (first, second) = (app.active_item("ada").await.0, app.active_item("bob").await.0);
    revealed(&app, &first).await;
    release(&app, &first).await;
    app.sandbox.set_fault(held_up().times(1)).unwrap();
    // Within the time that a call may take.
    let part = reconcile::part(&app.context, Part::Rotations);
    let hanging = tokio::time::timeout(Duration::from_secs(60), part).await.unwrap();
    app.sandbox.calls_reached(INVALIDATE, 1).await;
    let old = revealed(&app, &second).await;
    release(&app, &second).await;
    begin(&app).await.unwrap();
    assert!(!lives(&app, &old));
    app.sandbox.clear_faults();
    hanging.finish().await;
    assert_eq!(rotations(&app, "rotated").await, 2.0);
}

#[tokio::test]
async fn a_new_token_waits_in_memory_until_the_database_takes_it() {
    for cut in [Cut::Now, Cut::AnswerTo("place_rotated_token")] {
        let database = TestDatabase::new().await;
        let proxy = Proxy::before(&database).await;
        let builder = Bank::Plaid.builder().set("DATABASE_URL", proxy.url());
        let builder = builder.set("STRONGROOM_DATABASE_TIMEOUT", "5").on(database);
        let app = builder.by_hand().spawn().await;
        rotates(&app).await;
        let (connection, old) = released(&app).await;
        let rotating = in_flight(&app).await;
        proxy.cut(cut);
        app.sandbox.clear_faults();
        if cut == Cut::Now {
            while app.metric("strongroom_exchange_answers_waiting").await == 0.0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } else {
            while proxy.struck() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        proxy.cut(Cut::Never);
        rotating.await.unwrap();
        let new = revealed(&app, &connection).await;
        assert!(new != old && lives(&app, &new), "{cut:?}");
        assert_eq!((app.sandbox.calls_to(INVALIDATE), dropped(&app).await), (1, 0.0), "{cut:?}");
    }
}
