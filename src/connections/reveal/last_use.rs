//! Records when connections' secrets were last read: collected in memory and written a little later, so that no reveal
//! waits for it. A call records its use when it ends.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::common::ids::{AppId, ConnectionId};
use crate::connections::attention::store::RecordUse;
use crate::connections::{Batches, Context};

/// How long uses are collected before they are written.
const COLLECT_FOR: Duration = Duration::from_secs(1);

/// Uses that are not written yet. Cheap to clone; clones share the set.
#[derive(Clone, Debug, Default)]
pub struct LastUses(Arc<Mutex<HashSet<RecordUse>>>);

impl LastUses {
    /// Adds a use. The first one spawns the task that writes all of them.
    pub fn record(&self, context: &Context, app: AppId, id: ConnectionId) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = uses.is_empty();
        uses.insert(RecordUse { app, id });
        drop(uses);
        if first {
            // Not one of `context.tasks`: losing a use at a shutdown is acceptable.
            tokio::spawn(self.clone().write_later(context.batches.clone()));
        }
    }

    async fn write_later(self, batches: Batches) {
        tokio::time::sleep(COLLECT_FOR).await;
        let uses = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let written = futures_util::future::join_all(uses.into_iter().map(|it| batches.run(it)));
        if let Some(Err(error)) = written.await.into_iter().find(Result::is_err) {
            tracing::debug!(cause = %error, "a use was not recorded");
        }
    }
}
