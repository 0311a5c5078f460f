//! Strongroom: the service behind a "connect your bank" button.
//!
//! It exchanges the access codes that Dapi's Connect layer returns for access tokens, keeps the
//! tokens sealed per user in PostgreSQL, lends them to an app's backends and revokes them for sure.

pub mod base;
pub mod config;
pub mod http;
pub mod vault;
