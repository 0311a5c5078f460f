//! Tools for developing and testing against Strongroom, which its production binary must not contain: the
//! sandbox that stands in for Dapi and Plaid, a local PostgreSQL, and the other parts of `strongroom dev`.
//!
//! Nothing here depends on the service. The tools reach it over HTTP and by its settings; `src/cli/dev` and
//! `src/cli/sandbox.rs` of the root package join the two.

pub mod banner;
pub mod demo;
pub mod folder;
pub mod postgres;
pub mod requests;
pub mod sandbox;
