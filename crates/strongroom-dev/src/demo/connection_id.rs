//! A connection's id as Strongroom's API writes it, checked before it stands in a path or a query.
//!
//! Knows nothing else of the demo.

use uuid::Uuid;

/// What stands before the UUID.
const PREFIX: &str = "conn_";

/// The id of a connection.
#[derive(Clone, Copy)]
pub(super) struct ConnectionId(Uuid);

impl ConnectionId {
    /// Reads an id; only the spelling that the API uses counts.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let id = Self(Uuid::try_parse(text.strip_prefix(PREFIX)?).ok()?);
        (id.to_string() == text).then_some(id)
    }

    /// The id without its prefix, as PostgreSQL holds it.
    pub(super) fn uuid(self) -> Uuid {
        self.0
    }
}

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", self.0.as_hyphenated())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_it_was_read() {
        let text = "conn_01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(ConnectionId::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn what_is_no_connections_id_is_refused() {
        for text in ["", "conn_", "usr_01890a5d-ac96-774b-bcce-b302099a8057", "conn_../../x"] {
            assert!(ConnectionId::parse(text).is_none(), "{text}");
        }
    }
}
