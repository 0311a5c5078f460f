//! The settings of an upstream and their validation, and its view. No I/O.

mod view;

pub use view::{Failure, LastFailure, TokenTimes, Upstream};

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr};

use super::ClientSecret;
use crate::common::named::named;
use crate::common::text;
use crate::outbound::{MAX_URL, OutboundUrl, Reach};

/// The maximum length of a client id, client secret, scope or parameter, in bytes.
const MAX_TEXT: usize = 4096;
/// The maximum number of extra parameters in a token request.
const MAX_PARAMETERS: usize = 16;
/// The maximum length of the name of an extra parameter, in bytes.
const MAX_PARAMETER_NAME: usize = 256;
/// The maximum length of a name, in bytes.
const MAX_UPSTREAM_NAME: usize = 63;
/// Parameters that every token request has, and that extra ones may not replace.
const OWN_PARAMETERS: [&str; 4] = ["grant_type", "client_id", "client_secret", "scope"];

/// The pattern of a client id or secret: `*VSCHAR` (RFC 6749 appendix A) that is not blank.
const VISIBLE: &str = r"^[\u0020-\u007e]*[\u0021-\u007e][\u0020-\u007e]*$";
/// The pattern of [`scope`].
const SCOPE: &str = r"^([!#-\[\]-~]+( [!#-\[\]-~]+)*)?$";

text::text_schemas! {
    /// What an upstream is called in paths.
    UpstreamName, "^[a-z0-9][a-z0-9-]*$", 1 to MAX_UPSTREAM_NAME, "danaconnect";
    /// A client id or secret that an upstream gave.
    UpstreamCredential, VISIBLE, 1 to MAX_TEXT, "9f3c2ab1";
    /// A URL without credentials or fragment: https, or http if private addresses are allowed. Empty counts as left out.
    UpstreamURL, "^(https?://[^\\s]+)?$", 0 to MAX_URL, "https://auth.danaconnect.com/oauth2/token";
    /// Scopes with a space between them; none counts as left out.
    UpstreamScope, SCOPE, 0 to MAX_TEXT, "conversation:access2api";
}

/// Further parameters of a token request.
#[derive(Debug)]
pub struct UpstreamParameters;

impl utoipa::PartialSchema for UpstreamParameters {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let value = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_TEXT))
            .pattern(Some(text::TEXT));
        let name = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_PARAMETER_NAME))
            .pattern(Some(text::TEXT));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .property_names(Some(name.build()))
            .additional_properties(Some(RefOr::T(utoipa::openapi::Schema::from(value.build()))))
            .max_properties(Some(MAX_PARAMETERS))
            .examples([serde_json::json!({ "audience": "https://api.example.com" })])
            .build()
            .into()
    }
}

impl ToSchema for UpstreamParameters {}

/// How client id and secret reach the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[schema(as = UpstreamAuth)]
pub enum Auth {
    /// HTTP Basic, both halves form-encoded (RFC 6749 §2.3.1).
    Basic,
    /// In the form body (RFC 6749 §2.3.1).
    Form,
    /// The whole request as JSON, which no RFC knows and some systems want.
    Json,
}

named!(Auth {
    Basic => "basic",
    Form => "form",
    Json => "json",
}, parse);

/// Settings of a system that is known; whatever is given beside it goes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[schema(as = UpstreamPreset)]
pub enum Preset {
    /// DANAConnect: its token URL, Basic, scope `conversation:access2api`, its API v2.
    Danaconnect,
    /// Kaisa: id and secret in the form; the token URL is your installation's.
    Kaisa,
    /// Any other: Basic; give the token URL.
    Generic,
}

impl Preset {
    const fn token_url(self) -> Option<&'static str> {
        match self {
            Self::Danaconnect => Some("https://auth.danaconnect.com/oauth2/token"),
            Self::Kaisa | Self::Generic => None,
        }
    }

    const fn auth(self) -> Auth {
        match self {
            Self::Danaconnect | Self::Generic => Auth::Basic,
            Self::Kaisa => Auth::Form,
        }
    }

    const fn scope(self) -> Option<&'static str> {
        match self {
            Self::Danaconnect => Some("conversation:access2api"),
            Self::Kaisa | Self::Generic => None,
        }
    }

    const fn base_url(self) -> Option<&'static str> {
        match self {
            Self::Danaconnect => Some("https://appserv.danaconnect.com/api/2.0"),
            Self::Kaisa | Self::Generic => None,
        }
    }
}

/// An upstream to be added.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UpstreamRequest)]
pub struct Draft {
    /// What it is called in paths: lower-case letters, digits and hyphens.
    #[schema(value_type = UpstreamName)]
    pub name: Option<String>,
    /// A system whose settings are known.
    pub preset: Option<Preset>,
    /// Where tokens come from: https, without credentials or fragment.
    #[serde(rename = "tokenURL")]
    #[schema(value_type = Option<UpstreamURL>)]
    pub token_url: Option<String>,
    /// The id by which the upstream knows this app.
    #[serde(rename = "clientID")]
    #[schema(value_type = UpstreamCredential)]
    pub client_id: Option<String>,
    /// The secret; never shown again.
    #[schema(value_type = UpstreamCredential)]
    pub client_secret: Option<ClientSecret>,
    /// How id and secret are sent; `basic` by default.
    pub auth: Option<Auth>,
    /// The scope to ask for.
    #[schema(value_type = Option<UpstreamScope>)]
    pub scope: Option<String>,
    /// Further parameters of the token request, such as `audience`. Nothing secret: they are shown.
    #[schema(value_type = Option<UpstreamParameters>)]
    pub parameters: Option<BTreeMap<String, String>>,
    /// Where calls go; without it only the token can be had.
    #[serde(rename = "baseURL")]
    #[schema(value_type = Option<UpstreamURL>)]
    pub base_url: Option<String>,
}

/// What changes about an upstream. What is left out stays; `null` removes `scope` and `baseURL`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UpstreamChange)]
pub struct Change {
    /// The token URL. Needs `clientSecret` beside it: only a caller that knows a secret may redirect it.
    #[serde(rename = "tokenURL")]
    #[schema(value_type = Option<UpstreamURL>)]
    pub token_url: Option<String>,
    /// The id by which the upstream knows this app.
    #[serde(rename = "clientID")]
    #[schema(value_type = Option<UpstreamCredential>)]
    pub client_id: Option<String>,
    /// The new secret.
    #[schema(value_type = Option<UpstreamCredential>)]
    pub client_secret: Option<ClientSecret>,
    /// How id and secret are sent.
    pub auth: Option<Auth>,
    /// The scope to ask for.
    #[serde(default)]
    #[schema(value_type = Option<UpstreamScope>)]
    pub scope: Edit,
    /// Further parameters, all of them.
    #[schema(value_type = Option<UpstreamParameters>)]
    pub parameters: Option<BTreeMap<String, String>>,
    /// Where calls go. Needs `clientSecret` beside it, as the token goes there.
    #[serde(rename = "baseURL", default)]
    #[schema(value_type = Option<UpstreamURL>)]
    pub base_url: Edit,
}

/// A change of an optional text.
#[derive(Debug, Default)]
pub enum Edit {
    /// It stays: the field was left out.
    #[default]
    Keep,
    /// It goes: the field was `null` or empty.
    Remove,
    /// It becomes this.
    Set(String),
}

impl From<Option<String>> for Edit {
    fn from(text: Option<String>) -> Self {
        text.filter(|text| !text.is_empty()).map_or(Self::Remove, Self::Set)
    }
}

impl<'de> Deserialize<'de> for Edit {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        Option::<String>::deserialize(value).map(Self::from)
    }
}

/// A field that is missing or invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct Invalid {
    /// The field's name on the wire.
    pub field: &'static str,
    /// What is wrong with it; never repeats the value.
    pub what: String,
}

fn invalid(field: &'static str, what: impl Display) -> Invalid {
    Invalid { field, what: what.to_string() }
}

/// Validated settings, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where tokens come from.
    pub token_url: OutboundUrl,
    /// The id by which the upstream knows this app.
    pub client_id: String,
    /// How id and secret are sent.
    pub auth: Auth,
    /// The scope to ask for.
    pub scope: Option<String>,
    /// Further parameters.
    pub parameters: BTreeMap<String, String>,
    /// Where calls go.
    pub base_url: Option<OutboundUrl>,
}

impl Draft {
    /// Validates the draft. Returns the name, the settings and the secret.
    ///
    /// # Errors
    /// The first field that is missing or invalid.
    pub fn checked(self, reach: Reach) -> Result<(String, Settings, ClientSecret), Invalid> {
        let preset = self.preset.unwrap_or(Preset::Generic);
        let name = self.name.ok_or_else(|| invalid("name", "is missing"))?;
        if !is_name(&name) {
            let what = "must be lower-case letters, digits and hyphens, at most 63";
            return Err(invalid("name", what));
        }
        let given_or = |given: Option<String>, known: Option<&str>| {
            given.filter(|text| !text.is_empty()).or_else(|| known.map(str::to_owned))
        };
        let token_url = given_or(self.token_url, preset.token_url())
            .ok_or_else(|| invalid("tokenURL", "is missing"))?;
        let base_url = given_or(self.base_url, preset.base_url());
        let settings = Settings {
            token_url: url("tokenURL", &token_url, reach)?,
            client_id: credential("clientID", self.client_id)?,
            auth: self.auth.unwrap_or(preset.auth()),
            scope: given_or(self.scope, preset.scope()).map(scope).transpose()?,
            parameters: parameters(self.parameters.unwrap_or_default())?,
            base_url: base_url.map(|text| base(&text, reach)).transpose()?,
        };
        Ok((name, settings, secret(self.client_secret)?))
    }
}

impl Change {
    /// Returns the settings after this change, and the secret if it is a new one.
    pub fn applied_to(
        self,
        settings: &Settings,
        reach: Reach,
    ) -> Result<(Settings, Option<ClientSecret>), Invalid> {
        let mut changed = settings.clone();
        let secret = self.client_secret.map(|given| secret(Some(given))).transpose()?;
        if let Some(text) = self.token_url {
            changed.token_url = url("tokenURL", &text, reach)?;
        }
        if let Some(id) = self.client_id {
            changed.client_id = credential("clientID", Some(id))?;
        }
        match self.base_url {
            Edit::Keep => {}
            Edit::Remove => changed.base_url = None,
            Edit::Set(text) => changed.base_url = Some(base(&text, reach)?),
        }
        match self.scope {
            Edit::Keep => {}
            Edit::Remove => changed.scope = None,
            Edit::Set(text) => changed.scope = Some(scope(text)?),
        }
        changed.auth = self.auth.unwrap_or(changed.auth);
        if let Some(given) = self.parameters {
            changed.parameters = parameters(given)?;
        }
        let moved_base = changed.base_url.is_some() && changed.base_url != settings.base_url;
        let moved = changed.token_url != settings.token_url || moved_base;
        if moved && secret.is_none() {
            let what = "is needed where tokenURL or baseURL changes: a secret is sent \
                        elsewhere only by a caller who knows it";
            return Err(invalid("clientSecret", what));
        }
        Ok((changed, secret))
    }
}

/// Returns whether `text` can be the name of an upstream: lower-case letters, digits and hyphens,
/// at most 63 bytes.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= MAX_UPSTREAM_NAME
        && text.chars().all(inside)
        && !text.is_empty()
        && !text.starts_with('-')
}

fn url(field: &'static str, text: &str, reach: Reach) -> Result<OutboundUrl, Invalid> {
    OutboundUrl::parse(text, reach).map_err(|what| invalid(field, what))
}

fn base(text: &str, reach: Reach) -> Result<OutboundUrl, Invalid> {
    OutboundUrl::parse_base(text, reach).map_err(|what| invalid("baseURL", what))
}

/// Validates a client id or secret: `*VSCHAR` (RFC 6749 appendix A.1 and A.2), visible ASCII and
/// the space.
fn credential(field: &'static str, given: Option<String>) -> Result<String, Invalid> {
    let text = given.ok_or_else(|| invalid(field, "is missing"))?;
    text::check(&text, MAX_TEXT).map_err(|what| invalid(field, what))?;
    let visible = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    if visible { Ok(text) } else { Err(invalid(field, "must be visible ASCII")) }
}

fn secret(given: Option<ClientSecret>) -> Result<ClientSecret, Invalid> {
    let given = given.ok_or_else(|| invalid("clientSecret", "is missing"))?;
    let text = given.expose();
    text::check(text, MAX_TEXT).map_err(|what| invalid("clientSecret", what))?;
    let visible = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    if visible { Ok(given) } else { Err(invalid("clientSecret", "must be visible ASCII")) }
}

/// Validates a scope (RFC 6749 §3.3): words of visible ASCII but `"` and `\`, separated by a space.
fn scope(text: String) -> Result<String, Invalid> {
    let inside = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let valid = |word: &str| !word.is_empty() && word.bytes().all(inside);
    if text.len() <= MAX_TEXT && text.split(' ').all(valid) {
        return Ok(text);
    }
    Err(invalid("scope", "must be words of visible ASCII with a space between them"))
}

fn parameters(given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    const FIELD: &str = "parameters";
    if given.len() > MAX_PARAMETERS {
        return Err(invalid(FIELD, format_args!("must be {MAX_PARAMETERS} at most")));
    }
    for (name, value) in &given {
        let checked =
            text::check(name, MAX_PARAMETER_NAME).and_then(|()| text::check(value, MAX_TEXT));
        checked.map_err(|what| invalid(FIELD, format_args!("names and values {what}")))?;
        if OWN_PARAMETERS.contains(&name.as_str()) {
            let own = OWN_PARAMETERS.join(", ");
            return Err(invalid(FIELD, format_args!("must not hold one of {own}")));
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn draft(json: serde_json::Value) -> Result<(String, Settings, ClientSecret), Invalid> {
        serde_json::from_value::<Draft>(json).unwrap().checked(Reach::Public)
    }

    fn full() -> serde_json::Value {
        serde_json::json!({
            "name": "crm", "tokenURL": "https://crm.example/token", "clientID": "id",
            "clientSecret": "s", "baseURL": "https://crm.example/v1"
        })
    }

    fn with(name: &str, value: impl Into<serde_json::Value>) -> serde_json::Value {
        let mut changed = full();
        changed[name] = value.into();
        changed
    }

    #[test]
    fn a_preset_brings_what_is_known_and_what_is_given_goes_before() {
        let known = serde_json::json!({
            "name": "dc", "preset": "danaconnect", "clientID": "id", "clientSecret": "s"
        });
        let (_, settings, _) = draft(known).unwrap();
        assert_eq!(settings.token_url.as_str(), "https://auth.danaconnect.com/oauth2/token");
        assert_eq!(settings.auth, Auth::Basic);
        assert_eq!(settings.scope.as_deref(), Some("conversation:access2api"));
        let given = serde_json::json!({
            "name": "k", "preset": "kaisa", "tokenURL": "https://k.example/t", "clientID": "id",
            "clientSecret": "s", "auth": "json", "scope": "a b"
        });
        let (_, settings, _) = draft(given).unwrap();
        assert_eq!((settings.auth, settings.scope.as_deref()), (Auth::Json, Some("a b")));
        let (_, settings, _) = draft(full()).unwrap();
        assert_eq!((settings.auth, settings.scope), (Auth::Basic, None));
    }

    #[test]
    fn a_wrong_field_is_named_and_never_repeated() {
        let wrong = [
            ("name", with("name", "Canary")),
            ("name", with("name", "")),
            ("tokenURL", with("tokenURL", "http://canary.example")),
            ("tokenURL", with("tokenURL", "https://u:canary@crm.example")),
            ("tokenURL", with("tokenURL", "https://127.0.0.1/canary")),
            ("baseURL", with("baseURL", "https://crm.example/?canary")),
            ("clientID", with("clientID", "canary\u{e9}")),
            ("clientSecret", with("clientSecret", "canary\n")),
            ("scope", with("scope", "canary  x")),
            ("scope", with("scope", "canary\"")),
            ("parameters", with("parameters", serde_json::json!({"client_secret": "canary"}))),
            ("parameters", with("parameters", serde_json::json!({"a\u{0}": "canary"}))),
        ];
        for (field, json) in wrong {
            let error = draft(json.clone()).unwrap_err();
            assert_eq!(error.field, field, "{json}");
            assert!(!error.to_string().to_lowercase().contains("canary"), "{error}");
        }
    }

    fn change(json: serde_json::Value) -> Result<(Settings, Option<ClientSecret>), Invalid> {
        let (_, settings, _) = draft(with("scope", "a")).unwrap();
        serde_json::from_value::<Change>(json).unwrap().applied_to(&settings, Reach::Public)
    }

    #[test]
    fn what_is_left_out_stays_and_null_removes() {
        let (_, before, _) = draft(with("scope", "a")).unwrap();
        assert_eq!(change(serde_json::json!({})).unwrap().0, before);
        let (after, _) = change(serde_json::json!({"scope": null, "baseURL": null})).unwrap();
        assert_eq!((after.scope, after.base_url), (None, None));
        assert_eq!(after.token_url, before.token_url);
    }

    #[test]
    fn a_secret_is_sent_elsewhere_only_by_whoever_knows_it() {
        for field in ["tokenURL", "baseURL"] {
            let elsewhere = serde_json::json!({ field: "https://evil.example/x" });
            assert_eq!(change(elsewhere).unwrap_err().field, "clientSecret", "{field}");
            let known = serde_json::json!({ field: "https://new.example/x", "clientSecret": "s" });
            assert!(change(known).is_ok(), "{field}");
        }
        let same = serde_json::json!({"tokenURL": "https://crm.example/token", "auth": "form"});
        assert!(change(same).is_ok());
    }

    #[test]
    fn a_wait_doubles_up_to_its_bound_and_hears_the_upstream() {
        let seconds = |failure: Failure, failures, asked: Option<u64>| {
            failure.cool_down(failures, asked.map(Duration::from_secs)).as_secs()
        };
        assert_eq!([1, 2, 3, 9].map(|n| seconds(Failure::Unusable, n, None)), [2, 4, 8, 60]);
        assert_eq!([1, 2, 9].map(|n| seconds(Failure::Refused, n, None)), [30, 60, 600]);
        assert_eq!(seconds(Failure::Timeout, 1, Some(90)), 90);
        assert_eq!(seconds(Failure::Timeout, 1, Some(1_000_000)), 3600);
    }
}
