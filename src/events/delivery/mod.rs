//! Delivery: sends events to webhooks, at least once, until they are answered with success or three days are over.
//!
//! `webhook_deliveries` is the queue. A round plans how much each endpoint gets (`plan`), claims that much under leases,
//! commits, and makes each attempt in a task of its own; the outcome is recorded under the attempt's number, so that one
//! whose lease ran out cannot undo a later one. An endpoint that fails gets one attempt at a time, after growing waits;
//! one that hangs holds its own few slots and no other's.

mod attempt;
mod plan;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::Instrument as _;
use uuid::Uuid;

pub use self::attempt::Outcome;
use self::attempt::Signed;
use self::plan::{CAPACITY, InFlight};
pub use self::store::Report;
use self::store::{Claimed, Lane};
use super::Context;
use super::endpoints::{self, SigningKey};
use crate::common::ids::AppId;
use crate::database::{Fault, Waits, retry_until};
use crate::vault::{Vault, VaultError};

/// The time limit of an attempt, the answer included.
pub const ATTEMPT: Duration = Duration::from_secs(15);
/// How long a claim keeps others from the delivery: an attempt, and the record of its outcome.
const LEASE: Duration = Duration::from_secs(40);
/// How long the record of an outcome is retried while the database is away: afterwards the lease has run out.
const RECORD_WITHIN: Duration = Duration::from_secs(20);
const RECORD_WAITS: Waits = Waits::doubling(Duration::from_millis(50), Duration::from_secs(2));

/// What is being sent from this replica. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    in_flight: Arc<Mutex<InFlight>>,
    freed: Arc<Notify>,
}

impl Sender {
    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when an attempt has ended: there may be room for another.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }
}

/// A slot of an endpoint, free again when it is dropped.
struct Slot {
    sender: Sender,
    app: AppId,
    endpoint: Uuid,
}

impl Slot {
    fn take(sender: &Sender, app: AppId, endpoint: Uuid) -> Self {
        sender.in_flight().add(app, endpoint);
        Self { sender: sender.clone(), app, endpoint }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.sender.in_flight().remove(self.app, self.endpoint);
        self.sender.freed.notify_one();
    }
}

/// Claims what is due, as far as there are slots, and begins the attempts. Returns their tasks.
///
/// # Errors
/// The database's, before anything is claimed; of the vault, what keeps one app's secrets closed is logged and left.
pub async fn round(context: &Context) -> Result<Vec<JoinHandle<()>>, VaultError> {
    let free = CAPACITY.saturating_sub(context.sender.in_flight().total());
    if free == 0 {
        return Ok(Vec::new());
    }
    let mut conn = context.pool.acquire().await?;
    let lanes = store::due_lanes(&mut conn).await?;
    let quotas = context.sender.in_flight().plan(&lanes);
    if quotas.is_empty() {
        return Ok(Vec::new());
    }
    let endpoints: Vec<_> = quotas.iter().map(|(endpoint, _)| *endpoint).collect();
    let sealed = endpoints::secrets(&mut conn, &endpoints).await?;
    let keys = store::app_keys(&mut conn, &endpoints).await?;
    // Opened before anything is claimed, and with no connection held: a master key elsewhere may take its time.
    drop(conn);
    let signing = open_all(&context.vault, &lanes, &sealed, &keys).await;
    let quotas: Vec<_> =
        quotas.into_iter().filter(|(endpoint, _)| signing.contains_key(endpoint)).collect();
    if quotas.is_empty() {
        return Ok(Vec::new());
    }
    let mut conn = context.pool.acquire().await?;
    let claimed = store::claim(&mut conn, &quotas, LEASE).await?;
    drop(conn);
    fail::fail_point!("webhooks::claimed");
    let attempts = claimed.into_iter().map(|claimed| {
        let slot = Slot::take(&context.sender, claimed.app, claimed.endpoint);
        let keys = signing.get(&claimed.endpoint).map(Arc::clone).unwrap_or_default();
        let (context, tasks) = (context.clone(), context.tasks.clone());
        let span = tracing::trace_span!(
            parent: None, "delivery", endpoint = %claimed.endpoint, attempt = claimed.attempt
        );
        let delivery = async move { deliver(&context, claimed, &keys, slot).await };
        tasks.spawn(delivery.instrument(span))
    });
    Ok(attempts.collect())
}

/// Opens what signs for each endpoint. Leaves out an endpoint whose master key cannot be used at the moment: its deliveries
/// wait. Secrets that do not open for good sign nothing, and their deliveries fail.
async fn open_all(
    vault: &Vault,
    lanes: &[Lane],
    sealed: &[endpoints::SealedSecret],
    keys: &HashMap<Uuid, crate::vault::WrappedKey>,
) -> HashMap<Uuid, Arc<Vec<SigningKey>>> {
    let mut all = HashMap::with_capacity(keys.len());
    for lane in lanes {
        let Some(wrapped) = keys.get(&lane.endpoint) else { continue };
        let mine = sealed.iter().filter(|secret| secret.endpoint.uuid() == lane.endpoint);
        let opened = vault.unwrap(wrapped).await.and_then(|key| {
            mine.map(|secret| SigningKey::open(lane.signature, lane.app, &key, secret))
                .collect::<Result<Vec<_>, _>>()
        });
        let signing = match opened {
            Ok(opened) => opened.into_iter().flatten().collect(),
            Err(VaultError::Unavailable(cause)) => {
                tracing::warn!(%cause, endpoint = %lane.endpoint, "a webhook's deliveries wait");
                continue;
            }
            Err(error) => {
                tracing::error!(cause = %error, endpoint = %lane.endpoint, "a webhook's secrets do not open");
                Vec::new()
            }
        };
        all.insert(lane.endpoint, Arc::new(signing));
    }
    all
}

/// Makes one attempt and records how it ended.
async fn deliver(context: &Context, claimed: Claimed, keys: &[SigningKey], slot: Slot) {
    let outcome = match Signed::new(&claimed, keys) {
        Some(signed) => attempt::send(&context.outbound, &signed).await,
        None => Outcome::failed("no live secret signs"),
    };
    fail::fail_point!("webhooks::sent");
    context.metrics.delivery(&outcome, claimed.age);
    if !outcome.is_success() {
        tracing::info!(
            endpoint = %claimed.endpoint, event = %claimed.event.id, attempt = claimed.attempt,
            error = outcome.error.as_deref(), "a delivery failed"
        );
    }
    let report = Report::of(&claimed, &outcome);
    let until = Instant::now() + RECORD_WITHIN;
    let recorded = retry_until(
        until,
        RECORD_WAITS,
        |error| Fault::of(error).is_passing(),
        async || record(context, &report).await,
    );
    if let Err(error) = recorded.await {
        // The lease ends by itself and the delivery is made once more.
        tracing::warn!(cause = %error, "the outcome of a delivery could not be recorded");
    }
    drop(slot);
}

async fn record(context: &Context, report: &Report) -> sqlx::Result<()> {
    if report.error.is_none() && !report.was_failing {
        return context.delivered.run(report.clone()).await;
    }
    let mut tx = context.pool.begin().await?;
    store::record(&mut tx, report).await?;
    fail::fail_point!("webhooks::before_commit");
    tx.commit().await
}

/// Counts the deliveries that are to be made.
pub(super) async fn due(context: &Context) -> sqlx::Result<i64> {
    store::due(&mut context.pool.acquire().await?).await
}
