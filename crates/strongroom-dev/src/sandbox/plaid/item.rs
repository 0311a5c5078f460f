//! Items, their access tokens, and the public tokens of Link.
//!
//! May import: answer, bounded, institution, settings, `single_use`.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, Weak};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::answer::login_required;
use super::institution::{Account, Institution, PRODUCTS};
use crate::sandbox::bounded::locked;
use crate::sandbox::settings::App;
use crate::sandbox::single_use::SingleUse;

/// A user's login at an institution.
pub(super) struct Item {
    pub(super) id: String,
    pub(super) app: Arc<App>,
    pub(super) client_user_id: Option<String>,
    pub(super) institution: &'static Institution,
    /// Each with its id.
    pub(super) accounts: Vec<(String, Account)>,
    /// Identifies the user at the institution: the same seed is the same person with the same accounts.
    pub(super) seed: String,
    pub(super) products: Vec<String>,
    pub(super) created_at: OffsetDateTime,
    pub(super) state: Mutex<ItemState>,
    /// The access tokens of this item that are not evicted.
    pub(super) tokens: Mutex<Vec<Weak<Token>>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ItemState {
    /// Whether the item was removed.
    pub(super) removed: bool,
    /// Whether the user has to log in again.
    pub(super) login_required: bool,
    pub(super) webhook: Option<String>,
    /// How many transactions were added after the first.
    pub(super) added: u32,
}

impl Item {
    pub(super) fn state(&self) -> ItemState {
        locked(&self.state).clone()
    }

    /// Returns the living access tokens, oldest first.
    pub(super) fn living_tokens(&self) -> Vec<Arc<Token>> {
        if self.state().removed {
            return Vec::new();
        }
        let tokens = locked(&self.tokens);
        let known = tokens.iter().filter_map(Weak::upgrade);
        known.filter(|token| token.killed_by().is_none()).collect()
    }

    /// Returns the item as Plaid's answers show it.
    pub(super) fn to_json(&self) -> Value {
        let state = self.state();
        let error = state.login_required.then(|| login_required().to_json());
        let open: Vec<_> = PRODUCTS
            .iter()
            .filter(|product| !self.products.iter().any(|own| own == *product))
            .collect();
        json!({
            "item_id": self.id,
            "institution_id": self.institution.id,
            "institution_name": self.institution.name,
            "webhook": state.webhook.unwrap_or_default(),
            "error": error,
            "available_products": open,
            "billed_products": self.products,
            "products": self.products,
            "consented_products": self.products,
            "consent_expiration_time": null,
            "update_type": "background",
            "created_at": self.created_at.format(&Rfc3339).unwrap_or_default(),
        })
    }
}

pub(super) struct Token {
    pub(super) id: Uuid,
    pub(super) issued_at: OffsetDateTime,
    pub(super) item: Arc<Item>,
    killed_by: Mutex<Option<Cow<'static, str>>>,
}

impl Token {
    /// Creates a token of an item, which then knows it.
    pub(super) fn new(id: Uuid, item: &Arc<Item>, now: OffsetDateTime) -> Arc<Self> {
        let item = Arc::clone(item);
        let token = Arc::new(Self { id, issued_at: now, item, killed_by: Mutex::new(None) });
        let mut siblings = locked(&token.item.tokens);
        siblings.retain(|sibling| sibling.strong_count() > 0);
        siblings.push(Arc::downgrade(&token));
        drop(siblings);
        token
    }

    /// Returns the `error_code` of calls with this token, whatever becomes of its item; `None` while it lives.
    pub(super) fn killed_by(&self) -> Option<Cow<'static, str>> {
        locked(&self.killed_by).clone()
    }

    /// Ends the token; an earlier code stays. Returns whether it lived.
    pub(super) fn kill(&self, code: Cow<'static, str>) -> bool {
        let mut killed_by = locked(&self.killed_by);
        let lived = killed_by.is_none();
        killed_by.get_or_insert(code);
        lived
    }
}

/// What Link returns. Only the digest of its text is kept.
pub(super) struct PublicToken {
    /// The id by which the journal counts it; the access token of its first exchange has the same.
    pub(super) id: Uuid,
    pub(super) item: Arc<Item>,
    /// Whether it comes from update mode, where the item has an access token already.
    pub(super) update: bool,
    pub(super) once: SingleUse<Arc<Token>>,
}
