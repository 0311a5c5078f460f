//! Strongroom as an OAuth 2.0 authorization server: client credentials and nothing else (RFC 6749
//! §4.4), access tokens as JWTs (RFC 9068), their revocation (RFC 7009) and introspection (RFC
//! 7662), metadata (RFC 8414).
//!
//! A request goes through `credentials` (which client it claims to be), `directory` (whether the
//! secret fits) and `tokens` (the JWT), all in memory. PostgreSQL is asked only if the memory does
//! not accept a caller, and once a second for changes. `clients`, `secrets` and `signing_keys` are
//! the administration; `model` holds its types.
//!
//! A client may prove itself by a key in place of a secret (`proofs`): `jws` takes what it signs
//! apart, `assertion` and `dpop` hold the rules, `remote_keys` fetches keys, and PostgreSQL counts
//! what may be used once. `registration` checks what an administrator registers, `resource` is the
//! check of a token under `/v1`.
//!
//! May import: common, vault, config, http, outbound, audit.

mod assertion;
pub mod clients;
mod credentials;
mod directory;
mod dpop;
mod error;
mod failed_logins;
pub mod id_token;
mod jws;
mod metrics;
mod model;
mod proofs;
pub mod registration;
mod remote_keys;
mod resource;
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
pub use proofs::Proofs;
pub use resource::{check_fence, verify};
pub use signing::SigningKey;
pub use store::{delete_ended_jtis, delete_ended_secrets, delete_ended_tokens};
pub use tokens::Issuer;
