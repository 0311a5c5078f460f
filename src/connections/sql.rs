//! What the statements about connections share.
//!
//! Times are the database's. Every statement is scoped by app, except for the background work's, which are about all
//! apps.

use std::time::Duration;

use crate::connections::model::Status;

/// How long a connection waits for an older link's delinking before it is due again. Usually it becomes due earlier:
/// the end of the older link wakes it.
pub const WAIT_FOR_DELINKING: Duration = Duration::from_secs(5);

/// Collects one field of a batch's queries into an array for `unnest`.
pub fn column<'a, I, T>(inputs: &'a [I], value: impl FnMut(&'a I) -> T) -> Vec<T> {
    inputs.iter().map(value).collect()
}

/// Returns the output of a batch's n-th query. `n` is an SQL ordinality, which starts at 1.
pub fn output_of<T>(outputs: &mut [T], n: i64) -> sqlx::Result<&mut T> {
    let output = usize::try_from(n).ok().and_then(|n| outputs.get_mut(n.checked_sub(1)?));
    output.ok_or_else(|| sqlx::Error::Decode("a row without an input".into()))
}

/// Parses the column `status`. Fails only for a status that the CHECK constraint does not allow.
pub fn parse_status(text: &str) -> sqlx::Result<Status> {
    Status::parse(text).ok_or_else(|| sqlx::Error::Decode(format!("status `{text}`").into()))
}
