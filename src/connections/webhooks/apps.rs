//! The apps at Plaid by name: a list in memory, because anybody can ask for any name.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::apps;
use crate::common::clock::Clock;
use crate::common::ids::AppId;
use crate::connections::Context;
use crate::providers::Provider;

/// How often the list is read at most, however many unknown names are asked for.
const PAUSE: Duration = Duration::from_secs(1);

/// The list, read when a name is not on it. Apps are added and never removed, and their names never change.
#[derive(Clone, Debug)]
pub(super) struct Apps(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    by_name: RwLock<HashMap<String, AppId>>,
    last: Mutex<Option<Reading>>,
    clock: Clock,
}

/// The last reading of the list.
#[derive(Clone, Copy, Debug)]
struct Reading {
    ended_at: Instant,
    succeeded: bool,
}

/// The list could not be read, now or a moment ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unreadable;

impl Apps {
    pub(super) fn new(clock: Clock) -> Self {
        let shared = Shared { by_name: RwLock::default(), last: Mutex::default(), clock };
        Self(Arc::new(shared))
    }

    /// Returns the app at Plaid with this name.
    pub(super) async fn find(
        &self,
        context: &Context,
        name: &str,
    ) -> Result<Option<AppId>, Unreadable> {
        if !apps::is_name(name) {
            return Ok(None);
        }
        if let Some(app) = self.known(name) {
            return Ok(Some(app));
        }
        // One reading at a time; the callers that waited for it share its result, a failure as well: each of them would
        // wait for a database that is silent, one after the other.
        let mut last = self.0.last.lock().await;
        let now = self.0.clock.instant();
        let reading = if let Some(reading) = last.filter(|last| now < last.ended_at + PAUSE) {
            reading
        } else {
            let succeeded = self.read(context).await.inspect_err(|error| {
                tracing::warn!(cause = %error, "the apps of webhooks could not be read");
            });
            let succeeded = succeeded.is_ok();
            *last.insert(Reading { ended_at: self.0.clock.instant(), succeeded })
        };
        drop(last);
        match self.known(name) {
            None if !reading.succeeded => Err(Unreadable),
            found => Ok(found),
        }
    }

    fn known(&self, name: &str) -> Option<AppId> {
        let by_name = self.0.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.get(name).copied()
    }

    async fn read(&self, context: &Context) -> sqlx::Result<()> {
        let all = apps::list(&mut context.pool.acquire().await?).await?;
        let of_plaid = all.into_iter().filter(|app| app.provider == Provider::Plaid);
        let by_name = of_plaid.map(|app| (app.name, app.id)).collect();
        *self.0.by_name.write().unwrap_or_else(PoisonError::into_inner) = by_name;
        Ok(())
    }
}
