//! A connection's id as Strongroom's API writes it, validated before it is put into a path or a query.
//!
//! Imports no other module of the demo.

use uuid::Uuid;

const PREFIX: &str = "conn_";

#[derive(Clone, Copy)]
pub(super) struct ConnectionId(Uuid);

impl ConnectionId {
    /// Parses an id; accepts only the API's spelling.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let id = Self(Uuid::try_parse(text.strip_prefix(PREFIX)?).ok()?);
        (id.to_string() == text).then_some(id)
    }

    /// Returns the id without its prefix, as PostgreSQL stores it.
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
