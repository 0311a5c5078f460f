//! Which page of a list a query asks for.

use super::problem::Problem;
use crate::common::paging::{Cursor, DEFAULT_LIMIT, MAX_LIMIT};

/// Reads a list's `limit`: [`DEFAULT_LIMIT`] if there is none.
///
/// # Errors
/// `invalid_request` unless it is from 1 to [`MAX_LIMIT`].
pub fn limit(text: Option<&str>) -> Result<u8, Problem> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    let expected = format_args!("must be a whole number from 1 to {MAX_LIMIT}");
    limit.ok_or_else(|| Problem::invalid_field("limit", expected))
}

/// Reads a list's `cursor`: `None` is the first page.
///
/// # Errors
/// `invalid_request` unless it is a `nextCursor` of this service.
pub fn cursor(text: Option<&str>) -> Result<Option<Cursor>, Problem> {
    let expected = "must be the nextCursor of a page before";
    text.map(str::parse).transpose().map_err(|_| Problem::invalid_field("cursor", expected))
}
