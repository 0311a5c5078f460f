//! Token requests under way in this process: who comes while one is, waits for it and asks nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};

use crate::base::ids::UpstreamId;

/// The most requests of one replica that wait for tokens at once; each costs a connection and little
/// else, and none of PostgreSQL's.
const MAX_WAITING: usize = 10_000;

type Under = Arc<Mutex<HashMap<UpstreamId, watch::Receiver<()>>>>;

/// The flights of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct SingleFlight {
    under_way: Under,
    waiting: Arc<Semaphore>,
}

impl Default for SingleFlight {
    fn default() -> Self {
        Self { under_way: Arc::default(), waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }
}

/// The right to fly, and the duty: whoever waits is let go when this is dropped, however it ends.
#[derive(Debug)]
pub(super) struct Flight {
    id: UpstreamId,
    under_way: Under,
    #[expect(dead_code, reason = "its drop tells those who wait")]
    landing: watch::Sender<()>,
}

/// Too many wait already.
#[derive(Debug)]
pub(super) struct Full;

impl SingleFlight {
    /// The flight for `id`, to be waited for; and the flight itself for the one who has to fly it.
    pub(super) fn board(&self, id: UpstreamId) -> (watch::Receiver<()>, Option<Flight>) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landing) = under_way.get(&id) {
            return (landing.clone(), None);
        }
        let (landing, landed) = watch::channel(());
        under_way.insert(id, landed.clone());
        let flight = Flight { id, under_way: Arc::clone(&self.under_way), landing };
        (landed, Some(flight))
    }

    /// Waits until a flight has landed.
    pub(super) async fn wait(&self, mut landing: watch::Receiver<()>) -> Result<(), Full> {
        let _place = self.waiting.try_acquire().map_err(|_| Full)?;
        // Nothing is ever sent: the sender is dropped when the flight is over.
        while landing.changed().await.is_ok() {}
        Ok(())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_flies_and_all_who_come_meanwhile_land_with_it() {
        let (single_flight, id) = (SingleFlight::default(), UpstreamId::new());
        let (first, flight) = single_flight.board(id);
        let (second, nobody) = single_flight.board(id);
        assert!(flight.is_some() && nobody.is_none());
        let (_, other) = single_flight.board(UpstreamId::new());
        assert!(other.is_some(), "another upstream's flight is its own");
        let both =
            futures_util::future::join(single_flight.wait(first), single_flight.wait(second));
        drop(flight);
        let (one, two) = both.await;
        assert!(one.is_ok() && two.is_ok());
        assert!(single_flight.board(id).1.is_some(), "the next one flies again");
    }
}
