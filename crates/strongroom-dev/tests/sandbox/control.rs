//! The control API.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Reply, TestSandbox};

/// Returns the `detail` of a problem.
#[track_caller]
fn detail(reply: &Reply, status: u16) -> &str {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.body["status"], status, "{reply:?}");
    reply.body["detail"].as_str().unwrap()
}

#[tokio::test]
async fn connect_works_without_a_browser() {
    let test = TestSandbox::start();
    // As curl sends it: with a form's content type, or without a body.
    for body in ["", "{}", "{\"clientUserID\": \"ada\"}"] {
        let request = test.http.post(test.url("/sandbox/connect")).body(body);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let result: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(result["success"], true);
        let exchange = json!({
            "appSecret": "sandbox-app-secret",
            "accessCode": result["accessCode"],
            "connectionID": result["connectionID"],
        });
        let given = test.post("/v2/auth/ExchangeToken", &exchange).await.done();
        assert_eq!(given["tokenID"], result["tokenID"]);
        assert_eq!(given["userID"], result["userID"]);
    }
}

#[tokio::test]
async fn the_same_user_at_the_same_bank_is_the_same_login() {
    let test = TestSandbox::start();
    let link = async |user: &str, bank: &str, username: &str| {
        let body = json!({"clientUserID": user, "bank": bank, "username": username});
        let reply = test.post("/sandbox/connect", &body).await;
        (reply.body["connectionID"].clone(), reply.body["userID"].clone())
    };
    let first = link("ada", "lumen", "ada77").await;
    assert_eq!(link("ada", "lumen", "ada77").await, first);
    assert_ne!(link("ada", "quince", "ada77").await.0, first.0);
    assert_ne!(link("ada", "lumen", "ada78").await.0, first.0);
    let other = link("bob", "lumen", "ada77").await;
    assert_ne!(other.1, first.1);
}

#[tokio::test]
async fn a_login_can_fail() {
    let test = TestSandbox::start();
    for body in [json!({"success": false}), json!({"username": "denied"})] {
        let reply = test.post("/sandbox/connect", &body).await;
        assert_eq!((reply.status, &reply.body["success"]), (200, &json!(false)));
        assert_eq!(reply.body.get("accessCode"), None);
    }
}

#[tokio::test]
async fn what_connect_cannot_do_is_told() {
    let test = TestSandbox::start();
    let refused = [
        (json!({"bank": "nowhere"}), "lumen, orrery"),
        (json!({"appKey": "nobody"}), "no app `nobody`"),
        (json!({"connectionID": ""}), "connectionID"),
        (json!({"clientUserID": "x".repeat(201)}), "clientUserID"),
        (json!({"codeLifetime": "long"}), "codeLifetime"),
        (json!({"lifetime": 3}), "unknown field `lifetime`"),
    ];
    for (body, expected) in refused {
        let reply = test.post("/sandbox/connect", &body).await;
        assert!(detail(&reply, 400).contains(expected), "{reply:?}");
    }
}

#[tokio::test]
async fn faults_are_set_listed_and_cleared() {
    let test = TestSandbox::start();
    let fault = json!({"effect": "drop", "path": "/v2/AUTH/exchangetoken", "times": 2});
    let set = test.post("/sandbox/faults", &fault).await;
    assert_eq!((set.status, &set.body["path"]), (201, &json!("auth/ExchangeToken")));
    let status = json!({"effect": {"status": {"code": 503}}, "connectionID": "c1"});
    test.post("/sandbox/faults", &status).await;
    let list = test.get("/sandbox/faults").await.body;
    assert_eq!(list["faults"].as_array().unwrap().len(), 2);
    assert_eq!(list["faults"][0]["times"], 2);
    let cleared = test.send(Method::DELETE, "/sandbox/faults", &json!({})).await;
    assert_eq!(cleared.status, 204);
    let list = test.get("/sandbox/faults").await.body;
    assert_eq!(list, json!({"faults": []}));
}

#[tokio::test]
async fn a_fault_that_makes_no_sense_is_told() {
    let test = TestSandbox::start();
    let refused = [
        (json!({}), "effect"),
        (json!({"effect": "explode"}), "explode"),
        (json!({"effect": "drop", "path": "nowhere"}), "nowhere"),
        (json!({"effect": "drop", "times": 0}), "times"),
        (json!({"effect": {"status": {"code": 99}}}), "99"),
        (json!({"effect": {"status": {"code": 429, "headers": {"a b": "c"}}}}), "a b"),
        (json!({"effect": {"huge": {"bytes": -1}}}), "effect"),
        (json!({"effect": "drop", "when": "never"}), "when"),
    ];
    for (body, expected) in refused {
        let reply = test.post("/sandbox/faults", &body).await;
        assert!(detail(&reply, 400).contains(expected), "{reply:?}");
    }
    assert!(test.sandbox.faults().is_empty());
}

#[tokio::test]
async fn rules_are_changed_one_by_one() {
    let test = TestSandbox::start();
    let before = test.get("/sandbox/settings").await.body;
    assert_eq!(before["secondExchange"], "refuse");
    let change = json!({"secondExchange": "mintAnother", "codeLifetime": 60});
    let after = test.send(Method::PUT, "/sandbox/settings", &change).await.body;
    assert_eq!(after["secondExchange"], "mintAnother");
    assert_eq!(after["codeLifetime"], 60);
    assert_eq!(after["delinkCuts"], before["delinkCuts"]);
    assert_eq!(after["removedItem"], before["removedItem"]);
    // What GET returns can be sent back unchanged.
    let restored = test.send(Method::PUT, "/sandbox/settings", &before).await.body;
    assert_eq!(restored, before);
    let wrong = json!({"secondExchange": "maybe"});
    let reply = test.send(Method::PUT, "/sandbox/settings", &wrong).await;
    assert!(detail(&reply, 400).contains("secondExchange"));
}

#[tokio::test]
async fn tokens_are_listed_and_killed() {
    let test = TestSandbox::start();
    let user = test.user().await;
    let list = test.get("/sandbox/tokens").await.body;
    assert_eq!((&list["total"], &list["tokens"][0]["live"]), (&json!(1), &json!(true)));
    assert_eq!(list["tokens"][0]["connectionID"], user.linked.connection_id);
    let path = format!("/sandbox/tokens/{}/kill", user.linked.token_id);
    let killed = test.post(&path, &json!({"type": "INVALID_CONNECTION"})).await;
    assert_eq!((killed.status, &killed.body["live"]), (200, &json!(false)));
    let refused = user.call("data/accounts/get", json!({})).await;
    assert_eq!(refused.refusal(), (401, "INVALID_CONNECTION"));
    for id in ["x", "00000000-0000-4000-8000-000000000000"] {
        let reply = test.post(&format!("/sandbox/tokens/{id}/kill"), &json!({})).await;
        detail(&reply, 404);
    }
}

#[tokio::test]
async fn the_clock_turns_forward() {
    let test = TestSandbox::start();
    let linked = test.connect();
    let reply = test.post("/sandbox/clock", &json!({"advanceSeconds": 1800})).await;
    assert!(reply.body["now"].is_string());
    let late = test.exchange(&linked).await;
    assert_eq!(late.refusal(), (400, "ACCESS_CODE_EXPIRED"));
    for wrong in [json!({}), json!({"advanceSeconds": -1}), json!({"advanceSeconds": u64::MAX})] {
        detail(&test.post("/sandbox/clock", &wrong).await, 400);
    }
}

#[tokio::test]
async fn the_index_tells_what_there_is() {
    let test = TestSandbox::start();
    for path in ["/", "/sandbox", "/sandbox/"] {
        let response = test.http.get(test.url(path)).send().await.unwrap();
        let shown = response.text().await.unwrap();
        assert!(shown.contains("POST /v2/auth/ExchangeToken"), "{path}");
        assert!(shown.contains(&format!("{}/sandbox/connect", test.address)), "{path}");
        assert!(shown.contains("POST /plaid/item/public_token/exchange"), "{path}");
        assert!(!shown.contains("{endpoints}") && !shown.contains("{plaid}"), "{path}");
    }
    detail(&test.get("/sandbox/nowhere").await, 404);
}

#[tokio::test]
async fn a_browser_gets_the_index_as_a_page() {
    let test = TestSandbox::start();
    let request = test.http.get(test.url("/")).header("accept", "text/html,*/*;q=0.8");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let page = response.text().await.unwrap();
    assert!(page.contains("<title>") && page.contains("POST /v2/auth/ExchangeToken"), "{page}");
    assert!(page.contains("{&quot;clientUserID&quot;"), "the text is escaped: {page}");
}

#[tokio::test]
async fn the_logins_name_their_banks() {
    let test = TestSandbox::start();
    let login = test.post("/sandbox/connect", &json!({"bank": "lumen"})).await;
    let reply = test.get("/sandbox/logins").await;
    let expected = json!([{
        "connectionID": login.body["connectionID"],
        "bank": {"id": "lumen", "name": "Lumen & Tide"},
    }]);
    assert_eq!(reply.body["logins"], expected);
}

#[tokio::test]
async fn malformed_json_is_told_with_its_place() {
    let test = TestSandbox::start();
    for body in ["{\"times\": 1,}", "{} {}"] {
        let request = test.http.post(test.url("/sandbox/connect")).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400, "{body}");
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(kind, "application/problem+json");
        assert!(response.text().await.unwrap().contains("line 1"), "{body}");
    }
}
