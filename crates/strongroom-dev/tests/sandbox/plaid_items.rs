//! Items, their access tokens and their data.

use serde_json::{Value, json};
use strongroom_dev::sandbox::{LinkOptions, RemovedItem, RulesChange};

use crate::support::TestSandbox;

const INVALID_TOKEN: (u16, &str, &str) = (400, "INVALID_INPUT", "INVALID_ACCESS_TOKEN");

#[tokio::test]
async fn a_removed_item_ends_every_token_of_it() {
    let test = TestSandbox::start();
    let token = test.access_token().await;
    let removed = test.with_access("item/remove", &token).await.fine();
    assert_eq!(removed.as_object().unwrap().len(), 1);
    for path in ["accounts/get", "item/get", "item/remove"] {
        let reply = test.with_access(path, &token).await;
        assert_eq!(reply.error(), (400, "ITEM_ERROR", "ITEM_NOT_FOUND"), "{path}");
    }
    assert!(test.plaid().live_tokens().is_empty());
    assert!(!test.plaid().items(1)[0].live);
}

#[tokio::test]
async fn a_removed_item_can_answer_as_an_unknown_token() {
    let test = TestSandbox::start();
    let token = test.access_token().await;
    test.with_access("item/remove", &token).await.fine();
    let removed_item = Some(RemovedItem::InvalidAccessToken);
    test.sandbox.change_rules(RulesChange { removed_item, ..RulesChange::default() });
    assert_eq!(test.with_access("item/remove", &token).await.error(), INVALID_TOKEN);
}

#[tokio::test]
async fn an_invalidated_token_is_dead_at_once_and_the_new_one_lives() {
    let test = TestSandbox::start();
    let old = test.access_token().await;
    let body = test.with_access("item/access_token/invalidate", &old).await.fine();
    let new = body["new_access_token"].as_str().unwrap();
    assert_eq!(test.with_access("accounts/get", &old).await.error(), INVALID_TOKEN);
    let again = test.with_access("item/access_token/invalidate", &old).await;
    assert_eq!(again.error(), INVALID_TOKEN);
    test.with_access("accounts/get", new).await.fine();
    assert_eq!((test.plaid().lives(&old), test.plaid().lives(new)), (false, true));
}

#[tokio::test]
async fn a_token_of_another_environment_or_form_is_invalid() {
    let test = TestSandbox::start();
    for token in ["access-production-0", "access-sandbox-0", "access-", "x"] {
        let reply = test.with_access("item/remove", token).await;
        assert_eq!(reply.error(), INVALID_TOKEN, "{token}");
    }
}

#[tokio::test]
async fn a_login_that_is_reset_needs_update_mode() {
    let test = TestSandbox::start();
    let linked = test.link();
    let token = test.access_token_of(&linked).await;
    let reset = test.with_access("sandbox/item/reset_login", &token).await.fine();
    assert_eq!(reset["reset_login"], true);
    let reply = test.with_access("accounts/get", &token).await;
    assert_eq!(reply.error(), (400, "ITEM_ERROR", "ITEM_LOGIN_REQUIRED"));
    let item = test.with_access("item/get", &token).await.fine();
    assert_eq!(item["item"]["error"]["error_code"], "ITEM_LOGIN_REQUIRED");

    let body = json!({
        "user": { "client_user_id": "ada" }, "client_name": "App", "country_codes": ["US"],
        "language": "en", "access_token": token,
    });
    let made = test.call_plaid("link/token/create", &body).await.fine();
    let link_token = made["link_token"].as_str().map(str::to_owned);
    let options = LinkOptions { link_token, ..LinkOptions::default() };
    let updated = test.plaid().link(&options).unwrap();
    assert_eq!(updated.item_id, linked.item_id);
    test.with_access("accounts/get", &token).await.fine();
    // Its public token belongs to the same item, whose access token it returns.
    assert_eq!(test.access_token_of(&updated).await, token);
    assert_eq!(test.plaid().items(10).len(), 1);
}

#[tokio::test]
async fn a_link_token_carries_what_link_needs() {
    let test = TestSandbox::start();
    let body = json!({
        "user": { "client_user_id": "ada" }, "client_name": "App", "country_codes": ["US"],
        "language": "en", "products": ["auth"], "webhook": "https://app.example/hook",
        "redirect_uri": "https://app.example/back",
    });
    let made = test.call_plaid("link/token/create", &body).await.fine();
    assert!(made["expiration"].is_string());
    let link_token = made["link_token"].as_str().unwrap();
    assert!(link_token.starts_with("link-sandbox-"));
    let got = test.call_plaid("link/token/get", &json!({"link_token": link_token})).await.fine();
    assert_eq!(got["metadata"]["initial_products"], json!(["auth"]));
    assert_eq!(got["metadata"]["redirect_uri"], "https://app.example/back");
    let options = LinkOptions { link_token: Some(link_token.to_owned()), ..LinkOptions::default() };
    let linked = test.plaid().link(&options).unwrap();
    let got = test.call_plaid("link/token/get", &json!({"link_token": link_token})).await.fine();
    let session = &got["link_sessions"][0];
    assert_eq!(session["on_success"]["public_token"], linked.public_token);
    let added = &session["results"]["item_add_results"][0];
    assert_eq!(added["public_token"], linked.public_token);
    assert_eq!(added["accounts"], linked.metadata["accounts"]);
    let item = test.plaid().item(&linked.item_id).unwrap();
    assert_eq!(item.client_user_id.as_deref(), Some("ada"));
    assert_eq!(item.webhook.as_deref(), Some("https://app.example/hook"));
    test.sandbox.clock().advance(std::time::Duration::from_hours(4));
    test.plaid().link(&options).unwrap_err();
}

#[tokio::test]
async fn two_links_of_one_user_are_two_items_with_the_same_masks() {
    let test = TestSandbox::start();
    let options = LinkOptions { username: Some("ada".into()), ..LinkOptions::default() };
    let [one, two] = [(); 2].map(|()| test.plaid().link(&options).unwrap());
    assert_ne!(one.item_id, two.item_id);
    let accounts = async |linked| {
        let token = test.access_token_of(linked).await;
        let body = test.with_access("accounts/get", &token).await.fine();
        body["accounts"].as_array().unwrap().clone()
    };
    let (one, two): (Vec<Value>, Vec<Value>) = (accounts(&one).await, accounts(&two).await);
    for (one, two) in one.iter().zip(&two) {
        assert_eq!((&one["mask"], &one["name"]), (&two["mask"], &two["name"]));
        assert_ne!(one["account_id"], two["account_id"]);
    }
    let chosen = LinkOptions { accounts: Some(vec!["4321".into()]), ..LinkOptions::default() };
    let masks = [(); 2].map(|()| {
        let item = test.plaid().link(&chosen).unwrap().item_id;
        test.plaid().item(&item).unwrap().masks
    });
    assert_eq!(masks, [["4321"], ["4321"]]);
}

#[tokio::test]
async fn data_calls_return_what_the_item_has() {
    let test = TestSandbox::start();
    let token = test.access_token().await;
    for path in ["accounts/get", "accounts/balance/get", "auth/get", "identity/get", "item/get"] {
        let body = test.with_access(path, &token).await.fine();
        assert!(body["item"]["item_id"].is_string(), "{path}");
    }
    let auth = test.with_access("auth/get", &token).await.fine();
    assert_eq!(auth["numbers"]["ach"].as_array().unwrap().len(), 2);
    let id = &auth["accounts"][1]["account_id"];
    let one = json!({ "access_token": token, "options": { "account_ids": [id] } });
    let body = test.call_plaid("identity/get", &one).await.fine();
    assert_eq!(body["accounts"].as_array().unwrap().len(), 1);
    assert!(body["accounts"][0]["owners"][0]["names"][0].is_string());
    let wrong = json!({ "access_token": token, "options": { "account_ids": ["x"] } });
    let reply = test.call_plaid("accounts/get", &wrong).await;
    assert_eq!(reply.error(), (400, "INVALID_INPUT", "INVALID_ACCOUNT_ID"));
}

#[tokio::test]
async fn transactions_are_synchronised_page_by_page() {
    let test = TestSandbox::start();
    let linked = test.link();
    let token = test.access_token_of(&linked).await;
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let body = json!({ "access_token": token, "cursor": cursor, "count": 50 });
        let page = test.call_plaid("transactions/sync", &body).await.fine();
        let ids = page["added"].as_array().unwrap().iter().map(|one| one["transaction_id"].clone());
        seen.extend(ids);
        page["next_cursor"].as_str().unwrap().clone_into(&mut cursor);
        if page["has_more"] == false {
            break;
        }
    }
    let (start, end) = ("2000-01-01", "2999-12-31");
    let body = json!({ "access_token": token, "start_date": start, "end_date": end });
    let all = test.call_plaid("transactions/get", &body).await.fine();
    assert_eq!(all["total_transactions"], seen.len());
    assert!(seen.len() > 100, "{}", seen.len());
    seen.dedup();
    assert_eq!(all["total_transactions"], seen.len());

    test.plaid().add_transactions(&linked.item_id, 2).unwrap();
    let body = json!({ "access_token": token, "cursor": cursor });
    let page = test.call_plaid("transactions/sync", &body).await.fine();
    assert_eq!(page["added"].as_array().unwrap().len(), 2);
    let body = json!({ "access_token": token, "cursor": "bogus" });
    let reply = test.call_plaid("transactions/sync", &body).await;
    assert_eq!(reply.error(), (400, "INVALID_REQUEST", "INVALID_FIELD"));
}

#[tokio::test]
async fn an_item_is_made_without_link() {
    let test = TestSandbox::start();
    let body = json!({
        "institution_id": "ins_109511", "initial_products": ["auth"],
        "options": { "webhook": "https://app.example/hook" },
    });
    let made = test.call_plaid("sandbox/public_token/create", &body).await.fine();
    let body = json!({ "public_token": made["public_token"] });
    let given = test.call_plaid("item/public_token/exchange", &body).await.fine();
    let token = given["access_token"].as_str().unwrap();
    let item = test.with_access("item/get", token).await.fine();
    assert_eq!(item["item"]["institution_id"], "ins_109511");
    assert_eq!(item["item"]["webhook"], "https://app.example/hook");
    let body = json!({ "institution_id": "ins_0", "initial_products": ["auth"] });
    let reply = test.call_plaid("sandbox/public_token/create", &body).await;
    assert_eq!(reply.error(), (400, "INVALID_INPUT", "INVALID_INSTITUTION"));
}

#[tokio::test]
async fn an_items_webhook_is_changed() {
    let test = TestSandbox::start();
    let token = test.access_token().await;
    let body = json!({ "access_token": token, "webhook": "https://app.example/new" });
    let changed = test.call_plaid("item/webhook/update", &body).await.fine();
    assert_eq!(changed["item"]["webhook"], "https://app.example/new");
}

#[tokio::test]
async fn institutions_are_described() {
    let test = TestSandbox::start();
    let body = json!({ "institution_id": "ins_109512", "country_codes": ["US"] });
    let got = test.call_plaid("institutions/get_by_id", &body).await.fine();
    assert_eq!(got["institution"]["name"], "Houndstooth Bank");
}

#[tokio::test]
async fn two_calls_with_one_access_token_may_overlap() {
    let test = TestSandbox::start();
    let token = test.access_token().await;
    let latency_millis = Some(50);
    test.sandbox.change_rules(RulesChange { latency_millis, ..RulesChange::default() });
    let calls = (0..5).map(|_| test.with_access("accounts/get", &token));
    for reply in futures_util::future::join_all(calls).await {
        reply.fine();
    }
}

#[tokio::test]
async fn an_app_reaches_only_its_own_items() {
    use strongroom_dev::sandbox::{App, Settings};
    let plaid_apps = ["one", "two"].map(|key| App {
        key: key.to_owned(),
        secret: strongroom_common::secret::SecretText::new(format!("secret of {key}")),
    });
    let settings = Settings { plaid_apps: plaid_apps.into(), ..Settings::default() };
    let test = TestSandbox::start_with(settings);
    let linked = test.link();
    let call = async |path: &str, client: &str, field: &str, token: &str| {
        let mut body = json!({ "client_id": client, "secret": format!("secret of {client}") });
        body[field] = json!(token);
        test.post(&format!("/plaid/{path}"), &body).await
    };
    let exchange = "item/public_token/exchange";
    let refused = call(exchange, "two", "public_token", &linked.public_token).await;
    assert_eq!(refused.error(), (400, "INVALID_INPUT", "INVALID_PUBLIC_TOKEN"));
    let given = call(exchange, "one", "public_token", &linked.public_token).await.fine();
    let token = given["access_token"].as_str().unwrap();
    let refused = call("item/remove", "two", "access_token", token).await;
    assert_eq!(refused.error(), INVALID_TOKEN);
    call("item/remove", "one", "access_token", token).await.fine();
}
