//! Calls that only Plaid's sandbox has (`/sandbox/…`): an item without Link, and a login that has to be repaired.
//!
//! May import: answer, api, body, institution, item, vault, webhooks.

use std::sync::Arc;

use serde_json::json;
use time::Duration;

use super::answer::{Fields, Refusal, fields, reason};
use super::api::State;
use super::body::Body;
use super::institution::{Institution, accounts_of};
use super::item::Item;
use super::vault::LinkRequest;
use super::webhooks::WebhookOptions;
use crate::sandbox::bounded::locked;
use crate::sandbox::settings::App;

/// The user name that `/sandbox/public_token/create` uses by default.
const DEFAULT_USERNAME: &str = "user_good";

/// Returns the seed of a user at an institution.
pub(super) fn seed_of(institution: &Institution, username: &str) -> String {
    format!("{}/{username}", institution.id)
}

/// `/sandbox/public_token/create`.
pub(super) fn public_token(
    state: &State,
    app: &Arc<App>,
    body: Body<'_>,
) -> Result<Fields, Refusal> {
    let institution = Institution::named(body.text("institution_id")?)
        .ok_or_else(|| reason::INVALID_INSTITUTION.because("invalid institution_id provided"))?;
    let (webhook, username) = match body.object_if_given("options")? {
        Some(options) => {
            (options.text_if_given("webhook")?, options.text_if_given("override_username")?)
        }
        None => (None, None),
    };
    let seed = seed_of(institution, username.unwrap_or(DEFAULT_USERNAME));
    let request = LinkRequest {
        app: Arc::clone(app),
        client_user_id: None,
        institution,
        accounts: accounts_of(&seed),
        seed,
        products: body.some_texts("initial_products")?,
        webhook: webhook.filter(|url| !url.is_empty()).map(str::to_owned),
        lifetime: Duration::try_from(state.common.rules().code_lifetime).unwrap_or(Duration::MAX),
    };
    let linked = state.vault.link(request, state.common.clock.now());
    Ok(fields(json!({ "public_token": linked.public_token })))
}

/// `/sandbox/item/reset_login`.
pub(super) fn reset_login(state: &State, item: &Item) -> Fields {
    locked(&item.state).login_required = true;
    state.notify(item, &WebhookOptions::new("ERROR"));
    fields(json!({ "reset_login": true }))
}

/// `/sandbox/item/fire_webhook`.
pub(super) fn fire_webhook(state: &State, item: &Item, body: Body<'_>) -> Result<Fields, Refusal> {
    let options = WebhookOptions {
        webhook_type: body.text_if_given("webhook_type")?.map(str::to_owned),
        ..WebhookOptions::new(body.text("webhook_code")?)
    };
    if state.notify(item, &options) {
        return Ok(fields(json!({ "webhook_fired": true })));
    }
    Err(reason::SANDBOX_WEBHOOK_INVALID.because("no webhook is set for this item"))
}
