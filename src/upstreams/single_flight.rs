//! Single flight: one token request per upstream in this process. Callers that arrive meanwhile
//! wait for it instead of sending their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};

use crate::common::ids::UpstreamId;

/// How many requests of one replica may wait for tokens at once; each costs a connection and none
/// of PostgreSQL's.
const MAX_WAITING: usize = 10_000;

type InFlight = Arc<Mutex<HashMap<UpstreamId, watch::Receiver<()>>>>;

/// The token requests in flight in this process. Clones share them.
#[derive(Clone, Debug)]
pub struct SingleFlight {
    in_flight: InFlight,
    waiting: Arc<Semaphore>,
}

impl Default for SingleFlight {
    fn default() -> Self {
        Self { in_flight: Arc::default(), waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }
}

/// The one task that fetches. Waiting callers are released when this is dropped, however it ends.
#[derive(Debug)]
pub(super) struct Flight {
    id: UpstreamId,
    shared: InFlight,
    #[expect(dead_code, reason = "its drop releases those who wait")]
    done: watch::Sender<()>,
}

/// [`MAX_WAITING`] requests wait already.
#[derive(Debug)]
pub(super) struct Full;

impl SingleFlight {
    /// Joins the flight for `id`. The first caller also gets the [`Flight`] and has to carry it
    /// out.
    pub(super) fn join(&self, id: UpstreamId) -> (watch::Receiver<()>, Option<Flight>) {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = in_flight.get(&id) {
            return (done.clone(), None);
        }
        let (sender, done) = watch::channel(());
        in_flight.insert(id, done.clone());
        let flight = Flight { id, shared: Arc::clone(&self.in_flight), done: sender };
        (done, Some(flight))
    }

    /// Waits until a flight ends.
    pub(super) async fn wait(&self, mut done: watch::Receiver<()>) -> Result<(), Full> {
        let _permit = self.waiting.try_acquire().map_err(|_| Full)?;
        // Nothing is ever sent: the sender is dropped when the flight ends.
        while done.changed().await.is_ok() {}
        Ok(())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_fetches_and_all_who_come_meanwhile_wait_for_it() {
        let (single_flight, id) = (SingleFlight::default(), UpstreamId::new());
        let (first, flight) = single_flight.join(id);
        let (second, none) = single_flight.join(id);
        assert!(flight.is_some() && none.is_none());
        let (_, other) = single_flight.join(UpstreamId::new());
        assert!(other.is_some(), "another upstream has its own flight");
        let both =
            futures_util::future::join(single_flight.wait(first), single_flight.wait(second));
        drop(flight);
        let (one, two) = both.await;
        assert!(one.is_ok() && two.is_ok());
        assert!(single_flight.join(id).1.is_some(), "the next one fetches again");
    }
}
