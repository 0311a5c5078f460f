//! Strongroom as an OAuth 2.0 authorization server: client credentials and nothing else
//! (RFC 6749 §4.4), access tokens as JWTs (RFC 9068).
//!
//! A request goes `credentials` (who says they are calling) → `directory` (do they) → `tokens` (the
//! JWT), all in memory; PostgreSQL is asked only where the memory does not know a client, and once a
//! second for what changed.
//!
//! Knows: base, vault, http, audit.

pub mod clients;
mod credentials;
mod directory;
mod error;
pub mod routes;
mod signing;
mod store;
mod tokens;

pub use directory::{Directory, STALE_AFTER};
pub use error::{OAuthError, OAuthErrorCode};
pub use signing::{Algorithm, SigningKey};
pub use store::{ensure_signing_key, forget_ended_tokens};
pub use tokens::{Issuer, verify};
