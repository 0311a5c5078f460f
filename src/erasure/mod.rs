//! The erasure of users as callers see it: `DELETE /v1/users/{clientUserID}` and its signed receipt.
//!
//! `connections::erasure` decides what is destroyed and when; this module answers
//! requests and signs receipts.
//!
//! May import: common, http, connections, oauth, users.

mod receipt;
pub mod routes;

pub use receipt::{Receipt, State};
