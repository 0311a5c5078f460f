//! A webhook: how it is described, changed and shown. No I/O.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::common::ids::{WebhookId, WebhookSecretId};
use crate::common::text;
use crate::events::kind::EventType;
use crate::outbound::{MAX_URL, OutboundUrl, Reach};

/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 200;

text::text_schemas! {
    /// Where events are sent: https, or http if private addresses are allowed; without credentials or fragment.
    WebhookURL, "^https?://[^\\s]+$", 1 to MAX_URL, "https://backend.example.com/hooks/strongroom";
    /// What people say about it, at most 200 bytes.
    WebhookDescription, text::TEXT, 1 to MAX_DESCRIPTION, "payroll";
}

/// The types of events that are sent.
#[derive(Debug)]
pub struct WebhookEventTypes;

impl PartialSchema for WebhookEventTypes {
    fn schema() -> RefOr<Schema> {
        let names = EventType::SENT.iter().map(|kind| kind.as_str());
        let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
        let list = ArrayBuilder::new().items(kind).min_items(Some(1));
        let example = [EventType::ConnectionActive, EventType::ConnectionAttention];
        list.examples([serde_json::json!(example)]).build().into()
    }
}

impl ToSchema for WebhookEventTypes {}

/// How deliveries are signed (Standard Webhooks).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum,
)]
#[schema(as = WebhookSignature)]
pub enum Signature {
    /// HMAC-SHA256 with a secret that both sides have.
    #[default]
    #[serde(rename = "v1")]
    V1,
    /// Ed25519 (RFC 8032), verified with a public key.
    #[serde(rename = "v1a")]
    V1a,
}

impl Signature {
    /// The identifier before the signature, as in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
        }
    }

    pub(in crate::events) fn parse(text: &str) -> Option<Self> {
        [Self::V1, Self::V1a].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Why nothing is sent to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = WebhookDisabledReason)]
pub enum DisabledReason {
    /// Somebody asked for it.
    Requested,
    /// It answered 410.
    Gone,
    /// It failed for three days.
    Failing,
}

/// A live secret of a webhook: everything but the secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookSecret)]
pub struct SecretInfo {
    /// The secret's id.
    pub id: WebhookSecretId,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it expires; `null` for the one that stays.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// The public key with which `v1a` signatures are verified.
    #[schema(example = "whpk_oYL4XNQcCXTbAXRM+hQfXyjpHvlfcJNwFQn2gPDjcqs=")]
    pub public_key: String,
}

/// A webhook: an endpoint to which events are sent.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where events are sent.
    #[schema(value_type = WebhookURL)]
    pub url: String,
    /// What people say about it.
    #[schema(example = "payroll")]
    pub description: Option<String>,
    /// The types of events that are sent; `null` for all of them.
    #[schema(value_type = Option<WebhookEventTypes>)]
    pub events: Option<Vec<String>>,
    /// How deliveries are signed.
    pub signature: Signature,
    /// The public key of the newest secret, if deliveries are signed by `v1a`.
    #[schema(example = "whpk_oYL4XNQcCXTbAXRM+hQfXyjpHvlfcJNwFQn2gPDjcqs=")]
    pub public_key: Option<String>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Since when nothing is sent.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    /// Why nothing is sent.
    pub disabled_reason: Option<DisabledReason>,
    /// Since when every attempt has failed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub failing_since: Option<OffsetDateTime>,
    /// How the last attempt failed, if it did.
    #[schema(example = "HTTP 503")]
    pub last_error: Option<String>,
    /// The live secrets, oldest first.
    pub secrets: Vec<SecretInfo>,
}

/// A webhook as the SQL function `webhook_snapshot` writes it.
#[derive(Deserialize)]
struct Snapshot {
    id: Uuid,
    url: String,
    description: Option<String>,
    types: Option<Vec<String>>,
    signature: Signature,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    disabled_at: Option<OffsetDateTime>,
    disabled_reason: Option<DisabledReason>,
    #[serde(with = "time::serde::rfc3339::option")]
    failing_since: Option<OffsetDateTime>,
    last_error: Option<String>,
    secrets: Vec<SecretSnapshot>,
}

#[derive(Deserialize)]
struct SecretSnapshot {
    id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    public_key: String,
}

impl Webhook {
    /// Returns the webhook of a snapshot; `None` for what is not one.
    #[must_use]
    pub fn of_snapshot(snapshot: &Value) -> Option<Self> {
        let row = Snapshot::deserialize(snapshot).ok()?;
        let secrets = row.secrets.into_iter().map(|secret| SecretInfo {
            id: secret.id.into(),
            created_at: secret.created_at,
            expires_at: secret.expires_at,
            public_key: format!("whpk_{}", secret.public_key),
        });
        let secrets: Vec<_> = secrets.collect();
        let newest = secrets.last().map(|secret| secret.public_key.clone());
        Some(Self {
            id: row.id.into(),
            url: row.url,
            description: row.description,
            events: row.types,
            signature: row.signature,
            public_key: newest.filter(|_| row.signature == Signature::V1a),
            created_at: row.created_at,
            updated_at: row.updated_at,
            disabled_at: row.disabled_at,
            disabled_reason: row.disabled_reason,
            failing_since: row.failing_since,
            last_error: row.last_error,
            secrets,
        })
    }
}

/// Returns a public key as Standard Webhooks writes it.
pub(super) fn public_key(bytes: &[u8]) -> String {
    format!("whpk_{}", STANDARD.encode(bytes))
}

/// A webhook to be created.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WebhookRequest)]
pub struct Draft {
    /// Where events are sent.
    #[schema(value_type = WebhookURL)]
    pub url: Option<String>,
    /// The types of events that are sent; all of them if left out.
    #[schema(value_type = Option<WebhookEventTypes>)]
    pub events: Option<Vec<String>>,
    /// What people say about it.
    #[schema(value_type = Option<WebhookDescription>)]
    pub description: Option<String>,
    /// How deliveries are signed; `v1` if left out.
    pub signature: Option<Signature>,
}

/// What changes about a webhook. What is left out stays; `null` removes `events` and `description`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WebhookChange)]
pub struct Change {
    /// Where events are sent.
    #[schema(value_type = Option<WebhookURL>)]
    pub url: Option<String>,
    /// The types of events that are sent; `null` for all of them.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<WebhookEventTypes>)]
    pub events: Option<Option<Vec<String>>>,
    /// What people say about it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<WebhookDescription>)]
    pub description: Option<Option<String>>,
    /// Whether nothing is sent. `false` also ends the wait after failures.
    pub disabled: Option<bool>,
    /// How deliveries are signed.
    pub signature: Option<Signature>,
}

/// Tells a field that is `null` from one that is left out.
#[expect(clippy::option_option, reason = "that is what it tells apart")]
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    value: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(value).map(Some)
}

/// A field that is missing or invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct Invalid {
    /// The field's name on the wire.
    pub field: &'static str,
    /// What is wrong with it; never repeats the value.
    pub what: String,
}

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where events are sent.
    pub url: String,
    /// What people say about it.
    pub description: Option<String>,
    /// The types that are sent; all if `None`.
    pub types: Option<Vec<String>>,
    /// How deliveries are signed.
    pub signature: Signature,
}

fn invalid(field: &'static str, what: impl std::fmt::Display) -> Invalid {
    Invalid { field, what: what.to_string() }
}

fn url(text: &str, reach: Reach) -> Result<String, Invalid> {
    let url = OutboundUrl::parse(text, reach).map_err(|what| invalid("url", what))?;
    Ok(url.as_str().to_owned())
}

fn types(names: Vec<String>) -> Result<Vec<String>, Invalid> {
    let known = |name: &String| EventType::SENT.iter().any(|kind| kind.as_str() == name);
    if names.is_empty() || !names.iter().all(known) {
        let all: Vec<_> = EventType::SENT.iter().map(|kind| kind.as_str()).collect();
        let what = format!("must hold at least one of {}, and nothing else", all.join(", "));
        return Err(invalid("events", what));
    }
    let mut distinct = names;
    distinct.sort_unstable();
    distinct.dedup();
    Ok(distinct)
}

fn description(text: String) -> Result<String, Invalid> {
    text::check_line(&text, MAX_DESCRIPTION).map_err(|what| invalid("description", what))?;
    Ok(text)
}

impl Draft {
    /// Validates the draft.
    ///
    /// # Errors
    /// The first field that is missing or invalid.
    pub fn checked(self, reach: Reach) -> Result<Settings, Invalid> {
        let given = self.url.ok_or_else(|| invalid("url", "is missing"))?;
        Ok(Settings {
            url: url(&given, reach)?,
            description: self.description.map(description).transpose()?,
            types: self.events.map(types).transpose()?,
            signature: self.signature.unwrap_or_default(),
        })
    }
}

impl Change {
    /// Returns the settings after this change.
    ///
    /// # Errors
    /// The first field that is invalid.
    pub fn applied_to(self, settings: Settings, reach: Reach) -> Result<Settings, Invalid> {
        let mut changed = settings;
        if let Some(text) = self.url {
            changed.url = url(&text, reach)?;
        }
        if let Some(names) = self.events {
            changed.types = names.map(types).transpose()?;
        }
        if let Some(text) = self.description {
            changed.description = text.map(description).transpose()?;
        }
        changed.signature = self.signature.unwrap_or(changed.signature);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn draft(json: Value) -> Result<Settings, Invalid> {
        serde_json::from_value::<Draft>(json).unwrap().checked(Reach::Public)
    }

    #[test]
    fn a_wrong_field_is_named_and_never_repeated() {
        let url = "https://a.example/x";
        for (field, json) in [
            ("url", json!({})),
            ("url", json!({ "url": "http://canary.example" })),
            ("url", json!({ "url": "https://u:canary@a.example" })),
            ("url", json!({ "url": "https://127.0.0.1/canary" })),
            ("events", json!({ "url": url, "events": [] })),
            ("events", json!({ "url": url, "events": ["connection.canary"] })),
            ("events", json!({ "url": url, "events": ["webhook.test"] })),
            ("description", json!({ "url": url, "description": "" })),
            ("description", json!({ "url": url, "description": "canary\n" })),
        ] {
            let error = draft(json.clone()).unwrap_err();
            assert_eq!(error.field, field, "{json}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn what_is_left_out_stays_and_null_removes() {
        let before = json!({
            "url": "https://a.example/x", "events": ["user.erased", "user.erased"], "description": "x",
        });
        let before = draft(before).unwrap();
        let change = |json: Value| {
            let change = serde_json::from_value::<Change>(json).unwrap();
            change.applied_to(before.clone(), Reach::Public).unwrap()
        };
        let same = change(json!({}));
        assert_eq!(
            (same.types.unwrap(), same.description.unwrap()),
            (vec!["user.erased".to_owned()], "x".to_owned())
        );
        let removed = change(json!({ "events": null, "description": null, "signature": "v1a" }));
        assert_eq!((removed.types, removed.description), (None, None));
        assert_eq!((removed.signature, removed.url), (Signature::V1a, before.url.clone()));
    }
}
