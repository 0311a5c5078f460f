//! Who waits in this process for a connection to leave `pending` or `revoking`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::base::ids::ConnectionId;

type Waiting = Arc<Mutex<HashMap<ConnectionId, (Arc<Notify>, usize)>>>;

/// Tells waiting requests that something happened to their connection. What happens in another
/// replica is not told: whoever waits also looks at the database from time to time.
#[derive(Clone, Debug, Default)]
pub struct ChangeNotifier(Waiting);

/// A place among those who wait for one connection; given up when dropped.
pub struct Subscription {
    id: ConnectionId,
    notify: Arc<Notify>,
    waiting: Waiting,
}

impl ChangeNotifier {
    /// Waits for news of `id`. Take the ticket before looking at the connection: what happens
    /// between the two is then not missed.
    pub fn subscribe(&self, id: ConnectionId) -> Subscription {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (notify, count) = waiting.entry(id).or_default();
        *count += 1;
        Subscription { id, notify: Arc::clone(notify), waiting: Arc::clone(&self.0) }
    }

    /// Something happened to `id`.
    pub fn notify(&self, id: ConnectionId) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((notify, _)) = waiting.get(&id) {
            notify.notify_waiters();
        }
    }
}

impl Subscription {
    /// Resolves at the next news after this call.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = waiting.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_reach_everyone_who_waits_for_that_connection_and_leave_nothing_behind() {
        let notifier = ChangeNotifier::default();
        let (id, other) = (ConnectionId::new(), ConnectionId::new());
        let (one, two) = (notifier.subscribe(id), notifier.subscribe(id));
        let news = futures_util::future::join(one.changed(), two.changed());
        notifier.notify(other);
        // `notify_waiters` reaches futures that were made before it, polled or not.
        notifier.notify(id);
        news.await;
        drop((one, two));
        assert!(notifier.0.lock().unwrap().is_empty());
    }
}
