//! The problems of what fails below a route: the database and the vault.

use super::problem::Problem;
use crate::database::{Fault, Fenced};
use crate::vault::VaultError;

/// Outages and contention are temporary; any other database error is a defect of this service.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        match Fenced::of(&error) {
            Some(Fenced::Moving) => Self::app_moving(),
            Some(Fenced::Moved) => Self::app_moved(),
            None if Fault::of(&error).is_passing() => Self::unavailable(error),
            None => Self::internal(error),
        }
    }
}

/// A key that cannot be used now is temporary; one that is unknown, or a value that does not open, is a defect.
impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Database(error) => error.into(),
            VaultError::Unavailable(error) => Self::keys_unavailable(&error, error.retry_after()),
            error => Self::internal(error),
        }
    }
}
