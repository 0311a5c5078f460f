//! The table `upstreams`. Times are the database's; every statement is scoped by app.

mod settings;
mod token;

pub(super) use settings::{Held, change, delete, insert, lock};
pub use settings::{find, list};
pub(super) use token::{
    Job, Seen, acquire, conclude_with_token, conclude_with_trouble, is_leased, lease,
};

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}

/// The CHECK constraints rule other words out.
fn known<T>(word: &str, found: Option<T>) -> sqlx::Result<T> {
    found.ok_or_else(|| sqlx::Error::Decode(format!("the word `{word}`").into()))
}
