//! Links items: what a user does in Link, and what Link returns.
//!
//! May import: bank, handle, institution, item, link, sandbox calls, settings, vault.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use time::Duration;
use uuid::Uuid;

use super::handle::Plaid;
use super::institution::{Account, INSTITUTIONS, Institution, accounts_of, accounts_with};
use super::link::LinkToken;
use super::sandbox_calls::seed_of;
use super::vault::{LinkRequest, Linked};
use crate::sandbox::bank::FAILING_USERNAME;
use crate::sandbox::bounded::locked;
use crate::sandbox::settings::LONGEST_CODE_LIFETIME;

/// The longest text in the options, in bytes.
const LONGEST_TEXT: usize = 500;
/// The most accounts of an item.
const MOST_ACCOUNTS: usize = 50;
/// The longest mask of an account, in bytes; Plaid's have two to four.
const LONGEST_MASK: usize = 10;

/// What a user does in Link. Every field is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LinkOptions {
    /// The link token that opened Link. It determines the app, the user, the products and the webhook, and in update
    /// mode the item.
    pub link_token: Option<String>,
    /// An item that the user links again, as in update mode: the public token is of this item, and its exchange returns
    /// the item's access token if it has one.
    #[serde(rename = "itemID")]
    pub item_id: Option<String>,
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

impl LinkOptions {
    pub(super) fn succeeds(&self) -> bool {
        self.success != Some(false) && self.username.as_deref() != Some(FAILING_USERNAME)
    }
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
    #[error("the item is not known, or was removed")]
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

impl Plaid {
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
        let again = match options.item_id.as_deref() {
            Some(id) => Some(state.vault.item(id).ok_or(InvalidLink::Item)?),
            None => token.as_ref().and_then(|token| token.item.clone()),
        };
        let linked = match again {
            Some(item) if item.state().removed => return Err(InvalidLink::Item),
            Some(item) => {
                locked(&item.state).login_required = false;
                state.vault.public_token(item, true, lifetime, now)
            }
            None => state.vault.link(self.request(options, token.as_deref(), lifetime)?, now),
        };
        let result = self.result(linked);
        if let Some(token) = token {
            token.succeeded(&result.public_token, &result.metadata, now);
        }
        Ok(result)
    }

    /// Returns a link token that can be used.
    pub(super) fn open_link_token(&self, text: &str) -> Result<Arc<LinkToken>, InvalidLink> {
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
        let (institution, seed, accounts) = self.chosen(options)?;
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

    /// Returns the institution, the seed of its user, and the selected accounts.
    fn chosen(
        &self,
        options: &LinkOptions,
    ) -> Result<(&'static Institution, String, Vec<Account>), InvalidLink> {
        let institution = match options.institution_id.as_deref() {
            Some(id) => {
                Institution::named(id).ok_or_else(|| InvalidLink::Institution(id.to_owned()))?
            }
            None => Institution::default(),
        };
        let seed = checked("username", options.username.as_deref())?.map_or_else(
            || self.0.vault.mint.uuid().to_string(),
            |name| seed_of(institution, name),
        );
        let Some(masks) = &options.accounts else {
            let accounts = accounts_of(&seed);
            return Ok((institution, seed, accounts));
        };
        let sound = !masks.is_empty() && masks.len() <= MOST_ACCOUNTS;
        if !sound || masks.iter().any(|mask| mask.is_empty() || mask.len() > LONGEST_MASK) {
            return Err(InvalidLink::Length("accounts"));
        }
        let accounts = accounts_with(&seed, masks);
        Ok((institution, seed, accounts))
    }

    /// Returns the accounts from which a user selects, without ids: name, mask, type, subtype.
    pub(super) fn accounts(&self, options: &LinkOptions) -> Result<Vec<Value>, InvalidLink> {
        let (_, _, accounts) = self.chosen(options)?;
        let shown = accounts.iter().map(|account| {
            json!({
                "name": account.kind.name,
                "mask": account.mask,
                "type": account.kind.class,
                "subtype": account.kind.subtype,
            })
        });
        Ok(shown.collect())
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
}

fn checked<'a>(name: &'static str, value: Option<&'a str>) -> Result<Option<&'a str>, InvalidLink> {
    match value {
        Some(text) if text.is_empty() || text.len() > LONGEST_TEXT => {
            Err(InvalidLink::Length(name))
        }
        other => Ok(other),
    }
}
