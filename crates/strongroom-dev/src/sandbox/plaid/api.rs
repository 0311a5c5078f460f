//! Plaid's API without HTTP: maps a call to an answer.
//!
//! May import: every module of Plaid's side that holds rules or state, calls, common, settings.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use time::Duration;
use uuid::Uuid;

use super::answer::{Fields, Refusal, done, fields, reason};
use super::body::{Body, missing};
use super::data;
use super::endpoint::{Deed, Endpoint};
use super::institution::Institution;
use super::item::{Item, Token};
use super::link::{LinkToken, moment};
use super::sandbox_calls;
use super::sync;
use super::vault::{Vault, check_login};
use super::webhooks::{WebhookOptions, Webhooks};
use crate::sandbox::bounded::locked;
use crate::sandbox::common::Common;
use crate::sandbox::mint;
use crate::sandbox::settings::App;
use crate::sandbox::visit::Reply;

/// How long a link token lives: four hours, or half an hour in update mode.
const LINK_TOKEN_LIFETIME: Duration = Duration::hours(4);
const UPDATE_LINK_TOKEN_LIFETIME: Duration = Duration::minutes(30);

/// A request to Plaid's API, parsed but not checked.
pub(super) struct Call {
    pub(super) endpoint: &'static Endpoint,
    /// `PLAID-CLIENT-ID`.
    pub(super) client_id: Option<String>,
    /// `PLAID-SECRET`.
    pub(super) secret: Option<String>,
    pub(super) fields: Fields,
}

/// All state of Plaid's side.
pub(super) struct State {
    pub(super) common: Arc<Common>,
    pub(super) vault: Vault,
    pub(super) webhooks: Arc<Webhooks>,
}

/// A call's answer and its effect.
pub(super) struct Done {
    pub(super) reply: Reply,
    /// The id of the public token that was exchanged.
    pub(super) exchanged: Option<Uuid>,
}

impl State {
    /// Carries out a call.
    pub(super) fn perform(&self, call: &Call) -> Done {
        let request_id = self.vault.mint.request_id();
        let mut exchanged = None;
        let reply = match self.answer(call, &mut exchanged) {
            Ok(fields) => done(&request_id, fields),
            Err(refusal) => refusal.into_reply(&request_id),
        };
        Done { reply, exchanged }
    }

    fn answer(&self, call: &Call, exchanged: &mut Option<Uuid>) -> Result<Fields, Refusal> {
        let body = Body::new(&call.fields);
        let app = self.caller(call, body)?;
        match call.endpoint.deed {
            Deed::LinkTokenCreate => self.create_link_token(app, body),
            Deed::LinkTokenGet => self.link_token(app, body),
            Deed::Exchange => {
                let public_token = body.text("public_token")?;
                let token = self.exchange(app, public_token)?;
                *exchanged = self.vault.public_token_of(public_token).map(|known| known.id);
                Ok(fields(json!({
                    "access_token": self.vault.text_of(token.id),
                    "item_id": token.item.id,
                })))
            }
            Deed::Institution => institution(body),
            Deed::VerificationKey => self.verification_key(body),
            Deed::SandboxPublicToken => sandbox_calls::public_token(self, app, body),
            _ => self.with_token(call.endpoint.deed, app, body),
        }
    }

    /// Returns the app whose credentials the call carries, in its headers or in its body.
    fn caller(&self, call: &Call, body: Body<'_>) -> Result<&Arc<App>, Refusal> {
        let in_body = |name| body.text_if_given(name);
        let client_id =
            call.client_id.as_deref().map_or_else(|| in_body("client_id"), |id| Ok(Some(id)))?;
        let secret =
            call.secret.as_deref().map_or_else(|| in_body("secret"), |secret| Ok(Some(secret)))?;
        let client_id = client_id.ok_or_else(|| missing("client_id"))?;
        let secret = secret.ok_or_else(|| missing("secret"))?;
        self.vault.authenticate(client_id, secret)
    }

    fn exchange(&self, app: &Arc<App>, public_token: &str) -> Result<Arc<Token>, Refusal> {
        let (rules, now) = (self.common.rules(), self.common.clock.now());
        self.vault.exchange(app, public_token, &rules, now)
    }

    /// Carries out a call that needs an access token.
    fn with_token(&self, deed: Deed, app: &Arc<App>, body: Body<'_>) -> Result<Fields, Refusal> {
        let rules = self.common.rules();
        let token = self.vault.admit(app, body.text("access_token")?, &rules)?;
        let item = &token.item;
        match deed {
            Deed::Remove => {
                locked(&item.state).removed = true;
                Ok(Fields::new())
            }
            Deed::Item => Ok(fields(json!({ "item": item.to_json(), "status": status(item) }))),
            Deed::Invalidate => {
                let new = self.vault.invalidate(&token, self.common.clock.now())?;
                Ok(fields(json!({ "new_access_token": self.vault.text_of(new.id) })))
            }
            Deed::WebhookUpdate => {
                let webhook = body.text_if_given("webhook")?.filter(|url| !url.is_empty());
                locked(&item.state).webhook = webhook.map(str::to_owned);
                Ok(fields(json!({ "item": item.to_json() })))
            }
            Deed::SandboxResetLogin => Ok(sandbox_calls::reset_login(self, item)),
            Deed::SandboxFireWebhook => sandbox_calls::fire_webhook(self, item, body),
            _ => data_of(deed, item, body),
        }
    }

    fn verification_key(&self, body: Body<'_>) -> Result<Fields, Refusal> {
        let key = self.webhooks.keys.find(body.text("key_id")?).ok_or_else(|| {
            reason::INVALID_WEBHOOK_VERIFICATION_KEY_ID.because("invalid key_id provided")
        })?;
        Ok(fields(json!({ "key": key.to_jwk() })))
    }

    /// Sends a webhook to an item's URL in a task of its own. Returns whether it has one.
    pub(super) fn notify(&self, item: &Item, options: &WebhookOptions) -> bool {
        let Some(url) = item.state().webhook else { return false };
        let (mint, now) = (&self.vault.mint, self.common.clock.now());
        if let Some(webhook) = self.webhooks.make(item, options, mint, now)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(self.webhooks.send(url, webhook));
        }
        true
    }

    fn create_link_token(&self, app: &Arc<App>, body: Body<'_>) -> Result<Fields, Refusal> {
        let now = self.common.clock.now();
        let item = match body.text_if_given("access_token")? {
            Some(token) => {
                Some(Arc::clone(&self.vault.admit(app, token, &self.common.rules())?.item))
            }
            None => None,
        };
        let products = match &item {
            Some(item) => item.products.clone(),
            None => body.some_texts("products")?,
        };
        let lifetime =
            if item.is_some() { UPDATE_LINK_TOKEN_LIFETIME } else { LINK_TOKEN_LIFETIME };
        let link_token = LinkToken {
            app: Arc::clone(app),
            client_user_id: body.object("user")?.text("client_user_id")?.to_owned(),
            client_name: body.text("client_name")?.to_owned(),
            products,
            webhook: body.text_if_given("webhook")?.map(str::to_owned),
            item,
            created_at: now,
            expires_at: now.saturating_add(lifetime),
            country_codes: body.some_texts("country_codes")?,
            language: body.text("language")?.to_owned(),
            redirect_uri: body.value("redirect_uri"),
            sessions: Mutex::default(),
        };
        let expiration = moment(link_token.expires_at);
        let text = format!("link-sandbox-{}", self.vault.mint.uuid());
        locked(&self.vault.link_tokens).insert(mint::digest_of(&text), Arc::new(link_token));
        Ok(fields(json!({ "link_token": text, "expiration": expiration })))
    }

    fn link_token(&self, app: &Arc<App>, body: Body<'_>) -> Result<Fields, Refusal> {
        let text = body.text("link_token")?;
        let known = self.known_link_token(text).filter(|known| Arc::ptr_eq(&known.app, app));
        let known = known.ok_or_else(|| {
            reason::INVALID_LINK_TOKEN.because("could not find matching link token")
        })?;
        Ok(fields(known.to_json(text)))
    }

    /// Returns a link token, also an expired one.
    pub(super) fn known_link_token(&self, text: &str) -> Option<Arc<LinkToken>> {
        locked(&self.vault.link_tokens).get(&mint::digest_of(text)).cloned()
    }
}

/// Carries out a call for the data of an item.
fn data_of(deed: Deed, item: &Item, body: Body<'_>) -> Result<Fields, Refusal> {
    check_login(item)?;
    match deed {
        Deed::Auth => data::auth(item, body),
        Deed::Identity => data::identity(item, body),
        Deed::Transactions => data::transactions(item, body),
        Deed::TransactionsSync => sync::sync(item, body),
        _ => data::accounts(item, body),
    }
}

fn institution(body: Body<'_>) -> Result<Fields, Refusal> {
    body.some_texts("country_codes")?;
    let found = Institution::named(body.text("institution_id")?);
    let found = found
        .ok_or_else(|| reason::INVALID_INSTITUTION.because("invalid institution_id provided"))?;
    Ok(fields(json!({ "institution": found.to_json() })))
}

/// Returns the `status` of `/item/get`.
fn status(item: &Item) -> Value {
    json!({
        "investments": null,
        "transactions": { "last_successful_update": moment(item.created_at), "last_failed_update": null },
        "last_webhook": null,
    })
}
