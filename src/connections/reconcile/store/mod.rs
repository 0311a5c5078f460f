//! What is due, and claiming it.

mod claim;
mod due;

pub use claim::*;
pub use due::*;
