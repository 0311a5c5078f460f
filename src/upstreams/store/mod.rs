//! The table `upstreams`. Times are the database's; every statement is restricted to one app.

mod settings;
mod token;

pub(super) use settings::{StoredSettings, change, delete, insert, lock};
pub use settings::{find, list};
pub(super) use token::{
    Lookup, TokenLease, acquire, claim_lease, is_leased, record_failure, record_token,
};

/// Converts a parsed word; the CHECK constraints rule out unknown ones.
fn known<T>(word: &str, found: Option<T>) -> sqlx::Result<T> {
    found.ok_or_else(|| sqlx::Error::Decode(format!("the word `{word}`").into()))
}
