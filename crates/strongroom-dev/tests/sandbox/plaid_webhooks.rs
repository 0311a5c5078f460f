//! Webhooks, as a receiver that verifies them sees them.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use strongroom_dev::sandbox::{Forgery, LinkOptions, LinkResult, Webhook, WebhookOptions};

use crate::support::TestSandbox;

/// A server that keeps what is posted to it.
struct Receiver {
    url: String,
    received: Arc<Mutex<Vec<Webhook>>>,
}

impl Receiver {
    fn start(status: u16) -> Self {
        let received: Arc<Mutex<Vec<Webhook>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let kept = Arc::clone(&received);
        let receive = move |request: HttpRequest, body: String| {
            let verification = request.headers().get("Plaid-Verification");
            let verification = verification.map(|jwt| jwt.to_str().unwrap().to_owned());
            kept.lock().unwrap().push(Webhook { body, verification });
            let status = actix_web::http::StatusCode::from_u16(status).unwrap();
            async move { HttpResponse::new(status) }
        };
        let app = move || App::new().route("/hook", web::post().to(receive.clone()));
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap();
        tokio::spawn(server.run());
        Self { url, received }
    }

    fn received(&self) -> Vec<Webhook> {
        self.received.lock().unwrap().clone()
    }
}

fn part(jwt: &str, place: usize) -> Value {
    let part = jwt.split('.').nth(place).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Verifies a webhook as Plaid's documentation tells receivers to; returns what is wrong.
async fn verify(test: &TestSandbox, webhook: &Webhook) -> Result<Value, &'static str> {
    let jwt = webhook.verification.as_deref().ok_or("no header")?;
    if jwt.split('.').count() != 3 {
        return Err("no JWT");
    }
    let header = part(jwt, 0);
    if header["alg"] != "ES256" {
        return Err("algorithm");
    }
    assert_eq!(header["typ"], "JWT");
    let body = json!({ "key_id": header["kid"] });
    let reply = test.call_plaid("webhook_verification_key/get", &body).await;
    if reply.status != 200 {
        assert_eq!(reply.error().2, "INVALID_WEBHOOK_VERIFICATION_KEY_ID");
        return Err("key");
    }
    let key = reply.fine()["key"].clone();
    assert_eq!(
        (&key["kty"], &key["crv"], &key["use"]),
        (&"EC".into(), &"P-256".into(), &"sig".into())
    );
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .map_err(|_| "signature")?;
    let claims = part(jwt, 1);
    let age = test.sandbox.clock().unix_seconds() - claims["iat"].as_i64().unwrap();
    if age.abs() > 300 {
        return Err("age");
    }
    let hash = digest(&SHA256, webhook.body.as_bytes());
    let hash: Vec<_> = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if claims["request_body_sha256"] != hash.concat() {
        return Err("body");
    }
    Ok(serde_json::from_str(&webhook.body).unwrap())
}

fn link_to(test: &TestSandbox, receiver: &Receiver) -> LinkResult {
    let webhook = Some(receiver.url.clone());
    test.plaid().link(&LinkOptions { webhook, ..LinkOptions::default() }).unwrap()
}

#[tokio::test]
async fn a_login_that_is_reset_and_repaired_is_told_in_signed_webhooks() {
    let (test, receiver) = (TestSandbox::start(), Receiver::start(200));
    let linked = link_to(&test, &receiver);
    let token = test.access_token_of(&linked).await;
    test.with_access("sandbox/item/reset_login", &token).await.fine();
    test.plaid().deliveries_reached(1).await;
    test.plaid().repair_login(&linked.item_id).unwrap();
    test.plaid().deliveries_reached(2).await;
    let came = receiver.received();
    let bodies = [verify(&test, &came[0]).await, verify(&test, &came[1]).await];
    let [reset, repaired] = bodies.map(Result::unwrap);
    assert_eq!((&reset["webhook_type"], &reset["webhook_code"]), (&"ITEM".into(), &"ERROR".into()));
    assert_eq!(reset["item_id"], linked.item_id);
    assert_eq!(reset["error"]["error_code"], "ITEM_LOGIN_REQUIRED");
    assert_eq!(reset["environment"], "sandbox");
    assert_eq!(repaired["webhook_code"], "LOGIN_REPAIRED");
    assert!(repaired["error"].is_null());
    test.with_access("accounts/get", &token).await.fine();
    let deliveries = test.plaid().deliveries(10);
    assert!(deliveries.iter().all(|one| one.ended && one.status == Some(200)));
}

#[tokio::test]
async fn each_forgery_fails_the_check_that_it_is_for() {
    let test = TestSandbox::start();
    let item = test.link().item_id;
    let plaid = test.plaid();
    let made = |options: &WebhookOptions| plaid.webhook(&item, options).unwrap();
    let genuine = WebhookOptions::new("PENDING_EXPIRATION");
    let body = verify(&test, &made(&genuine)).await.unwrap();
    assert!(body["consent_expiration_time"].is_string());
    for (forgery, wrong) in [
        (Forgery::WrongKey, "signature"),
        (Forgery::UnknownKey, "key"),
        (Forgery::IssuedSecondsAgo(301), "age"),
        (Forgery::IssuedSecondsAgo(-301), "age"),
        (Forgery::OtherBody, "body"),
        (Forgery::OtherAlgorithm, "algorithm"),
        (Forgery::Unsigned, "algorithm"),
        (Forgery::NoHeader, "no header"),
        (Forgery::NoJwt, "no JWT"),
    ] {
        let forged = made(&genuine.clone().forged(forgery));
        assert_eq!(verify(&test, &forged).await, Err(wrong), "{forgery:?}");
    }
    let fresh = made(&genuine.forged(Forgery::IssuedSecondsAgo(200)));
    verify(&test, &fresh).await.unwrap();
}

#[tokio::test]
async fn a_key_that_was_replaced_can_still_be_looked_up() {
    let test = TestSandbox::start();
    let item = test.link().item_id;
    let make = || test.plaid().webhook(&item, &WebhookOptions::new("LOGIN_REPAIRED")).unwrap();
    let old = make();
    let new_id = test.plaid().rotate_webhook_key().unwrap();
    let new = make();
    assert_eq!(part(new.verification.as_deref().unwrap(), 0)["kid"], new_id);
    verify(&test, &old).await.unwrap();
    verify(&test, &new).await.unwrap();
    let old_id = part(old.verification.as_deref().unwrap(), 0)["kid"].clone();
    let body = json!({ "key_id": old_id });
    let key = test.call_plaid("webhook_verification_key/get", &body).await.fine();
    assert!(key["key"]["expired_at"].is_i64());
}

#[tokio::test]
async fn webhooks_are_fired_forged_and_replayed_over_http() {
    let (test, receiver) = (TestSandbox::start(), Receiver::start(503));
    let linked = link_to(&test, &receiver);
    let path = format!("/sandbox/plaid/items/{}/webhooks", linked.item_id);
    let body = json!({
        "webhookCode": "USER_PERMISSION_REVOKED", "fields": { "error": { "error_code": "X" } },
    });
    let fired = test.post(&path, &body).await;
    assert_eq!((fired.status, &fired.body["status"]), (200, &json!(503)));
    let body = json!({ "webhookCode": "ERROR", "forgery": { "issuedSecondsAgo": 600 } });
    assert_eq!(test.post(&path, &body).await.status, 200);
    let replayed = test.post("/sandbox/plaid/webhooks/1/replay", &json!({})).await;
    assert_eq!((replayed.status, &replayed.body["number"]), (200, &json!(3)));
    let came = receiver.received();
    assert_eq!((&came[0].body, &came[0].verification), (&came[2].body, &came[2].verification));
    let first = verify(&test, &came[0]).await.unwrap();
    assert_eq!(first["error"]["error_code"], "X");
    assert_eq!(verify(&test, &came[1]).await, Err("age"));
    let listed = test.get("/sandbox/plaid/webhooks?limit=2").await.body;
    assert_eq!(listed["webhooks"].as_array().unwrap().len(), 2);
    assert_eq!(test.post("/sandbox/plaid/webhooks/9/replay", &json!({})).await.status, 404);
    test.sandbox.clock().advance(Duration::from_mins(6));
    assert_eq!(verify(&test, &came[2]).await, Err("age"));
}

#[tokio::test]
async fn an_app_fires_webhooks_by_plaids_own_call() {
    let (test, receiver) = (TestSandbox::start(), Receiver::start(200));
    let token = test.access_token_of(&link_to(&test, &receiver)).await;
    let body = json!({ "access_token": token, "webhook_code": "SYNC_UPDATES_AVAILABLE" });
    let fired = test.call_plaid("sandbox/item/fire_webhook", &body).await.fine();
    assert_eq!(fired["webhook_fired"], true);
    test.plaid().deliveries_reached(1).await;
    let got = verify(&test, &receiver.received()[0]).await.unwrap();
    assert_eq!(got["webhook_type"], "TRANSACTIONS");
    let without = test.access_token().await;
    let body = json!({ "access_token": without, "webhook_code": "ERROR" });
    let reply = test.call_plaid("sandbox/item/fire_webhook", &body).await;
    assert_eq!(reply.error(), (400, "SANDBOX_ERROR", "SANDBOX_WEBHOOK_INVALID"));
}
