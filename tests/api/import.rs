//! Importing tokens that the app already holds.

use serde_json::{Value, json};

use crate::for_each_bank;
use crate::support::{Answer, Bank, TestApp, id, with};

for_each_bank! {
    an_imported_token_is_active_usable_and_revocable,
    importing_the_same_token_again_gives_the_same_connection,
    another_token_of_the_same_login_supersedes_the_older_one,
    imports_of_one_login_at_once_leave_one_active,
    a_login_of_another_user_is_not_imported,
    an_import_waits_for_the_delinking_of_an_older_link,
}

async fn import(app: &TestApp, body: &Value) -> Answer {
    app.api.post(&app.token().await, "/v1/connections/import", body).await
}

async fn an_imported_token_is_active_usable_and_revocable(bank: Bank) {
    let app = bank.spawn().await;
    let held = app.held_by_an_app("ada").await;
    let answer = import(&app, &held).await;
    assert_eq!((answer.status, answer.connection_status()), (201, "active"), "{}", answer.text);
    assert!(answer.json["codeExpiresAt"].is_null() && answer.json["activatedAt"].is_string());
    let token = app.token().await;
    let revealed = app.api.reveal(&token, id(&answer.json)).await.json;
    for name in ["accessToken", "userSecret", "userID", "tokenID"] {
        assert_eq!(revealed[name], held[name], "{name}");
    }
    let login = if bank == Bank::Dapi { "connectionID" } else { "itemID" };
    assert_eq!(revealed["connectionID"], held[login]);
    assert_eq!(app.api.delink(&token, id(&answer.json)).await.connection_status(), "delinked");
    assert_eq!(app.live_tokens(), 0);
}

async fn importing_the_same_token_again_gives_the_same_connection(bank: Bank) {
    let app = bank.spawn().await;
    let held = app.held_by_an_app("ada").await;
    let first = import(&app, &held).await;
    let again = import(&app, &held).await;
    assert_eq!((again.status, &again.json["id"]), (200, &first.json["id"]));
    assert_eq!(app.live_tokens(), 1);
}

async fn another_token_of_the_same_login_supersedes_the_older_one(bank: Bank) {
    let app = bank.spawn().await;
    let held = app.held_by_an_app("ada").await;
    let first = import(&app, &held).await;
    let second = import(&app, &with(&held, json!({ "accessToken": "another" }))).await;
    assert_eq!(second.status, 201);
    let first = app.api.connection(&app.token().await, id(&first.json)).await;
    assert_eq!(
        (&first["status"], &first["replacedBy"]),
        (&json!("invalidated"), &second.json["id"])
    );
}

async fn imports_of_one_login_at_once_leave_one_active(bank: Bank) {
    let app = bank.spawn().await;
    let held = app.held_by_an_app("ada").await;
    let imports = (0..10).map(|n| {
        let body = with(&held, json!({ "accessToken": format!("token-{n}") }));
        let app = &app;
        async move { import(app, &body).await.status }
    });
    let answers = futures_util::future::join_all(imports).await;
    assert!(answers.iter().all(|status| *status == 201), "{answers:?}");
    let active = "SELECT count(*) FROM connections WHERE status = 'active'";
    assert_eq!(app.database.value(active).await, "1");
}

async fn a_login_of_another_user_is_not_imported(bank: Bank) {
    let app = bank.spawn().await;
    let held = app.held_by_an_app("ada").await;
    import(&app, &held).await;
    let answer = import(&app, &with(&held, json!({ "clientUserID": "bob" }))).await;
    assert_eq!(answer.problem(), (409, "connection_of_another_user"));
}

async fn an_import_waits_for_the_delinking_of_an_older_link(bank: Bank) {
    let app = bank.by_hand().await;
    let held = app.held_by_an_app("ada").await;
    let older = import(&app, &held).await.json;
    app.sandbox.set_fault(app.revocation_fails().times(1)).unwrap();
    app.api.delink(&app.token().await, id(&older)).await;
    app.tick().await;
    let newer = import(&app, &with(&held, json!({ "accessToken": "another" }))).await;
    assert_eq!((newer.status, newer.connection_status()), (202, "pending"));
    app.turn_clock(std::time::Duration::from_secs(60)).await;
    app.tick().await;
    app.tick().await;
    let newer = app.api.connection(&app.token().await, id(&newer.json)).await;
    assert_eq!(newer["status"], "active");
}

#[tokio::test]
async fn a_body_that_lacks_something_is_refused_by_name() {
    let app = TestApp::spawn().await;
    let held = app.held_by_an_app("ada").await;
    for (field, value) in [
        ("clientUserID", json!(null)),
        ("connectionID", json!(null)),
        ("accessToken", json!("")),
        ("accessToken", json!(null)),
        ("userSecret", json!(null)),
        ("userID", json!(7)),
    ] {
        let answer = import(&app, &with(&held, json!({ field: value }))).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{field}");
        assert_eq!(answer.json["field"], field);
    }
    let optional = with(&held, json!({ "userID": null, "tokenID": null }));
    assert_eq!(import(&app, &optional).await.status, 201);
}
