//! Access to PostgreSQL: every statement and every transaction goes through this module, so that no wait
//! depends on the server alone.
//!
//! - [`Pool`] hands out [`Conn`]s and opens new ones at whichever host of the URL accepts them.
//! - [`Conn`] runs statements. Each has a deadline on the client's side. When it passes, the connection is
//!   closed and never reused, because a connection that went silent cannot report it.
//! - [`Transaction`] fixes the isolation level, and rolls back unless committed.
//! - [`Batch`] runs concurrent queries in one statement.
//! - [`Fault`] classifies errors into outages, contention and defects, [`Refusal`] those of connecting.
//!
//! Deadlines come in pairs: the server's `statement_timeout` ends a little before the client's, so that a
//! server that is merely slow cancels the statement and keeps the connection.
//!
//! May import: common, config.

mod batch;
mod clock;
mod conn;
mod connector;
mod fault;
mod health;
mod inconsistent;
mod interval;
mod pool;
mod refusal;
mod retry;
mod span;
mod transaction;

pub use batch::{Batch, BatchQuery};
pub use clock::now;
pub use conn::Conn;
pub use fault::{Fault, Fenced, MaybeDatabase, is_outage};
pub use health::Health;
pub use inconsistent::Inconsistent;
pub use interval::interval;
pub use pool::{Pool, Pools};
pub use refusal::{Refusal, more_hopeful};
pub use retry::{Waits, retry, retry_until};
pub use transaction::Transaction;

use std::time::Duration;

/// Named work that may exceed the ordinary statement timeout, so that each exception is a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongWork {
    /// Counting, marking or ending the connections of a bulk revocation.
    BulkRevocation,
    /// Reading a whole audit trail.
    AuditVerification,
    /// Reading or writing a whole table of an app that moves to another deployment.
    AppMove,
}

impl LongWork {
    /// Returns the timeout of one statement of this work.
    #[must_use]
    pub const fn limit(self) -> Duration {
        match self {
            Self::BulkRevocation => Duration::from_mins(2),
            Self::AuditVerification => Duration::from_mins(10),
            Self::AppMove => Duration::from_hours(1),
        }
    }
}
