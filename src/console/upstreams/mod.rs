//! Upstreams: how old their tokens are, and which cannot be had.

pub mod page;
pub mod routes;
