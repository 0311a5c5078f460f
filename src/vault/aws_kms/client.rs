//! The client of AWS KMS: which credentials, which endpoint, and what it never does.

use std::time::Duration;

use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{
    ConfigBag, Credentials, IdentityCache, Intercept, RuntimeComponents,
    StalledStreamProtectionConfig,
};
use aws_sdk_kms::error::BoxError;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use reqwest::Url;

use super::{AwsSettings, StaticCredentials};
use crate::vault::engine::is_protected;

/// The time limit of a connection, DNS, TCP and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The time limit of finding credentials, below that of a call, so that an outage says what it waited for.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_millis(2500);

/// The longest wait before a call is made once more, within its deadline: its connection may have been closed when it began.
const BACKOFF: Duration = Duration::from_millis(50);

impl AwsSettings {
    /// Returns whether data keys may be sent to the endpoint.
    pub(super) fn has_protected_endpoint(&self) -> bool {
        let protected = |text: &String| Url::parse(text).is_ok_and(|url| is_protected(&url));
        self.endpoint.as_ref().is_none_or(protected)
    }

    /// Makes a client for a region. Its connections and its credentials are its own.
    pub(super) async fn client(&self, region: &str) -> Client {
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT);
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .timeout_config(timeouts.build())
            .retry_config(
                RetryConfig::standard().with_max_attempts(2).with_initial_backoff(BACKOFF),
            )
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build());
        let shared = self.with_endpoint(self.with_credentials(loader)).load().await;
        let config = aws_sdk_kms::config::Builder::from(&shared).interceptor(ProtectedOnly);
        Client::from_conf(config.build())
    }

    fn with_credentials(&self, loader: ConfigLoader) -> ConfigLoader {
        let Some(StaticCredentials { id, secret, session }) = &self.credentials else {
            return loader;
        };
        let session = session.as_ref().map(|session| session.expose().to_owned());
        let key = Credentials::new(id, secret.expose(), session, None, "environment");
        loader.credentials_provider(key)
    }

    fn with_endpoint(&self, loader: ConfigLoader) -> ConfigLoader {
        let Some(endpoint) = &self.endpoint else { return loader };
        let loader = loader.endpoint_url(endpoint);
        if endpoint.starts_with("https:") {
            return loader;
        }
        // On loopback and without TLS: past no proxy of the environment.
        let http = aws_smithy_http_client::Builder::new();
        loader.http_client(http.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https())
    }
}

/// Refuses to send a data key in the clear, wherever the endpoint was set: a profile's file can set it too.
#[derive(Debug)]
struct ProtectedOnly;

impl Intercept for ProtectedOnly {
    fn name(&self) -> &'static str {
        "ProtectedOnly"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if Url::parse(context.request().uri()).is_ok_and(|url| is_protected(&url)) {
            return Ok(());
        }
        Err("the endpoint is neither https nor on loopback".into())
    }
}
