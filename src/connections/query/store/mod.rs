//! Statements that read connections, for clients and for operators.

mod read;
mod search;
pub mod snapshot;
pub mod view;

pub use read::*;
pub use search::*;
