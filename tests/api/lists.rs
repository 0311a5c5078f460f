//! Lists: newest first, by pages, by filters, of one app.

use serde_json::{Value, json};
use strongroom_dev::sandbox::{Effect, Fault};

use crate::support::{TestApp, id};

async fn list(app: &TestApp, query: &str) -> Value {
    let answer = app.api.get(&app.token().await, &format!("/v1/connections{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

fn ids(list: &Value) -> Vec<&str> {
    list["connections"].as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn an_empty_list_is_a_list() {
    let app = TestApp::spawn().await;
    assert_eq!(list(&app, "").await, json!({ "connections": [], "nextCursor": null }));
    assert_eq!(list(&app, "?clientUserID=nobody").await["connections"], json!([]));
}

#[tokio::test]
async fn pages_follow_each_other_newest_first_without_gaps() {
    let app = TestApp::spawn().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(id(&app.active("ada").await).to_owned());
    }
    made.reverse();
    let first = list(&app, "?limit=2").await;
    let second =
        list(&app, &format!("?limit=2&cursor={}", first["nextCursor"].as_str().unwrap())).await;
    let third =
        list(&app, &format!("?limit=2&cursor={}", second["nextCursor"].as_str().unwrap())).await;
    assert_eq!([ids(&first), ids(&second), ids(&third)].concat(), made);
    assert!(third["nextCursor"].is_null());
    assert!(list(&app, "?limit=5").await["nextCursor"].is_null());
}

#[tokio::test]
async fn filters_go_together() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    app.active("bob").await;
    app.sandbox.set_fault(Fault::new(Effect::Hang)).unwrap();
    let pending = app.hand_in("ada", &app.connect()).await.json;
    assert_eq!(ids(&list(&app, "?clientUserID=ada").await), [id(&pending), id(&active)]);
    assert_eq!(ids(&list(&app, "?status=pending").await), [id(&pending)]);
    assert_eq!(ids(&list(&app, "?status=active&clientUserID=ada").await), [id(&active)]);
    assert_eq!(ids(&list(&app, "?status=delinked").await), [""; 0]);
    let session = app.api.session(&app.token().await, "ada").await;
    let made = app.api.post(&session, "/v1/connections", &app.connect()).await.json;
    let seen = app.api.get(&session, "/v1/connections?status=pending&clientUserID=ada").await.json;
    assert_eq!(ids(&seen), [id(&made)]);
    let seen = app.api.get(&session, "/v1/connections?clientUserID=bob").await.json;
    assert_eq!(ids(&seen), [""; 0]);
    app.sandbox.clear_faults();
}

#[tokio::test]
async fn a_user_of_any_name_is_found() {
    let app = TestApp::spawn().await;
    let made = app.active("ä +&=%/?#😀").await;
    assert_eq!(
        ids(&list(&app, "?clientUserID=%C3%A4%20%2B%26%3D%25%2F%3F%23%F0%9F%98%80").await),
        [id(&made)]
    );
}

#[tokio::test]
async fn a_query_that_makes_no_sense_is_refused_by_name() {
    let app = TestApp::spawn().await;
    let token = app.token().await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("limit=1&limit=2", "limit"),
        ("status=Active", "status"),
        ("status=", "status"),
        ("cursor=x", "cursor"),
        ("clientUserID=", "clientUserID"),
        ("clientUserID=%00", "clientUserID"),
    ] {
        let answer = app.api.get(&token, &format!("/v1/connections?{query}")).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{query}");
        assert_eq!(answer.json["field"], field, "{query}");
    }
    let unknown = app.api.get(&token, "/v1/connections?unknown=1").await;
    assert_eq!(unknown.problem(), (400, "invalid_request"));
}

#[tokio::test]
async fn two_apps_see_nothing_of_each_other() {
    let app = TestApp::spawn().await;
    let made = app.active("ada").await;
    let stranger = app.token_of_another_app().await;
    for query in ["", "?clientUserID=ada", "?status=active"] {
        let answer = app.api.get(&stranger, &format!("/v1/connections{query}")).await;
        assert_eq!(answer.json["connections"], json!([]), "{query}");
    }
    let path = format!("/v1/connections/{}", id(&made));
    let foreign = app.api.get(&stranger, &path).await;
    let unknown =
        app.api.get(&stranger, "/v1/connections/conn_01999999-0000-7000-8000-000000000000").await;
    let same = |answer: &Value| {
        let mut answer = answer.clone();
        answer["requestID"].take();
        answer
    };
    assert_eq!(foreign.problem(), (404, "not_found"));
    assert_eq!(same(&foreign.json), same(&unknown.json));
}
