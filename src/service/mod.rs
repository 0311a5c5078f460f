//! The service: puts the parts together, runs them, drains them. The only room that knows every
//! feature.
//!
//! Building is apart from running, so that a test binds port 0 and asks for the address.

mod database;
mod documents;
mod metrics;
mod openapi;
mod query;
mod routes;
mod servers;
mod status;
mod store;

pub use database::{Database, StartError, migrate};
pub use metrics::metrics_registry;
pub use openapi::document;
pub use status::Readiness;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::metrics::Metrics;
use crate::base::clock::Clock;
use crate::base::signer::Signer;
use crate::config::{Config, OauthConfig, PublicUrl};
use crate::connections::{Batches, Budgets, ChangeNotifier, Context, Deferred, LastUses};
use crate::dapi::Gate;
use crate::database::{Conn, Pool, Pools};
use crate::http::body_pool::BodyPool;
use crate::http::concurrency::ConcurrencyLimit;
use crate::http::connection::{Guard, Limits};
use crate::http::operators::Operators;
use crate::http::peer::TrustedProxies;
use crate::http::{body_pool, connection};
use crate::oauth::{Directory, Issuer};
use crate::outbound::Reach;
use crate::vault::Vault;
use crate::{audit, background, connections, dapi, oauth, outbound, relay, upstreams};

/// Files that are open beside connections to PostgreSQL, Dapi, upstreams and callers.
const OTHER_FILES: usize = 64;
/// Connections of callers at most: more would be memory for nothing, as clients keep theirs open.
const MOST_CALLERS: usize = 4096;

/// A service that is built and listens, and does not run yet.
pub struct Service {
    address: SocketAddr,
    metrics_address: SocketAddr,
    public_url: PublicUrl,
    api: Server,
    metrics: Server,
    guards: [Guard; 2],
    context: Context,
    directory: Directory,
    oauth: Arc<OauthConfig>,
    audit: audit::Metrics,
    readiness: Readiness,
    pools: Arc<Pools>,
    control: Pool,
    grace: Duration,
}

/// What all threads share.
#[derive(Clone)]
struct Shared {
    /// One for all threads: the more callers, the fewer statements.
    batches: Batches,
    database: Arc<Database>,
    vault: Vault,
    issuer: Issuer,
    signer: Signer,
    budgets: Budgets,
    dapi: Arc<crate::config::DapiConfig>,
    gate: Gate,
    pace: Arc<crate::config::Pace>,
    tasks: TaskTracker,
    changes: ChangeNotifier,
    uses: LastUses,
    wake: Arc<Notify>,
    deferred: Deferred,
    operators: Operators,
    single_flight: upstreams::SingleFlight,
    upstream_calls: ConcurrencyLimit,
    reach: Reach,
    line: relay::Line,
    relay_limit: ConcurrencyLimit,
    body_pool: BodyPool,
    metrics: Metrics,
    readiness: Readiness,
    proxies: TrustedProxies,
    cors_origins: Arc<[String]>,
}

impl Shared {
    /// What use cases work with, over `pool`. Dapi's client has connections of its own, so that each
    /// thread's stay with it.
    fn context(&self, pool: Pool) -> Result<Context, StartError> {
        let dapi = Arc::clone(&self.dapi);
        let client = dapi::Client::new(dapi, self.gate.clone(), self.metrics.dapi.clone());
        Ok(Context {
            batches: self.batches.clone(),
            pool,
            vault: self.vault.clone(),
            dapi: client.map_err(StartError::Tls)?,
            pace: Arc::clone(&self.pace),
            tasks: self.tasks.clone(),
            changes: self.changes.clone(),
            uses: self.uses.clone(),
            wake: Arc::clone(&self.wake),
            deferred: self.deferred.clone(),
            metrics: self.metrics.connections.clone(),
        })
    }
}

impl Shared {
    /// What calls to other APIs work with, in the thread of `context`.
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

    /// What one thread works with.
    fn thread(&self, workers: usize) -> Result<Thread, StartError> {
        let context = self.context(self.database.pools().worker(workers))?;
        let upstreams = self.upstreams(&context)?;
        let relay = relay::Context {
            connections: context.clone(),
            line: self.line.clone(),
            limit: self.relay_limit.clone(),
            metrics: self.metrics.relay.clone(),
        };
        Ok(Thread { context, upstreams, relay })
    }
}

/// What each thread has of its own.
#[derive(Clone)]
struct Thread {
    context: Context,
    upstreams: upstreams::Context,
    relay: relay::Context,
}

impl Service {
    /// Builds everything and begins to listen: database, migrations, vault, apps, clients, keys.
    ///
    /// # Errors
    /// Whatever keeps the service from working, in words for the operator.
    pub async fn build(config: Config, clock: Clock) -> Result<Self, StartError> {
        let callers = callers(&config);
        let database = Arc::new(Database::open(&config).await?);
        let mut conn = database.connect().await?;
        let vault = Vault::open(&mut conn, config.master_keys).await?;
        if let Some(app) = &config.default_app {
            crate::apps::ensure_default(&mut conn, &vault, app).await?;
        }
        oauth::clients::ensure_bootstrap(&mut conn, &vault, config.bootstrap.as_ref()).await?;
        oauth::signing_keys::ensure(&mut conn, &vault, config.oauth.signing_algorithm).await?;
        let directory = Directory::load(&mut conn, &vault, clock.clone()).await?;
        drop(conn);

        let listener = listen("STRONGROOM_LISTEN", config.http.listen)?;
        let metrics_listener = listen("STRONGROOM_METRICS_LISTEN", config.http.metrics_listen)?;
        let (address, metrics_address) = (listener.local_addr()?, metrics_listener.local_addr()?);
        let public_url = public_url(&config.http.public_url, config.http.listen, address);

        let pools = Arc::clone(database.pools());
        let (registry, metrics) = metrics::register(&pools);
        let guard = Guard::new(callers, Limits::DEFAULT, metrics.callers.clone());
        let audit = metrics.audit.clone();
        let budgets = Budgets::new(clock.clone(), config.oauth.reveals_per_minute);
        let control = pools.control();
        let shared = Shared {
            batches: Batches::new(&pools.batches()),
            signer: oauth::statements::signer(public_url.as_str(), directory.clone()),
            issuer: Issuer::new(
                public_url.as_str(),
                directory.clone(),
                clock,
                metrics.oauth.clone(),
            ),
            budgets,
            dapi: Arc::new(config.dapi.clone()),
            gate: Gate::new(config.dapi.max_concurrent_calls),
            pace: Arc::new(config.pace),
            tasks: TaskTracker::new(),
            changes: ChangeNotifier::default(),
            uses: LastUses::default(),
            wake: Arc::default(),
            deferred: Deferred::default(),
            operators: Operators::new(pools.operators()),
            single_flight: upstreams::SingleFlight::default(),
            upstream_calls: ConcurrencyLimit::new(upstreams::MAX_CALLS.min(callers)),
            line: relay::Line::default(),
            relay_limit: ConcurrencyLimit::new(relay::MAX_CALLS.min(callers)),
            body_pool: BodyPool::new(body_pool::Limits::DEFAULT),
            reach: Reach::allowing_private_addresses(config.allow_private_addresses),
            metrics,
            readiness: Readiness::new(directory.clone(), control.clone()),
            proxies: TrustedProxies::new(config.http.trusted_proxies),
            cors_origins: config.http.cors_origins.into(),
            vault,
            database,
        };
        let context = shared.context(pools.background())?;
        let readiness = shared.readiness.clone();
        let workers = usize::try_from(config.http.workers).unwrap_or(1);
        let metrics_guard = Guard::new(
            servers::METRICS_CONNECTIONS,
            Limits::DEFAULT,
            connection::Metrics::default(),
        );
        Ok(Self {
            address,
            metrics_address,
            public_url,
            api: servers::api(shared, guard.clone(), listener, workers)?,
            metrics: servers::metrics(registry, metrics_guard.clone(), metrics_listener)?,
            guards: [guard, metrics_guard],
            context,
            directory,
            oauth: Arc::new(config.oauth),
            audit,
            readiness,
            pools,
            control,
            grace: config.http.shutdown_grace,
        })
    }

    /// Where the API listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the metrics are.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// The URL by which callers know it.
    #[must_use]
    pub fn public_url(&self) -> &PublicUrl {
        &self.public_url
    }

    /// What the background work works with; for tests and for the command line's own rounds.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The OAuth directory of this replica.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Runs until `shutdown` resolves, then drains: readiness goes off and no new call to Dapi
    /// begins; calls that are under way end, up to the grace period; then the listeners close.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
        let stop = CancellationToken::new();
        let (oauth, audit) = (Arc::clone(&self.oauth), self.audit.clone());
        let background = background::run(self.context.clone(), oauth, audit, stop.clone());
        let background = tokio::spawn(background);
        self.run_without_background(stop, shutdown).await?;
        // It only has to finish its round: what it began is on the tracker, which was waited for.
        let _ = tokio::time::timeout(Duration::from_secs(servers::LAST_ANSWERS), background).await;
        Ok(())
    }

    /// The same without the background work, which a test then drives by itself.
    pub async fn run_without_background(
        self,
        stop: CancellationToken,
        shutdown: impl Future<Output = ()>,
    ) -> std::io::Result<()> {
        let Self {
            api, metrics, guards, context, directory, readiness, pools, control, grace, ..
        } = self;
        let watched = CancellationToken::new();
        for guard in guards {
            tokio::spawn(guard.watch(watched.clone()));
        }
        let _watched = watched.drop_guard();
        let heartbeat = tokio::spawn(readiness.clone().watch(stop.clone()));
        let refresher = tokio::spawn(background::refresh_directory(
            directory,
            control,
            context.vault.clone(),
            stop.clone(),
        ));
        let (api_handle, metrics_handle) = (api.handle(), metrics.handle());
        let mut api = tokio::spawn(api);
        let metrics = tokio::spawn(metrics);
        tokio::select! {
            () = shutdown => {}
            ended = &mut api => return ended.map_err(std::io::Error::other)?,
        }

        tracing::info!("draining");
        readiness.drain();
        context.dapi.gate().close();
        stop.cancel();
        context.tasks.close();
        if tokio::time::timeout(grace, context.tasks.wait()).await.is_err() {
            let left = context.tasks.len();
            tracing::error!(
                left,
                "the grace period ended before every call to Dapi had; leases take over"
            );
        }
        api_handle.stop(true).await;
        metrics_handle.stop(false).await;
        let _ = refresher.await;
        let _ = heartbeat.await;
        let _ = metrics.await;
        pools.close();
        tracing::info!("stopped");
        Ok(())
    }
}

/// What the background work works with, for one round by hand: no listener, no directory.
pub async fn context_of_one_round(config: Config) -> Result<Context, StartError> {
    let database = Database::open(&config).await?;
    let vault = Vault::open(&mut database.connect().await?, config.master_keys).await?;
    let mut registry = Registry::default();
    let metrics = dapi::Metrics::register(&mut registry);
    let gate = Gate::new(config.dapi.max_concurrent_calls);
    let dapi = dapi::Client::new(Arc::new(config.dapi), gate, metrics).map_err(StartError::Tls)?;
    let pool = database.pools().background();
    Ok(Context {
        batches: Batches::new(&database.pools().batches()),
        pool,
        vault,
        dapi,
        pace: Arc::new(config.pace),
        tasks: TaskTracker::new(),
        changes: ChangeNotifier::default(),
        uses: LastUses::default(),
        wake: Arc::default(),
        deferred: Deferred::default(),
        metrics: connections::Metrics::register(&mut registry),
    })
}

/// What one command signs with, besides a connection and the vault.
pub async fn issuer_of_one_command(config: Config) -> Result<(Conn, Vault, Issuer), StartError> {
    let mut conn = Database::open(&config).await?.connect().await?;
    let vault = Vault::open(&mut conn, config.master_keys).await?;
    let clock = Clock::system();
    oauth::signing_keys::ensure(&mut conn, &vault, config.oauth.signing_algorithm).await?;
    let directory = Directory::load(&mut conn, &vault, clock.clone()).await?;
    let metrics = oauth::Metrics::register(&mut Registry::default());
    let issuer = Issuer::new(config.http.public_url.as_str(), directory, clock, metrics);
    Ok((conn, vault, issuer))
}

/// A port that was left to the system to choose belongs into the public URL.
fn public_url(configured: &PublicUrl, listen: SocketAddr, address: SocketAddr) -> PublicUrl {
    if listen.port() == 0 && *configured == PublicUrl::of_listener(listen) {
        return PublicUrl::of_listener(address);
    }
    configured.clone()
}

/// How many connections callers may have: what the limit of open files leaves beside PostgreSQL, calls to
/// Dapi and through upstreams, and everything else; half of the limit at least.
fn callers(config: &Config) -> usize {
    let number = |wanted: u32| usize::try_from(wanted).unwrap_or(usize::MAX);
    let calls = number(config.dapi.max_concurrent_calls).saturating_add(upstreams::MAX_CALLS);
    let others =
        calls.saturating_add(number(config.database.connections)).saturating_add(OTHER_FILES);
    let limit = connection::open_files();
    (limit - others.min(limit / 2)).clamp(1, MOST_CALLERS)
}

fn listen(name: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address);
    bound.map_err(|cause| StartError::Listen { name, address, cause })
}
