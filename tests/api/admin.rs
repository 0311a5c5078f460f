//! The operator's view: connections across users, one connection's history, counts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{BOOTSTRAP_ID, TestApp, id};

async fn search(app: &TestApp, query: &str) -> Value {
    let answer = app.api.get(&app.token().await, &format!("/v1/admin/connections{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

fn ids(list: &Value) -> Vec<&str> {
    list["connections"].as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn connections_are_found_across_users_by_any_of_their_ids() {
    let app = TestApp::by_hand().await;
    let ada = app.active("ada@example.com").await;
    let bob = app.active("bob").await;
    let both = search(&app, "").await;
    assert_eq!(ids(&both), [id(&bob), id(&ada)]);
    let found = &both["connections"][1];
    assert_eq!(
        (&found["clientUserID"], &found["createdBy"]),
        (&ada["clientUserID"], &json!(BOOTSTRAP_ID))
    );
    assert!(found["revocationOrder"].is_null());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let dapi_user = text(&ada["userID"])[..8].replace('+', "%2B");
    for part in [
        text(&ada["id"]),
        text(&ada["id"])[20..].to_uppercase(),
        text(&found["user"]),
        text(&ada["connectionID"])[3..].to_owned(),
        text(&ada["tokenID"]),
        dapi_user,
        "EXAMPLE.com".to_owned(),
    ] {
        assert_eq!(ids(&search(&app, &format!("?text={part}")).await), [id(&ada)], "{part}");
    }
    assert_eq!(ids(&search(&app, "?text=%25").await), [""; 0], "it is text and no pattern");
    assert_eq!(ids(&search(&app, "?clientUserID=bob").await), [id(&bob)]);
    assert_eq!(ids(&search(&app, "?clientUserID=bob&text=example").await), [""; 0]);
}

#[tokio::test]
async fn connections_are_found_by_status_and_age_and_by_pages() {
    let app = TestApp::by_hand().await;
    let old = app.active("ada").await;
    app.turn_clock(Duration::from_hours(48)).await;
    let new = app.active("ada").await;
    app.api.delink(&app.token().await, id(&old)).await;
    assert_eq!(ids(&search(&app, "?status=revoking").await), [id(&old)]);
    let at = new["createdAt"].as_str().unwrap();
    assert_eq!(ids(&search(&app, &format!("?createdBefore={at}")).await), [id(&old)]);
    assert_eq!(ids(&search(&app, &format!("?createdAfter={at}")).await), [id(&new)]);
    assert_eq!(ids(&search(&app, &format!("?createdAfter={at}&status=revoking")).await), [""; 0]);
    let first = search(&app, "?limit=1").await;
    assert_eq!(ids(&first), [id(&new)]);
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = search(&app, &format!("?limit=1&cursor={cursor}")).await;
    assert_eq!((ids(&second), &second["nextCursor"]), (vec![id(&old)], &Value::Null));
    for wrong in
        ["?status=gone", "?limit=0", "?cursor=x", "?createdBefore=now", "?text=", "?clientUserID="]
    {
        let answer =
            app.api.get(&app.token().await, &format!("/v1/admin/connections{wrong}")).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{wrong}");
    }
}

#[tokio::test]
async fn a_connection_is_shown_with_everything_that_happened_to_it() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    app.active("ada").await;
    let token = app.token().await;
    app.api.reveal(&token, id(&active)).await;
    app.api.invalidate(&token, id(&active), &json!({ "reason": "stolen" })).await;
    app.tick().await;
    let found = app.api.get(&token, &format!("/v1/admin/connections/{}", id(&active))).await.json;
    assert_eq!((&found["status"], &found["exchangeAttempts"]), (&json!("invalidated"), &json!(1)));
    let history = found["history"].as_array().unwrap();
    let actions: Vec<_> = history.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let expected = [
        "connection.received",
        "connection.activated",
        "token.revealed",
        "connection.invalidate",
        "connection.invalidated",
    ];
    assert_eq!(actions, expected);
    let reading = &history[2];
    assert_eq!(
        (&reading["clientID"], &reading["scope"]),
        (&json!(BOOTSTRAP_ID), &json!("tokens:read"))
    );
    assert_eq!((&reading["reason"], &reading["ip"]), (&json!("test"), &json!("127.0.0.1")));
    assert!(reading["requestID"].is_string() && reading["at"].is_string());
}

#[tokio::test]
async fn connections_are_counted_by_status_and_age() {
    let app = TestApp::by_hand().await;
    let old = app.active("ada").await;
    app.turn_clock(Duration::from_hours(48)).await;
    app.active("ada").await;
    let revoked = app.active("bob").await;
    app.api.delink(&app.token().await, id(&revoked)).await;
    let stranger = app.token_of_another_app().await;
    let stats = app.api.get(&app.token().await, "/v1/admin/stats").await.json;
    let none = json!({ "hour": 0, "day": 0, "week": 0, "month": 0, "older": 0 });
    let ages = |some: Value| crate::support::with(&none, some);
    let revoking = json!({ "status": "revoking", "total": 1, "ages": ages(json!({ "hour": 1 })), "oldestCreatedAt": revoked["createdAt"] });
    let active = json!({ "status": "active", "total": 2, "ages": ages(json!({ "hour": 1, "week": 1 })), "oldestCreatedAt": old["createdAt"] });
    assert_eq!(stats, json!({ "total": 3, "needingAttention": 0, "statuses": [active, revoking] }));
    let nothing = app.api.get(&stranger, "/v1/admin/stats").await.json;
    assert_eq!(nothing, json!({ "total": 0, "needingAttention": 0, "statuses": [] }));
    assert_eq!(
        app.api.get(&stranger, "/v1/admin/connections").await.json["connections"],
        json!([])
    );
}
