//! News of events within this process, for requests that wait for the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::common::ids::AppId;
use crate::http::concurrency::ConcurrencyLimit;

/// How many requests wait for events at once in one replica, of which a single app gets half.
pub const MAX_WAITING: usize = 1024;

/// Wakes requests that wait for an app's next event. Events that another replica dispatches do not arrive here: a
/// waiting request also polls the database. Clones are the same feed.
#[derive(Clone, Debug)]
pub struct Feed {
    news: Arc<Mutex<HashMap<AppId, Weak<Notify>>>>,
    closed: CancellationToken,
    /// The limit on waiting requests.
    pub(super) waiting: ConcurrencyLimit,
}

impl Feed {
    /// Creates a feed for up to `waiting` requests.
    #[must_use]
    pub fn new(waiting: usize) -> Self {
        let waiting = ConcurrencyLimit::new(waiting);
        Self { news: Arc::default(), closed: CancellationToken::new(), waiting }
    }

    /// Returns the news of an app. Subscribe before reading, so that nothing between the two is missed.
    pub(super) fn subscribe(&self, app: AppId) -> Arc<Notify> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = news.get(&app).and_then(Weak::upgrade) {
            return notify;
        }
        news.retain(|_, notify| notify.strong_count() > 0);
        let notify = Arc::new(Notify::new());
        news.insert(app, Arc::downgrade(&notify));
        notify
    }

    /// Wakes the requests that wait for events of the app. Call it after the commit.
    pub(super) fn announce(&self, app: AppId) {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = news.get(&app).and_then(Weak::upgrade) {
            notify.notify_waiters();
        }
    }

    /// Ends every wait, so that a shutdown does not wait for them.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Returns whether waits have ended for good.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Resolves when waits end for good.
    pub(super) async fn closing(&self) {
        self.closed.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_wake_the_apps_own_requests_and_leave_nothing_behind() {
        let (feed, app, other) = (Feed::new(1), AppId::new(), AppId::new());
        let (one, two) = (feed.subscribe(app), feed.subscribe(app));
        let woken = futures_util::future::join(one.notified(), two.notified());
        feed.announce(other);
        feed.announce(app);
        woken.await;
        drop((one, two));
        let left = feed.subscribe(other);
        assert_eq!(feed.news.lock().unwrap().len(), 1);
        drop(left);
    }
}
