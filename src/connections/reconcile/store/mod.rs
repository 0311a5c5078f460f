//! Finding due rows (`due`), and claiming them (`claim`).

mod claim;
mod due;

pub use claim::*;
pub use due::*;
