//! Statements that serve the callers of one moment together: one round trip and one commit for as
//! many as wait.
//!
//! All threads of a replica gather together. A statement that fails is repeated caller by
//! caller, so that one bad row fails no stranger.

use std::sync::Arc;

use sqlx::{PgConnection, PgPool};

use super::model::Connection;
use super::store::{
    Activation, EndTurn, Found, LookUp, NewIntent, Reveal, Revealed, Shown, TakeTurn, Taken,
};
use crate::base::batch::Batch;
use crate::http::problem::is_outage;

/// How many callers one statement serves at most: more would not save much, and wait longer.
const MOST: usize = 64;

/// What one caller asks of a statement that can serve many.
pub(super) trait Together: Send + Sync + Sized + 'static {
    /// What each caller gets.
    type Output: Send + 'static;

    /// Serves them all; an output for each, in their order.
    fn all(
        conn: &mut PgConnection,
        inputs: &[Self],
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Output>>> + Send;
}

type Gathered<I> = Arc<Batch<I, sqlx::Result<<I as Together>::Output>>>;

/// Everything that is asked of the database together.
#[derive(Clone, Debug)]
pub struct Statements {
    look_up: Gathered<LookUp>,
    intents: Gathered<NewIntent>,
    activations: Gathered<Activation>,
    reads: Gathered<Shown>,
    reveals: Gathered<Reveal>,
    turns: Gathered<TakeTurn>,
    ended_turns: Gathered<EndTurn>,
}

impl Statements {
    /// Over this pool.
    #[must_use]
    pub fn new(pool: &PgPool) -> Self {
        Self {
            look_up: gather(pool),
            intents: gather(pool),
            activations: gather(pool),
            reads: gather(pool),
            reveals: gather(pool),
            turns: gather(pool),
            ended_turns: gather(pool),
        }
    }

    /// What is there already when a result is handed in.
    pub(super) async fn look_up(&self, input: LookUp) -> sqlx::Result<Found> {
        ask(&self.look_up, input).await
    }

    /// Commits an intent; `false` where the code was received before.
    pub(super) async fn keep_intent(&self, input: NewIntent) -> sqlx::Result<bool> {
        ask(&self.intents, input).await
    }

    /// Commits a token; `None` where it is not as simple as that.
    pub(super) async fn activate(&self, input: Activation) -> sqlx::Result<Option<Connection>> {
        ask(&self.activations, input).await
    }

    /// A connection as it is shown.
    pub(super) async fn find(&self, input: Shown) -> sqlx::Result<Option<Connection>> {
        ask(&self.reads, input).await
    }

    /// An active connection's secrets; that they were read is committed.
    pub(super) async fn reveal(&self, input: Reveal) -> sqlx::Result<Option<Revealed>> {
        ask(&self.reveals, input).await
    }

    /// A turn with a connection's token; from its commit on the call has begun.
    pub(super) async fn take_turn(&self, input: TakeTurn) -> sqlx::Result<Option<Taken>> {
        ask(&self.turns, input).await
    }

    /// Ends a turn.
    pub(super) async fn end_turn(&self, input: EndTurn) -> sqlx::Result<()> {
        ask(&self.ended_turns, input).await
    }
}

fn gather<I: Together>(pool: &PgPool) -> Gathered<I> {
    let pool = pool.clone();
    Arc::new(Batch::new(MOST, move |inputs| {
        let pool = pool.clone();
        async move { run(&pool, &inputs).await }
    }))
}

async fn ask<I: Together>(batch: &Gathered<I>, input: I) -> sqlx::Result<I::Output> {
    batch.call(input).await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

async fn run<I: Together>(pool: &PgPool, inputs: &[I]) -> Vec<sqlx::Result<I::Output>> {
    match at_once(pool, inputs).await {
        Ok(outputs) => outputs.into_iter().map(Ok).collect(),
        // There is no database: asking once for each would only take longer.
        Err(error) if is_outage(&error) => inputs.iter().map(|_| Err(same(&error))).collect(),
        Err(error) if inputs.len() == 1 => vec![Err(error)],
        Err(_) => one_by_one(pool, inputs).await,
    }
}

async fn at_once<I: Together>(pool: &PgPool, inputs: &[I]) -> sqlx::Result<Vec<I::Output>> {
    I::all(&mut *pool.acquire().await?, inputs).await
}

async fn one_by_one<I: Together>(pool: &PgPool, inputs: &[I]) -> Vec<sqlx::Result<I::Output>> {
    let mut outputs = Vec::with_capacity(inputs.len());
    for input in inputs {
        let output = at_once(pool, std::slice::from_ref(input)).await;
        outputs.push(output.and_then(|mut all| all.pop().ok_or(sqlx::Error::RowNotFound)));
    }
    outputs
}

/// An outage for one more caller: sqlx's errors cannot be cloned.
fn same(error: &sqlx::Error) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(error.to_string()))
}
