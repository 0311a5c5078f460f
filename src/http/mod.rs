//! What every feature's routes import: problems, callers, strict bodies, the caller's address, and
//! the layers around every request.
//!
//! May import: common, database, vault.

pub mod body;
pub mod body_pool;
pub mod caller;
pub mod concurrency;
pub mod connection;
mod detached;
mod failures;
pub mod layers;
pub mod metrics;
pub mod operators;
pub mod paging;
pub mod peer;
pub mod problem;
pub mod responses;

pub use detached::detached;
