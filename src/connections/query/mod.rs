//! Reading connections: one, a list, a search across users, and waiting for one to change.

mod notifier;
pub mod routes;
pub mod search;
pub mod store;
pub mod wait;

pub use notifier::ChangeNotifier;
