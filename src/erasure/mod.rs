//! The erasure of users as callers see it: `DELETE /v1/users/{clientUserID}` and its signed receipt.
//!
//! What is destroyed, and when it may be, is [`connections::erasure`](crate::connections::erasure)'s
//! business; here it is told and signed.
//!
//! Knows: base, http, connections, oauth, users.

mod receipt;
pub mod routes;

pub use receipt::{Receipt, State};
