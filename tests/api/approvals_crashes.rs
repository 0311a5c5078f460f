//! The process dies between an approval and its effect: both happened, or neither.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use strongroom::operators::Role;

use crate::approvals::above;
use crate::support::{Browser, Process, TestApp, encoded, id, until};

/// Presses Approve at a process that halts at `point`, and kills it there, once `halted` holds.
async fn killed_at(
    app: &TestApp,
    point: &str,
    halted: impl AsyncFn() -> bool,
) -> (Browser, String) {
    app.active("ada").await;
    let body = json!({ "kind": "invalidate", "reason": "incident 7", "filter": { "all": true } });
    let answer = app.api.post(&app.token().await, "/v1/admin/revocations", &body).await;
    let mut browser = Browser::of(app, "bob", Role::Operator).await;
    let pages = browser.pages().await;
    let path = format!("{pages}/approvals/{}/approve", id(&answer.json["approval"]));
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let fault = format!("{point}=pause");
    let variables =
        [("STRONGROOM_CONSOLE_LISTEN", listen.as_str()), ("FAILPOINTS", fault.as_str())];
    let process = Process::serve(app, &variables).await;
    let own = std::mem::replace(&mut browser.origin, format!("http://localhost:{port}"));
    let token = browser.token().await;
    let request = browser.request(reqwest::Method::POST, &path).header("origin", &browser.origin);
    let form = encoded(&[("token", token.as_str())]);
    let request = request.header("content-type", crate::support::FORM).body(form);
    tokio::spawn(request.send());
    until(point, halted).await;
    // The halt itself cannot be seen from outside; what comes before it can.
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.kill();
    browser.origin = own;
    (browser, path)
}

async fn stands(app: &TestApp) -> String {
    let sql = "SELECT status || ' ' || (SELECT count(*) FROM bulk_revocations) FROM approvals";
    app.database.value(sql).await
}

#[tokio::test]
async fn killed_before_the_commit_nothing_happened_and_the_same_press_does_it() {
    let app = above("0").await;
    let locked = async || {
        let sql = "SELECT count(*) FROM pg_locks WHERE relation = 'approvals'::regclass AND mode = 'RowExclusiveLock'";
        app.database.value(sql).await != "0"
    };
    let (browser, path) = killed_at(&app, "approvals::before_commit", locked).await;
    assert_eq!(stands(&app).await, "pending 0");
    assert_eq!(browser.post(&path, &[]).await.status, 303);
    assert_eq!(stands(&app).await, "approved 1");
}

#[tokio::test]
async fn killed_after_the_commit_both_happened_and_a_second_press_does_nothing() {
    let app = above("0").await;
    let approved = async || stands(&app).await == "approved 1";
    let (browser, path) = killed_at(&app, "approvals::committed", approved).await;
    assert_eq!(browser.post(&path, &[]).await.status, 409);
    assert_eq!(stands(&app).await, "approved 1");
}
