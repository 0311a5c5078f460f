//! The table `connections`. Times are the database's; every statement is scoped by app, but for the
//! background work, which serves them all.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

use crate::connections::model::Status;

/// A connection that stands in the way of a waiting one is looked at again after this long, should
/// its end not wake the waiting one by itself.
pub const WAIT_FOR_DELINKING: Duration = Duration::from_secs(5);

/// One column of what several callers ask, as an array for `unnest`.
pub fn column<'a, I, T>(inputs: &'a [I], value: impl FnMut(&'a I) -> T) -> Vec<T> {
    inputs.iter().map(value).collect()
}

pub fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}

/// The CHECK constraints rule other words out.
pub fn parse_status(text: &str) -> sqlx::Result<Status> {
    Status::parse(text).ok_or_else(|| sqlx::Error::Decode(format!("status `{text}`").into()))
}
