//! Strongroom as an OAuth 2.0 authorization server: client credentials and nothing else
//! (RFC 6749 §4.4), access tokens as JWTs (RFC 9068), their revocation (RFC 7009) and introspection
//! (RFC 7662), metadata (RFC 8414).
//!
//! A request goes `credentials` (who says they are calling) → `directory` (do they) → `tokens` (the
//! JWT), all in memory; PostgreSQL is asked only where the memory does not let a caller in, and once a
//! second for what changed. `clients`, `secrets` and `signing_keys` are what operators do.
//!
//! Knows: base, vault, config, http, audit.

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
pub mod statements;
mod store;
mod tokens;

pub use crate::base::algorithm::Algorithm;
pub use credentials::client_by_secret;
pub use directory::{Directory, STALE_AFTER};
pub use error::{OAuthError, OAuthErrorCode};
pub use metrics::Metrics;
pub use signing::SigningKey;
pub use store::{delete_ended_secrets, delete_ended_tokens};
pub use tokens::{Issuer, verify};
