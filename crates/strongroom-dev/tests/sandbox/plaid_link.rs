//! Link's page and the control API that it uses.

use serde_json::json;

use crate::support::TestSandbox;

fn token_body() -> serde_json::Value {
    json!({
        "user": { "client_user_id": "ada" }, "client_name": "<b>App</b>", "country_codes": ["US"],
        "language": "en", "products": ["transactions"],
    })
}

async fn page(test: &TestSandbox, link_token: &str) -> (u16, String) {
    let url = test.url(&format!("/plaid/link?token={link_token}"));
    let response = test.http.get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn links_page_opens_for_a_link_token_that_lives() {
    let test = TestSandbox::start();
    let made = test.call_plaid("link/token/create", &token_body()).await.fine();
    let link_token = made["link_token"].as_str().unwrap();
    let (status, shown) = page(&test, link_token).await;
    assert_eq!(status, 200);
    assert!(shown.contains("&lt;b&gt;App&lt;/b&gt;") && !shown.contains("<b>App"));
    assert!(shown.contains("data-update=\"\""));
    assert_eq!(page(&test, "link-sandbox-0").await.0, 400);
    test.sandbox.clock().advance(std::time::Duration::from_hours(4));
    assert_eq!(page(&test, link_token).await.0, 400);
}

#[tokio::test]
async fn in_update_mode_the_page_names_the_items_institution() {
    let test = TestSandbox::start();
    let mut body = token_body();
    body["access_token"] = json!(test.access_token().await);
    body.as_object_mut().unwrap().remove("products");
    let made = test.call_plaid("link/token/create", &body).await.fine();
    let (_, shown) = page(&test, made["link_token"].as_str().unwrap()).await;
    assert!(shown.contains("data-update=\"First Platypus Bank\""));
}

#[tokio::test]
async fn link_works_without_a_browser() {
    let test = TestSandbox::start();
    let offered = test.get("/sandbox/plaid/accounts?institutionID=ins_109511&username=ada").await;
    let mask = &offered.body["accounts"][1]["mask"];
    let body = json!({ "institutionID": "ins_109511", "username": "ada", "accounts": [mask] });
    let linked = test.post("/sandbox/plaid/link", &body).await;
    assert_eq!(linked.status, 200);
    assert_eq!(linked.body["metadata"]["account"]["subtype"], "savings");
    assert_eq!(linked.body["metadata"]["account"]["mask"], *mask);
    let body = json!({ "public_token": linked.body["public_token"] });
    test.call_plaid("item/public_token/exchange", &body).await.fine();
    let items = test.get("/sandbox/plaid/items").await.body;
    assert_eq!(items["items"][0]["masks"], json!([mask]));
    assert_eq!(items["items"][0]["liveTokens"], 1);
    let tokens = test.get("/sandbox/plaid/tokens").await.body;
    assert_eq!(tokens["tokens"][0]["live"], true);
}

#[tokio::test]
async fn what_link_cannot_do_is_told() {
    let test = TestSandbox::start();
    for (body, expected) in [
        (json!({"institutionID": "ins_0"}), "ins_109508"),
        (json!({"clientID": "nobody"}), "no app `nobody`"),
        (json!({"linkToken": "link-sandbox-0"}), "linkToken"),
        (json!({"accounts": []}), "accounts"),
        (json!({"accounts": ["12345678901"]}), "accounts"),
        (json!({"username": ""}), "username"),
        (json!({"user": "x"}), "unknown field `user`"),
    ] {
        let reply = test.post("/sandbox/plaid/link", &body).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.body["detail"].as_str().unwrap().contains(expected), "{reply:?}");
    }
    let denied = test.post("/sandbox/plaid/link", &json!({"username": "denied"})).await;
    assert_eq!(denied.body["error"]["error_code"], "INVALID_CREDENTIALS");
    assert!(test.plaid().items(10).is_empty());
}

#[tokio::test]
async fn items_and_tokens_are_ended_over_http() {
    let test = TestSandbox::start();
    let linked = test.link();
    let token = test.access_token_of(&linked).await;
    let item = |what: &str| format!("/sandbox/plaid/items/{}/{what}", linked.item_id);
    let nothing = json!({});
    assert_eq!(test.post(&item("require-login"), &nothing).await.body["loginRequired"], true);
    let reply = test.with_access("accounts/get", &token).await;
    assert_eq!(reply.error().2, "ITEM_LOGIN_REQUIRED");
    assert_eq!(test.post(&item("repair-login"), &nothing).await.body["loginRequired"], false);
    assert_eq!(test.post(&item("transactions"), &json!({"count": 2})).await.status, 200);
    let kill = format!("/sandbox/plaid/tokens/{}/kill", linked.token_id);
    let killed = test.post(&kill, &json!({"error_code": "ITEM_ERROR/SOMETHING_NEW"})).await;
    assert_eq!(killed.body["live"], false);
    let reply = test.with_access("accounts/get", &token).await;
    assert_eq!(reply.error(), (400, "ITEM_ERROR", "SOMETHING_NEW"));
    assert_eq!(test.post(&item("remove"), &nothing).await.body["live"], false);
    for path in
        ["/sandbox/plaid/items/x/remove", "/sandbox/plaid/tokens/x/kill", "/sandbox/plaid/x"]
    {
        assert_eq!(test.post(path, &nothing).await.status, 404, "{path}");
    }
}
