//! What the threads of a replica share, and what each has of its own.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::documents::Pages;
use super::metrics::Metrics;
use super::{Database, Readiness, StartError};
use crate::common::clock::Clock;
use crate::common::signer::Signer;
use crate::config::{FourEyes, HttpConfig, Pace, ProvidersConfig, PublicUrl};
use crate::connections::{
    Batches, Budgets, ChangeNotifier, Context, Deferred, LastUses, WebhookReceiver,
};
use crate::database::{Batch, Pool};
use crate::http::body_pool::{self, BodyPool};
use crate::http::concurrency::ConcurrencyLimit;
use crate::http::operators::Operators;
use crate::http::peer::TrustedProxies;
use crate::oauth::{Directory, Issuer, Proofs};
use crate::outbound::Reach;
use crate::providers::Gate;
use crate::vault::Vault;
use crate::{events, oauth, outbound, providers, relay, upstreams};

/// What all threads share.
#[derive(Clone)]
pub(super) struct Shared {
    /// Of all threads: the more callers a batch has, the fewer statements run.
    pub(super) batches: Batches,
    pub(super) database: Arc<Database>,
    pub(super) vault: Vault,
    pub(super) issuer: Issuer,
    pub(super) proofs: Proofs,
    pub(super) signer: Signer,
    pub(super) budgets: Budgets,
    pub(super) providers: Arc<ProvidersConfig>,
    pub(super) gate: Gate,
    pub(super) four_eyes: FourEyes,
    pub(super) pace: Arc<Pace>,
    pub(super) tasks: TaskTracker,
    pub(super) changes: ChangeNotifier,
    pub(super) uses: LastUses,
    pub(super) wake: Arc<Notify>,
    pub(super) deferred: Deferred,
    pub(super) operators: Operators,
    pub(super) single_flight: upstreams::SingleFlight,
    pub(super) upstream_calls: ConcurrencyLimit,
    pub(super) reach: Reach,
    pub(super) line: relay::Line,
    pub(super) relay_limit: ConcurrencyLimit,
    pub(super) public_url: Arc<str>,
    pub(super) body_pool: BodyPool,
    pub(super) webhooks: WebhookReceiver,
    pub(super) feed: events::Feed,
    pub(super) sender: events::delivery::Sender,
    pub(super) delivered: Batch<events::delivery::Report>,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) clock: Clock,
    pub(super) proxies: TrustedProxies,
    pub(super) cors_origins: Arc<[String]>,
    pub(super) pages: Pages,
}

/// What [`Shared`] is assembled from, besides settings.
pub(super) struct Parts<'a> {
    pub(super) database: Arc<Database>,
    pub(super) vault: Vault,
    pub(super) directory: Directory,
    pub(super) clock: Clock,
    pub(super) public_url: &'a PublicUrl,
    pub(super) budgets: Budgets,
    pub(super) four_eyes: FourEyes,
    pub(super) readiness: Readiness,
    pub(super) metrics: Metrics,
    pub(super) reach: Reach,
    /// How many connections callers may have.
    pub(super) callers: usize,
}

impl Shared {
    pub(super) fn new(
        parts: Parts,
        providers: &ProvidersConfig,
        http: &HttpConfig,
        pace: Arc<Pace>,
    ) -> Result<Self, StartError> {
        let Parts { database, callers, directory, metrics, .. } = parts;
        let (pools, public_url) = (database.pools(), parts.public_url.as_str());
        let batches = pools.batches();
        let outbound = outbound::Client::new(parts.reach).map_err(StartError::Tls)?;
        let (clock, oauth) = (parts.clock.clone(), metrics.oauth.clone());
        let proofs = Proofs::new(public_url, outbound, &batches, clock, oauth);
        let signer = oauth::statements::signer(public_url, directory.clone());
        let webhooks = WebhookReceiver::new(parts.clock.clone());
        let clock = parts.clock.clone();
        let issuer = Issuer::new(public_url, directory, parts.clock, metrics.oauth.clone());
        Ok(Self {
            batches: Batches::new(&batches),
            operators: Operators::new(pools.operators()),
            vault: parts.vault,
            issuer,
            proofs,
            signer,
            budgets: parts.budgets,
            providers: Arc::new(providers.clone()),
            four_eyes: parts.four_eyes,
            gate: Gate::new(providers.max_concurrent_calls),
            pace,
            tasks: TaskTracker::new(),
            changes: ChangeNotifier::default(),
            uses: LastUses::default(),
            wake: Arc::default(),
            deferred: Deferred::default(),
            single_flight: upstreams::SingleFlight::default(),
            upstream_calls: ConcurrencyLimit::new(upstreams::MAX_CALLS.min(callers)),
            line: relay::Line::default(),
            relay_limit: ConcurrencyLimit::new(relay::MAX_CALLS.min(callers)),
            public_url: public_url.into(),
            body_pool: BodyPool::new(body_pool::Limits::DEFAULT),
            webhooks,
            feed: events::Feed::new(events::MAX_WAITING.min(callers)),
            sender: events::delivery::Sender::default(),
            delivered: Batch::new(&pools.background()),
            reach: parts.reach,
            metrics,
            readiness: parts.readiness,
            clock,
            proxies: TrustedProxies::new(http.trusted_proxies.clone()),
            cors_origins: http.cors_origins.as_slice().into(),
            pages: Pages::new(http.docs_client.as_ref()),
            database,
        })
    }

    /// Returns what use cases work with, over `pool`. The providers' client has its own connections, so
    /// that each thread's stay with it.
    pub(super) fn context(&self, pool: Pool) -> Result<Context, StartError> {
        let settings = Arc::clone(&self.providers);
        let client =
            providers::Client::new(settings, self.gate.clone(), self.metrics.providers.clone());
        Ok(Context {
            batches: self.batches.clone(),
            pool,
            vault: self.vault.clone(),
            providers: client.map_err(StartError::Tls)?,
            four_eyes: self.four_eyes,
            pace: Arc::clone(&self.pace),
            tasks: self.tasks.clone(),
            changes: self.changes.clone(),
            uses: self.uses.clone(),
            wake: Arc::clone(&self.wake),
            deferred: self.deferred.clone(),
            metrics: self.metrics.connections.clone(),
            approvals: self.metrics.approvals.clone(),
        })
    }

    /// Returns what calls to upstreams work with, in the thread of `context`.
    fn upstreams(&self, context: &Context) -> Result<upstreams::Context, StartError> {
        Ok(upstreams::Context {
            pool: context.pool.clone(),
            vault: self.vault.clone(),
            outbound: outbound::Client::new(self.reach).map_err(StartError::Tls)?,
            single_flight: self.single_flight.clone(),
            calls: self.upstream_calls.clone(),
            tasks: self.tasks.clone(),
            metrics: self.metrics.upstreams.clone(),
        })
    }

    /// Returns what the background work works with, over `pool`.
    pub(super) fn background(&self, pool: Pool) -> Result<(Context, events::Context), StartError> {
        let context = self.context(pool)?;
        let events = self.events(context.pool.clone())?;
        Ok((context, events))
    }

    /// Returns what reading and dispatching events works with, over `pool`.
    fn events(&self, pool: Pool) -> Result<events::Context, StartError> {
        Ok(events::Context {
            pool,
            vault: self.vault.clone(),
            outbound: outbound::Client::new(self.reach).map_err(StartError::Tls)?,
            sender: self.sender.clone(),
            delivered: self.delivered.clone(),
            tasks: self.tasks.clone(),
            issuer: self.issuer.clone(),
            feed: self.feed.clone(),
            retention: self.pace.event_retention,
            metrics: self.metrics.events.clone(),
        })
    }

    /// Returns what one thread works with.
    pub(super) fn thread(&self, workers: usize) -> Result<Thread, StartError> {
        let pools = self.database.pools();
        let mut context = self.context(pools.worker(workers))?;
        if let Some(pool) = pools.worker_batches(workers) {
            context.batches = self.batches.of_thread(&pool);
        }
        self.thread_over(context)
    }

    /// Returns what the threads of the console work with. Their batched queries run in the service's own runtime.
    pub(super) fn console_thread(&self, pool: Pool) -> Result<Thread, StartError> {
        self.thread_over(self.context(pool)?)
    }

    fn thread_over(&self, context: Context) -> Result<Thread, StartError> {
        let upstreams = self.upstreams(&context)?;
        let events = self.events(context.pool.clone())?;
        let relay = relay::Context {
            connections: context.clone(),
            line: self.line.clone(),
            limit: self.relay_limit.clone(),
            public_url: self.public_url.clone(),
            metrics: self.metrics.relay.clone(),
        };
        Ok(Thread { context, upstreams, relay, events })
    }
}

/// What each thread has of its own.
#[derive(Clone)]
pub(super) struct Thread {
    pub(super) context: Context,
    pub(super) upstreams: upstreams::Context,
    pub(super) relay: relay::Context,
    pub(super) events: events::Context,
}
