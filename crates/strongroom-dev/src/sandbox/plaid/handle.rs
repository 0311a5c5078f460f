//! [`Plaid`]: the in-process handle of Plaid's side, with the same capabilities as its control API over HTTP.
//!
//! May import: every module of Plaid's side that holds rules or state.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::api::State;
use super::institution::{INSTITUTIONS, Institution, accounts_of, accounts_with};
use super::item::{Item, Token};
use super::link::LinkToken;
use super::sandbox_calls::seed_of;
use super::vault::{LinkRequest, Linked, Vault, died_of};
use crate::sandbox::bounded::locked;
use crate::sandbox::common::Common;
use crate::sandbox::settings::{App, LONGEST_CODE_LIFETIME};

/// The longest text in the options, in bytes.
const LONGEST_TEXT: usize = 500;
/// The most accounts of an item.
const MOST_ACCOUNTS: usize = 50;

/// Plaid's side of a sandbox. Clones share its state.
#[derive(Clone)]
pub struct Plaid(pub(super) Arc<State>);

/// What a user does in Link. Every field is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LinkOptions {
    /// The link token that opened Link. It determines the app, the user, the products and the webhook, and in update
    /// mode the item.
    pub link_token: Option<String>,
    /// The client id of the app; the sandbox's first if absent.
    #[serde(rename = "clientID")]
    pub client_id: Option<String>,
    /// The app's own name for its user.
    #[serde(rename = "clientUserID")]
    pub client_user_id: Option<String>,
    /// The institution's id, such as `ins_109508`; the first if absent.
    #[serde(rename = "institutionID")]
    pub institution_id: Option<String>,
    /// The user's name at the institution. Two links with the same name have the same accounts, each with its own
    /// item and ids. If absent, each link is another user.
    pub username: Option<String>,
    /// The masks of the accounts that the user selects. If absent, all that the user has. A mask that none of them has
    /// is one of an account besides.
    pub accounts: Option<Vec<String>>,
    /// The URL to which the item's webhooks are sent.
    pub webhook: Option<String>,
    /// The public token's lifetime in seconds.
    pub code_lifetime: Option<u64>,
    /// `false` makes the user fail at the institution.
    pub success: Option<bool>,
}

/// Why Link refused the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLink {
    /// The sandbox has no such app.
    #[error("`clientID`: Plaid's side of the sandbox has no app `{0}`")]
    App(String),
    /// There is no such institution.
    #[error("`institutionID`: there is no institution `{0}`; one of: {ids}", ids = institution_ids())]
    Institution(String),
    /// The link token is not known or expired.
    #[error("`linkToken`: not known, or expired")]
    LinkToken,
    /// The item of an update was removed meanwhile.
    #[error("`linkToken`: its item was removed")]
    Item,
    /// A text is empty or too long, or there are too many accounts or none.
    #[error("`{0}` is empty or too long")]
    Length(&'static str),
}

fn institution_ids() -> String {
    let ids: Vec<_> = INSTITUTIONS.iter().map(|institution| institution.id).collect();
    ids.join(", ")
}

/// What Link's `onSuccess` gives to a frontend.
#[derive(Clone, Debug)]
pub struct LinkResult {
    /// The token to exchange.
    pub public_token: String,
    /// `onSuccess`'s second argument.
    pub metadata: Value,
    /// The item, which a frontend does not learn.
    pub item_id: String,
    /// The id by which the journal counts the public token, and of the access token of its first exchange. A frontend
    /// does not learn it.
    pub token_id: Uuid,
}

impl LinkResult {
    /// Returns the result as a frontend's `onSuccess` would hand it in: `{public_token, metadata}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "public_token": self.public_token, "metadata": self.metadata })
    }
}

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
        Self(Arc::new(State { common, vault: Vault::new(apps, capacity) }))
    }

    /// Links an item as Link does, always successfully: the caller handles `options.success`. With a link token of
    /// update mode it repairs that item's login instead.
    pub fn link(&self, options: &LinkOptions) -> Result<LinkResult, InvalidLink> {
        let token = match &options.link_token {
            Some(text) => Some(self.open_link_token(text)?),
            None => None,
        };
        let (state, now) = (&self.0, self.0.common.clock.now());
        let lifetime =
            options.code_lifetime.map_or(state.common.rules().code_lifetime, |seconds| {
                std::time::Duration::from_secs(seconds).min(LONGEST_CODE_LIFETIME)
            });
        let lifetime = Duration::try_from(lifetime).unwrap_or(Duration::MAX);
        let linked = match token.as_ref().and_then(|token| token.item.clone()) {
            Some(item) if item.state().removed => return Err(InvalidLink::Item),
            Some(item) => {
                locked(&item.state).login_required = false;
                state.vault.public_token(item, true, lifetime, now)
            }
            None => state.vault.link(self.request(options, token.as_deref(), lifetime)?, now),
        };
        Ok(self.result(linked))
    }

    fn open_link_token(&self, text: &str) -> Result<Arc<LinkToken>, InvalidLink> {
        let known = self.0.known_link_token(text);
        let open = known.filter(|known| self.0.common.clock.now() < known.expires_at);
        open.ok_or(InvalidLink::LinkToken)
    }

    fn request(
        &self,
        options: &LinkOptions,
        token: Option<&LinkToken>,
        lifetime: Duration,
    ) -> Result<LinkRequest, InvalidLink> {
        let client_id = options.client_id.as_deref();
        let app = match token {
            Some(token) => &token.app,
            None => self.0.vault.app(client_id).ok_or_else(|| {
                InvalidLink::App(client_id.unwrap_or("(the sandbox has none)").to_owned())
            })?,
        };
        let institution = match options.institution_id.as_deref() {
            Some(id) => {
                Institution::named(id).ok_or_else(|| InvalidLink::Institution(id.to_owned()))?
            }
            None => Institution::default(),
        };
        let username = checked("username", options.username.as_deref())?;
        let seed = username.map_or_else(
            || self.0.vault.mint.uuid().to_string(),
            |name| seed_of(institution, name),
        );
        let accounts = match &options.accounts {
            Some(masks) => {
                let sound = !masks.is_empty() && masks.len() <= MOST_ACCOUNTS;
                let sound = sound && masks.iter().all(|mask| (1..=10).contains(&mask.len()));
                if !sound {
                    return Err(InvalidLink::Length("accounts"));
                }
                accounts_with(&seed, masks)
            }
            None => accounts_of(&seed),
        };
        let user = checked("clientUserID", options.client_user_id.as_deref())?;
        let webhook = checked("webhook", options.webhook.as_deref())?;
        Ok(LinkRequest {
            app: Arc::clone(app),
            client_user_id: user
                .map(str::to_owned)
                .or_else(|| token.map(|token| token.client_user_id.clone())),
            institution,
            seed,
            accounts,
            products: token
                .map_or_else(|| vec!["transactions".to_owned()], |token| token.products.clone()),
            webhook: webhook
                .map(str::to_owned)
                .or_else(|| token.and_then(|token| token.webhook.clone())),
            lifetime,
        })
    }

    fn result(&self, linked: Linked) -> LinkResult {
        let Linked { public_token, id, item } = linked;
        let accounts: Vec<_> = item
            .accounts
            .iter()
            .map(|(id, account)| {
                json!({
                    "id": id,
                    "name": account.kind.name,
                    "mask": account.mask,
                    "type": account.kind.class,
                    "subtype": account.kind.subtype,
                    "verification_status": null,
                    "class_type": null,
                })
            })
            .collect();
        // A selection of one account is repeated in the fields of Link's first version.
        let only = match accounts.as_slice() {
            [only] => only.clone(),
            _ => json!({
                "id": null, "name": null, "mask": null, "type": null, "subtype": null,
                "verification_status": null, "class_type": null,
            }),
        };
        let metadata = json!({
            "status": null,
            "institution": { "name": item.institution.name, "institution_id": item.institution.id },
            "account_id": only.get("id"),
            "account": only,
            "accounts": accounts,
            "link_session_id": self.0.vault.mint.uuid(),
            "public_token": public_token,
            "transfer_status": null,
            "wallet": null,
        });
        LinkResult { public_token, metadata, item_id: item.id.clone(), token_id: id }
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
}

impl std::fmt::Debug for Plaid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plaid").finish_non_exhaustive()
    }
}

fn checked<'a>(name: &'static str, value: Option<&'a str>) -> Result<Option<&'a str>, InvalidLink> {
    match value {
        Some(text) if text.is_empty() || text.len() > LONGEST_TEXT => {
            Err(InvalidLink::Length(name))
        }
        other => Ok(other),
    }
}
