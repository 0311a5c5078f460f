//! Notifications of changes within this process, for requests that wait for a connection to leave `pending` or
//! `revoking`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::common::ids::ConnectionId;

/// Per connection: its notification and the number of its subscriptions.
type Subscriptions = Arc<Mutex<HashMap<ConnectionId, (Arc<Notify>, usize)>>>;

/// Wakes requests that wait for a change of their connection. Changes in another replica do not arrive here: a
/// waiting request also polls the database.
#[derive(Clone, Debug, Default)]
pub struct ChangeNotifier {
    subscriptions: Subscriptions,
    closed: Arc<AtomicBool>,
}

/// A subscription to the changes of one connection. Ends when it is dropped.
pub struct Subscription {
    id: ConnectionId,
    notify: Arc<Notify>,
    subscriptions: Subscriptions,
}

impl ChangeNotifier {
    /// Subscribes to the changes of `id`. Subscribe before reading the connection, so that no change between the two
    /// is missed.
    pub fn subscribe(&self, id: ConnectionId) -> Subscription {
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let (notify, count) = subscriptions.entry(id).or_default();
        *count += 1;
        let notify = Arc::clone(notify);
        Subscription { id, notify, subscriptions: Arc::clone(&self.subscriptions) }
    }

    /// Wakes every subscriber of `id`. Call it after the commit.
    pub fn notify(&self, id: ConnectionId) {
        let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((notify, _)) = subscriptions.get(&id) {
            notify.notify_waiters();
        }
    }

    /// Ends every wait, now and from now on: the process is about to end, and nothing changes in it any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        subscriptions.values().for_each(|(notify, _)| notify.notify_waiters());
    }

    /// Returns whether there is nothing to wait for any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Subscription {
    /// Returns a future that resolves at the next change after this call, even if it is polled later.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = subscriptions.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                subscriptions.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_wakes_every_subscriber_of_that_connection_and_leaves_nothing_behind() {
        let notifier = ChangeNotifier::default();
        let (id, other) = (ConnectionId::new(), ConnectionId::new());
        let (one, two) = (notifier.subscribe(id), notifier.subscribe(id));
        let changes = futures_util::future::join(one.changed(), two.changed());
        notifier.notify(other);
        // `notify_waiters` reaches futures that were made before it, polled or not.
        notifier.notify(id);
        changes.await;
        drop((one, two));
        assert!(notifier.subscriptions.lock().unwrap().is_empty());
    }
}
