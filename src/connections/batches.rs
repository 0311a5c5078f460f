//! The batched queries of connections: one round trip and one commit for as many callers as wait.

use crate::connections::attention::store::RecordUse;
use crate::connections::exchange::store::{Found, LookUp, NewIntent};
use crate::connections::model::Connection;
use crate::connections::query::store::ViewQuery;
use crate::connections::reveal::store::{Reveal, Revealed};
use crate::connections::token_lease::store::{AcquireLease, AcquiredLease, ReleaseLease};
use crate::connections::transitions::store::Activation;
use crate::database::{Batch, Pool};

/// Everything that is asked of the database in batches, by all threads of a replica together.
#[derive(Clone, Debug)]
pub struct Batches {
    look_up: Batch<LookUp>,
    intents: Batch<NewIntent>,
    activations: Batch<Activation>,
    reads: Batch<ViewQuery>,
    reveals: Batch<Reveal>,
    turns: Batch<AcquireLease>,
    ended_turns: Batch<ReleaseLease>,
    uses: Batch<RecordUse>,
}

impl Batches {
    /// Over this pool.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        Self {
            look_up: Batch::new(pool),
            intents: Batch::new(pool),
            activations: Batch::new(pool),
            reads: Batch::new(pool),
            reveals: Batch::new(pool),
            turns: Batch::new(pool),
            ended_turns: Batch::new(pool),
            uses: Batch::new(pool),
        }
    }

    /// What is there already when a result is handed in.
    pub async fn look_up(&self, input: LookUp) -> sqlx::Result<Found> {
        self.look_up.run(input).await
    }

    /// Commits an intent; `false` if the code was received before.
    pub async fn insert_intent(&self, input: NewIntent) -> sqlx::Result<bool> {
        self.intents.run(input).await
    }

    /// Commits a token; `None` if it is not as simple as that.
    pub async fn activate(&self, input: Activation) -> sqlx::Result<Option<Connection>> {
        self.activations.run(input).await
    }

    /// A connection's view.
    pub async fn find(&self, input: ViewQuery) -> sqlx::Result<Option<Connection>> {
        self.reads.run(input).await
    }

    /// An active connection's secrets; that they were read is committed.
    pub async fn reveal(&self, input: Reveal) -> sqlx::Result<Option<Revealed>> {
        self.reveals.run(input).await
    }

    /// A turn with a connection's token; from its commit on the call has begun.
    pub async fn acquire_lease(&self, input: AcquireLease) -> sqlx::Result<Option<AcquiredLease>> {
        self.turns.run(input).await
    }

    /// Ends a turn.
    pub async fn release_lease(&self, input: ReleaseLease) -> sqlx::Result<()> {
        self.ended_turns.run(input).await
    }

    /// Notes that secrets were read, to a minute.
    pub async fn record_use(&self, input: RecordUse) -> sqlx::Result<()> {
        self.uses.run(input).await
    }
}
