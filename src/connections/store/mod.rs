//! The table `connections`. Times are the database's; every statement is scoped by app, but for the
//! background work, which serves them all.

mod attention;
mod bindings;
mod budget;
mod due;
mod erasure;
mod intake;
mod login;
mod marking;
mod orders;
mod queue;
mod read;
mod releases;
mod reveal;
mod search;
mod shown;
mod stand_ins;
mod steps;
mod superseded;
mod turns;

pub(super) use attention::*;
pub(super) use bindings::*;
pub(super) use budget::*;
pub(super) use due::*;
pub(super) use erasure::*;
pub(super) use intake::*;
pub(super) use login::*;
pub(super) use marking::*;
pub(super) use orders::*;
pub(super) use queue::*;
pub(super) use read::Shown;
pub use read::{Filter, find, find_of_session, list};
pub(super) use releases::*;
pub(super) use reveal::*;
pub(super) use search::*;
pub(super) use stand_ins::*;
pub(super) use steps::*;
pub(super) use superseded::*;
pub(super) use turns::*;

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

use super::model::Status;

/// A connection that stands in the way of a waiting one is looked at again after this long, should
/// its end not wake the waiting one by itself.
pub(super) const WAIT_FOR_DELINKING: Duration = Duration::from_secs(5);

/// One column of what several callers ask, as an array for `unnest`.
fn column<'a, I, T>(inputs: &'a [I], value: impl FnMut(&'a I) -> T) -> Vec<T> {
    inputs.iter().map(value).collect()
}

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}

/// The CHECK constraints rule other words out.
fn parse_status(text: &str) -> sqlx::Result<Status> {
    Status::parse(text).ok_or_else(|| sqlx::Error::Decode(format!("status `{text}`").into()))
}
