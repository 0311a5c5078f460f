//! Webhooks: their bodies, their signatures, good and forged ones, and their delivery.
//!
//! A webhook carries `Plaid-Verification`, a JWT with `iat` and `request_body_sha256`
//! (<https://plaid.com/docs/api/webhooks/webhook-verification/>). Each is sent once: what was delivered can be sent
//! again on demand.
//!
//! May import: answer, bounded, item, keys, mint, reqwest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::sync::Notify;

use super::answer::login_required;
use super::item::Item;
use super::keys::{Key, Keys};
use super::link::moment;
use super::vault::ENVIRONMENT;
use crate::sandbox::bounded::locked;
use crate::sandbox::mint::Mint;

/// How long Plaid waits for a receiver.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many deliveries are remembered.
const MOST_DELIVERIES: usize = 1_000;
/// How far ahead a disconnection or an expiration is announced, in days.
const ANNOUNCED_DAYS: i64 = 7;

/// What is wrong with a forged webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Forgery {
    /// Signed by another key under the `kid` of Plaid's.
    WrongKey,
    /// Signed by a key that Plaid does not have, under its own `kid`.
    UnknownKey,
    /// `iat` is this many seconds ago, or ahead if negative.
    IssuedSecondsAgo(i64),
    /// The signature covers another body than this one.
    OtherBody,
    /// `alg` is `HS256`; the signature is an HMAC over the public key's `x`.
    OtherAlgorithm,
    /// `alg` is `none`; there is no signature.
    Unsigned,
    /// There is no `Plaid-Verification` header.
    NoHeader,
    /// `Plaid-Verification` is not a JWT.
    NoJwt,
}

/// A webhook to make.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookOptions {
    /// `ITEM`, `TRANSACTIONS`, …; by the code if absent.
    #[serde(default)]
    pub webhook_type: Option<String>,
    /// `ERROR`, `LOGIN_REPAIRED`, ….
    pub webhook_code: String,
    /// Fields to set in the body; one that is `null` is set to `null`.
    #[serde(default)]
    pub fields: Map<String, Value>,
    /// What is wrong with it; nothing if absent.
    #[serde(default)]
    pub forgery: Option<Forgery>,
}

impl WebhookOptions {
    /// Creates the options of a genuine webhook.
    #[must_use]
    pub fn new(webhook_code: &str) -> Self {
        Self {
            webhook_type: None,
            webhook_code: webhook_code.to_owned(),
            fields: Map::new(),
            forgery: None,
        }
    }

    /// Sets a field of the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// Makes the webhook a forged one.
    #[must_use]
    pub fn forged(mut self, forgery: Forgery) -> Self {
        self.forgery = Some(forgery);
        self
    }
}

/// A webhook that is ready to be sent, once or again and again.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// The body, byte for byte.
    pub body: String,
    /// The value of the header `Plaid-Verification`.
    pub verification: Option<String>,
}

/// One delivery of a webhook.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The delivery's number, counted from 1.
    pub number: u64,
    /// Where it was sent.
    pub url: String,
    /// What was sent.
    #[serde(flatten)]
    pub webhook: Webhook,
    /// The receiver's HTTP status; `None` if there was no answer, or is none yet.
    pub status: Option<u16>,
    /// Whether the delivery has ended.
    pub ended: bool,
}

#[derive(Default)]
struct Journal {
    deliveries: VecDeque<Delivery>,
    last_number: u64,
    ended: u64,
}

pub(super) struct Webhooks {
    pub(super) keys: Keys,
    http: Option<reqwest::Client>,
    journal: Mutex<Journal>,
    ended: Notify,
}

impl Webhooks {
    pub(super) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is where the sandbox calls out")]
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .build();
        Self {
            keys: Keys::default(),
            http: http.ok(),
            journal: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// Makes a webhook of an item. `None` if there is no key.
    pub(super) fn make(
        &self,
        item: &Item,
        options: &WebhookOptions,
        mint: &Mint,
        now: OffsetDateTime,
    ) -> Option<Webhook> {
        let body = body_of(item, options, now).to_string();
        let key = self.keys.current(mint, now)?;
        let stranger = || self.keys.stranger(mint, now);
        let verification = match options.forgery {
            None => Some(jwt(&key, &key.id, &body, now)),
            Some(Forgery::OtherBody) => Some(jwt(&key, &key.id, &format!("{body} "), now)),
            Some(Forgery::IssuedSecondsAgo(seconds)) => {
                let iat = now.saturating_sub(time::Duration::seconds(seconds));
                Some(jwt(&key, &key.id, &body, iat))
            }
            Some(Forgery::WrongKey) => Some(jwt(&*stranger()?, &key.id, &body, now)),
            Some(Forgery::UnknownKey) => {
                let stranger = stranger()?;
                Some(jwt(&stranger, &stranger.id, &body, now))
            }
            Some(Forgery::OtherAlgorithm) => {
                let text = signed_text("HS256", &key.id, &body, now);
                Some(format!("{text}.{}", hmac_with_public_key(&key, &text)))
            }
            Some(Forgery::Unsigned) => {
                Some(format!("{}.", signed_text("none", &key.id, &body, now)))
            }
            Some(Forgery::NoJwt) => Some("not-a-jwt".to_owned()),
            Some(Forgery::NoHeader) => None,
        };
        Some(Webhook { body, verification })
    }

    /// Records a delivery and returns what carries it out.
    pub(super) fn send(
        self: &Arc<Self>,
        url: String,
        webhook: Webhook,
    ) -> impl Future<Output = Delivery> + Send + use<> {
        let webhooks = Arc::clone(self);
        let delivery = {
            let mut journal = locked(&self.journal);
            journal.last_number += 1;
            let number = journal.last_number;
            let delivery = Delivery { number, url, webhook, status: None, ended: false };
            journal.deliveries.push_back(delivery.clone());
            if journal.deliveries.len() > MOST_DELIVERIES {
                journal.deliveries.pop_front();
            }
            delivery
        };
        async move {
            let status = webhooks.post(&delivery).await;
            webhooks.end(delivery, status)
        }
    }

    async fn post(&self, delivery: &Delivery) -> Option<u16> {
        let request = self.http.as_ref()?.post(&delivery.url);
        let request = request.header("Content-Type", "application/json");
        let request = match &delivery.webhook.verification {
            Some(jwt) => request.header("Plaid-Verification", jwt),
            None => request,
        };
        let response = request.body(delivery.webhook.body.clone()).send().await.ok()?;
        Some(response.status().as_u16())
    }

    fn end(&self, delivery: Delivery, status: Option<u16>) -> Delivery {
        let delivery = Delivery { status, ended: true, ..delivery };
        {
            let mut journal = locked(&self.journal);
            journal.ended += 1;
            let number = delivery.number;
            let kept = journal.deliveries.iter_mut().find(|kept| kept.number == number);
            if let Some(kept) = kept {
                *kept = delivery.clone();
            }
        }
        self.ended.notify_waiters();
        delivery
    }

    /// Returns the newest deliveries, newest first.
    pub(super) fn deliveries(&self, limit: usize) -> Vec<Delivery> {
        locked(&self.journal).deliveries.iter().rev().take(limit).cloned().collect()
    }

    /// Waits until `count` deliveries have ended.
    pub(super) async fn reached(&self, count: u64) {
        loop {
            let ended = self.ended.notified();
            if locked(&self.journal).ended >= count {
                return;
            }
            ended.await;
        }
    }
}

fn body_of(item: &Item, options: &WebhookOptions, now: OffsetDateTime) -> Value {
    let code = options.webhook_code.as_str();
    let kind = options.webhook_type.as_deref().unwrap_or_else(|| type_of(code));
    let mut body = Map::from_iter([
        ("webhook_type".to_owned(), json!(kind)),
        ("webhook_code".to_owned(), json!(code)),
        ("item_id".to_owned(), json!(item.id)),
        ("error".to_owned(), Value::Null),
    ]);
    let announced = || json!(moment(now.saturating_add(time::Duration::days(ANNOUNCED_DAYS))));
    let (name, value) = match code {
        "ERROR" => ("error", error()),
        "PENDING_EXPIRATION" => ("consent_expiration_time", announced()),
        "PENDING_DISCONNECT" => ("reason", json!("INSTITUTION_MIGRATION")),
        "SYNC_UPDATES_AVAILABLE" => ("historical_update_complete", json!(true)),
        _ => ("error", Value::Null),
    };
    body.insert(name.to_owned(), value);
    if code == "PENDING_DISCONNECT" {
        body.insert("disconnect_time".to_owned(), announced());
    }
    body.insert("environment".to_owned(), json!(ENVIRONMENT));
    body.extend(options.fields.clone());
    Value::Object(body)
}

/// Returns the error of an item whose login has to be repaired, with the HTTP status that webhooks add.
fn error() -> Value {
    let mut error = login_required().to_json();
    if let Some(fields) = error.as_object_mut() {
        fields.insert("status".to_owned(), json!(400));
    }
    error
}

fn type_of(code: &str) -> &'static str {
    match code {
        "SYNC_UPDATES_AVAILABLE"
        | "DEFAULT_UPDATE"
        | "INITIAL_UPDATE"
        | "HISTORICAL_UPDATE"
        | "TRANSACTIONS_REMOVED"
        | "RECURRING_TRANSACTIONS_UPDATE" => "TRANSACTIONS",
        "SMS_MICRODEPOSITS_VERIFICATION" => "AUTH",
        "PRODUCT_READY" => "ASSETS",
        _ => "ITEM",
    }
}

/// Signs the claims about a body, under any `kid`.
fn jwt(key: &Key, kid: &str, body: &str, iat: OffsetDateTime) -> String {
    let text = signed_text("ES256", kid, body, iat);
    format!("{text}.{}", key.sign(&text))
}

/// Returns the header and the claims of a JWT, which its signature covers.
fn signed_text(algorithm: &str, kid: &str, body: &str, iat: OffsetDateTime) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let hash = digest::digest(&digest::SHA256, body.as_bytes());
    let claims = json!({
        "iat": iat.unix_timestamp(),
        "request_body_sha256": hex::encode(hash.as_ref()),
    });
    format!("{}.{}", part(json!({ "alg": algorithm, "kid": kid, "typ": "JWT" })), part(claims))
}

/// Signs as a receiver expects that takes the algorithm from the header and the public key for a secret.
fn hmac_with_public_key(key: &Key, text: &str) -> String {
    let jwk = key.to_jwk();
    let x = jwk.get("x").and_then(Value::as_str).unwrap_or_default();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, x.as_bytes());
    URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()))
}
