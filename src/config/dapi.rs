//! The settings about Dapi.

use std::time::Duration;

use url::{Host, Url};

use super::Reader;
use crate::common::secret::SecretText;

/// How Dapi is reached and how its answers are interpreted.
#[derive(Debug, Clone)]
pub struct DapiConfig {
    /// The base of all paths, without a trailing slash.
    pub base_url: Url,
    /// The path of the delinking call; Dapi's own SDKs disagree about it.
    pub delink_path: String,
    /// The time limit of an exchange. Also determines its lease.
    pub exchange_timeout: Duration,
    /// The time limit of any other call.
    pub call_timeout: Duration,
    /// How many calls one replica has in flight at most: the width of the gate.
    pub max_concurrent_calls: u32,
    /// Whether an exchange that was sent and stayed unanswered is tried again.
    pub exchange_probe: bool,
    /// Dapi's `type`s that mean, in answer to a delinking, that nothing is left to delink.
    pub gone_types: Vec<String>,
    /// Dapi's `type`s that mean, in answer to a call, that its token is dead.
    pub dead_types: Vec<String>,
    /// Dapi's `type`s after which no call is made until the user links the login again.
    pub attention_types: Vec<String>,
}

impl DapiConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let default = Url::parse("https://api.dapi.com/v2").ok();
        let base_url = reader.or("DAPI_BASE_URL", default, |text| base_url(text).map(Some));
        let delink_path = "/users/DelinkUser".to_owned();
        let mut gone_types = reader.list("DAPI_GONE_TYPES", upper_snake);
        if gone_types.is_empty() {
            gone_types = vec!["USER_DELINKED".to_owned(), "INVALID_CONNECTION".to_owned()];
        }
        let mut dead_types = reader.list("DAPI_DEAD_TYPES", upper_snake);
        if dead_types.is_empty() {
            dead_types.clone_from(&gone_types);
        }
        let mut attention_types = reader.list("DAPI_ATTENTION_TYPES", upper_snake);
        if attention_types.is_empty() {
            attention_types = ["INVALID_CREDENTIALS", "ACCOUNT_LOCKED"].map(str::to_owned).to_vec();
        }
        Some(Self {
            base_url: base_url?,
            delink_path: reader.or("DAPI_DELINK_PATH", delink_path, path),
            exchange_timeout: reader.seconds("DAPI_EXCHANGE_TIMEOUT", 120, 1..=600),
            call_timeout: reader.seconds("DAPI_CALL_TIMEOUT", 120, 1..=600),
            max_concurrent_calls: reader.number("DAPI_MAX_CONCURRENT_CALLS", 1024, 1..=100_000),
            exchange_probe: reader.switch("DAPI_EXCHANGE_PROBE", true),
            gone_types,
            dead_types,
            attention_types,
        })
    }

    /// Returns whether Dapi is played by a process on this machine, such as the sandbox.
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

/// The credentials of the app named `default`.
#[derive(Debug)]
pub struct DefaultApp {
    /// Dapi's application key, which is not a secret.
    pub app_key: String,
    /// Dapi's application secret.
    pub app_secret: SecretText,
}

impl DefaultApp {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let key_is_set = reader.is_set("DAPI_APP_KEY");
        let secret_is_set = reader.is_set("DAPI_APP_SECRET");
        let app_key = reader.optional("DAPI_APP_KEY", |text| {
            crate::common::text::check_line(text, 1024).map(|()| text.to_owned())
        });
        let app_secret = reader.secret("DAPI_APP_SECRET");
        if key_is_set && !secret_is_set {
            reader.mistake("DAPI_APP_SECRET", "is missing while DAPI_APP_KEY is set");
        }
        if secret_is_set && !key_is_set {
            reader.mistake("DAPI_APP_KEY", "is missing while DAPI_APP_SECRET is set");
        }
        Some(Self { app_key: app_key?, app_secret: app_secret? })
    }
}
