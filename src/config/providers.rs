//! The settings about the bank links.

use std::time::Duration;

use url::{Host, Url};

use super::Reader;
use crate::common::secret::SecretText;
use crate::common::text::InvalidText;

/// How a provider is reached and how its answers are interpreted.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The base of all paths, without a trailing slash.
    pub base_url: Url,
    /// The time limit of an exchange. Also determines its lease.
    pub exchange_timeout: Duration,
    /// The time limit of any other call.
    pub call_timeout: Duration,
    /// Whether an exchange that was sent and stayed unanswered is tried again.
    pub exchange_probe: bool,
    /// The kinds of refusal that mean, in answer to a revocation, that nothing is left to revoke.
    pub gone_types: Vec<String>,
    /// The kinds of refusal that mean, in answer to a call, that its token is dead.
    pub dead_types: Vec<String>,
    /// The kinds of refusal after which no call is made until the user links the login again.
    pub attention_types: Vec<String>,
}

impl ProviderConfig {
    /// Returns whether the provider is played by a process on this machine, such as the sandbox.
    #[must_use]
    pub fn is_on_this_machine(&self) -> bool {
        match self.base_url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            None => false,
        }
    }
}

/// How all providers are reached.
#[derive(Debug, Clone)]
pub struct ProvidersConfig {
    /// Dapi.
    pub dapi: ProviderConfig,
    /// The path of Dapi's delinking call; its own SDKs disagree about it.
    pub delink_path: String,
    /// Plaid.
    pub plaid: ProviderConfig,
    /// How many calls one replica has in flight at most: the width of the gate.
    pub max_concurrent_calls: u32,
}

impl ProvidersConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let dapi = dapi(reader);
        let delink_path = "/users/DelinkUser".to_owned();
        let delink_path = reader.or("DAPI_DELINK_PATH", delink_path, path);
        let max_concurrent_calls = reader.number("DAPI_MAX_CONCURRENT_CALLS", 1024, 1..=100_000);
        let plaid = plaid(reader, dapi.as_ref());
        Some(Self { dapi: dapi?, delink_path, plaid: plaid?, max_concurrent_calls })
    }
}

fn dapi(reader: &mut Reader<'_>) -> Option<ProviderConfig> {
    let base_url = url_or(reader, "DAPI_BASE_URL", "https://api.dapi.com/v2");
    let types = |reader: &mut Reader<'_>, name, default: &[&str]| {
        let read = reader.list(name, upper_snake);
        if read.is_empty() { owned(default) } else { read }
    };
    let gone_types = types(reader, "DAPI_GONE_TYPES", &["USER_DELINKED", "INVALID_CONNECTION"]);
    let mut dead_types = types(reader, "DAPI_DEAD_TYPES", &[]);
    if dead_types.is_empty() {
        dead_types.clone_from(&gone_types);
    }
    let attention = ["INVALID_CREDENTIALS", "ACCOUNT_LOCKED"];
    Some(ProviderConfig {
        base_url: base_url?,
        exchange_timeout: reader.seconds("DAPI_EXCHANGE_TIMEOUT", 120, 1..=600),
        call_timeout: reader.seconds("DAPI_CALL_TIMEOUT", 120, 1..=600),
        exchange_probe: reader.switch("DAPI_EXCHANGE_PROBE", true),
        gone_types,
        dead_types,
        attention_types: types(reader, "DAPI_ATTENTION_TYPES", &attention),
    })
}

/// Reads the settings about Plaid. Its time limits are Dapi's unless they are set; what its `error_code`s mean is no
/// setting, because Plaid documents them.
fn plaid(reader: &mut Reader<'_>, dapi: Option<&ProviderConfig>) -> Option<ProviderConfig> {
    let seconds = |limit: fn(&ProviderConfig) -> Duration| {
        dapi.and_then(|dapi| u32::try_from(limit(dapi).as_secs()).ok()).unwrap_or(120)
    };
    let (exchange, call) =
        (seconds(|dapi| dapi.exchange_timeout), seconds(|dapi| dapi.call_timeout));
    let probe = dapi.is_none_or(|dapi| dapi.exchange_probe);
    let gone = ["ITEM_NOT_FOUND", "INVALID_ACCESS_TOKEN"];
    Some(ProviderConfig {
        base_url: url_or(reader, "PLAID_BASE_URL", "https://production.plaid.com")?,
        exchange_timeout: reader.seconds("PLAID_EXCHANGE_TIMEOUT", exchange, 1..=600),
        call_timeout: reader.seconds("PLAID_CALL_TIMEOUT", call, 1..=600),
        exchange_probe: reader.switch("PLAID_EXCHANGE_PROBE", probe),
        gone_types: owned(&gone),
        dead_types: owned(&gone),
        attention_types: owned(&["ITEM_LOGIN_REQUIRED"]),
    })
}

fn owned(types: &[&str]) -> Vec<String> {
    types.iter().map(|kind| (*kind).to_owned()).collect()
}

fn url_or(reader: &mut Reader<'_>, name: &str, default: &str) -> Option<Url> {
    reader.or(name, Url::parse(default).ok(), |text| base_url(text).map(Some))
}

fn base_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text.trim_end_matches('/')).ok();
    let sound = url.filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    sound.ok_or("must be an http(s) URL without credentials, query or fragment")
}

fn path(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    let sound = text.starts_with('/') && text.len() > 1 && text.chars().all(plain);
    sound.then(|| text.to_owned()).ok_or("must be a path such as /users/DelinkUser")
}

fn upper_snake(text: &str) -> Result<String, &'static str> {
    let sound = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    sound.then(|| text.to_owned()).ok_or("must be a type of Dapi's such as USER_DELINKED")
}

/// The credentials of an app that the environment describes: `default` at Dapi, `plaid` at Plaid.
#[derive(Debug)]
pub struct EnvironmentApp {
    /// Dapi's application key, Plaid's `client_id`; not a secret.
    pub app_key: String,
    /// Dapi's application secret, Plaid's `secret`.
    pub app_secret: SecretText,
}

impl EnvironmentApp {
    pub(super) fn read(
        reader: &mut Reader<'_>,
        key: &'static str,
        secret: &'static str,
        check: fn(&str, usize) -> Result<(), InvalidText>,
    ) -> Option<Self> {
        let (key_is_set, secret_is_set) = (reader.is_set(key), reader.is_set(secret));
        let app_key = reader.optional(key, |text| check(text, 1024).map(|()| text.to_owned()));
        let app_secret = reader.secret(secret);
        if let Some(Err(mistake)) = app_secret.as_ref().map(|text| check(text.expose(), 4096)) {
            reader.mistake(secret, mistake);
        }
        if key_is_set && !secret_is_set {
            reader.mistake(secret, format_args!("is missing while {key} is set"));
        }
        if secret_is_set && !key_is_set {
            reader.mistake(key, format_args!("is missing while {secret} is set"));
        }
        Some(Self { app_key: app_key?, app_secret: app_secret? })
    }
}
