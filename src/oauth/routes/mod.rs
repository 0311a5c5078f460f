//! The OAuth endpoints, one a file.

pub mod token;
