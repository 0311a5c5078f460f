//! Link tokens: what `/link/token/create` was told, for Link's page and `/link/token/get`.
//!
//! May import: item, settings.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::item::Item;
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
}

impl LinkToken {
    /// Returns the answer of `/link/token/get`.
    pub(super) fn to_json(&self, text: &str) -> Value {
        json!({
            "link_token": text,
            "created_at": moment(self.created_at),
            "expiration": moment(self.expires_at),
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
