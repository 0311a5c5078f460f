//! [`Plaid`]: the in-process handle of Plaid's side, with the same capabilities as its control API over HTTP.
//!
//! May import: every module of Plaid's side that holds rules or state.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::api::State;
use super::item::{Item, Token};
use super::vault::{Vault, died_of};
use super::webhooks::{Delivery, Webhook, WebhookOptions, Webhooks};
use crate::sandbox::bounded::locked;
use crate::sandbox::common::Common;
use crate::sandbox::settings::App;

/// Plaid's side of a sandbox. Clones share its state.
#[derive(Clone)]
pub struct Plaid(pub(super) Arc<State>);

/// The state of an access token, without its text.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessTokenInfo {
    /// The token's id.
    #[serde(rename = "tokenID")]
    pub token_id: Uuid,
    /// The item that it belongs to.
    #[serde(rename = "itemID")]
    pub item_id: String,
    /// The client id of the app that it was issued to.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// When it was issued.
    #[serde(with = "time::serde::rfc3339")]
    pub issued_at: OffsetDateTime,
    /// Whether it works. One whose item needs a new login counts as alive.
    pub live: bool,
    /// If it does not work, the `error_code` of the refusal.
    pub died_of: Option<String>,
}

/// The state of an item.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemInfo {
    /// The item's id.
    #[serde(rename = "itemID")]
    pub item_id: String,
    /// The client id of its app.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The app's name for its user, if Link was told.
    #[serde(rename = "clientUserID")]
    pub client_user_id: Option<String>,
    /// The institution.
    #[serde(rename = "institutionID")]
    pub institution_id: &'static str,
    /// The masks of its accounts.
    pub masks: Vec<String>,
    /// Whether the item was not removed.
    pub live: bool,
    /// Whether the user has to log in again.
    pub login_required: bool,
    /// The URL to which its webhooks are sent.
    pub webhook: Option<String>,
    /// How many of its access tokens work; none before the first exchange.
    pub live_tokens: usize,
}

impl From<&Arc<Item>> for ItemInfo {
    fn from(item: &Arc<Item>) -> Self {
        let state = item.state();
        Self {
            item_id: item.id.clone(),
            client_id: item.app.key.clone(),
            client_user_id: item.client_user_id.clone(),
            institution_id: item.institution.id,
            masks: item.accounts.iter().map(|(_, account)| account.mask.clone()).collect(),
            live: !state.removed,
            login_required: state.login_required,
            webhook: state.webhook,
            live_tokens: item.living_tokens().len(),
        }
    }
}

impl Plaid {
    pub(in crate::sandbox) fn new(common: Arc<Common>, apps: Vec<App>, capacity: usize) -> Self {
        Self(Arc::new(State {
            common,
            vault: Vault::new(apps, capacity),
            webhooks: Arc::new(Webhooks::new()),
        }))
    }

    /// Returns the newest items.
    #[must_use]
    pub fn items(&self, limit: usize) -> Vec<ItemInfo> {
        self.0.vault.newest_items(limit).iter().map(ItemInfo::from).collect()
    }

    /// Returns an item; `None` if it is not known.
    #[must_use]
    pub fn item(&self, item_id: &str) -> Option<ItemInfo> {
        self.0.vault.item(item_id).as_ref().map(ItemInfo::from)
    }

    /// Returns the newest access tokens.
    #[must_use]
    pub fn tokens(&self, limit: usize) -> Vec<AccessTokenInfo> {
        self.0.vault.newest_tokens(limit).iter().map(|token| self.info(token)).collect()
    }

    /// Returns the access tokens that work. If there are none, no item can be reached any more.
    #[must_use]
    pub fn live_tokens(&self) -> Vec<AccessTokenInfo> {
        self.tokens(usize::MAX).into_iter().filter(|token| token.live).collect()
    }

    /// Returns whether an access token works, by its text.
    #[must_use]
    pub fn lives(&self, access_token: &str) -> bool {
        let token = self.0.vault.token(access_token);
        token.is_some_and(|token| self.info(&token).live)
    }

    fn info(&self, token: &Arc<Token>) -> AccessTokenInfo {
        let died_of = died_of(token, &self.0.common.rules());
        AccessTokenInfo {
            token_id: token.id,
            item_id: token.item.id.clone(),
            client_id: token.item.app.key.clone(),
            issued_at: token.issued_at,
            live: died_of.is_none(),
            died_of: died_of.map(Cow::into_owned),
        }
    }

    /// Ends an access token: calls with it are refused with `error_code`. A dead token keeps its first code. Returns
    /// `None` if there is no such token.
    #[must_use]
    pub fn kill_token(&self, token_id: Uuid, error_code: &str) -> Option<AccessTokenInfo> {
        let token = self.0.vault.token(&self.0.vault.text_of(token_id))?;
        token.kill(Cow::Owned(error_code.to_owned()));
        Some(self.info(&token))
    }

    /// Removes an item as `/item/remove` does: the user withdrew the permission, or an operator removed it. Returns
    /// `None` if there is no such item.
    #[must_use]
    pub fn remove_item(&self, item_id: &str) -> Option<ItemInfo> {
        let item = self.0.vault.item(item_id)?;
        locked(&item.state).removed = true;
        Some(ItemInfo::from(&item))
    }

    /// Makes calls for an item's data answer `ITEM_LOGIN_REQUIRED`, without a webhook. Returns `None` if there is no
    /// such item.
    #[must_use]
    pub fn require_login(&self, item_id: &str) -> Option<ItemInfo> {
        let item = self.0.vault.item(item_id)?;
        locked(&item.state).login_required = true;
        Some(ItemInfo::from(&item))
    }

    /// Adds transactions, which the next `/transactions/sync` returns. Returns `None` if there is no such item.
    #[must_use]
    pub fn add_transactions(&self, item_id: &str, count: u32) -> Option<ItemInfo> {
        let item = self.0.vault.item(item_id)?;
        locked(&item.state).added += count;
        Some(ItemInfo::from(&item))
    }

    /// Ends an item's need for a new login as if its user had repaired it in another app, and sends `LOGIN_REPAIRED`.
    /// Returns `None` if there is no such item.
    #[must_use]
    pub fn repair_login(&self, item_id: &str) -> Option<ItemInfo> {
        let item = self.0.vault.item(item_id)?;
        locked(&item.state).login_required = false;
        self.0.notify(&item, &WebhookOptions::new("LOGIN_REPAIRED"));
        Some(ItemInfo::from(&item))
    }

    /// Makes a webhook of an item, removed or not, and sends it nowhere. `None` if there is no such item.
    #[must_use]
    pub fn webhook(&self, item_id: &str, options: &WebhookOptions) -> Option<Webhook> {
        let (item, state) = (self.0.vault.item(item_id)?, &self.0);
        state.webhooks.make(&item, options, &state.vault.mint, state.common.clock.now())
    }

    /// Sends a webhook, genuine, forged or replayed, and waits for the receiver's answer, ten seconds at most.
    pub async fn send_webhook(&self, url: &str, webhook: Webhook) -> Delivery {
        self.0.webhooks.send(url.to_owned(), webhook).await
    }

    /// Makes a webhook, sends it to the item's URL and waits for the answer. `None` if there is no such item, or it has
    /// no URL.
    pub async fn fire_webhook(&self, item_id: &str, options: &WebhookOptions) -> Option<Delivery> {
        let url = self.0.vault.item(item_id)?.state().webhook?;
        Some(self.send_webhook(&url, self.webhook(item_id, options)?).await)
    }

    /// Returns the newest deliveries of webhooks, newest first.
    #[must_use]
    pub fn deliveries(&self, limit: usize) -> Vec<Delivery> {
        self.0.webhooks.deliveries(limit)
    }

    /// Waits until `count` deliveries of webhooks have ended.
    pub async fn deliveries_reached(&self, count: u64) {
        self.0.webhooks.reached(count).await;
    }

    /// Replaces the key that signs webhooks and returns the new one's id. The old one can still be looked up, with its
    /// `expired_at`. `None` if the system has no random numbers.
    #[must_use]
    pub fn rotate_webhook_key(&self) -> Option<String> {
        let (mint, now) = (&self.0.vault.mint, self.0.common.clock.now());
        Some(self.0.webhooks.keys.rotate(mint, now)?.id.clone())
    }
}

impl std::fmt::Debug for Plaid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plaid").finish_non_exhaustive()
    }
}
