//! The sandbox: a fake Dapi and a fake Plaid, to develop and to test against.
//!
//! It speaks Dapi's wire format as far as that is known (`/v2/…`, and `POST /` for SDKs inside apps), has its own
//! Connect (`/connect`), and does on demand what no test can make the real one do: lose an answer, issue a second
//! token for one code, take a minute, send a gigabyte (`/sandbox/…`). All state is in memory and follows a clock
//! that tests can advance.
//!
//! [`Plaid`] stands beside it, under `/plaid`: its API, Link's page and signed webhooks. What both need is common:
//! codes of single use, faults, the journal, rules, the clock, and the way of a call from arrival to answer.
//!
//! It also has token endpoints of other systems that an app reaches with OAuth 2.0 client credentials, each with a
//! small protected API.
//!
//! Where Dapi documents nothing, the sandbox plays every behaviour that a caller must be ready for. It shares no
//! type with the service's client: two sides that share their structs hide a drift of the contract. It cannot,
//! because this package does not depend on the service.
//!
//! Limits: 100,000 logins or items, codes and tokens each ([`Settings::capacity`]), 10,000 operations and calls, 1,000
//! faults, 50 added beneficiaries per login; the oldest is evicted first.
//!
//! Imports no other module of this package. Only the wires, the control APIs and
//! the pages import actix.

mod answer;
mod api;
mod bank;
mod batch;
mod body;
mod bounded;
mod calls;
mod common;
mod connect;
mod control;
mod cut;
mod data;
mod endpoint;
mod faults;
mod handle;
mod mint;
mod model;
mod operations;
mod page;
mod payees;
mod payment;
mod plaid;
mod problem;
mod settings;
mod single_use;
mod systems;
mod systems_wire;
mod visit;
mod wire;

pub use bank::FAILING_USERNAME;
pub use calls::{CallRecord, CallReport, CodeCount};
pub use faults::{Effect, Fault, Huge, InvalidFault, Refuse, SetFault, Status, When};
pub use handle::{ConnectOptions, ConnectResult, InvalidConnect, Sandbox, TokenInfo};
pub use plaid::{
    AccessTokenInfo, Delivery, Forgery, InvalidLink, ItemInfo, LinkOptions, LinkResult, Plaid,
    Webhook, WebhookOptions,
};
pub use settings::{
    App, DEFAULT_APP_KEY, DEFAULT_APP_SECRET, DEFAULT_PLAID_CLIENT_ID, DEFAULT_PLAID_SECRET,
    DelinkCuts, Mfa, RemovedItem, Rules, RulesChange, SecondExchange, Settings,
};

pub use systems::{SYSTEMS_CLIENT_ID, SYSTEMS_CLIENT_SECRET};

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::web::{self, PayloadConfig, ThinData};
use actix_web::{App as WebApp, HttpServer};

/// How long calls in flight may delay a shutdown, in seconds.
const LINGER: u64 = 1;
/// How long an idle connection is kept: longer than clients keep theirs (20 s for Strongroom's), so that none sends a request on
/// one that is being closed at that moment.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// Builds the server of `sandbox` on `listener`. The caller runs the returned future, stops it by its handle, and
/// handles signals.
pub fn server(sandbox: &Sandbox, listener: TcpListener) -> io::Result<Server> {
    let workers = sandbox.0.workers;
    let sandbox = sandbox.clone();
    let app = move || {
        WebApp::new()
            .app_data(ThinData(sandbox.clone()))
            .app_data(ThinData(sandbox.plaid()))
            .app_data(PayloadConfig::new(wire::LONGEST_BODY))
            .configure(plaid::control_routes)
            .configure(control::routes)
            .configure(connect::routes)
            .configure(plaid::routes)
            .configure(systems_wire::routes)
            .service(web::resource("/").get(control::index).default_service(web::to(wire::dapi)))
            .default_service(web::to(wire::dapi))
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .disable_signals()
        .shutdown_timeout(LINGER)
        .keep_alive(KEEP_ALIVE)
        .listen(listener)?;
    Ok(server.run())
}
