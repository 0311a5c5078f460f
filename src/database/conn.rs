//! One connection, and a deadline for each of its statements.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool::managed::Object;
use futures_util::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use futures_util::stream::{BoxStream, Stream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::connector::{Connector, Opened, silent};
use super::health::SUSPECT_WAIT;
use super::{LongWork, Transaction, span};

/// A connection to PostgreSQL. Statements run on `&mut Conn`, and each has a deadline.
///
/// If dropped during a statement or a transaction, it is reset in the background before its next use, and
/// closed if the reset fails.
#[derive(Debug)]
pub struct Conn(Slot);

#[derive(Debug)]
enum Slot {
    Pooled(Object<Connector>),
    Single(Box<Opened>),
    /// Only during `drop`.
    Gone,
}

impl Conn {
    pub(super) fn pooled(object: Object<Connector>) -> Self {
        Self(Slot::Pooled(object))
    }

    pub(super) fn single(opened: Opened) -> Self {
        Self(Slot::Single(Box::new(opened)))
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn begin(&mut self) -> sqlx::Result<Transaction<'_>> {
        Transaction::begin(super::transaction::Handle::Borrowed(self)).await
    }

    /// Begins a read-only transaction on one snapshot, with the time limit of `work`.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn begin_snapshot(&mut self, work: LongWork) -> sqlx::Result<Transaction<'_>> {
        let handle = super::transaction::Handle::Borrowed(self);
        let mut snapshot = Transaction::snapshot(handle).await?;
        snapshot.allow(work).await?;
        Ok(snapshot)
    }

    /// Raises the statement timeout to that of `work` until the connection returns to its pool. Within a
    /// transaction the server's limit is `SET LOCAL`: it ends with the transaction.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn allow(&mut self, work: LongWork) -> sqlx::Result<()> {
        let limit = work.limit();
        let server = limit.saturating_sub(Duration::from_secs(1)).as_millis().to_string();
        let local = self.opened()?.in_transaction;
        sqlx::query!("SELECT set_config('statement_timeout', $1, $2)", server, local)
            .fetch_one(&mut *self)
            .await?;
        self.opened()?.timeout = limit;
        Ok(())
    }

    pub(super) fn opened(&mut self) -> sqlx::Result<&mut Opened> {
        match &mut self.0 {
            Slot::Pooled(object) => Ok(object),
            Slot::Single(opened) => Ok(opened),
            Slot::Gone => Err(sqlx::Error::WorkerCrashed),
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // A single connection closes with its socket; PostgreSQL needs no Terminate message.
        let Slot::Pooled(mut object) = std::mem::replace(&mut self.0, Slot::Gone) else { return };
        if object.is_as_new() {
            object.rest();
        } else {
            recover(object);
        }
    }
}

/// Resets a connection in the background; closes it if that fails.
fn recover(mut object: Object<Connector>) {
    let runtime = tokio::runtime::Handle::try_current();
    let Some(runtime) = runtime.ok().filter(|_| !object.broken) else {
        return drop(Object::take(object));
    };
    runtime.spawn(async move {
        let _ = object.clean().await;
        if object.is_as_new() {
            object.rest();
        } else {
            drop(Object::take(object));
        }
    });
}

/// Resolves at the deadline of a statement that began at `started`: `limit`, or sooner once its connection
/// is suspect.
async fn expired(started: Instant, limit: Duration, generation: CancellationToken) {
    let suspect = async {
        generation.cancelled().await;
        sleep_until(started + SUSPECT_WAIT.min(limit)).await;
    };
    tokio::select! {
        () = sleep_until(started + limit) => {}
        () = suspect => {}
    }
}

/// A statement's stream of results, which ends at the deadline.
struct Bounded<'e, T> {
    answers: BoxStream<'e, sqlx::Result<T>>,
    expired: BoxFuture<'e, ()>,
    watch: Watch<'e>,
    span: Span,
    over: bool,
}

/// The fields of a connection that a statement in flight changes.
struct Watch<'e> {
    broken: &'e mut bool,
    in_flight: &'e mut bool,
    generation: CancellationToken,
    health: super::Health,
}

impl Watch<'_> {
    fn note(&mut self, error: &sqlx::Error) {
        // PostgreSQL answered, so the statement is over.
        *self.in_flight = !matches!(error, sqlx::Error::Database(_));
        *self.broken |= self.health.observe(error, &self.generation);
    }
}

impl<T> Stream for Bounded<'_, T> {
    type Item = sqlx::Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        let _entered = this.span.enter();
        let item = match this.answers.poll_next_unpin(cx) {
            Poll::Ready(item) => item,
            Poll::Pending if this.expired.poll_unpin(cx).is_ready() => Some(Err(silent())),
            Poll::Pending => return Poll::Pending,
        };
        match &item {
            None => {
                this.over = true;
                *this.watch.in_flight = false;
            }
            Some(Err(error)) => {
                this.over = true;
                span::record_error(&this.span, error);
                this.watch.note(error);
            }
            Some(Ok(_)) => {}
        }
        Poll::Ready(item)
    }
}

type Answer = Either<PgQueryResult, PgRow>;

impl<'c> Executor<'c> for &'c mut Conn {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, mut query: E) -> BoxStream<'e, sqlx::Result<Answer>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let opened = match self.opened() {
            Ok(opened) => opened,
            Err(error) => return failed(error),
        };
        if opened.broken {
            return failed(silent());
        }
        let arguments = match query.take_arguments() {
            Ok(arguments) => arguments,
            Err(error) => return failed(sqlx::Error::Encode(error)),
        };
        // Its text tells the name of its span, and is read by taking the query apart.
        let sql = query.sql();
        let span = span::of_statement(sql.as_str());
        let query = (sql, arguments);
        let Opened { pg, broken, in_flight, in_transaction, abandoned, .. } = opened;
        let (generation, health) = (opened.generation.clone(), opened.health.clone());
        let expired = expired(Instant::now(), opened.timeout, generation.clone()).boxed();
        let answers = if std::mem::take(abandoned) {
            *in_transaction = false;
            after_rollback(pg, query)
        } else {
            pg.fetch_many(query)
        };
        *in_flight = true;
        let watch = Watch { broken, in_flight, generation, health };
        Box::pin(Bounded { answers, expired, watch, span, over: false })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        // Drain the answer: a deferred constraint fails only after the first row.
        let first =
            |first: Option<PgRow>, answer: Answer| async move { Ok(first.or(answer.right())) };
        self.fetch_many(query).try_fold(None, first).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        let opened = match self.opened() {
            Ok(opened) => opened,
            Err(error) => return std::future::ready(Err(error)).boxed(),
        };
        let limit = opened.timeout;
        let prepared = opened.pg.prepare_with(sql, parameters);
        tokio::time::timeout(limit, prepared).unwrap_or_else(|_| Err(silent())).boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<sqlx::Describe<Postgres>>>
    where
        'c: 'e,
    {
        match self.opened() {
            Ok(opened) => opened.pg.describe(sql),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }
}

/// Runs a statement after rolling back the transaction that was abandoned on this connection.
fn after_rollback<'e, 'q: 'e, E>(
    pg: &'e mut PgConnection,
    query: E,
) -> BoxStream<'e, sqlx::Result<Answer>>
where
    E: 'q + Execute<'q, Postgres>,
{
    let rolled_back = async move {
        pg.execute("ROLLBACK").await?;
        Ok(pg.fetch_many(query))
    };
    rolled_back.try_flatten_stream().boxed()
}

fn failed<'e>(error: sqlx::Error) -> BoxStream<'e, sqlx::Result<Answer>> {
    futures_util::stream::once(std::future::ready(Err(error))).boxed()
}
