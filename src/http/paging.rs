//! Which page of a list a query asks for.

use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;
use crate::common::paging::{Cursor, DEFAULT_LIMIT, MAX_LIMIT, PageCursor};

/// Which page of a list that nothing narrows.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many at most: 50 by default, up to 100.
    #[param(value_type = u8, required = false, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// The `nextCursor` of the page before.
    #[param(value_type = PageCursor, required = false)]
    cursor: Option<String>,
}

impl PageQuery {
    /// Returns after which item the page starts, and how many items it has at most.
    ///
    /// # Errors
    /// See [`limit`] and [`cursor`].
    pub fn page(&self) -> Result<(Option<Cursor>, u8), Problem> {
        let limit = limit(self.limit.as_deref())?;
        Ok((cursor(self.cursor.as_deref())?, limit))
    }
}

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
