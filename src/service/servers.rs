//! The listeners: actix-web's server, assembled from its parts so that each connection is guarded.

use std::fmt::Debug;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::operators::passkeys::RelyingParty;
use crate::outbound;
use actix_http::{HttpService, Protocol, Request, Response};
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server};
use actix_web::{App, middleware, web};
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tracing_actix_web::TracingLogger;

use super::{Shared, StartError, routes, status};
use crate::config::OidcConfig;
use crate::console::{self, Console, OpenIdProvider};
use crate::http::connection::{Guard, Guarded, Limits, Slot};
use crate::http::layers::{self, RequestSpan};

/// The time limit for a request's head.
const HEAD_TIMEOUT: Duration = Limits::DEFAULT.head;
/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Limits::DEFAULT.idle;
/// How long a connection may take to close, and how long input on a closing one is still read.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last responses may take to be written after everything else has ended, in seconds.
pub(super) const LAST_RESPONSES: u64 = 5;
/// The maximum number of connections to the console. Each open page holds one or two.
pub(super) const CONSOLE_CONNECTIONS: usize = 256;
/// The maximum number of connections to the metrics.
pub(super) const METRICS_CONNECTIONS: usize = 32;

pub(super) fn api(
    shared: Shared,
    guard: Guard,
    listener: TcpListener,
    workers: usize,
) -> Result<Server, StartError> {
    // Created here, so that an error is reported before anything runs. One per thread: a pool or
    // client that threads share costs a quarter of the throughput.
    let threads: Vec<_> = (0..workers).map(|_| shared.thread(workers)).collect::<Result<_, _>>()?;
    let threads = Arc::new(std::sync::Mutex::new(threads.into_iter().cycle()));
    let factory = move || {
        let next = threads.lock().ok().and_then(|mut threads| threads.next());
        let shared = shared.clone();
        App::new()
            .configure(|config| routes::data(config, &shared, next))
            .configure(|config| routes::all(config, &shared.cors_origins))
            .default_service(web::to(routes::not_found))
            .wrap(middleware::from_fn(layers::answer))
            .wrap(TracingLogger::<RequestSpan>::new())
    };
    server("api", listener, workers, guard, factory)
}

/// The console: pages for operators, in one thread of their own.
pub(super) fn console(
    shared: Shared,
    (origin, provider): (&str, Option<OidcConfig>),
    guard: Guard,
    listener: TcpListener,
) -> Result<Server, StartError> {
    let pool = shared.database.pools().console();
    let (party, vault) = (RelyingParty::of_origin(origin), shared.vault.clone());
    let outbound = outbound::Client::new(shared.reach).map_err(StartError::Tls)?;
    let provider = provider.map(|provider| OpenIdProvider::new(provider, outbound));
    let (origin, clock) = (origin.into(), shared.clock.clone());
    let console = Console { origin, party, provider, clock, pool: pool.clone(), vault };
    let thread = shared.console_thread(pool)?;
    let counts = web::Data::new(console::Counts::default());
    let factory = move || {
        let (console, thread) = (console.clone(), thread.clone());
        App::new()
            .app_data(web::Data::new(console))
            .app_data(counts.clone())
            .configure(|config| routes::data(config, &shared, Some(thread)))
            .configure(console::configure)
            .wrap(middleware::from_fn(console::guard::guard))
            .wrap(middleware::from_fn(console::answer::finish))
            .wrap(middleware::from_fn(layers::answer))
            .wrap(TracingLogger::<RequestSpan>::new())
    };
    server("console", listener, 1, guard, factory)
}

pub(super) fn metrics(
    registry: Registry,
    guard: Guard,
    listener: TcpListener,
) -> Result<Server, StartError> {
    let registry = web::Data::new(registry);
    let factory = move || {
        App::new()
            .app_data(registry.clone())
            .route("/metrics", web::get().to(status::metrics))
            .default_service(web::to(routes::not_found))
            .wrap(middleware::from_fn(layers::guarded))
    };
    server("metrics", listener, 1, guard, factory)
}

/// Returns a server that does not run yet.
fn server<F, I, S, B>(
    name: &'static str,
    listener: TcpListener,
    workers: usize,
    guard: Guard,
    factory: F,
) -> Result<Server, StartError>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let address = listener.local_addr()?;
    let builder = Server::build()
        .workers(workers)
        .disable_signals()
        .shutdown_timeout(LAST_RESPONSES)
        // The listener does not accept what it could not serve.
        .max_concurrent_connections(guard.capacity().div_ceil(workers));
    let draining = builder.graceful_shutdown_signal();
    let builder = builder.listen(name, listener, move || {
        let (guard, draining) = (guard.clone(), draining.clone());
        let app = factory().into_factory().map_err(|error| error.into().error_response());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let draining = draining.clone();
                async move { draining.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_TIMEOUT)
            .client_disconnect_timeout(CLOSE_TIMEOUT)
            // A caller may close its half after the request and still gets the response (RFC 9112
            // §9.6).
            .h1_allow_half_closed(true)
            .local_addr(address)
            .on_connect_ext(|io: &Guarded, data| {
                let slot: Arc<Slot> = io.slot();
                data.insert(slot);
            })
            .finish(map_config(app, |()| AppConfig::default()));
        fn_service(move |io: TcpStream| {
            let peer = io.peer_addr().ok();
            let io = guard.admit(io);
            async move { Ok::<_, actix_http::error::DispatchError>((io, Protocol::Http1, peer)) }
        })
        .and_then(http)
    })?;
    Ok(builder.run())
}
