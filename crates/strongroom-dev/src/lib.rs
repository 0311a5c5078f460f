//! What developing and testing against Strongroom takes, and what its production binary must not
//! contain: the sandbox that stands in for Dapi, a PostgreSQL of one's own, and what `strongroom dev`
//! needs besides.
//!
//! Nothing in here depends on the service, which reaches these parts over HTTP and as settings:
//! `src/cli/dev` and `src/cli/sandbox.rs` of the root package join the two.

pub mod banner;
pub mod demo;
pub mod folder;
pub mod postgres;
pub mod sandbox;
