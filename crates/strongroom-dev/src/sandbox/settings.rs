//! What the sandbox is told at its start, and the rules that can be changed while it runs.
//!
//! Knows nothing else of the sandbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use strongroom_common::secret::SecretText;

/// The key of the app that a sandbox has where nothing else is said.
pub const DEFAULT_APP_KEY: &str = "sandbox-app-key";
/// The secret of the app that a sandbox has where nothing else is said. It guards nothing.
pub const DEFAULT_APP_SECRET: &str = "sandbox-app-secret";

const DEFAULT_CAPACITY: usize = 100_000;
const DEFAULT_WORKERS: usize = 2;
const HALF_AN_HOUR: Duration = Duration::from_mins(30);
/// Ten years: longer makes no sense and would leave the calendar.
pub(super) const LONGEST_CODE_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// Dapi's own time limit is 240 s at the most.
pub(super) const LONGEST_DELAY: Duration = Duration::from_mins(10);

/// An application as Dapi's dashboard would list it.
#[derive(Clone, Debug)]
pub struct App {
    /// Names the app in public: in codes, in tokens, in `operation/get`.
    pub key: String,
    /// What the app's backends send as `appSecret`.
    pub secret: SecretText,
}

/// How a sandbox starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The apps that it knows. Connect uses the first where it is told no other.
    pub apps: Vec<App>,
    /// The rules at the start.
    pub rules: Rules,
    /// How many logins, codes and tokens are kept, each; beyond that the oldest is forgotten. One
    /// of each together takes about two kilobytes.
    pub capacity: usize,
    /// Threads that answer requests.
    pub workers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            apps: vec![App {
                key: DEFAULT_APP_KEY.to_owned(),
                secret: SecretText::new(DEFAULT_APP_SECRET.to_owned()),
            }],
            rules: Rules::default(),
            capacity: DEFAULT_CAPACITY,
            workers: DEFAULT_WORKERS,
        }
    }
}

/// What happens when a code that was already exchanged comes again. Dapi documents none of the
/// three, so whoever calls it has to be ready for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecondExchange {
    /// It is refused.
    #[default]
    Refuse,
    /// The answer is the token that the first exchange gave.
    SameToken,
    /// The answer is another token, with a `tokenID` of its own.
    MintAnother,
}

/// What a delink ends. Dapi's documentation speaks of "the user" and of "the token" by turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DelinkCuts {
    /// The token that the call was made with.
    #[default]
    Token,
    /// Every token of the same `connectionID` and `userID`.
    Login,
}

/// Which calls ask the user for a one-time password. Auth, metadata and operation calls never do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mfa {
    /// Those that move money.
    #[default]
    Transfers,
    /// All data, payment, ach, wire and batch calls.
    Everything,
    /// None.
    Never,
}

/// The rules that can be changed while the sandbox runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The answer to a second exchange of one code.
    pub second_exchange: SecondExchange,
    /// What a delink ends.
    pub delink_cuts: DelinkCuts,
    /// Which calls ask for a one-time password.
    pub mfa: Mfa,
    /// Whether two calls at once with one token all fail, as they do at Dapi.
    pub one_call_per_token: bool,
    /// How long a code lives where Connect is told nothing else.
    pub code_lifetime: Duration,
    /// How long every call to Dapi's API takes, at least.
    pub latency: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            second_exchange: SecondExchange::default(),
            delink_cuts: DelinkCuts::default(),
            mfa: Mfa::default(),
            one_call_per_token: true,
            code_lifetime: HALF_AN_HOUR,
            latency: Duration::ZERO,
        }
    }
}

impl Rules {
    /// The rules as the control API shows them; a [`RulesChange`] reads the same names.
    pub(super) fn to_json(self) -> serde_json::Value {
        serde_json::json!({
            "secondExchange": self.second_exchange,
            "delinkCuts": self.delink_cuts,
            "mfa": self.mfa,
            "oneCallPerToken": self.one_call_per_token,
            "codeLifetime": self.code_lifetime.as_secs(),
            "latencyMillis": u64::try_from(self.latency.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// New values for some of the rules. What is left out stays as it is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RulesChange {
    /// See [`Rules::second_exchange`].
    pub second_exchange: Option<SecondExchange>,
    /// See [`Rules::delink_cuts`].
    pub delink_cuts: Option<DelinkCuts>,
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
    /// The rules after this change; times are cut to what makes sense.
    pub(super) fn applied_to(self, rules: Rules) -> Rules {
        let seconds = |value: u64| Duration::from_secs(value).min(LONGEST_CODE_LIFETIME);
        let millis = |value: u64| Duration::from_millis(value).min(LONGEST_DELAY);
        Rules {
            second_exchange: self.second_exchange.unwrap_or(rules.second_exchange),
            delink_cuts: self.delink_cuts.unwrap_or(rules.delink_cuts),
            mfa: self.mfa.unwrap_or(rules.mfa),
            one_call_per_token: self.one_call_per_token.unwrap_or(rules.one_call_per_token),
            code_lifetime: self.code_lifetime.map_or(rules.code_lifetime, seconds),
            latency: self.latency_millis.map_or(rules.latency, millis),
        }
    }
}
