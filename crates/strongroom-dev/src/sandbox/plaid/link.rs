//! Link tokens: what `/link/token/create` was told, for Link's page and `/link/token/get`.
//!
//! May import: bounded, item, settings.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::item::Item;
use crate::sandbox::bounded::locked;
use crate::sandbox::settings::App;

/// One use of Link to come. Only the digest of its text is kept.
pub(super) struct LinkToken {
    pub(super) app: Arc<App>,
    pub(super) client_user_id: String,
    pub(super) client_name: String,
    pub(super) products: Vec<String>,
    pub(super) webhook: Option<String>,
    /// The item whose login is repaired, in update mode.
    pub(super) item: Option<Arc<Item>>,
    pub(super) created_at: OffsetDateTime,
    pub(super) expires_at: OffsetDateTime,
    /// `country_codes`, `language` and `redirect_uri` as they came.
    pub(super) country_codes: Vec<String>,
    pub(super) language: String,
    pub(super) redirect_uri: Value,
    /// What Link returned, oldest first. Here alone the text of public tokens is kept: `/link/token/get` returns it.
    pub(super) sessions: Mutex<Vec<Value>>,
}

/// The most sessions of a link token that are remembered.
const MOST_SESSIONS: usize = 10;

impl LinkToken {
    /// Remembers what Link returned.
    pub(super) fn succeeded(&self, public_token: &str, metadata: &Value, now: OffsetDateTime) {
        let of = |name: &str| metadata.get(name).cloned().unwrap_or_default();
        let added = json!({
            "public_token": public_token,
            "accounts": of("accounts"),
            "institution": of("institution"),
        });
        let session = json!({
            "link_session_id": of("link_session_id"),
            "started_at": moment(now),
            "finished_at": moment(now),
            "on_success": {
                "public_token": public_token,
                "metadata": {
                    "institution": of("institution"),
                    "accounts": of("accounts"),
                    "link_session_id": of("link_session_id"),
                    "transfer_status": null,
                },
            },
            "results": {
                "item_add_results": [added],
                "cra_item_add_results": [],
                "cra_update_results": [],
                "bank_income_results": [],
                "payroll_income_results": [],
                "document_income_results": null,
            },
            "events": [],
            "exit": null,
        });
        let mut sessions = locked(&self.sessions);
        if sessions.len() < MOST_SESSIONS {
            sessions.push(session);
        }
    }

    /// Returns the answer of `/link/token/get`.
    pub(super) fn to_json(&self, text: &str) -> Value {
        json!({
            "link_token": text,
            "created_at": moment(self.created_at),
            "expiration": moment(self.expires_at),
            "link_sessions": *locked(&self.sessions),
            "metadata": {
                "initial_products": self.products,
                "webhook": self.webhook,
                "country_codes": self.country_codes,
                "language": self.language,
                "redirect_uri": self.redirect_uri,
                "client_name": self.client_name,
            },
        })
    }
}

/// Formats a time as Plaid does.
pub(super) fn moment(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}
