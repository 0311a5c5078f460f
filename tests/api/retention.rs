//! What is forgotten a set time after its end, and what never is.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use strongroom_dev::sandbox::Fault;

use crate::support::{Builder, TestApp, id};

const EXCHANGE: &str = "auth/ExchangeToken";
const DAY: Duration = Duration::from_hours(24);

fn kept_for_thirty_days() -> Builder {
    TestApp::builder().set("STRONGROOM_HISTORY_RETENTION_DAYS", "30").by_hand()
}

/// The statuses that there are, in order.
async fn statuses(app: &TestApp) -> Vec<String> {
    app.database.values("SELECT status FROM connections ORDER BY status").await
}

async fn housekeeping(app: &TestApp) {
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
}

async fn until_revoked(app: &TestApp) {
    let revoking = "SELECT count(*) FROM connections WHERE status = 'revoking'";
    while app.database.value(revoking).await != "0" {
        app.turn_clock(Duration::from_secs(5)).await;
        app.tick().await;
    }
}

/// One connection of each status that it can end in, but for `orphaned`, one active and one pending.
async fn one_of_each(app: &TestApp) {
    let token = app.token().await;
    app.active("ada").await;
    let delinked = app.active("bob").await;
    app.api.delink(&token, id(&delinked)).await;
    let invalidated = app.active("cleo").await;
    let path = format!("/v1/connections/{}/invalidate", id(&invalidated));
    app.api.post(&token, &path, &json!({ "reason": "a test" })).await;
    until_revoked(app).await;
    app.sandbox.set_fault(app.bank.code_refused().times(1)).unwrap();
    let rejected = app.hand_in("dan", &app.connect()).await;
    app.settled(id(&rejected.json)).await;
    app.sandbox.set_fault(Fault::status(503).on(EXCHANGE)).unwrap();
    let expiring = app.hand_in("eve", &app.connect()).await.json;
    app.settled(id(&expiring)).await;
    app.turn_clock(Duration::from_mins(40)).await;
    app.tick().await;
    let pending = app.hand_in("fay", &app.connect()).await.json;
    app.settled(id(&pending)).await;
}

#[tokio::test]
async fn connections_that_ended_are_forgotten_after_their_time_and_no_others() {
    let app = kept_for_thirty_days().spawn().await;
    one_of_each(&app).await;
    let all = ["active", "delinked", "expired", "invalidated", "pending", "rejected"];
    assert_eq!(statuses(&app).await, all);
    app.turn_clock(Duration::from_hours(24 * 30 - 1)).await;
    housekeeping(&app).await;
    assert_eq!(statuses(&app).await, all, "not yet");
    app.turn_clock(Duration::from_hours(2)).await;
    housekeeping(&app).await;
    assert_eq!(statuses(&app).await, ["active", "pending"]);
    assert_ne!(app.database.value("SELECT count(*) FROM audit_events").await, "0");
}

#[tokio::test]
async fn without_a_setting_history_is_kept_for_ever() {
    let app = TestApp::by_hand().await;
    one_of_each(&app).await;
    app.turn_clock(DAY * 36_500).await;
    housekeeping(&app).await;
    assert_eq!(statuses(&app).await.len(), 6);
}

#[tokio::test]
async fn bulk_revocations_and_erasures_are_forgotten_with_them() {
    let app = kept_for_thirty_days().spawn().await;
    let token = app.token().await;
    app.active("ada").await;
    app.active("bob").await;
    let order =
        json!({ "kind": "delink", "reason": "a test", "filter": { "clientUserIDs": ["ada"] } });
    assert_eq!(app.api.post(&token, "/v1/admin/revocations", &order).await.status, 202);
    let erase = app.api.request(Method::DELETE, "/v1/users/bob").bearer_auth(&token);
    assert!(app.api.send(erase).await.status < 300);
    let left = "SELECT (SELECT count(*) FROM bulk_revocations WHERE finished_at IS NULL)
                     + (SELECT count(*) FROM erasures WHERE erased_at IS NULL)";
    while app.database.value(left).await != "0" {
        app.turn_clock(Duration::from_secs(5)).await;
        app.tick().await;
    }
    let there = "SELECT (SELECT count(*) FROM bulk_revocations) + (SELECT count(*) FROM erasures)
                      + (SELECT count(*) FROM connections)";
    housekeeping(&app).await;
    assert_ne!(app.database.value(there).await, "0", "not yet");
    app.turn_clock(DAY * 31).await;
    housekeeping(&app).await;
    assert_eq!(app.database.value(there).await, "0");
}

#[tokio::test]
async fn more_than_one_step_takes_is_forgotten_in_the_same_pass() {
    let app = kept_for_thirty_days().spawn().await;
    let delinked = app.active("ada").await;
    app.api.delink(&app.token().await, id(&delinked)).await;
    until_revoked(&app).await;
    app.database
        .execute(
            "INSERT INTO connections (app_id, id, user_id, status, login_id, failure_type, failure_detail)
             SELECT app_id, gen_random_uuid(), user_id, 'rejected', 'c' || n, 'refused', 'a test'
             FROM connections, generate_series(1, 1200) n",
        )
        .await;
    app.turn_clock(DAY * 31).await;
    housekeeping(&app).await;
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "0");
}
