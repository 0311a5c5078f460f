//! Strongroom: the service behind a "connect your bank" button.
//!
//! It exchanges the access codes that Dapi's Connect layer returns for access tokens, keeps the
//! tokens sealed per user in PostgreSQL, lends them to an app's backends and revokes them for sure.

pub mod apps;
pub mod audit;
pub mod background;
pub mod base;
pub mod cli;
pub mod config;
pub mod connections;
pub mod dapi;
pub mod database;
pub mod erasure;
pub mod http;
pub mod oauth;
pub mod outbound;
pub mod relay;
pub mod service;
pub mod sessions;
pub mod telemetry;
pub mod upstreams;
pub mod users;
pub mod vault;
