//! Imports and what they take the place of: a token that Dapi has taken ends the older one; one that nobody
//! has tried does so provisionally.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault, Refuse, Status};

use crate::support::{Answer, TestApp, id, with};

const METADATA: &str = "metadata/accounts/get";
const ACCOUNTS: &str = "data/accounts/get";
const KEPT: &str = "SELECT count(*) FROM superseded_tokens";

async fn import(app: &TestApp, body: &Value) -> Answer {
    app.api.post(&app.token().await, "/v1/connections/import", body).await
}

/// A working token, and an import of it.
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

fn mistyped(held: &Value) -> Value {
    with(held, json!({ "accessToken": "mistyped" }))
}

fn verified(held: &Value) -> Value {
    with(held, json!({ "verify": true }))
}

/// A working connection, and one that an import with a typing error put in its place.
async fn superseded(app: &TestApp) -> (Value, Value, Value) {
    let held = held(app, "ada").await;
    let older = import(app, &held).await.json;
    let newer = import(app, &mistyped(&held)).await;
    assert_eq!((newer.status, newer.connection_status()), (201, "active"), "{}", newer.text);
    (held, older, newer.json)
}

async fn call(app: &TestApp, connection: &Value) -> Answer {
    let path = format!("/v1/connections/{}/dapi/{ACCOUNTS}", id(connection));
    app.api.post(&app.token().await, &path, &json!({})).await
}

async fn shown(app: &TestApp, connection: &Value) -> Value {
    app.api.connection(&app.token().await, id(connection)).await
}

async fn status(app: &TestApp, connection: &Value) -> String {
    shown(app, connection).await["status"].as_str().unwrap().to_owned()
}

/// Everything that an import could have changed.
async fn everything(app: &TestApp) -> String {
    let sql = "SELECT string_agg(t::text, ' ') FROM (
        SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM superseded_tokens),
               (SELECT string_agg((to_jsonb(c) - 'last_used_at')::text, ' ' ORDER BY id)
                FROM connections c),
               (SELECT count(*) FROM audit_events)) t";
    app.database.value(sql).await
}

#[tokio::test]
async fn a_token_that_dapi_takes_is_imported_and_ends_the_older_one_for_good() {
    let app = TestApp::spawn().await;
    let held = held(&app, "ada").await;
    let older = import(&app, &mistyped(&held)).await.json;
    let newer = import(&app, &verified(&held)).await;
    assert_eq!((newer.status, newer.connection_status()), (201, "active"), "{}", newer.text);
    assert_eq!(app.sandbox.calls_to(METADATA), 1);
    assert_eq!(status(&app, &older).await, "invalidated");
    assert_eq!(app.database.value(KEPT).await, "0");
    assert_eq!(call(&app, &newer.json).await.status, 200);
}

#[tokio::test]
async fn a_token_that_dapi_refuses_is_told_in_its_words_and_changes_nothing() {
    let app = TestApp::spawn().await;
    let held = held(&app, "ada").await;
    let older = import(&app, &held).await.json;
    let before = everything(&app).await;
    let stranger = verified(&with(&mistyped(&held), json!({ "clientUserID": "nobody" })));
    for body in [verified(&mistyped(&held)), stranger] {
        let refused = import(&app, &body).await;
        assert_eq!(refused.problem(), (422, "token_rejected"), "{}", refused.text);
        assert!(refused.json["failure"]["type"].is_string(), "{}", refused.text);
        assert!(!refused.text.contains("mistyped"));
    }
    assert_eq!(everything(&app).await, before);
    assert_eq!(call(&app, &older).await.status, 200);
}

#[tokio::test]
async fn a_refusal_that_repeats_the_token_is_told_without_it() {
    let app = TestApp::spawn().await;
    let held = held(&app, "ada").await;
    let token = held["accessToken"].as_str().unwrap();
    let msg = format!("no such token: {token}");
    let refuse = Refuse { kind: "NOT_THIS".to_owned(), msg, status: 400 };
    app.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).on(METADATA).times(1)).unwrap();
    let refused = import(&app, &verified(&held)).await;
    assert_eq!(refused.problem(), (422, "token_rejected"));
    let failure = json!({ "type": "NOT_THIS", "detail": "no such token: (secret)" });
    assert_eq!(refused.json["failure"], failure);
    assert!(!refused.text.contains(token));
}

#[tokio::test]
async fn without_an_answer_nothing_changes_either() {
    let app = TestApp::builder().set("DAPI_CALL_TIMEOUT", "1").spawn().await;
    let held = held(&app, "ada").await;
    import(&app, &mistyped(&held)).await;
    let before = everything(&app).await;
    let body = |code, body: &str| {
        Effect::Status(Status { code, headers: [].into(), body: body.to_owned() })
    };
    for (effect, expected) in [
        (Effect::Hang, (504, "upstream_timeout")),
        (Effect::Drop, (502, "upstream_failed")),
        (Effect::Garbage, (502, "upstream_failed")),
        (body(403, "<html>Forbidden</html>"), (502, "upstream_failed")),
        (body(503, r#"{"success":false,"type":"INVALID_CONNECTION"}"#), (502, "upstream_failed")),
        (body(307, "{}"), (502, "upstream_failed")),
    ] {
        let name = format!("{effect:?}");
        app.sandbox.set_fault(Fault::new(effect).on(METADATA).times(1)).unwrap();
        assert_eq!(import(&app, &verified(&held)).await.problem(), expected, "{name}");
    }
    assert_eq!(everything(&app).await, before);
    // What hangs is let go: Dapi fails two calls at once with one token.
    app.sandbox.clear_faults();
    let imported = import(&app, &verified(&held)).await;
    assert_eq!(imported.status, 201, "{}", imported.text);
}

#[tokio::test]
async fn a_login_that_does_not_work_proves_the_token_and_needs_attention() {
    let app = TestApp::spawn().await;
    let held = held(&app, "ada").await;
    let refuse = Refuse { kind: "INVALID_CREDENTIALS".into(), msg: "no".into(), status: 401 };
    app.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).on(METADATA).times(1)).unwrap();
    let imported = import(&app, &verified(&held)).await;
    assert_eq!((imported.status, imported.connection_status()), (201, "active"));
    assert_eq!(imported.json["attention"]["type"], "INVALID_CREDENTIALS");
    assert_eq!(call(&app, &imported.json).await.problem(), (409, "connection_needs_attention"));
    // It is known, and not asked for again.
    let again = import(&app, &verified(&held)).await;
    assert_eq!((again.status, id(&again.json)), (200, id(&imported.json)));
    assert_eq!(app.sandbox.calls_to(METADATA), 1);
}

#[tokio::test]
async fn a_token_that_is_here_already_is_proven_in_its_turn() {
    let app = TestApp::spawn().await;
    let held = held(&app, "ada").await;
    let active = import(&app, &held).await.json;
    let slow = Fault::new(Effect::Answer).on(ACCOUNTS).delayed(Duration::from_secs(50));
    app.sandbox.set_fault(slow).unwrap();
    let running = {
        let (api, token) = (app.api.clone(), app.token().await);
        let path = format!("/v1/connections/{}/dapi/{ACCOUNTS}", id(&active));
        tokio::spawn(async move { api.post(&token, &path, &json!({})).await })
    };
    app.sandbox.calls_reached(ACCOUNTS, 1).await;
    let proving = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(app.sandbox.calls_to(METADATA), 0, "two calls at once with one token both fail");
        app.sandbox.clear_faults();
    };
    let body = verified(&held);
    let (again, ()) = tokio::join!(import(&app, &body), proving);
    assert_eq!((again.status, id(&again.json)), (200, id(&active)), "{}", again.text);
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(app.sandbox.calls_to(METADATA), 1);
    assert_eq!(app.database.value("SELECT count(*) FROM token_leases").await, "0");
}

#[tokio::test]
async fn a_word_that_is_neither_true_nor_false_is_refused() {
    let app = TestApp::spawn().await;
    let held = held(&app, "ada").await;
    for wrong in [json!("true"), json!(1), json!([])] {
        let answer = import(&app, &with(&held, json!({ "verify": wrong }))).await;
        assert_eq!(answer.problem(), (400, "invalid_request"));
        assert_eq!(answer.json["field"], "verify");
    }
}

#[tokio::test]
async fn when_dapi_calls_an_untried_token_dead_the_older_one_is_active_again() {
    let app = TestApp::spawn().await;
    let (_, older, newer) = superseded(&app).await;
    let token = app.token().await;
    let found = shown(&app, &older).await;
    assert_eq!(
        (&found["status"], &found["replacedBy"]),
        (&json!("invalidated"), &newer["id"]),
        "unusable at once"
    );
    assert_eq!(app.api.reveal(&token, id(&older)).await.problem(), (409, "connection_not_active"));
    assert_eq!(call(&app, &older).await.problem(), (409, "connection_not_active"));

    assert_eq!(call(&app, &newer).await.json["type"], "INVALID_CONNECTION");
    assert_eq!(status(&app, &newer).await, "invalidated");
    let found = shown(&app, &older).await;
    assert_eq!((&found["status"], &found["replacedBy"]), (&json!("active"), &Value::Null));
    assert_eq!(found["activatedAt"], older["activatedAt"]);
    assert_eq!(call(&app, &older).await.status, 200);
    assert_eq!(app.api.reveal(&token, id(&older)).await.status, 200);
    assert_eq!(app.database.value(KEPT).await, "0");
    let restored = "SELECT connection_id FROM audit_events WHERE action = 'connection.restored'";
    assert_eq!(format!("conn_{}", app.database.value(restored).await), id(&older));
}

#[tokio::test]
async fn the_first_success_of_the_newer_token_ends_the_older_one_for_good() {
    let app = TestApp::spawn().await;
    let held = held(&app, "ada").await;
    let older = import(&app, &mistyped(&held)).await.json;
    let newer = import(&app, &held).await.json;
    assert_eq!(app.database.value(KEPT).await, "1");
    let refuse = Refuse { kind: "INVALID_FIELD".into(), msg: "no".into(), status: 400 };
    app.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).on(ACCOUNTS).times(1)).unwrap();
    call(&app, &newer).await;
    assert_eq!(app.database.value(KEPT).await, "1", "that said nothing about the token");
    assert_eq!(call(&app, &newer).await.json["success"], true);
    assert_eq!(app.database.value(KEPT).await, "0");
    let refuse = Refuse { kind: "USER_DELINKED".into(), msg: "no".into(), status: 401 };
    app.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).on(ACCOUNTS).times(1)).unwrap();
    call(&app, &newer).await;
    assert_eq!(status(&app, &newer).await, "invalidated");
    assert_eq!(status(&app, &older).await, "invalidated");
}

#[tokio::test]
async fn after_an_hour_the_older_token_is_destroyed() {
    let app = TestApp::by_hand().await;
    let (_, older, newer) = superseded(&app).await;
    app.turn_clock(Duration::from_secs(3500)).await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value(KEPT).await, "1");
    app.turn_clock(Duration::from_secs(101)).await;
    let (_, later_older, later_newer) = {
        let other = with(&held(&app, "bob").await, json!({ "connectionID": "another-login" }));
        let older = import(&app, &other).await.json;
        let newer = import(&app, &mistyped(&other)).await.json;
        (other, older, newer)
    };
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(app.database.value(KEPT).await, "1", "the other one's hour is not over");
    call(&app, &newer).await;
    assert_eq!(status(&app, &older).await, "invalidated");
    // What nobody has tidied away yet is too old all the same.
    app.turn_clock(Duration::from_secs(3601)).await;
    call(&app, &later_newer).await;
    assert_eq!(status(&app, &later_newer).await, "invalidated");
    assert_eq!(status(&app, &later_older).await, "invalidated");
}

#[tokio::test]
async fn revoking_either_of_the_two_destroys_what_is_kept() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    let (_, older, newer) = superseded(&app).await;
    let answer = app.api.delink(&token, id(&older)).await;
    assert_eq!((answer.status, answer.connection_status()), (200, "invalidated"));
    assert_eq!(app.database.value(KEPT).await, "0");
    call(&app, &newer).await;
    assert_eq!(status(&app, &newer).await, "invalidated");
    assert_eq!(status(&app, &older).await, "invalidated", "revoked, it does not come back");

    let app = TestApp::spawn().await;
    let token = app.token().await;
    let (_, older, newer) = superseded(&app).await;
    app.api.delink(&token, id(&newer)).await;
    assert_eq!(app.database.value(KEPT).await, "0");
    assert_eq!(status(&app, &older).await, "invalidated");
}

#[tokio::test]
async fn what_revokes_many_and_what_erases_a_user_destroys_what_is_kept() {
    let app = TestApp::by_hand().await;
    let token = app.token().await;
    let (held, older, newer) = superseded(&app).await;
    let order = |filter: Value| json!({ "kind": "invalidate", "reason": "test", "filter": filter });
    let give = async |filter: Value| {
        let answer = app.api.post(&token, "/v1/admin/revocations", &order(filter)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    };
    give(json!({ "clientUserIDs": ["somebody-else"] })).await;
    assert_eq!(app.database.value(KEPT).await, "1");
    // The older one is meant, the newer one is not.
    give(json!({ "createdBefore": newer["createdAt"] })).await;
    assert_eq!(app.database.value(KEPT).await, "0");
    assert_eq!(status(&app, &newer).await, "active");
    call(&app, &newer).await;
    assert_eq!(status(&app, &older).await, "invalidated");

    let older = import(&app, &held).await.json;
    import(&app, &mistyped(&held)).await;
    assert_eq!(app.database.value(KEPT).await, "1");
    give(json!({ "all": true })).await;
    assert_eq!(app.database.value(KEPT).await, "0");
    assert_eq!(status(&app, &older).await, "invalidated");

    let app = TestApp::by_hand().await;
    let (_, older, newer) = superseded(&app).await;
    // The newer one is meant, the older one is not.
    let token = app.token().await;
    let filter = json!({ "connectionIDs": [newer["id"]] });
    app.api.post(&token, "/v1/admin/revocations", &order(filter)).await;
    assert_eq!(app.database.value(KEPT).await, "0");
    assert_eq!(status(&app, &older).await, "invalidated");

    let app = TestApp::by_hand().await;
    superseded(&app).await;
    let request = app.api.request(reqwest::Method::DELETE, "/v1/users/ada");
    let erased = app.api.send(request.bearer_auth(app.token().await)).await;
    assert!([200, 202].contains(&erased.status), "{}", erased.text);
    assert_eq!(app.database.value(KEPT).await, "0");
}

#[tokio::test]
async fn a_chain_of_typing_errors_leads_back_to_the_token_that_works() {
    let app = TestApp::spawn().await;
    let (held, first, second) = superseded(&app).await;
    let third = import(&app, &with(&held, json!({ "accessToken": "again" }))).await.json;
    assert_eq!(app.database.value(KEPT).await, "2");
    call(&app, &third).await;
    assert_eq!(
        (status(&app, &third).await, status(&app, &second).await),
        ("invalidated".to_owned(), "active".to_owned())
    );
    call(&app, &second).await;
    assert_eq!(status(&app, &first).await, "active");
    assert_eq!(call(&app, &first).await.status, 200);
}

#[tokio::test]
async fn a_new_link_of_the_login_ends_everything_before_it() {
    let app = TestApp::spawn().await;
    let (held, first, second) = superseded(&app).await;
    let linked = app.active_from("ada", &app.connect_again(&held)).await;
    assert_eq!(app.database.value(KEPT).await, "0");
    for older in [&first, &second] {
        assert_eq!(status(&app, older).await, "invalidated");
    }
    assert_eq!(call(&app, &linked).await.status, 200);
}
