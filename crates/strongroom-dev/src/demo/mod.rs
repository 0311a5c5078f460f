//! The demo: a page with a "connect your bank" button, and the small backend behind it.
//!
//! The page plays an app's frontend: it opens Dapi's Connect or Plaid's Link, submits the result to Strongroom with
//! a connect session, and holds nothing else. The backend plays the app's own: it holds the credentials of a client
//! for each bank link, obtains access tokens and calls Strongroom over HTTP. Two things no app can do are for the
//! newcomer: it reads from PostgreSQL how a secret is stored, and makes the sandbox fail.
//!
//! It serves this machine's browser only: another `Host` (DNS rebinding) or `Origin` (cross-site request
//! forgery) is refused.
//!
//! May import: the folder's `hex`. It reaches Strongroom over HTTP, as any app does.

mod calls;
mod connection_id;
mod guard;
mod link;
mod page;
mod problem;
mod routes;
mod store;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpServer, middleware, web};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use calls::{Sandbox, Strongroom};
use link::Link;
use page::Page;
use strongroom_common::clock::Clock;
use strongroom_common::secret::SecretText;

/// The demo's one user, as the app knows them.
pub const USER: &str = "ada";
/// How long unfinished answers may delay a shutdown, in seconds.
const LINGER: u64 = 1;
/// How long a request of the page waits for a connection to PostgreSQL.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// An app of Strongroom's, and the client as which the backend calls in its name.
#[derive(Debug)]
pub struct AppClient {
    /// The app's name.
    pub app: &'static str,
    /// The `client_id`.
    pub id: String,
    /// The client secret.
    pub secret: SecretText,
}

/// The URLs that exchanges go to, if those are not the sandbox's.
#[derive(Debug, Clone, Default)]
pub struct External {
    /// Dapi's.
    pub dapi: Option<String>,
    /// Plaid's.
    pub plaid: Option<String>,
}

/// The settings of the demo.
#[derive(Debug)]
pub struct Settings {
    /// The sandbox's URL, without a trailing slash.
    pub sandbox: String,
    /// The URLs that exchanges go to, if those are not the sandbox's.
    pub external: External,
    /// The app at Dapi.
    pub dapi: AppClient,
    /// The app at Plaid.
    pub plaid: AppClient,
    /// Strongroom's database, to show how secrets are stored.
    pub database: PgConnectOptions,
}

/// The state that the handlers share.
struct Demo {
    dapi: Strongroom,
    plaid: Strongroom,
    sandbox: Sandbox,
    pool: PgPool,
    page: Page,
    host: guard::Host,
}

impl Demo {
    /// Returns the client of Strongroom for the app at this bank link.
    fn at(&self, link: Link) -> &Strongroom {
        match link {
            Link::Dapi => &self.dapi,
            Link::Plaid => &self.plaid,
        }
    }
}

/// Returns the address by which a browser on this machine reaches a listener.
#[must_use]
pub fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// Builds the demo's server on `listener`, with Strongroom's API at `strongroom`. The caller runs the returned
/// future, stops it by its handle, and handles signals.
pub fn server(settings: Settings, strongroom: &str, listener: TcpListener) -> io::Result<Server> {
    let host = guard::Host::of(reachable(listener.local_addr()?));
    let page = Page::new(&settings, strongroom, &host);
    let http = calls::http().map_err(io::Error::other)?;
    let client =
        |of: AppClient| Strongroom::new(http.clone(), strongroom.to_owned(), of, Clock::system());
    let demo = web::Data::new(Demo {
        dapi: client(settings.dapi),
        plaid: client(settings.plaid),
        sandbox: Sandbox::new(http, settings.sandbox),
        pool: PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(settings.database.application_name("strongroom-demo")),
        page,
        host,
    });
    let app = move || {
        App::new()
            .app_data(demo.clone())
            .configure(routes::all)
            .wrap(middleware::from_fn(guard::guard))
    };
    let server = HttpServer::new(app)
        .workers(1)
        .disable_signals()
        .shutdown_timeout(LINGER)
        .listen(listener)?;
    Ok(server.run())
}
