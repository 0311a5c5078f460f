//! Statements that read connections, for clients and for operators.

mod count;
mod read;
mod search;
pub mod snapshot;
pub mod view;

pub use count::*;
pub use read::*;
pub use search::*;
