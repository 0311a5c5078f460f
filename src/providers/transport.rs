//! HTTP as every provider is called: bounded in time and size, no redirects, no retry of anything that may have been
//! sent.

use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT_ENCODING, CONNECTION, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Method, redirect};
use serde::Serialize;
use url::Url;
use zeroize::Zeroizing;

use super::call::{self, CallAnswer, CallLost};
use super::describe::{TIME_RAN_OUT, describe};
use super::gate::Permit;
use super::received::Received;
use super::{ExchangeAnswer, Unsettled};
use crate::common::coding::Spoilt;
use crate::common::retry_after;
use crate::common::spans;
use crate::common::tls;
use crate::common::trace::TraceContext;
use crate::config::ProviderConfig;

/// The largest answer that is read whole, in bytes: to an exchange or a revocation.
const MAX_ANSWER: usize = 256 * 1024;
/// How long connecting may take: DNS, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may have been idle that an exchange reuses. Servers keep idle connections for five seconds or
/// more, so that only one that is being stopped closes such a connection while a request is on its way.
const RECENT: Duration = Duration::from_secs(1);
/// The pauses between attempts that provably sent nothing.
const UNSENT_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The request provably was not sent.
    NotSent(String),
    /// The request may have been sent.
    Lost(String),
}

impl NoAnswer {
    /// Returns what happened, without secrets.
    pub(super) fn what(self) -> String {
        match self {
            Self::NotSent(what) | Self::Lost(what) => what,
        }
    }
}

impl From<NoAnswer> for CallLost {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::NotSent(what) => Self { what, timeout: false, sent: false },
            NoAnswer::Lost(what) => {
                Self { timeout: what.starts_with(TIME_RAN_OUT), what, sent: true }
            }
        }
    }
}

impl From<NoAnswer> for ExchangeAnswer {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::NotSent(what) => Self::NotSent(what),
            NoAnswer::Lost(what) => {
                Self::Unsettled(Unsettled { what, may_have_consumed: true, retry_after: None })
            }
        }
    }
}

/// A request to a provider.
#[derive(Debug)]
pub(super) struct Outgoing<'a, B> {
    /// What is called, and what for: the name of its span.
    pub(super) name: &'static str,
    /// Below the base URL, with a leading slash.
    pub(super) path: &'a str,
    /// The provider's own headers, the secret ones marked as sensitive.
    pub(super) headers: HeaderMap,
    /// Sent as JSON.
    pub(super) body: &'a B,
    pub(super) trace: &'a TraceContext,
    /// From the first byte sent to the last byte received.
    pub(super) limit: Duration,
}

/// The connections to one provider.
#[derive(Debug)]
pub(super) struct Transport {
    kept: reqwest::Client,
    /// Reuses only what was in use a moment ago (ADR 31).
    recent: reqwest::Client,
    /// Reuses nothing.
    fresh: reqwest::Client,
    /// An exchange that stays unanswered may be followed by another.
    probes: bool,
    base_url: Url,
}

/// The connections to one provider, and its settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    pub(super) transport: &'a Transport,
    pub(super) settings: &'a ProviderConfig,
    pub(super) permit: &'a Permit,
}

fn http(settings: &ProviderConfig) -> reqwest::ClientBuilder {
    #[expect(clippy::disallowed_methods, reason = "this is the module that calls the providers")]
    let http = reqwest::Client::builder()
        .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        // An invalid header must not cost the token in the body.
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_only();
    // The environment's proxy is for the provider, not for a sandbox on this machine.
    let http = tls::shared(http);
    if settings.is_on_this_machine() { http.no_proxy() } else { http }
}

fn without_reuse(settings: &ProviderConfig) -> reqwest::Result<reqwest::Client> {
    let mut close = HeaderMap::new();
    close.insert(CONNECTION, HeaderValue::from_static("close"));
    http(settings).pool_max_idle_per_host(0).default_headers(close).build()
}

impl Transport {
    /// Creates a transport with its own connections.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up, for example because there are no root certificates.
    pub(super) fn new(settings: &ProviderConfig) -> reqwest::Result<Self> {
        // Shorter than servers keep idle connections, so that a request rarely meets a closing one.
        let kept = http(settings).pool_idle_timeout(Duration::from_secs(20)).build()?;
        let recent = http(settings).pool_idle_timeout(RECENT).build()?;
        let (fresh, probes) = (without_reuse(settings)?, settings.exchange_probe);
        Ok(Self { kept, recent, fresh, probes, base_url: settings.base_url.clone() })
    }

    /// Sends one POST and reads its answer whole.
    pub(super) async fn post<B: Serialize>(
        &self,
        permit: &Permit,
        outgoing: &Outgoing<'_, B>,
    ) -> Result<Received, NoAnswer> {
        Ok(receive(permit, self.send(&self.kept, outgoing).await?).await)
    }

    /// Sends one POST that exchanges a code and reads its answer whole. Its connection was in use within the last
    /// second, or is new; it is always new if an attempt without an answer would be the last.
    pub(super) async fn post_exchange<B: Serialize>(
        &self,
        permit: &Permit,
        outgoing: &Outgoing<'_, B>,
    ) -> Result<Received, NoAnswer> {
        let http = if self.probes { &self.recent } else { &self.fresh };
        Ok(receive(permit, self.send(http, outgoing).await?).await)
    }

    /// Sends one POST that cannot be repeated, over a connection of its own, and reads its answer whole.
    pub(super) async fn post_on_fresh_connection<B: Serialize>(
        &self,
        permit: &Permit,
        outgoing: &Outgoing<'_, B>,
    ) -> Result<Received, NoAnswer> {
        Ok(receive(permit, self.send(&self.fresh, outgoing).await?).await)
    }

    /// Sends one POST and returns before the body of its answer arrives.
    pub(super) async fn call<B: Serialize>(
        &self,
        permit: &Permit,
        outgoing: &Outgoing<'_, B>,
    ) -> Result<CallAnswer, CallLost> {
        let response = self.send(&self.kept, outgoing).await?;
        let retry_after = honour_retry_after(permit, &response);
        Ok(CallAnswer::new(response, retry_after))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base_url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url
    }

    /// Sends one POST within all its bounds; repeats it only if nothing can have been sent.
    async fn send<B: Serialize>(
        &self,
        http: &reqwest::Client,
        outgoing: &Outgoing<'_, B>,
    ) -> Result<reqwest::Response, NoAnswer> {
        let deadline = Instant::now() + outgoing.limit;
        let url = self.url(outgoing.path);
        let mut pauses = UNSENT_PAUSES.iter();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut request = http.post(url.clone()).json(outgoing.body).timeout(left);
            request = request.headers(outgoing.headers.clone());
            request = request.header(ACCEPT_ENCODING, "identity");
            request = request.header("traceparent", outgoing.trace.traceparent());
            if let Some(state) = outgoing.trace.tracestate() {
                request = request.header("tracestate", state);
            }
            match spans::call(outgoing.name, &Method::POST, &url, request.send()).await {
                Ok(response) => return Ok(response),
                Err(error) if was_never_written(&error) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Err(NoAnswer::NotSent(describe(&error))),
                },
                Err(error) => return Err(NoAnswer::Lost(describe(&error))),
            }
        }
    }
}

/// Marks a header's value as secret. `None` if no header can carry it.
pub(super) fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn receive(permit: &Permit, response: reqwest::Response) -> Received {
    let retry_after = honour_retry_after(permit, &response);
    let status = response.status();
    let (body, spoilt) = read(response).await;
    Received { status, retry_after, body, spoilt }
}

/// Reads `Retry-After`; after a 429, holds the gate's lane for this app for as long.
fn honour_retry_after(permit: &Permit, response: &reqwest::Response) -> Option<Duration> {
    let retry_after = retry_after(response.headers());
    if let (reqwest::StatusCode::TOO_MANY_REQUESTS, Some(pause)) = (response.status(), retry_after)
    {
        permit.hold(pause);
    }
    retry_after
}

/// Reads and decodes an answer's body up to the bound, and returns why it is incomplete if it is.
async fn read(mut response: reqwest::Response) -> (Zeroizing<Vec<u8>>, Option<&'static str>) {
    const EXCESSIVE: Option<&str> = Some("an answer of excessive size");
    const BROKEN: Option<&str> = Some("an answer that broke off");
    let nothing = Zeroizing::default;
    let Ok(codings) = call::codings(&response) else {
        return (nothing(), Some("an answer in an unknown encoding"));
    };
    let mut bytes = Zeroizing::new(Vec::new());
    let spoilt = loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > MAX_ANSWER => {
                return (nothing(), EXCESSIVE);
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break None,
            Err(_) => break BROKEN,
        }
    };
    if codings.is_identity() {
        return (bytes, spoilt);
    }
    let decoded = codings.decode(&bytes, MAX_ANSWER);
    let bytes = Zeroizing::new(decoded.bytes);
    match decoded.end {
        Ok(()) => (bytes, spoilt),
        Err(Spoilt::BrokenOff) => (bytes, BROKEN),
        Err(Spoilt::TooLarge) => (nothing(), EXCESSIVE),
        Err(Spoilt::Damaged) => (nothing(), Some("an answer whose encoding is damaged")),
    }
}

/// Returns whether a request provably was not sent: there was no connection, or hyper returned the request
/// because its connection closed before a byte was written.
fn was_never_written(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = inner.source();
    }
    error.is_connect()
}

/// Reads `Retry-After` (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    retry_after::read(text(RETRY_AFTER)?, text(DATE))
}
