//! The batched queries of connections: one round trip and one commit for as many callers as wait.

use super::attention::store::RecordUse;
use super::exchange::store::{LookUp, NewIntent};
use super::query::store::ViewQuery;
use super::reveal::store::Reveal;
use super::token_lease::store::{AcquireLease, ReleaseLease};
use super::transitions::store::Activation;
use crate::database::{Batch, BatchQuery, Pool};

/// A query that has a batch of its own, shared by all threads of a replica.
pub trait Batched: BatchQuery {
    /// Its batch.
    fn batch(batches: &Batches) -> &Batch<Self>;
}

macro_rules! batches {
    ($($name:ident: $query:ty),* $(,)?) => {
        /// One batch for each kind of query. Clones are the same batches.
        #[derive(Clone, Debug)]
        pub struct Batches {
            $($name: Batch<$query>,)*
        }

        impl Batches {
            /// Batches whose statements run on this pool.
            #[must_use]
            pub fn new(pool: &Pool) -> Self {
                Self { $($name: Batch::new(pool),)* }
            }

            /// The same batches for the callers of one thread, whose statements run on this pool of its own.
            #[must_use]
            pub fn of_thread(&self, pool: &Pool) -> Self {
                Self { $($name: self.$name.of_thread(pool),)* }
            }

            /// Runs a query with whatever others of its kind wait at this moment; returns its own output, after
            /// its commit.
            ///
            /// # Errors
            /// The database's.
            pub(crate) async fn run<Q: Batched>(&self, query: Q) -> sqlx::Result<Q::Output> {
                Q::batch(self).run(query).await
            }
        }

        $(impl Batched for $query {
            fn batch(batches: &Batches) -> &Batch<Self> {
                &batches.$name
            }
        })*
    };
}

batches! {
    look_ups: LookUp,
    intents: NewIntent,
    activations: Activation,
    views: ViewQuery,
    reveals: Reveal,
    acquired_leases: AcquireLease,
    released_leases: ReleaseLease,
    uses: RecordUse,
}
