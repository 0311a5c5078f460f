//! [`Sandbox`]: the in-process handle, with the same capabilities as the control API over HTTP.
//!
//! May import: api, bank, calls, faults, mint, model, plaid, settings.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::api::{State, spelling};
use super::bank::{Bank, FAILING_USERNAME};
use super::calls::{CallReport, CodeCount};
use super::faults::{Fault, InvalidFault, SetFault};
use super::mint;
use super::model::{LinkRequest, Linked, Token};
use super::plaid::Plaid;
use super::settings::{LONGEST_CODE_LIFETIME, Rules, RulesChange, Settings};
use strongroom_common::clock::Clock;

/// The longest `connectionID`, `clientUserID` or user name, in bytes.
const LONGEST_NAME: usize = 200;

/// A sandbox. Clones share its state.
#[derive(Clone)]
pub struct Sandbox(pub(super) Arc<State>);

/// What a user does in Connect. Every field is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectOptions {
    /// The app; the sandbox's first if absent.
    pub app_key: Option<String>,
    /// The app's own name for its user; determines the `userID`.
    #[serde(rename = "clientUserID")]
    pub client_user_id: Option<String>,
    /// The login; a known one is linked again, an unknown one is created. If absent, it is derived from the user, the
    /// bank and the user name if there is one, and random otherwise.
    #[serde(rename = "connectionID")]
    pub connection_id: Option<String>,
    /// The bank's id.
    pub bank: Option<String>,
    /// The user's name at the bank.
    pub username: Option<String>,
    /// The code's lifetime in seconds.
    pub code_lifetime: Option<u64>,
    /// Whether the code is opaque instead of a JWT.
    pub opaque: bool,
    /// `false` makes the user fail at the bank.
    pub success: Option<bool>,
}

impl ConnectOptions {
    pub(super) fn succeeds(&self) -> bool {
        self.success != Some(false) && self.username.as_deref() != Some(FAILING_USERNAME)
    }
}

/// Why Connect refused the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConnect {
    /// The sandbox has no such app.
    #[error("`appKey`: the sandbox has no app `{0}`")]
    App(String),
    /// There is no such bank.
    #[error("`bank`: there is no bank `{0}`; one of: {banks}", banks = bank_ids())]
    Bank(String),
    /// A text is empty or too long.
    #[error("`{0}` has to be 1 to {LONGEST_NAME} bytes long")]
    Length(&'static str),
}

fn bank_ids() -> String {
    let ids: Vec<_> = super::bank::BANKS.iter().map(|bank| bank.id).collect();
    ids.join(", ")
}

/// Connect's result for a frontend after success.
#[derive(Clone)]
pub struct ConnectResult {
    /// The code to exchange for a token.
    pub access_code: String,
    /// The id of the login.
    pub connection_id: String,
    /// The user secret, which every call with the token needs.
    pub user_secret: String,
    /// The id of the user.
    pub user_id: String,
    /// The id of the token that the exchange will return.
    pub token_id: Uuid,
}

impl ConnectResult {
    /// Returns the result as Connect gives it to a frontend.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "success": true,
            "accessCode": self.access_code,
            "connectionID": self.connection_id,
            "userSecret": self.user_secret,
            "userID": self.user_id,
            "tokenID": self.token_id,
        })
    }
}

/// The state of a token, without its text.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenInfo {
    /// The token's id.
    #[serde(rename = "tokenID")]
    pub token_id: Uuid,
    /// The login that it belongs to.
    #[serde(rename = "connectionID")]
    pub connection_id: String,
    /// The app that it was issued to.
    pub app_key: String,
    /// When it was issued.
    #[serde(with = "time::serde::rfc3339")]
    pub issued_at: OffsetDateTime,
    /// Whether it works.
    pub live: bool,
    /// If it does not work, the `type` of the refusal.
    pub died_of: Option<String>,
}

impl From<&Arc<Token>> for TokenInfo {
    fn from(token: &Arc<Token>) -> Self {
        let died_of = token.died_of();
        Self {
            token_id: token.id,
            connection_id: token.login().connection_id.clone(),
            app_key: token.login().app.key.clone(),
            issued_at: token.issued_at,
            live: died_of.is_none(),
            died_of: died_of.map(Cow::into_owned),
        }
    }
}

impl Sandbox {
    /// Creates a sandbox that knows its apps and nothing else.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::with_clock(settings, Clock::system())
    }

    /// Creates a sandbox that follows `clock`.
    #[must_use]
    pub fn with_clock(settings: Settings, clock: Clock) -> Self {
        Self(Arc::new(State::new(settings, clock)))
    }

    /// Returns the clock that determines a code's window; tests advance it.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.common.clock
    }

    /// Returns the current rules.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.0.common.rules()
    }

    /// Changes some of the rules, for calls that arrive from now on.
    pub fn change_rules(&self, change: RulesChange) {
        self.0.common.set_rules(|rules| change.applied_to(rules));
    }

    /// Links a login as Connect does, always successfully: the caller handles `options.success`.
    pub fn connect(&self, options: &ConnectOptions) -> Result<ConnectResult, InvalidConnect> {
        let request = self.link_request(options)?;
        let Linked { access_code, connection_id, user_secret, user_id, token_id } =
            self.0.links.link(request, self.0.common.clock.now());
        Ok(ConnectResult { access_code, connection_id, user_secret, user_id, token_id })
    }

    fn link_request(&self, options: &ConnectOptions) -> Result<LinkRequest, InvalidConnect> {
        let key = options.app_key.as_deref();
        let app = self.0.links.app(key).ok_or_else(|| {
            InvalidConnect::App(key.unwrap_or("(the sandbox has none)").to_owned())
        })?;
        let bank = match options.bank.as_deref() {
            Some(id) => Some(Bank::named(id).ok_or_else(|| InvalidConnect::Bank(id.to_owned()))?),
            None => None,
        };
        let user = checked("clientUserID", options.client_user_id.as_deref())?;
        let username = checked("username", options.username.as_deref())?;
        let connection_id = match checked("connectionID", options.connection_id.as_deref())? {
            Some(id) => id.to_owned(),
            None => username.map_or_else(
                || self.0.links.mint.connection_id(),
                |name| {
                    mint::connection_id_of(&format!("{key:?}/{user:?}/{:?}/{name}", options.bank))
                },
            ),
        };
        let owner = user.unwrap_or(&connection_id);
        let lifetime = options.code_lifetime.map_or(self.rules().code_lifetime, |seconds| {
            std::time::Duration::from_secs(seconds).min(LONGEST_CODE_LIFETIME)
        });
        Ok(LinkRequest {
            user_id: mint::id_of(&format!("{}/{owner}", app.key)),
            app: Arc::clone(app),
            connection_id,
            bank,
            lifetime: Duration::try_from(lifetime).unwrap_or(Duration::MAX),
            opaque: options.opaque,
        })
    }

    /// Returns the handle of Plaid's side.
    #[must_use]
    pub fn plaid(&self) -> Plaid {
        self.0.plaid.clone()
    }

    /// Adds a fault after those that are set.
    pub fn set_fault(&self, fault: Fault) -> Result<SetFault, InvalidFault> {
        self.0.common.faults.set(fault)
    }

    /// Returns the faults that are set and have applications left.
    #[must_use]
    pub fn faults(&self) -> Vec<SetFault> {
        self.0.common.faults.all()
    }

    /// Clears all faults; hanging calls are cut off.
    pub fn clear_faults(&self) {
        self.0.common.faults.clear();
    }

    /// Returns the number of calls to an endpoint, such as `auth/ExchangeToken` or `plaid/item/remove`.
    #[must_use]
    pub fn calls_to(&self, path: &str) -> u64 {
        spelling(path).map_or(0, |path| self.0.common.calls.count(path))
    }

    /// Waits until an endpoint was called `count` times. Forever, if there is no such endpoint.
    pub async fn calls_reached(&self, path: &str, count: u64) {
        let path = spelling(path).unwrap_or(path);
        self.0.common.calls.reached(path, count).await;
    }

    /// Returns how often the code of this `tokenID`, Dapi's or Plaid's, was presented for exchange.
    #[must_use]
    pub fn calls_of_code(&self, token_id: Uuid) -> CodeCount {
        self.0.common.calls.code(token_id)
    }

    /// Returns the journal with its newest calls.
    #[must_use]
    pub fn calls(&self, limit: usize) -> CallReport {
        self.0.common.calls.report(limit, |_| true)
    }

    /// Clears the journal.
    pub fn forget_calls(&self) {
        self.0.common.calls.forget();
    }

    /// Returns the newest tokens.
    #[must_use]
    pub fn tokens(&self, limit: usize) -> Vec<TokenInfo> {
        let tokens = self.0.links.newest_tokens(limit);
        tokens.iter().map(TokenInfo::from).collect()
    }

    /// Revokes all current tokens of the other systems; new ones are valid.
    pub fn revoke_system_tokens(&self) {
        self.0.grants.revoke_all();
    }

    /// Ends a token as if the user had unlinked it at the bank: calls with it are refused with `kind`. A dead token
    /// keeps its first `kind`. Returns `None` if there is no such token.
    #[must_use]
    pub fn kill_token(&self, token_id: Uuid, kind: &str) -> Option<TokenInfo> {
        let token = self.0.links.token_by_id(token_id)?;
        token.kill(Cow::Owned(kind.to_owned()));
        Some(TokenInfo::from(&token))
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("rules", &self.rules()).finish_non_exhaustive()
    }
}

fn checked<'a>(
    name: &'static str,
    value: Option<&'a str>,
) -> Result<Option<&'a str>, InvalidConnect> {
    match value {
        Some(text) if text.is_empty() || text.len() > LONGEST_NAME => {
            Err(InvalidConnect::Length(name))
        }
        other => Ok(other),
    }
}
