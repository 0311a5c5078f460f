//! The service: assembles the parts, runs them, drains them. The only module that knows every
//! feature.
//!
//! Building is separate from running, so that a test binds port 0 and reads the address.

mod database;
mod documents;
mod metrics;
mod migrations;
mod openapi;
mod query;
mod routes;
mod servers;
mod shared;
mod status;
mod store;
mod waiting;

pub use database::{Database, StartError};
pub use metrics::metrics_registry;
pub use migrations::{Expected, Lock, Migrated, Pending, Work, check as check_migrations, migrate};
pub use openapi::document;
pub use status::Readiness;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::shared::{Parts, Shared, Thread};
use crate::common::clock::Clock;
use crate::config::{
    BootstrapClient, Config, ConsoleConfig, EnvironmentApp, OauthConfig, PublicUrl,
};
use crate::connections::{Batches, Budgets, ChangeNotifier, Context, Deferred, LastUses};
use crate::database::{Conn, Pool, Pools};
use crate::http::connection;
use crate::http::connection::{Guard, Limits};
use crate::oauth::{Directory, Issuer};
use crate::outbound::Reach;
use crate::providers::{Gate, Provider};
use crate::vault::{Prepared, Vault};
use crate::{approvals, audit, background, connections, events, oauth, providers, upstreams};

/// Open files other than connections to PostgreSQL, Dapi, upstreams and callers.
const OTHER_FILES: usize = 64;
/// The maximum number of callers' connections: clients keep theirs open, so more would only cost
/// memory.
const MAX_CALLERS: usize = 4096;

/// A service that is built and listens, and does not run yet.
pub struct Service {
    address: SocketAddr,
    metrics_address: SocketAddr,
    public_url: PublicUrl,
    console: Option<ConsoleAt>,
    api: Server,
    metrics: Server,
    guards: [Guard; 2],
    context: Context,
    events: events::Context,
    directory: Directory,
    oauth: Arc<OauthConfig>,
    audit: audit::Metrics,
    readiness: Readiness,
    pools: Arc<Pools>,
    control: Pool,
    grace: Duration,
}

/// The console's listener, and where browsers find it.
struct ConsoleAt {
    url: PublicUrl,
    server: Server,
    guard: Guard,
}

impl ConsoleAt {
    fn build(config: Option<&ConsoleConfig>, shared: &Shared) -> Result<Option<Self>, StartError> {
        let Some(config) = config else { return Ok(None) };
        let listener = listen("STRONGROOM_CONSOLE_LISTEN", config.listen)?;
        let port = listener.local_addr()?.port();
        let mut at = config.clone();
        // The operating system chooses the port if it is 0.
        at.listen.set_port(port);
        let url = at.url();
        let uncounted = connection::Metrics::default();
        let guard = Guard::new(servers::CONSOLE_CONNECTIONS, Limits::DEFAULT, uncounted);
        let server = servers::console(
            shared.clone(),
            (url.as_str(), config.provider.clone()),
            guard.clone(),
            listener,
        )?;
        Ok(Some(Self { url, server, guard }))
    }

    /// Runs the listener and its guard; returns the handle that stops it.
    fn start(self, watched: &CancellationToken) -> ServerHandle {
        let handle = self.server.handle();
        tokio::spawn(self.guard.watch(watched.clone()));
        tokio::spawn(self.server);
        handle
    }
}

impl Service {
    /// Builds everything and starts to listen: database, migrations, vault, apps, clients, keys.
    ///
    /// # Errors
    /// Whatever keeps the service from working, with a message for the operator.
    pub async fn build(config: Config, clock: Clock) -> Result<Self, StartError> {
        let callers = callers(&config);
        let database = Arc::new(migrations::open_database(&config.database).await?);
        let listener = listen("STRONGROOM_LISTEN", config.http.listen)?;
        let metrics_listener = listen("STRONGROOM_METRICS_LISTEN", config.http.metrics_listen)?;
        let (address, metrics_address) = (listener.local_addr()?, metrics_listener.local_addr()?);
        let pools = Arc::clone(database.pools());
        let (registry, metrics) = metrics::register(&pools);
        let masters = Arc::new(config.master_keys.counted_by(metrics.vault.clone()));
        let mut conn = database.connect().await?;
        let prepared = waiting::for_keys(&mut conn, &masters, &listener).await?;
        let apps = [config.default_app.as_ref(), config.plaid_app.as_ref()];
        let client = config.bootstrap.as_ref();
        let vault = register(&mut conn, prepared, apps, client, &config.oauth).await?;
        let directory = Directory::load(&mut conn, &vault, clock.clone()).await?;
        drop(conn);

        let public_url = public_url(&config.http.public_url, config.http.listen, address);

        let (guard, metrics_guard) = guards(callers, metrics.callers.clone());
        let (audit, control) = (metrics.audit.clone(), pools.control());
        let shared = Shared::new(
            Parts {
                budgets: Budgets::new(clock.clone(), config.oauth.reveals_per_minute),
                readiness: Readiness::new(directory.clone(), vault.clone(), control.clone()),
                reach: Reach::allowing_private_addresses(config.allow_private_addresses),
                public_url: &public_url,
                four_eyes: config.four_eyes,
                directory: directory.clone(),
                clock,
                vault,
                database,
                metrics,
                callers,
            },
            &config.providers,
            &config.http,
            Arc::new(config.pace),
        )?;
        let (context, events) = shared.background(pools.background())?;
        let readiness = shared.readiness.clone();
        let workers = usize::try_from(config.http.workers).unwrap_or(1);
        let console = ConsoleAt::build(config.console.as_ref(), &shared)?;
        Ok(Self {
            address,
            metrics_address,
            public_url,
            console,
            api: servers::api(shared, guard.clone(), listener, workers)?,
            metrics: servers::metrics(registry, metrics_guard.clone(), metrics_listener)?,
            guards: [guard, metrics_guard],
            context,
            events,
            directory,
            oauth: Arc::new(config.oauth),
            audit,
            readiness,
            pools,
            control,
            grace: config.http.shutdown_grace,
        })
    }

    /// The address on which the API listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address on which the metrics are served.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// The URL by which callers know the service.
    #[must_use]
    pub fn public_url(&self) -> &PublicUrl {
        &self.public_url
    }

    /// The URL by which browsers reach the console, if it is on.
    #[must_use]
    pub fn console_url(&self) -> Option<&PublicUrl> {
        self.console.as_ref().map(|console| &console.url)
    }

    /// The context of the background work, for tests and for rounds that a command runs.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The context of the events, for tests.
    #[must_use]
    pub fn events(&self) -> &events::Context {
        &self.events
    }

    /// The OAuth directory of this replica.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Runs until `shutdown` resolves, then drains: readiness is withdrawn and no new call to Dapi
    /// starts; calls in progress end, up to the grace period; then the listeners close.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
        let stop = CancellationToken::new();
        let (oauth, audit) = (Arc::clone(&self.oauth), self.audit.clone());
        let (context, events) = (self.context.clone(), self.events.clone());
        let background = background::run(context, events, oauth, audit, stop.clone());
        self.run_with(background.boxed(), stop, shutdown).await
    }

    /// Runs without the background work, which a test then drives itself.
    pub async fn run_without_background(
        self,
        stop: CancellationToken,
        shutdown: impl Future<Output = ()>,
    ) -> std::io::Result<()> {
        self.run_with(std::future::ready(()).boxed(), stop, shutdown).await
    }

    async fn run_with(
        self,
        background: BoxFuture<'static, ()>,
        stop: CancellationToken,
        shutdown: impl Future<Output = ()>,
    ) -> std::io::Result<()> {
        let Self {
            mut api,
            console,
            metrics,
            guards,
            context,
            events,
            directory,
            readiness,
            pools,
            control,
            grace,
            ..
        } = self;
        let watched = CancellationToken::new();
        let console = console.map(|console| console.start(&watched));
        for guard in guards {
            tokio::spawn(guard.watch(watched.clone()));
        }
        let _watched = watched.drop_guard();
        let (api_handle, metrics_handle) = (api.handle(), metrics.handle());
        // Starts the threads that serve requests before the background work opens its connections to PostgreSQL, which
        // would double the time to the first response.
        if let Some(ended) = (&mut api).now_or_never() {
            return ended;
        }
        let mut api = tokio::spawn(api);
        let vault = context.vault.clone();
        let others = [
            tokio::spawn(metrics.map(drop)),
            tokio::spawn(readiness.clone().watch(stop.clone())),
            tokio::spawn(background::watch_masters(vault.clone(), stop.clone())),
            tokio::spawn(background::refresh_directory(directory, control, vault, stop.clone())),
        ];
        let background = tokio::spawn(background);
        tokio::select! {
            () = shutdown => {}
            ended = &mut api => return ended.map_err(std::io::Error::other)?,
        }

        tracing::info!("draining");
        readiness.drain();
        context.providers.gate().close();
        stop.cancel();
        events.feed.close();
        context.tasks.close();
        wait_for_calls(&context.tasks, grace).await;
        // Who waits for more is answered as it is now: nothing happens here any more, and another replica goes on with it.
        context.changes.close();
        api_handle.stop(true).await;
        if let Some(console) = console {
            console.stop(true).await;
        }
        metrics_handle.stop(false).await;
        for other in others {
            let _ = other.await;
        }
        pools.close();
        // It only has to finish its round: the tracker, which was waited for, has the calls that it started.
        let last = Duration::from_secs(servers::LAST_RESPONSES);
        let _ = tokio::time::timeout(last, background).await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits for the calls in progress, up to the grace period.
async fn wait_for_calls(tasks: &TaskTracker, grace: Duration) {
    if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
        let left = tasks.len();
        tracing::error!(
            left,
            "the grace period ended before every call to Dapi had; leases take over"
        );
    }
}

/// Records what a start brings, all or nothing: a start that fails records no master key.
async fn register(
    conn: &mut Conn,
    prepared: Prepared,
    [dapi, plaid]: [Option<&EnvironmentApp>; 2],
    bootstrap: Option<&BootstrapClient>,
    config: &OauthConfig,
) -> Result<Vault, StartError> {
    let mut tx = conn.begin().await?;
    let vault = prepared.register(&mut tx).await?;
    let apps = [(Provider::Dapi, dapi), (Provider::Plaid, plaid)];
    ensure_configured(&mut tx, &vault, apps, bootstrap, config).await?;
    tx.commit().await?;
    Ok(vault)
}

/// Ensures what the environment describes: its apps, the bootstrap client and a signing key.
async fn ensure_configured(
    conn: &mut Conn,
    vault: &Vault,
    apps: [(Provider, Option<&EnvironmentApp>); 2],
    bootstrap: Option<&BootstrapClient>,
    config: &OauthConfig,
) -> Result<(), StartError> {
    let described = apps.into_iter().filter_map(|(provider, app)| Some((provider, app?)));
    let described: Vec<_> = described.collect();
    for (provider, app) in &described {
        crate::apps::ensure(conn, vault, *provider, app).await?;
    }
    // Of `default`, unless the environment describes the other app alone.
    let only_plaid = matches!(described.as_slice(), [(Provider::Plaid, _)]);
    let of = if only_plaid { Provider::Plaid } else { Provider::Dapi };
    let app = crate::apps::name_of(of);
    oauth::clients::ensure_bootstrap(conn, vault, bootstrap, app).await?;
    oauth::signing_keys::ensure(conn, vault, config.signing_algorithm).await?;
    Ok(())
}

/// Returns the context for one round of the background work by a command: no listener, no
/// directory.
pub async fn context_of_one_round(config: Config) -> Result<Context, StartError> {
    let database = migrations::open_database(&config.database).await?;
    let vault = Vault::open(&mut database.connect().await?, config.master_keys).await?;
    let mut registry = Registry::default();
    let metrics = providers::Metrics::register(&mut registry);
    let gate = Gate::new(config.providers.max_concurrent_calls);
    let providers = providers::Client::new(Arc::new(config.providers), gate, metrics)
        .map_err(StartError::Tls)?;
    let pool = database.pools().background();
    Ok(Context {
        batches: Batches::new(&database.pools().batches()),
        pool,
        vault,
        providers,
        four_eyes: config.four_eyes,
        pace: Arc::new(config.pace),
        tasks: TaskTracker::new(),
        changes: ChangeNotifier::default(),
        uses: LastUses::default(),
        wake: Arc::default(),
        deferred: Deferred::default(),
        metrics: connections::Metrics::register(&mut registry),
        approvals: approvals::Metrics::register(&mut registry),
    })
}

/// Returns what a command signs with, a connection and the vault.
pub async fn issuer_of_one_command(config: Config) -> Result<(Conn, Vault, Issuer), StartError> {
    let mut conn = migrations::open_database(&config.database).await?.connect().await?;
    let vault = Vault::open(&mut conn, config.master_keys).await?;
    let clock = Clock::system();
    oauth::signing_keys::ensure(&mut conn, &vault, config.oauth.signing_algorithm).await?;
    let directory = Directory::load(&mut conn, &vault, clock.clone()).await?;
    let metrics = oauth::Metrics::register(&mut Registry::default());
    let issuer = Issuer::new(config.http.public_url.as_str(), directory, clock, metrics);
    Ok((conn, vault, issuer))
}

/// Returns the public URL, with the actual port if the operating system chose it.
fn public_url(configured: &PublicUrl, listen: SocketAddr, address: SocketAddr) -> PublicUrl {
    if listen.port() == 0 && *configured == PublicUrl::of_listener(listen) {
        return PublicUrl::of_listener(address);
    }
    configured.clone()
}

/// Returns how many connections callers may have: the limit on open files less PostgreSQL, calls to
/// Dapi and through upstreams, and everything else; half of the limit at least.
fn callers(config: &Config) -> usize {
    let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let calls = number(config.providers.max_concurrent_calls).saturating_add(upstreams::MAX_CALLS);
    let others =
        calls.saturating_add(number(config.database.connections)).saturating_add(OTHER_FILES);
    let limit = connection::open_files();
    (limit - others.min(limit / 2)).clamp(1, MAX_CALLERS)
}

/// Returns the guards of the API's listener and of the metrics'.
fn guards(callers: usize, metrics: connection::Metrics) -> (Guard, Guard) {
    let uncounted = connection::Metrics::default();
    (
        Guard::new(callers, Limits::DEFAULT, metrics),
        Guard::new(servers::METRICS_CONNECTIONS, Limits::DEFAULT, uncounted),
    )
}

fn listen(name: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address);
    bound.map_err(|cause| StartError::Listen { name, address, cause })
}
