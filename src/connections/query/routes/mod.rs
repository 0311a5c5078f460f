//! Reading connections over HTTP.

pub mod read;
pub mod search;
