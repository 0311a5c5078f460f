//! Reads of connections: one, a list, an operator's search across users, and waiting for a change.

mod notifier;
pub mod routes;
pub mod search;
pub mod store;
pub mod wait;

pub use notifier::ChangeNotifier;
