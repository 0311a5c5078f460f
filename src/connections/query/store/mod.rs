//! What callers and operators see of connections.

mod read;
mod search;
pub mod view;

pub use read::*;
pub use search::*;
