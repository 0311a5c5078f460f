//! Rows that contradict the schema's own rules.

/// A row that must be there is missing, so that neither a caller nor time can mend it.
#[derive(Debug, thiserror::Error)]
#[error("{table} has no row for {row}, which other rows rely on")]
pub struct Inconsistent {
    table: &'static str,
    row: String,
}

impl Inconsistent {
    /// `table` has no row that belongs to `row`, an id or another name that is no secret.
    #[must_use]
    pub fn new(table: &'static str, row: impl std::fmt::Display) -> Self {
        Self { table, row: row.to_string() }
    }
}

impl From<Inconsistent> for sqlx::Error {
    /// A defect, in the terms of [`Fault`](super::Fault): it is reported and not retried.
    fn from(inconsistent: Inconsistent) -> Self {
        Self::Decode(Box::new(inconsistent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Fault;

    #[test]
    fn a_missing_row_is_a_defect_that_names_its_table() {
        let error = sqlx::Error::from(Inconsistent::new("apps", 7));
        assert_eq!(Fault::of(&error), Fault::Defect);
        assert!(error.to_string().contains("apps has no row for 7"), "{error}");
    }
}
