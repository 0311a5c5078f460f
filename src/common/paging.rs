//! Cursor paging: newest first, by id, with a cursor that is opaque to callers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

/// The size of a page unless the caller sets it.
pub const DEFAULT_LIMIT: u8 = 50;
/// The largest size of a page.
pub const MAX_LIMIT: u8 = 100;

/// The position in a list after which the next page starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(Uuid);

/// The error of a text that is not a cursor of this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct InvalidCursor;

impl Cursor {
    /// Creates the cursor after the item with this id.
    #[must_use]
    pub const fn after(id: Uuid) -> Self {
        Self(id)
    }

    /// Returns the id of the item before the cursor.
    #[must_use]
    pub const fn id(self) -> Uuid {
        self.0
    }
}

/// A cursor in the `OpenAPI` document.
#[derive(Debug)]
pub struct PageCursor;

impl utoipa::PartialSchema for PageCursor {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("The `nextCursor` of the page before; opaque"))
            .pattern(Some("^[A-Za-z0-9_-]+$"))
            .examples(["AZnzonwefTuaVD8rjA1ucQ"])
            .build()
            .into()
    }
}

impl utoipa::ToSchema for PageCursor {}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl std::str::FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        Uuid::from_slice(&bytes).map(Self).map_err(|_| InvalidCursor)
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Builds a page of up to `limit` items from a query that asked for one more, which shows whether more follow.
    #[must_use]
    pub fn from_query(mut items: Vec<T>, limit: u8, id: impl Fn(&T) -> Uuid) -> Self {
        let more = items.len() > usize::from(limit);
        items.truncate(usize::from(limit));
        let next = if more { items.last().map(|item| Cursor::after(id(item))) } else { None };
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        let cursor = Cursor::after(Uuid::from_u128(7));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn foreign_text_is_no_cursor() {
        for text in ["", "x", "AAAA", "conn_1", "AAAAAAAAAAAAAAAAAAAAAAA="] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text:?}");
        }
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let ids = |n: u128| (0..n).map(Uuid::from_u128).collect::<Vec<_>>();
        assert_eq!(Page::from_query(ids(2), 2, |id| *id).next, None);
        let page = Page::from_query(ids(3), 2, |id| *id);
        assert_eq!((page.items.len(), page.next), (2, Some(Cursor::after(Uuid::from_u128(1)))));
    }
}
