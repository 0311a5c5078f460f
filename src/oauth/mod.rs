//! Strongroom as an OAuth 2.0 authorization server: client credentials and nothing else (RFC 6749
//! §4.4), access tokens as JWTs (RFC 9068), their revocation (RFC 7009) and introspection (RFC
//! 7662), metadata (RFC 8414).
//!
//! A request goes through `credentials` (which client it claims to be), `directory` (whether the
//! secret fits) and `tokens` (the JWT), all in memory. PostgreSQL is asked only if the memory does
//! not accept a caller, and once a second for changes. `clients`, `secrets` and `signing_keys` are
//! the administration; `model` holds its types.
//!
//! May import: common, vault, config, http, audit.

pub mod clients;
mod credentials;
mod directory;
mod error;
mod failed_logins;
mod metrics;
mod model;
pub mod routes;
mod secret_value;
pub mod secrets;
mod signing;
pub mod signing_keys;
pub mod snapshot;
pub mod statements;
mod store;
mod tokens;

pub use crate::common::algorithm::Algorithm;
pub use credentials::client_by_secret;
pub use directory::{Directory, STALE_AFTER};
pub use error::{OAuthError, OAuthErrorCode};
pub use metrics::Metrics;
pub use signing::SigningKey;
pub use store::{delete_ended_secrets, delete_ended_tokens};
pub use tokens::{Issuer, verify};
