//! Classifies database errors by what the caller can do about them.

/// The class of a database error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// PostgreSQL is unreachable, not ready, or read-only. Passes by itself.
    Outage,
    /// Another transaction was in the way: a lock timeout, a deadlock, a serialization failure, a cancelled
    /// statement, a partition that was attached meanwhile. Nothing was written; retrying is safe.
    Contention,
    /// PostgreSQL refused the statement: a bug, or a constraint that the caller has to handle.
    Defect,
}

impl Fault {
    /// Classifies an error (SQLSTATEs: PostgreSQL's documentation, appendix A).
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::Outage,
            // check_violation without the name of a constraint: a row was on its way into a partition by default
            // when its month got one of its own. The next try finds that one.
            sqlx::Error::Database(error)
                if error.code().as_deref() == Some("23514") && error.constraint().is_none() =>
            {
                Self::Contention
            }
            sqlx::Error::Database(error) => {
                error.code().map_or(Self::Defect, |code| Self::of_sqlstate(&code))
            }
            _ => Self::Defect,
        }
    }

    pub(super) fn of_sqlstate(code: &str) -> Self {
        match code {
            // lock_not_available, deadlock_detected, serialization_failure, query_canceled
            "55P03" | "40P01" | "40001" | "57014" => Self::Contention,
            // 25006, read_only_sql_transaction: a primary that was demoted while the connection stayed open.
            // 08: connection exception. 53: out of memory, disk or connections. 57P0x: the server shut down,
            // crashed, is starting, or dropped the database. 58: I/O error of the server. 25P03, 57P05: the
            // server closed an idle transaction or session.
            "25006" | "25P03" => Self::Outage,
            code if ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)) => {
                Self::Outage
            }
            _ => Self::Defect,
        }
    }

    /// Returns whether an error makes other connections suspect as well: silence, a reset, a server that shut
    /// down or was demoted.
    pub(super) fn is_contagious(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Io(_) => true,
            sqlx::Error::Database(error) => {
                error.code().is_some_and(|code| code == "25006" || code.starts_with("57P"))
            }
            _ => false,
        }
    }

    /// Returns whether the error passes by itself, so that the answer is 503 rather than 500.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Outage | Self::Contention)
    }
}

/// What the fence of an app that moves to another deployment refused (the function `refuse_if_fenced`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// The app is being moved.
    Moving,
    /// The app has moved.
    Moved,
}

impl Fenced {
    /// Recognises a refusal by its SQLSTATE.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        let sqlx::Error::Database(error) = error else { return None };
        match error.code()?.as_ref() {
            "SR002" => Some(Self::Moving),
            "SR003" => Some(Self::Moved),
            _ => None,
        }
    }
}

/// Returns whether the database is unreachable, not ready or read-only, rather than having refused a
/// statement.
#[must_use]
pub fn is_outage(error: &sqlx::Error) -> bool {
    Fault::of(error) == Fault::Outage
}

/// An error that may wrap a database error.
pub trait MaybeDatabase {
    /// Returns the database error, if it is one.
    fn database(&self) -> Option<&sqlx::Error>;
}

impl MaybeDatabase for sqlx::Error {
    fn database(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_outage_is_an_outage_and_contention_can_be_tried_again() {
        for code in ["08006", "53300", "57P01", "57P03", "57P05", "25006", "25P03", "58030"] {
            assert_eq!(Fault::of_sqlstate(code), Fault::Outage, "{code}");
        }
        for code in ["55P03", "40P01", "40001", "57014"] {
            assert_eq!(Fault::of_sqlstate(code), Fault::Contention, "{code}");
        }
        for code in ["23505", "23503", "22021", "42P01", "42501", "P0001"] {
            assert_eq!(Fault::of_sqlstate(code), Fault::Defect, "{code}");
        }
    }
}
