//! Erasing a user: revoked at Dapi, destroyed here, told by a signed receipt; the trail stays.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::for_each_bank;
use crate::support::{Answer, Bank, TestApp, for_user, id};

for_each_bank! {
    an_erased_user_is_gone_here_and_at_the_provider_and_the_receipt_proves_it,
    the_users_name_stands_nowhere_any_more,
    as_long_as_the_provider_has_not_confirmed_it_is_pending_and_nothing_is_usable_or_received,
    what_the_provider_never_confirms_ends_unconfirmed_and_the_receipt_says_so,
    an_exchange_under_way_is_waited_for_and_its_token_delinked,
}

async fn erase(app: &TestApp, user: &str) -> Answer {
    let request = app.api.request(Method::DELETE, &format!("/v1/users/{user}"));
    app.api.send(request.bearer_auth(app.token().await)).await
}

async fn poll(app: &TestApp, erasure: &Value) -> Answer {
    app.api.get(&app.token().await, &format!("/v1/users/erasures/{}", id(erasure))).await
}

/// Header and claims of a receipt, checked with a key from the published set as a stranger would.
async fn verified(app: &TestApp, receipt: &str) -> (jsonwebtoken::Header, Value) {
    let jwks = app.api.send(app.api.request(Method::GET, "/.well-known/jwks.json")).await;
    let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_value(jwks.json).unwrap();
    let header = jsonwebtoken::decode_header(receipt).unwrap();
    let jwk = jwks.find(header.kid.as_deref().unwrap()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap();
    let mut rules = jsonwebtoken::Validation::new(header.alg);
    rules.required_spec_claims.clear();
    rules.validate_exp = false;
    rules.set_issuer(&["http://strongroom.test"]);
    let data = jsonwebtoken::decode::<Value>(receipt, &key, &rules).unwrap();
    (header, data.claims)
}

async fn an_erased_user_is_gone_here_and_at_the_provider_and_the_receipt_proves_it(bank: Bank) {
    let app = bank.spawn().await;
    let first = app.active("ada").await;
    app.active("ada").await;
    let bob = app.active("bob").await;
    app.api.session(&app.token().await, "ada").await;
    let key = app.database.value("SELECT k.id FROM data_keys k JOIN users u ON u.id = k.user_id WHERE client_user_id = 'ada'").await;
    let user = app.database.value("SELECT id FROM users WHERE client_user_id = 'ada'").await;

    let answer = erase(&app, "ada").await;
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("erased")), "{}", answer.text);
    assert_eq!(
        (&answer.json["upstream"], &answer.json["unconfirmed"]),
        (&json!("confirmed"), &json!(0))
    );
    let sealed = if bank.provider().has_user_secret() { 4 } else { 2 };
    let destroyed = json!({ "dataKey": format!("key_{key}"), "sealedValues": sealed, "connections": 2, "sessions": 1, "mapping": true });
    assert_eq!(answer.json["destroyed"], destroyed);

    let (header, claims) = verified(&app, answer.json["receipt"].as_str().unwrap()).await;
    assert_eq!(header.typ.as_deref(), Some("erasure-receipt+jwt"));
    assert_eq!(
        (&claims["jti"], &claims["sub"]),
        (&answer.json["id"], &json!(format!("usr_{user}")))
    );
    assert_eq!((&claims["destroyed"], &claims["upstream"]), (&destroyed, &json!("confirmed")));
    assert_eq!(claims["erasedAt"], answer.json["erasedAt"]);

    assert_eq!(app.revocations(), 2);
    let left = app.api.get(&app.token().await, &format!("/v1/connections/{}", id(&first))).await;
    assert_eq!(left.problem(), (404, "not_found"));
    let stays = app.api.connection(&app.token().await, id(&bob)).await;
    assert_eq!(stays["status"], "active");
    let trail =
        app.database.value("SELECT count(*) > 4 FROM audit_events WHERE user_id IS NOT NULL").await;
    assert_eq!(trail, "true");
    assert_eq!(app.database.audit().await.last().unwrap(), "user.erased confirmed");
    let tables = app.database.values("SELECT count(*) FROM users UNION ALL SELECT count(*) FROM data_keys WHERE purpose = 'user' UNION ALL SELECT count(*) FROM connect_sessions").await;
    assert_eq!(tables, ["1", "1", "0"]);
}

#[tokio::test]
async fn a_receipt_opens_nothing() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    let receipt = erase(&app, "ada").await.json["receipt"].as_str().unwrap().to_owned();
    let refused = app.api.get(&receipt, "/v1/connections").await;
    assert_eq!(refused.problem(), (401, "unauthorized"));
}

async fn the_users_name_stands_nowhere_any_more(bank: Bank) {
    let app = bank.spawn().await;
    let name = "ada-canary-lovelace";
    let connection = app.active(name).await;
    let body = json!({ "kind": "delink", "reason": "x", "filter": { "clientUserIDs": [name] } });
    app.api.post(&app.token().await, "/v1/admin/revocations", &body).await;
    assert_eq!(erase(&app, name).await.status, 200);
    let tables = "SELECT table_name::text FROM information_schema.tables
                  WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";
    let gone = [
        name,
        connection["connectionID"].as_str().unwrap(),
        connection["userID"].as_str().unwrap_or(name),
    ];
    for table in app.database.values(tables).await {
        let sql = format!("SELECT t::text FROM {table} t");
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&app.database.pool)
            .await
            .unwrap();
        for row in rows {
            assert!(gone.iter().all(|text| !row.contains(text)), "{table}: {row}");
        }
    }
}

async fn as_long_as_the_provider_has_not_confirmed_it_is_pending_and_nothing_is_usable_or_received(
    bank: Bank,
) {
    let app = bank.by_hand().await;
    let active = app.active("ada").await;
    let token = app.token().await;
    let session = app.api.session(&token, "ada").await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    let pending = erase(&app, "ada").await;
    assert_eq!((pending.status, &pending.json["status"]), (202, &json!("pending")));
    assert_eq!((&pending.json["outstanding"], &pending.json["receipt"]), (&json!(1), &Value::Null));
    assert_eq!(pending.header("location"), format!("/v1/users/erasures/{}", id(&pending.json)));
    assert_eq!(app.api.reveal(&token, id(&active)).await.problem(), (409, "connection_not_active"));
    assert_eq!(erase(&app, "ada").await.json["id"], pending.json["id"]);

    let refused = app.api.get(&session, "/v1/connections").await;
    assert_eq!(refused.problem(), (401, "unauthorized"));
    let body = json!({ "clientUserID": "ada" });
    let import = bank.import("ada", "c", "t");
    for (path, body) in [
        ("/v1/connect-sessions", body),
        ("/v1/connections", for_user(&app.connect(), "ada")),
        ("/v1/connections/import", import),
    ] {
        let refused = app.api.post(&token, path, &body).await;
        assert_eq!(refused.problem(), (409, "user_being_erased"), "{path}");
    }

    app.tick().await;
    assert_eq!(poll(&app, &pending.json).await.status, 202);
    app.sandbox.clear_faults();
    app.turn_clock(Duration::from_secs(10)).await;
    app.tick().await;
    app.turn_clock(Duration::from_secs(10)).await;
    app.tick().await;
    let done = poll(&app, &pending.json).await;
    assert_eq!((done.status, &done.json["upstream"]), (200, &json!("confirmed")));
    assert!(done.json["receipt"].is_string());
}

async fn what_the_provider_never_confirms_ends_unconfirmed_and_the_receipt_says_so(bank: Bank) {
    let app = bank.by_hand().await;
    app.active("ada").await;
    app.sandbox.set_fault(app.revocation_fails()).unwrap();
    let pending = erase(&app, "ada").await.json;
    app.turn_clock(Duration::from_hours(24 * 8)).await;
    app.tick().await;
    app.turn_clock(Duration::from_mins(2)).await;
    app.tick().await;
    let done = poll(&app, &pending).await.json;
    assert_eq!((&done["upstream"], &done["unconfirmed"]), (&json!("unconfirmed"), &json!(1)));
    let (_, claims) = verified(&app, done["receipt"].as_str().unwrap()).await;
    assert_eq!((&claims["upstream"], &claims["unconfirmed"]), (&json!("unconfirmed"), &json!(1)));
    assert_eq!(app.database.audit().await.last().unwrap(), "user.erased unconfirmed");
}

async fn an_exchange_under_way_is_waited_for_and_its_token_delinked(bank: Bank) {
    let app = bank.by_hand().await;
    app.sandbox.set_fault(app.exchange_is_slow().times(1)).unwrap();
    let sent = app.hand_in("ada", &app.connect()).await.json;
    app.sandbox.calls_reached(bank.exchange(), 1).await;
    let pending = erase(&app, "ada").await;
    assert_eq!(pending.status, 202);
    app.tick().await;
    app.sandbox.clear_faults();
    app.settled(id(&sent)).await;
    for _ in 0..2 {
        app.tick().await;
        app.turn_clock(Duration::from_secs(5)).await;
    }
    app.tick().await;
    assert_eq!(poll(&app, &pending.json).await.json["upstream"], "confirmed");
    assert_eq!(app.live_tokens(), 0);
}

#[tokio::test]
async fn what_an_order_holds_back_is_told_for_an_erasure() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let body = json!({ "kind": "delink", "reason": "x", "filter": { "all": true } });
    let token = app.token().await;
    let made = app.api.post(&token, "/v1/admin/revocations", &body).await.json;
    app.api.post_empty(&token, &format!("/v1/admin/revocations/{}/pause", id(&made))).await;
    let pending = erase(&app, "ada").await.json;
    app.tick().await;
    app.turn_clock(Duration::from_secs(5)).await;
    app.tick().await;
    assert_eq!(poll(&app, &pending).await.json["upstream"], "confirmed");
}

#[tokio::test]
async fn erasing_again_answers_the_same_for_thirty_days_and_a_new_user_of_the_name_is_another() {
    let app = TestApp::by_hand().await;
    app.active("ada").await;
    let first = erase(&app, "ada").await.json;
    app.tick().await;
    app.turn_clock(Duration::from_secs(5)).await;
    app.tick().await;
    let again = erase(&app, "ada").await;
    assert_eq!((again.status, &again.json["id"]), (200, &first["id"]));
    assert_eq!(again.json["erasedAt"], poll(&app, &first).await.json["erasedAt"]);

    app.active("ada").await;
    let second = erase(&app, "ada").await.json;
    assert_ne!(second["id"], first["id"]);
    app.tick().await;
    app.turn_clock(Duration::from_secs(5)).await;
    app.tick().await;
    assert_eq!(erase(&app, "ada").await.json["id"], second["id"]);

    app.turn_clock(Duration::from_hours(24 * 31)).await;
    strongroom::connections::reconcile::housekeeping(&app.context).await.unwrap();
    assert_eq!(erase(&app, "ada").await.problem(), (404, "not_found"));
    assert_eq!(poll(&app, &first).await.status, 200, "the receipt stays");
}

#[tokio::test]
async fn nobody_is_erased_whom_the_app_never_told_of() {
    let app = TestApp::spawn().await;
    app.active("ada").await;
    assert_eq!(erase(&app, "eve").await.problem(), (404, "not_found"));
    assert_eq!(erase(&app, "%00").await.problem(), (404, "not_found"));
    let stranger = app.token_of_another_app().await;
    let request = app.api.request(Method::DELETE, "/v1/users/ada").bearer_auth(&stranger);
    assert_eq!(app.api.send(request).await.problem(), (404, "not_found"));
    let named = app.active("a/b c").await;
    assert_eq!(erase(&app, "a%2Fb%20c").await.status, 200);
    let left = app.api.get(&app.token().await, &format!("/v1/connections/{}", id(&named))).await;
    assert_eq!(left.status, 404);
}

#[tokio::test]
async fn a_user_without_connections_is_erased_at_once() {
    let app = TestApp::by_hand().await;
    app.api.session(&app.token().await, "ada").await;
    let answer = erase(&app, "ada").await;
    assert_eq!((answer.status, &answer.json["upstream"]), (200, &json!("confirmed")));
}
