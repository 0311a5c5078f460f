//! When connections' secrets were read last: remembered in memory and written a little later, so that no
//! reading waits for it. Calls note their use with their end.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::ids::{AppId, ConnectionId};
use crate::connections::attention::store::RecordUse;
use crate::connections::{Batches, Context};

/// How long uses are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);

/// Uses that are not written yet. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct LastUses(Arc<Mutex<HashSet<RecordUse>>>);

impl LastUses {
    /// Remembers a use. The first of a while sees to it that all are written.
    pub fn note(&self, context: &Context, app: AppId, id: ConnectionId) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = uses.is_empty();
        uses.insert(RecordUse { app, id });
        drop(uses);
        if first {
            // Not among the tasks that a shutdown waits for: a use is not worth that.
            tokio::spawn(self.clone().write_later(context.batches.clone()));
        }
    }

    async fn write_later(self, batches: Batches) {
        tokio::time::sleep(GATHER).await;
        let uses = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let written = futures_util::future::join_all(uses.into_iter().map(|it| batches.run(it)));
        if let Some(Err(error)) = written.await.into_iter().find(Result::is_err) {
            tracing::debug!(cause = %error, "a use was not noted");
        }
    }
}
