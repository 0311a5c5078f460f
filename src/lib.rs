//! Strongroom: the service behind a "connect your bank" button.
//!
//! It exchanges the access codes that Dapi's Connect layer returns for access tokens, keeps the
//! tokens sealed per user in PostgreSQL, reveals them to an app's backends or calls Dapi with them, and revokes
//! them with certainty.
//!
//! # The map
//!
//! A thin binary (`main`) calls [`cli`]. Dependencies point from the top of this list to its end, and
//! `tests/architecture.rs` checks them; each module's documentation says what it owns and what it may import.
//!
//! - [`cli`]: the commands, one file each; may import everything
//! - [`service`]: the route table; builds, runs and drains a replica
//! - [`background`]: the loops of the background work, and the refresh of the OAuth directory
//! - [`events`]: what happened, for an app's backends to read in the order of the commits
//! - [`console`]: the operators' pages, on a listener of their own
//! - [`relay`]: calls to Dapi on a connection's behalf, and Dapi's own wire for its SDKs
//! - [`connections`]: a connection's life: exchange, import, reveal, revocation, erasure, reconciliation, the token lease
//! - [`sessions`]: connect sessions, the short-lived tokens of single browsers
//! - [`upstreams`]: other APIs' client-credentials tokens: fetched in a single flight, cached, acquired, used
//! - [`oauth`]: clients, credentials, access tokens, signing keys
//! - [`apps`]: tenants: one Dapi application each, with a data key
//! - [`moves`]: an app on its way to another deployment: the fence, the export, the import
//! - [`users`]: an app's users, each with a data key
//! - [`operators`]: people of the deployment, their roles, links and sessions
//! - [`approvals`]: four eyes: what waits until a second person approves it
//! - [`audit`]: the append-only trail, its hash chain, its checkpoints
//! - [`http`]: what every route imports: problems, callers, strict bodies, layers, limits of TCP connections
//! - [`outbound`]: HTTP to URLs that came in by API, to public addresses only
//! - [`providers`]: the bank links: their vocabulary and wire formats, the client that speaks them, the gate before it
//! - [`vault`]: master keys, data keys, keyed hashes, sealed values
//! - [`telemetry`]: logs, and the gauges of the database pools
//! - [`database`]: connections, transactions, deadlines, batched queries
//! - [`config`]: the environment, parsed once into checked types
//! - [`common`]: common types: ids, clock, secret text, paging, scopes, actors, trace context; imports no other module

pub mod approvals;
pub mod apps;
pub mod audit;
pub mod background;
pub mod cli;
pub mod common;
pub mod config;
pub mod connections;
pub mod console;
pub mod database;
pub mod events;
pub mod http;
pub mod moves;
pub mod oauth;
pub mod operators;
pub mod outbound;
pub mod providers;
pub mod relay;
pub mod service;
pub mod sessions;
pub mod telemetry;
pub mod upstreams;
pub mod users;
pub mod vault;
