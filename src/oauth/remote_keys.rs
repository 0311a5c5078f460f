//! Public keys that clients and issuers of workloads publish: fetched under the guard of addresses, one request at a
//! time for each place, cached.
//!
//! A caller who is not authenticated yet may make a registered client's keys be looked up, so that everything about it
//! is bounded: a place is asked once in [`UNKNOWN_KEY_PAUSE`] at most because of a key that is not known, requests and those who
//! wait for them are limited by app, and neither a connection to PostgreSQL nor a slot of the body pool is held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;

use super::jws::KeySet;
use super::metrics::Metrics;
use crate::common::clock::Clock;
use crate::common::ids::AppId;
use crate::http::concurrency::ConcurrencyLimit;
use crate::outbound::{Client, NoAnswer, OutboundUrl, Reach, read_bounded};

/// How long keys count before they are fetched anew: a key that is withdrawn verifies for no longer than this.
const FRESH: Duration = Duration::from_mins(5);
/// How long keys count while their place gives no answer.
const STALE: Duration = Duration::from_hours(1);
/// The pause after a request that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);
/// The pause before a key that is not known is looked for again.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(30);
/// The time limit of a look-up, discovery included.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The maximum size of a document, in bytes.
const MAX_DOCUMENT: usize = 128 * 1024;
/// Look-ups of one replica at once, of which a single app gets half.
const MAX_LOOK_UPS: usize = 32;
/// Requests of one replica that wait for them, of which a single app gets half.
const MAX_WAITING: usize = 512;

/// Where keys are published.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// At this URL, as a JWK set.
    Url(Arc<str>),
    /// Where the discovery document of this issuer says (OpenID Connect Discovery 1.0 §4).
    Issuer(Arc<str>),
}

impl Place {
    /// The host, for the log: the rest of a URL may hold a credential.
    fn host(&self) -> Option<String> {
        let (Self::Url(text) | Self::Issuer(text)) = self;
        let url = OutboundUrl::parse(text, Reach::Anywhere).ok()?;
        url.url().host_str().map(str::to_owned)
    }
}

/// The keys cannot be had at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

type LookUp = Shared<oneshot::Receiver<()>>;

#[derive(Debug, Default)]
struct Entry {
    /// The keys, and when they were fetched.
    keys: Option<(Arc<KeySet>, Instant)>,
    /// When a request last began.
    asked: Option<Instant>,
    /// Whether that request failed.
    failed: bool,
    look_up: Option<LookUp>,
}

impl Entry {
    fn keys_within(&self, age: Duration, now: Instant) -> Option<Arc<KeySet>> {
        let (keys, since) = self.keys.as_ref()?;
        (now < *since + age).then(|| Arc::clone(keys))
    }

    fn asked_within(&self, pause: Duration, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now < asked + pause)
    }
}

/// What a caller does about the keys of a place.
enum Step {
    /// Uses what is known.
    Use,
    Wait(LookUp),
    LookUp,
}

/// The cache. Clones share it.
#[derive(Clone)]
pub(super) struct RemoteKeys {
    entries: Arc<Mutex<HashMap<Place, Entry>>>,
    outbound: Client,
    look_ups: ConcurrencyLimit,
    waiting: ConcurrencyLimit,
    clock: Clock,
    metrics: Metrics,
}

impl RemoteKeys {
    pub(super) fn new(outbound: Client, clock: Clock, metrics: Metrics) -> Self {
        Self {
            entries: Arc::default(),
            outbound,
            look_ups: ConcurrencyLimit::new(MAX_LOOK_UPS),
            waiting: ConcurrencyLimit::new(MAX_WAITING),
            clock,
            metrics,
        }
    }

    pub(super) fn reach(&self) -> Reach {
        self.outbound.reach()
    }

    /// Returns the keys of a place on behalf of a client of `app`.
    pub(super) async fn get(&self, app: AppId, place: &Place) -> Result<Arc<KeySet>, Unavailable> {
        // Without a look-up, for want of a permit or right after one that failed, what is known counts.
        let _ = self.advance(app, place, Entry::next).await;
        let now = self.clock.instant();
        let keys = self.entries().get(place).and_then(|entry| entry.keys_within(STALE, now));
        keys.ok_or(Unavailable)
    }

    /// Returns keys that are newer than `known`, in which a key was not found; `None` if there are none, or if it is too
    /// soon to look.
    pub(super) async fn newer(
        &self,
        app: AppId,
        place: &Place,
        known: &Arc<KeySet>,
    ) -> Option<Arc<KeySet>> {
        self.advance(app, place, |entry, now| entry.next_newer(known, now)).await.ok()?;
        let now = self.clock.instant();
        let keys = self.entries().get(place)?.keys_within(STALE, now)?;
        (!Arc::ptr_eq(&keys, known)).then_some(keys)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Place, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the step that `decide` finds, and waits for a look-up if that is it.
    async fn advance(
        &self,
        app: AppId,
        place: &Place,
        decide: impl Fn(&Entry, Instant) -> Step,
    ) -> Result<(), Unavailable> {
        let Some(look_up) = self.step(app, place, decide)? else { return Ok(()) };
        let _permit = self.waiting.take(app).map_err(|_| Unavailable)?;
        // Fails if the task panicked; the entry says what is known.
        let _ = look_up.await;
        Ok(())
    }

    /// Decides about a place and notes it, under one lock. Returns what to wait for.
    fn step(
        &self,
        app: AppId,
        place: &Place,
        decide: impl Fn(&Entry, Instant) -> Step,
    ) -> Result<Option<LookUp>, Unavailable> {
        let now = self.clock.instant();
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.look_up.is_some() || entry.asked_within(STALE * 2, now));
        let entry = entries.entry(place.clone()).or_default();
        match decide(entry, now) {
            Step::Use => Ok(None),
            Step::Wait(look_up) => Ok(Some(look_up)),
            Step::LookUp => {
                let permit = self.look_ups.take(app).map_err(|_| Unavailable)?;
                let (done, look_up) = oneshot::channel();
                let look_up = look_up.shared();
                entry.asked = Some(now);
                entry.look_up = Some(look_up.clone());
                // In a task of its own: it ends, and frees the entry, whether or not its caller waits.
                let (keys, place) = (self.clone(), place.clone());
                tokio::spawn(async move {
                    let found = tokio::time::timeout(TIME_LIMIT, fetch(&keys.outbound, &place));
                    keys.end(&place, found.await.unwrap_or(Err(FetchError::Timeout)));
                    drop((done, permit));
                });
                Ok(Some(look_up))
            }
        }
    }

    fn end(&self, place: &Place, found: Result<KeySet, FetchError>) {
        self.metrics.key_look_ups.inc();
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(place) else { return };
        entry.look_up = None;
        entry.failed = found.is_err();
        match found {
            Ok(keys) => entry.keys = Some((Arc::new(keys), self.clock.instant())),
            Err(error) => {
                self.metrics.key_look_ups_failed.inc();
                let host = place.host();
                tracing::warn!(cause = %error, host, "a client's keys could not be looked up");
            }
        }
    }
}

impl Entry {
    /// Decides about keys to verify with.
    fn next(&self, now: Instant) -> Step {
        if self.keys_within(FRESH, now).is_some() {
            return Step::Use;
        }
        match &self.look_up {
            Some(look_up) => Step::Wait(look_up.clone()),
            None if self.failed && self.asked_within(FAILURE_PAUSE, now) => Step::Use,
            None => Step::LookUp,
        }
    }

    /// Decides about keys that are newer than `known`.
    fn next_newer(&self, known: &Arc<KeySet>, now: Instant) -> Step {
        match (self.keys_within(STALE, now), &self.look_up) {
            (Some(keys), _) if !Arc::ptr_eq(&keys, known) => Step::Use,
            (_, Some(look_up)) => Step::Wait(look_up.clone()),
            (_, None) if self.asked_within(UNKNOWN_KEY_PAUSE, now) => Step::Use,
            (_, None) => Step::LookUp,
        }
    }
}

/// Why keys could not be fetched. Repeats nothing of an answer.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("its URL may not be called under this service's settings")]
    NotAllowed,
    #[error("no answer in time")]
    Timeout,
    #[error("no answer: {0}")]
    Unreachable(String),
    #[error("the status {0}")]
    Status(u16),
    #[error("{0}")]
    Unreadable(#[from] crate::outbound::Unreadable),
    #[error("a document that is not what it should be")]
    Form,
    #[error("a discovery document of another issuer")]
    OtherIssuer,
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        match NoAnswer::from(&error) {
            NoAnswer::NotAllowed => Self::NotAllowed,
            NoAnswer::Timeout => Self::Timeout,
            NoAnswer::Unreachable(what) => Self::Unreachable(what),
        }
    }
}

/// The members of a discovery document that are read (OpenID Connect Discovery 1.0 §3).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

async fn fetch(outbound: &Client, place: &Place) -> Result<KeySet, FetchError> {
    let set: Value = match place {
        Place::Url(url) => document(outbound, url).await?,
        Place::Issuer(issuer) => {
            let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let discovery: Discovery = document(outbound, &at).await?;
            // §4.3: else another's keys could be presented as this issuer's.
            if discovery.issuer != **issuer {
                return Err(FetchError::OtherIssuer);
            }
            document(outbound, &discovery.jwks_uri).await?
        }
    };
    KeySet::published(&set).ok_or(FetchError::Form)
}

async fn document<T: DeserializeOwned>(outbound: &Client, url: &str) -> Result<T, FetchError> {
    let url = OutboundUrl::parse(url, outbound.reach()).map_err(|_| FetchError::NotAllowed)?;
    let request = outbound.request(Method::GET, &url, TIME_LIMIT);
    let response = request.header(ACCEPT, "application/json, application/jwk-set+json");
    let response = response.send().await?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let body = read_bounded(response, MAX_DOCUMENT).await?;
    serde_json::from_slice(&body).map_err(|_| FetchError::Form)
}
