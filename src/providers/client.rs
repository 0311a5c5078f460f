//! The HTTP client: bounded in time and size, no redirects, no retry of anything that may have been sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT_ENCODING, CONNECTION, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::redirect;
use serde::Serialize;
use url::Url;
use zeroize::Zeroizing;

use super::call::{self, CallAnswer, CallBody, CallLost};
use super::transport::{TIME_RAN_OUT, describe};
use super::wire::{self, Received};
use super::{
    AccessCode, AccessToken, AppCredentials, DelinkAnswer, ExchangeAnswer, Gate, Metrics, Permit,
    Unsettled, UserSecret,
};
use crate::common::coding::Spoilt;
use crate::common::retry_after;
use crate::common::trace::TraceContext;
use crate::config::DapiConfig;

/// The largest answer to an exchange or a delinking that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// How long connecting may take: DNS, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The pauses between attempts that provably sent nothing.
const UNSENT_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// Calls Dapi. Clones share connections and limits.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// Keeps no idle connections: an exchange must never meet a stale one (ADR 16).
    exchanges: reqwest::Client,
    settings: Arc<DapiConfig>,
    gate: Gate,
    metrics: Metrics,
}

/// Why there is no answer.
enum NoAnswer {
    NotSent(String),
    Lost(String),
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

fn http(settings: &DapiConfig) -> reqwest::ClientBuilder {
    #[expect(clippy::disallowed_methods, reason = "this is the module that calls Dapi")]
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
    // The environment's proxy is for Dapi, not for a sandbox on this machine.
    if settings.is_on_this_machine() { http.no_proxy() } else { http }
}

fn http_for_exchanges(settings: &DapiConfig) -> reqwest::Result<reqwest::Client> {
    let mut close = HeaderMap::new();
    close.insert(CONNECTION, HeaderValue::from_static("close"));
    http(settings).pool_max_idle_per_host(0).default_headers(close).build()
}

impl Client {
    /// Creates a client with its own connections.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up, for example because there are no root certificates.
    pub fn new(settings: Arc<DapiConfig>, gate: Gate, metrics: Metrics) -> reqwest::Result<Self> {
        // Shorter than servers keep idle connections, so that a request rarely meets a closing one.
        let http = http(&settings).pool_idle_timeout(Duration::from_secs(20)).build()?;
        // Each exchange has a connection of its own: see docs/adr/0016.
        let exchanges = http_for_exchanges(&settings)?;
        Ok(Self { http, exchanges, settings, gate, metrics })
    }

    /// Returns the gate that every call passes.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Returns the settings about Dapi.
    #[must_use]
    pub fn settings(&self) -> &DapiConfig {
        &self.settings
    }

    /// Exchanges a code for a token: `POST /auth/ExchangeToken`.
    ///
    /// Repeats attempts that provably sent nothing, at once and a few times; repeats nothing else.
    pub async fn exchange(
        &self,
        permit: &Permit,
        app: &AppCredentials,
        code: &AccessCode,
        connection_id: &str,
        trace: &TraceContext,
    ) -> ExchangeAnswer {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Request<'a> {
            app_secret: &'a str,
            access_code: &'a str,
            #[serde(rename = "connectionID")]
            connection_id: &'a str,
        }
        let body = Request {
            app_secret: app.app_secret.expose(),
            access_code: code.expose(),
            connection_id,
        };
        let started = Instant::now();
        let limit = self.settings.exchange_timeout;
        let url = self.url("/auth/ExchangeToken");
        let received = self.post((permit, &self.exchanges), url, None, &body, trace, limit).await;
        let secrets = [app.app_secret.expose(), code.expose()];
        let answer = match received {
            Ok(received) => wire::exchange(&received, &secrets),
            Err(NoAnswer::NotSent(what)) => ExchangeAnswer::NotSent(what),
            Err(NoAnswer::Lost(what)) => ExchangeAnswer::Unsettled(Unsettled {
                what,
                may_have_consumed: true,
                retry_after: None,
            }),
        };
        self.metrics.count("exchange", exchange_outcome(&answer), started.elapsed());
        answer
    }

    /// Delinks a token: `POST /users/DelinkUser`, or the configured path.
    pub async fn delink(
        &self,
        permit: &Permit,
        app: &AppCredentials,
        token: &AccessToken,
        user_secret: &UserSecret,
        trace: &TraceContext,
    ) -> DelinkAnswer {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Request<'a> {
            app_secret: &'a str,
            user_secret: &'a str,
        }
        let body =
            Request { app_secret: app.app_secret.expose(), user_secret: user_secret.expose() };
        let started = Instant::now();
        let url = self.url(&self.settings.delink_path);
        let limit = self.settings.call_timeout;
        let received = self.post((permit, &self.http), url, Some(token), &body, trace, limit).await;
        let secrets = [app.app_secret.expose(), user_secret.expose(), token.expose()];
        let answer = match received {
            Ok(received) => wire::delink(&received, &self.settings.gone_types, &secrets),
            Err(NoAnswer::NotSent(what) | NoAnswer::Lost(what)) => {
                DelinkAnswer::Failed { what, retry_after: None }
            }
        };
        self.metrics.count("delink", delink_outcome(&answer), started.elapsed());
        answer
    }

    /// Makes a call on a connection's behalf and returns before the body arrives. `limit` covers the whole call,
    /// to the body's last byte.
    pub async fn call(
        &self,
        permit: &Permit,
        path: &str,
        token: Option<&AccessToken>,
        body: &CallBody<'_>,
        trace: &TraceContext,
        limit: Duration,
    ) -> Result<CallAnswer, CallLost> {
        let url = self.url(&format!("/{path}"));
        let response = self.send(&self.http, url, token, body, trace, limit).await?;
        let retry_after = honour_retry_after(permit, &response);
        Ok(CallAnswer::new(response, retry_after))
    }

    /// Counts a relayed call.
    pub fn count_call(&self, outcome: &'static str, took: Duration) {
        self.metrics.count("call", outcome, took);
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.settings.base_url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url
    }

    /// Sends one POST with this permit over these connections, and reads its answer whole.
    async fn post<B: Serialize>(
        &self,
        (permit, http): (&Permit, &reqwest::Client),
        url: Url,
        token: Option<&AccessToken>,
        body: &B,
        trace: &TraceContext,
        limit: Duration,
    ) -> Result<Received, NoAnswer> {
        let response = self.send(http, url, token, body, trace, limit).await?;
        let retry_after = honour_retry_after(permit, &response);
        Ok(receive(response, retry_after).await)
    }

    /// Sends one POST within all its bounds; repeats it only if nothing can have been sent.
    async fn send<B: Serialize>(
        &self,
        http: &reqwest::Client,
        url: Url,
        token: Option<&AccessToken>,
        body: &B,
        trace: &TraceContext,
        limit: Duration,
    ) -> Result<reqwest::Response, NoAnswer> {
        let deadline = Instant::now() + limit;
        let mut pauses = UNSENT_PAUSES.iter();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut request = http.post(url.clone()).json(body).timeout(left);
            request = request.header(ACCEPT_ENCODING, "identity");
            request = request.header("traceparent", trace.traceparent());
            if let Some(state) = trace.tracestate() {
                request = request.header("tracestate", state);
            }
            if let Some(token) = token {
                request = request.bearer_auth(token.expose());
            }
            match request.send().await {
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

async fn receive(response: reqwest::Response, retry_after: Option<Duration>) -> Received {
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

fn exchange_outcome(answer: &ExchangeAnswer) -> &'static str {
    match answer {
        ExchangeAnswer::Token(_) => "token",
        ExchangeAnswer::Refused(_) => "refused",
        ExchangeAnswer::Unsettled(_) => "unsettled",
        ExchangeAnswer::NotSent(_) => "not_sent",
    }
}

fn delink_outcome(answer: &DelinkAnswer) -> &'static str {
    match answer {
        DelinkAnswer::Delinked => "delinked",
        DelinkAnswer::AlreadyGone(_) => "already_gone",
        DelinkAnswer::Failed { .. } => "failed",
    }
}
