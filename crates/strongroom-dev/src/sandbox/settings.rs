//! The sandbox's settings at the start, and the rules that can change while it runs.
//!
//! Imports no other module of the sandbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use strongroom_common::secret::SecretText;

/// The key of the app that a sandbox has by default.
pub const DEFAULT_APP_KEY: &str = "sandbox-app-key";
/// The secret of the app that a sandbox has by default. It guards nothing.
pub const DEFAULT_APP_SECRET: &str = "sandbox-app-secret";

/// The client id that a sandbox knows at Plaid's side by default.
pub const DEFAULT_PLAID_CLIENT_ID: &str = "sandbox-plaid-client-id";
/// The secret of the default client at Plaid's side. It guards nothing.
pub const DEFAULT_PLAID_SECRET: &str = "sandbox-plaid-secret";

const DEFAULT_CAPACITY: usize = 100_000;
const DEFAULT_WORKERS: usize = 2;
const HALF_AN_HOUR: Duration = Duration::from_mins(30);
/// Ten years: a longer one would leave the calendar's range.
pub(super) const LONGEST_CODE_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// Dapi's own time limit is at most 240 s.
pub(super) const LONGEST_DELAY: Duration = Duration::from_mins(10);

/// An application, as the dashboard of Dapi or Plaid would list it.
#[derive(Clone, Debug)]
pub struct App {
    /// The app's public id: Dapi's app key, in codes, in tokens, in `operation/get`; Plaid's client id.
    pub key: String,
    /// What the app's backends send as Dapi's `appSecret` or Plaid's `secret`.
    pub secret: SecretText,
}

/// The settings of a sandbox at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The apps. Connect uses the first unless another is requested.
    pub apps: Vec<App>,
    /// The apps at Plaid's side. Link uses the first unless another is requested.
    pub plaid_apps: Vec<App>,
    /// The rules at the start.
    pub rules: Rules,
    /// How many logins, codes and tokens are kept, each; beyond that the oldest is evicted. One of each takes about
    /// two kilobytes in total.
    pub capacity: usize,
    /// The number of threads that serve requests.
    pub workers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            apps: vec![App {
                key: DEFAULT_APP_KEY.to_owned(),
                secret: SecretText::new(DEFAULT_APP_SECRET.to_owned()),
            }],
            plaid_apps: vec![App {
                key: DEFAULT_PLAID_CLIENT_ID.to_owned(),
                secret: SecretText::new(DEFAULT_PLAID_SECRET.to_owned()),
            }],
            rules: Rules::default(),
            capacity: DEFAULT_CAPACITY,
            workers: DEFAULT_WORKERS,
        }
    }
}

/// The answer to a second exchange of one code. Neither Dapi nor Plaid documents which of the three, so callers
/// must be ready for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecondExchange {
    /// A refusal.
    #[default]
    Refuse,
    /// The token of the first exchange.
    SameToken,
    /// Another token, with its own `tokenID`.
    MintAnother,
}

/// What a delink ends. Dapi's documentation speaks of "the user" in some places and "the token" in others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DelinkCuts {
    /// The token of the call.
    #[default]
    Token,
    /// Every token of the same `connectionID` and `userID`.
    Login,
}

/// The `error_code` of a call with the access token of an item that Plaid no longer has. Its documentation names
/// both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RemovedItem {
    /// `ITEM_NOT_FOUND`.
    #[default]
    ItemNotFound,
    /// `INVALID_ACCESS_TOKEN`.
    InvalidAccessToken,
}

/// Which calls ask the user for a one-time password. Auth, metadata and operation calls never do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mfa {
    /// Calls that move money.
    #[default]
    Transfers,
    /// All data, payment, ach, wire and batch calls.
    Everything,
    /// None.
    Never,
}

/// The rules that can change while the sandbox runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The answer to a second exchange of one code.
    pub second_exchange: SecondExchange,
    /// What a delink ends.
    pub delink_cuts: DelinkCuts,
    /// What calls with the token of a removed item answer at Plaid's side.
    pub removed_item: RemovedItem,
    /// Which calls ask for a one-time password.
    pub mfa: Mfa,
    /// Whether concurrent calls with one token all fail, as they do at Dapi.
    pub one_call_per_token: bool,
    /// The lifetime of a code unless Connect is given another.
    pub code_lifetime: Duration,
    /// The minimum duration of a call to Dapi's API.
    pub latency: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            second_exchange: SecondExchange::default(),
            delink_cuts: DelinkCuts::default(),
            removed_item: RemovedItem::default(),
            mfa: Mfa::default(),
            one_call_per_token: true,
            code_lifetime: HALF_AN_HOUR,
            latency: Duration::ZERO,
        }
    }
}

impl Rules {
    /// Returns the rules as the control API shows them; [`RulesChange`] reads the same names.
    pub(super) fn to_json(self) -> serde_json::Value {
        serde_json::json!({
            "secondExchange": self.second_exchange,
            "delinkCuts": self.delink_cuts,
            "removedItem": self.removed_item,
            "mfa": self.mfa,
            "oneCallPerToken": self.one_call_per_token,
            "codeLifetime": self.code_lifetime.as_secs(),
            "latencyMillis": u64::try_from(self.latency.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// New values for some of the rules. An absent one does not change.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RulesChange {
    /// See [`Rules::second_exchange`].
    pub second_exchange: Option<SecondExchange>,
    /// See [`Rules::delink_cuts`].
    pub delink_cuts: Option<DelinkCuts>,
    /// See [`Rules::removed_item`].
    pub removed_item: Option<RemovedItem>,
    /// See [`Rules::mfa`].
    pub mfa: Option<Mfa>,
    /// See [`Rules::one_call_per_token`].
    pub one_call_per_token: Option<bool>,
    /// See [`Rules::code_lifetime`]; in seconds.
    pub code_lifetime: Option<u64>,
    /// See [`Rules::latency`]; in milliseconds.
    pub latency_millis: Option<u64>,
}

impl RulesChange {
    /// Applies this change; clamps times to their limits.
    pub(super) fn applied_to(self, rules: Rules) -> Rules {
        let seconds = |value: u64| Duration::from_secs(value).min(LONGEST_CODE_LIFETIME);
        let millis = |value: u64| Duration::from_millis(value).min(LONGEST_DELAY);
        Rules {
            second_exchange: self.second_exchange.unwrap_or(rules.second_exchange),
            delink_cuts: self.delink_cuts.unwrap_or(rules.delink_cuts),
            removed_item: self.removed_item.unwrap_or(rules.removed_item),
            mfa: self.mfa.unwrap_or(rules.mfa),
            one_call_per_token: self.one_call_per_token.unwrap_or(rules.one_call_per_token),
            code_lifetime: self.code_lifetime.map_or(rules.code_lifetime, seconds),
            latency: self.latency_millis.map_or(rules.latency, millis),
        }
    }
}
