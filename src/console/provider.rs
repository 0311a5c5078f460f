//! The OpenID provider over HTTP: its discovery document, its keys, and the exchange of a code.

use std::time::Duration;

use actix_web::http::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::form_urlencoded;

use crate::common::secret::SecretText;
use crate::config::OidcConfig;
use crate::outbound::{Client, NoAnswer, OutboundUrl, read_bounded};

/// The time limit of each request.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The maximum size of an answer, in bytes.
const MAX_ANSWER: usize = 128 * 1024;

/// Why the provider's answer is of no use, for the log.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// No answer arrived.
    #[error("no answer: {0:?}")]
    NoAnswer(NoAnswer),
    /// An answer of another status.
    #[error("an answer with the status {0}")]
    Status(u16),
    /// An answer of another form.
    #[error("an answer of another form")]
    Form,
    /// The discovery document is another issuer's (OpenID Connect Discovery 1.0 §4.3).
    #[error("the discovery document is another issuer's")]
    Issuer,
    /// A URL of the provider's may not be called.
    #[error("its {0} may not be called")]
    Url(&'static str),
}

/// What of a discovery document is used (OpenID Connect Discovery 1.0 §3).
#[derive(Deserialize)]
pub struct Discovered {
    issuer: String,
    /// Where browsers are sent.
    pub authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

/// The answer of the token endpoint (OpenID Connect Core 1.0 §3.1.3.3).
#[derive(Deserialize)]
struct Tokens {
    id_token: SecretText,
}

/// The provider.
#[derive(Clone, Debug)]
pub struct OpenIdProvider {
    /// The settings.
    pub config: OidcConfig,
    client: Client,
}

impl OpenIdProvider {
    /// Returns the provider of these settings.
    #[must_use]
    pub fn new(config: OidcConfig, client: Client) -> Self {
        Self { config, client }
    }

    /// Fetches the discovery document.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(super) async fn discover(&self) -> Result<Discovered, ProviderError> {
        let issuer = self.config.issuer.trim_end_matches('/');
        let url = format!("{issuer}/.well-known/openid-configuration");
        let found: Discovered = self.get(&url, "discovery document").await?;
        (found.issuer == self.config.issuer).then_some(found).ok_or(ProviderError::Issuer)
    }

    /// Fetches the keys.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(super) async fn keys(&self, discovered: &Discovered) -> Result<Value, ProviderError> {
        self.get(&discovered.jwks_uri, "jwks_uri").await
    }

    /// Exchanges a code for an ID token (RFC 6749 §4.1.3, RFC 7636 §4.5).
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(super) async fn exchange(
        &self,
        discovered: &Discovered,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<SecretText, ProviderError> {
        let url = self.url(&discovered.token_endpoint, "token_endpoint")?;
        let (id, secret) = (&self.config.client_id, self.config.client_secret.expose());
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("code_verifier", verifier);
        let mut request = self.client.request(Method::POST, &url, TIME_LIMIT);
        // Basic is the default (Discovery §3).
        let methods = &discovered.token_endpoint_auth_methods_supported;
        let has = |name: &str| methods.iter().any(|method| method == name);
        if has("client_secret_post") && !has("client_secret_basic") {
            form.append_pair("client_id", id).append_pair("client_secret", secret);
        } else {
            request = request.basic_auth(encoded(id), Some(encoded(secret)));
        }
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let tokens: Tokens = answer(request.body(form.finish())).await?;
        Ok(tokens.id_token)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        url: &str,
        what: &'static str,
    ) -> Result<T, ProviderError> {
        let url = self.url(url, what)?;
        answer(self.client.request(Method::GET, &url, TIME_LIMIT)).await
    }

    fn url(&self, url: &str, what: &'static str) -> Result<OutboundUrl, ProviderError> {
        OutboundUrl::parse(url, self.client.reach()).map_err(|_| ProviderError::Url(what))
    }
}

/// Encodes a part of the credentials for Basic (RFC 6749 §2.3.1).
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, ProviderError> {
    let sent = request.header(ACCEPT, "application/json").send().await;
    let response = sent.map_err(|error| ProviderError::NoAnswer(NoAnswer::from(&error)))?;
    let status = response.status().as_u16();
    if status != StatusCode::OK.as_u16() {
        return Err(ProviderError::Status(status));
    }
    let body = read_bounded(response, MAX_ANSWER).await.map_err(|_| ProviderError::Form)?;
    serde_json::from_slice(&body).map_err(|_| ProviderError::Form)
}
