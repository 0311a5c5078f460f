//! The operators' console: pages on a listener of their own.
//!
//! `table` names every route with the role that it needs, and `guard` stands before all of them: a route that is not in
//! the table does not exist. A page is server-rendered, works without script as far as it can, and calls the same use
//! cases as the API and the command line.
//!
//! May import: approvals, apps, audit, common, database, http, operators, vault, and the features whose use cases its pages call.

pub mod answer;
mod approvals;
mod assets;
mod audit;
mod clients;
mod connections;
mod context;
mod fields;
mod forms;
pub mod guard;
mod home;
mod incident;
mod keys;
pub mod layout;
mod live;
mod now;
mod of_app;
mod parts;
mod passkeys;
mod people;
mod provider;
mod refusal;
mod sign_in;
pub mod signed_in;
pub mod table;
mod upstreams;
mod users;
mod webhooks;

pub use context::Console;
pub use keys::Counts;
pub use provider::OpenIdProvider;
pub use table::configure;
