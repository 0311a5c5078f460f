//! The tables `clients`, `client_secrets`, `signing_keys`, `revoked_tokens`, `used_jtis`.

mod clients;
mod known;
mod signing_keys;
mod used_jtis;

pub use clients::delete_ended_secrets;
pub(super) use clients::*;
pub use known::delete_ended_tokens;
pub(super) use known::*;
pub(super) use signing_keys::*;
pub use used_jtis::{UsedJti, delete_ended_jtis};
