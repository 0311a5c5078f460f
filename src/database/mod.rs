//! PostgreSQL as the rest of the code sees it: one place through which every statement and every
//! transaction goes, so that no wait depends on the server alone.
//!
//! - [`Pool`] hands out [`Conn`]s and opens new ones at whichever host of the URL takes them.
//! - [`Conn`] runs statements. Each has a deadline of the client's own. When it passes, the connection is
//!   closed without a farewell and never used again, because a connection that went silent does not say so.
//! - [`Transaction`] pins the isolation level, and rolls back what is not committed.
//! - [`Batch`] carries out queries of the same moment in one statement.
//! - [`Fault`] sorts errors into outages, contention and defects.
//!
//! Deadlines come in pairs: the server's `statement_timeout` ends a little before the client's, so that a
//! server that is merely slow cancels the statement and keeps the connection.
//!
//! Knows: base, config.

mod batch;
mod conn;
mod connector;
mod fault;
mod health;
mod pool;
mod retry;
mod transaction;

pub use batch::{Batch, BatchQuery};
pub use conn::Conn;
pub use fault::{Fault, MaybeDatabase, is_outage, retry};
pub use health::Health;
pub use pool::{Pool, Pools};
pub use retry::{Waits, retry_until};
pub use transaction::Transaction;

use std::time::Duration;

/// Work that may take longer than an ordinary statement, by name, so that each exception is a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongWork {
    /// Counting, marking or ending the connections of a bulk revocation.
    BulkRevocation,
    /// Reading an audit trail from its beginning to its end.
    AuditVerification,
}

impl LongWork {
    /// How long one statement of it may take.
    #[must_use]
    pub const fn limit(self) -> Duration {
        match self {
            Self::BulkRevocation => Duration::from_mins(2),
            Self::AuditVerification => Duration::from_mins(10),
        }
    }
}
