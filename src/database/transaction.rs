//! Transactions: read committed, with their own lock timeout, rolled back unless committed.

use std::ops::{Deref, DerefMut};

use sqlx::Executor as _;

use super::Conn;

/// The code's checks are correct at this isolation level only: after waiting for a lock, a statement rereads
/// the row. The lock timeout is set for connections of the batches, and for those that come through a pooler.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '2s'";

/// One snapshot for all reads of the transaction.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Statements that commit together or not at all.
///
/// One that begins inside another joins it: the outer one commits both, and is rolled back if the inner one does not
/// commit. PostgreSQL would ignore the second BEGIN, and the inner COMMIT would end the outer transaction.
#[must_use = "what is not committed is rolled back"]
#[derive(Debug)]
pub struct Transaction<'c> {
    handle: Handle<'c>,
    joined: bool,
    committed: bool,
}

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
        let mut transaction = Transaction { handle, joined: false, committed: false };
        let opened = transaction.opened()?;
        // One that was abandoned is rolled back by the next statement.
        transaction.joined = opened.in_transaction && !opened.abandoned;
        if !transaction.joined {
            transaction.execute(sql).await?;
            transaction.opened()?.in_transaction = true;
        }
        Ok(transaction)
    }

    /// Commits. If no answer arrives, the transaction may be committed or not; the caller reads back what matters.
    ///
    /// # Errors
    /// Returns the database's error, or one of its own if a transaction inside this one was not committed.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        let opened = self.opened()?;
        if opened.abandoned || !opened.in_transaction {
            return Err(sqlx::Error::Protocol("a transaction inside was not committed".to_owned()));
        }
        self.committed = true;
        if self.joined {
            return Ok(());
        }
        self.execute("COMMIT").await?;
        let opened = self.opened()?;
        opened.in_transaction = false;
        opened.timeout = opened.ordinary_timeout;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.joined && self.committed {
            return;
        }
        if let Ok(opened) = self.opened() {
            opened.abandoned = opened.in_transaction;
            opened.timeout = opened.ordinary_timeout;
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        match &self.handle {
            Handle::Owned(conn) => conn,
            Handle::Borrowed(conn) => conn,
        }
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Conn {
        match &mut self.handle {
            Handle::Owned(conn) => conn,
            Handle::Borrowed(conn) => conn,
        }
    }
}
