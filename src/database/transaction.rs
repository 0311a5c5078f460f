//! Transactions: read committed, with their own lock timeout, rolled back unless committed.

use std::ops::{Deref, DerefMut};

use sqlx::Executor as _;

use super::Conn;

/// The code's checks are correct at this isolation level only: after waiting for a lock, a statement rereads
/// the row. The lock timeout is longer than that of a lone statement, because a transaction delays only its own
/// caller.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '2s'";

/// One snapshot for all reads of the transaction.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Statements that commit together or not at all.
#[must_use = "what is not committed is rolled back"]
#[derive(Debug)]
pub struct Transaction<'c>(Handle<'c>);

#[derive(Debug)]
pub(super) enum Handle<'c> {
    Owned(Box<Conn>),
    Borrowed(&'c mut Conn),
}

impl Transaction<'_> {
    pub(super) async fn begin(handle: Handle<'_>) -> sqlx::Result<Transaction<'_>> {
        Self::begin_by(handle, BEGIN).await
    }

    pub(super) async fn snapshot(handle: Handle<'_>) -> sqlx::Result<Transaction<'_>> {
        Self::begin_by(handle, SNAPSHOT).await
    }

    async fn begin_by<'c>(handle: Handle<'c>, sql: &'static str) -> sqlx::Result<Transaction<'c>> {
        let mut transaction = Transaction(handle);
        transaction.execute(sql).await?;
        transaction.opened()?.in_transaction = true;
        Ok(transaction)
    }

    /// Commits. If no answer arrives, the transaction may be committed or not; the caller reads back what matters.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        self.execute("COMMIT").await?;
        let opened = self.opened()?;
        opened.in_transaction = false;
        opened.timeout = opened.ordinary_timeout;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if let Ok(opened) = self.opened() {
            opened.abandoned = opened.in_transaction;
            opened.timeout = opened.ordinary_timeout;
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        match &self.0 {
            Handle::Owned(conn) => conn,
            Handle::Borrowed(conn) => conn,
        }
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Conn {
        match &mut self.0 {
            Handle::Owned(conn) => conn,
            Handle::Borrowed(conn) => conn,
        }
    }
}
