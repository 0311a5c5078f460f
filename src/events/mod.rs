//! Events: what happened to an app's connections, users and clients, for its backends to read or to be sent.
//!
//! A trigger writes each event to `event_outbox` in the transaction of its change, so that no statement can forget one
//! (`migrations/20261127200000_events.sql`). The dispatcher gives committed events their positions, app by app, and
//! renders their data by the functions that render `GET`. `GET /v1/events` reads them by position: a cursor never skips
//! an event that committed late, because a position is given after the commit. See ADR 23.
//!
//! A trigger adds one delivery for each webhook that takes the event; `delivery` makes them, at least once, each signed
//! (Standard Webhooks). `endpoints` are the webhooks and their secrets.
//!
//! `kind`, `cursor` and `model` hold the types and do no I/O; `store` holds the SQL; `dispatch`, `feed` and `sweep` are
//! the use cases.
//!
//! May import: common, database, vault, http, outbound, audit, connections, oauth.

mod cursor;
pub mod delivery;
pub mod dispatch;
pub mod endpoints;
mod feed;
pub mod kind;
mod metrics;
pub mod model;
mod render;
pub mod routes;
mod store;
mod sweep;

pub use feed::{Feed, MAX_WAITING};
pub use metrics::Metrics;
pub use sweep::sweep;

use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::database::{Batch, Pool};
use crate::oauth::Issuer;
use crate::outbound;
use crate::vault::Vault;

/// What reading and dispatching events works with. Every thread has a pool of its own; the rest is shared.
#[derive(Clone)]
pub struct Context {
    /// PostgreSQL.
    pub pool: Pool,
    /// Signs the receipt in the data of `user.erased`.
    pub issuer: Issuer,
    /// Tells waiting requests of new events.
    pub feed: Feed,
    /// Seals and opens the secrets of webhooks.
    pub vault: Vault,
    /// The client for URLs that callers configured.
    pub outbound: outbound::Client,
    /// What is being sent from this replica.
    pub sender: delivery::Sender,
    /// The records of deliveries that succeeded.
    pub delivered: Batch<delivery::Report>,
    /// Attempts under way; a shutdown waits for them.
    pub tasks: TaskTracker,
    /// How long events are kept.
    pub retention: Duration,
    /// What is counted.
    pub metrics: Metrics,
}
