//! Master keys that are elsewhere. What arrives together is asked together, every wait has a limit, and an outage of the
//! engine is known at once ([`Health`]).
//!
//! All calls of one key are made by one task, on the runtime that used the key first: a client's connections belong to
//! the runtime that opened them, and the threads that serve requests have one each.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{Instrument as _, Span};
use zeroize::Zeroizing;

use super::associated_data::random;
use super::aws_kms::AwsKms;
use super::engine::{Down, NewKey};
use super::error::{OpenError, Unavailable};
use super::health::Health;
use super::keys::{KeyOwner, MasterKeyId, WrappedKey};
use super::local::KeyBytes;
use super::metrics::{KeyMetrics, Metrics};
use super::transit::Transit;
use crate::common::ids::DataKeyId;
use crate::common::spans;

/// The time limit of one call to the engine, a login included.
const CALL_LIMIT: Duration = Duration::from_secs(3);
/// How long a caller waits for its place in a call and for the call.
const WAIT_LIMIT: Duration = Duration::from_secs(5);
/// How many keys may wait for a call.
const QUEUE: usize = 4096;

/// What keeps the key.
#[derive(Debug)]
pub(super) enum Engine {
    Transit(Transit),
    AwsKms(AwsKms),
}

/// How calls to an engine are made.
struct Manner {
    /// How many keys one call opens or wraps at most.
    per_call: usize,
    /// How many calls run at once.
    at_once: usize,
    /// After how long without a call that succeeded the key is tried.
    probe_after: Duration,
}

impl Engine {
    fn kind(&self) -> &'static str {
        match self {
            Self::Transit(_) => "transit",
            Self::AwsKms(_) => "awskms",
        }
    }

    const fn manner(&self) -> Manner {
        match self {
            Self::Transit(_) => {
                Manner { per_call: 100, at_once: 4, probe_after: Duration::from_secs(5) }
            }
            // KMS has no batch, and each call is paid for and on CloudTrail's record.
            Self::AwsKms(_) => {
                Manner { per_call: 1, at_once: 32, probe_after: Duration::from_mins(1) }
            }
        }
    }

    fn check_value(&self) -> [u8; 32] {
        match self {
            Self::Transit(engine) => engine.check_value(),
            Self::AwsKms(engine) => engine.check_value(),
        }
    }

    async fn wrap(&self, id: &MasterKeyId, keys: &[NewKey]) -> Result<Vec<WrappedKey>, Down> {
        match self {
            Self::Transit(engine) => engine.wrap(id, keys).await,
            Self::AwsKms(engine) => engine.wrap(id, keys).await,
        }
    }

    async fn open(
        &self,
        id: &MasterKeyId,
        keys: &[WrappedKey],
    ) -> Result<Vec<Option<KeyBytes>>, Down> {
        match self {
            Self::Transit(engine) => engine.open(id, keys).await,
            Self::AwsKms(engine) => engine.open(id, keys).await,
        }
    }
}

enum Job {
    Open(WrappedKey, oneshot::Sender<Result<KeyBytes, OpenError>>),
    Wrap(NewKey, oneshot::Sender<Result<WrappedKey, OpenError>>),
}

/// A job, and the span of its caller.
type Queued = (Job, Span);

/// A master key that never leaves its engine.
pub struct RemoteKey {
    shared: Arc<Shared>,
    check_value: [u8; 32],
    queue: OnceLock<mpsc::Sender<Queued>>,
}

struct Shared {
    id: MasterKeyId,
    engine: Engine,
    health: Health,
    metrics: OnceLock<KeyMetrics>,
}

impl RemoteKey {
    pub(super) fn new(id: MasterKeyId, engine: Engine) -> Self {
        let check_value = engine.check_value();
        let (health, metrics) = (Health::default(), OnceLock::new());
        let shared = Arc::new(Shared { id, engine, health, metrics });
        Self { shared, check_value, queue: OnceLock::new() }
    }

    pub(super) fn id(&self) -> &MasterKeyId {
        &self.shared.id
    }

    pub(super) fn kind(&self) -> &'static str {
        self.shared.engine.kind()
    }

    pub(super) fn check_value(&self) -> &[u8; 32] {
        &self.check_value
    }

    pub(super) fn health(&self) -> &Health {
        &self.shared.health
    }

    /// Counts from now on by these metrics.
    pub(super) fn count_by(&self, metrics: &Metrics) {
        let _ = self.shared.metrics.set(metrics.of_key(&self.shared.id, self.kind()));
    }

    pub(super) async fn open(&self, wrapped: WrappedKey) -> Result<KeyBytes, OpenError> {
        self.ask(|reply| Job::Open(wrapped, reply)).await
    }

    pub(super) async fn wrap(
        &self,
        id: DataKeyId,
        owner: KeyOwner,
        bytes: KeyBytes,
    ) -> Result<WrappedKey, OpenError> {
        let new = NewKey { id, owner, bytes };
        self.ask(|reply| Job::Wrap(new, reply)).await
    }

    /// Wraps a random key and opens it again, if the last success is some time ago or there is an outage.
    pub(super) async fn probe_if_due(&self) {
        let health = self.health();
        let after = self.shared.engine.manner().probe_after;
        let is_stale = health.last_success().is_none_or(|last| last.elapsed() >= after);
        if is_stale || health.outage(Instant::now()).is_some() {
            // `Health` keeps the outcome.
            let _ = self.probe().await;
        }
    }

    /// Wraps a random key and opens it again.
    pub(super) async fn probe(&self) -> Result<(), OpenError> {
        let bytes: KeyBytes = Zeroizing::new(random().map_err(|_| OpenError::DoesNotOpen)?);
        let wrapped = self.wrap(DataKeyId::new(), KeyOwner::Service, bytes.clone()).await?;
        let opened = self.open(wrapped).await?;
        if *opened == *bytes { Ok(()) } else { Err(OpenError::DoesNotOpen) }
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, OpenError>>) -> Job,
    ) -> Result<T, OpenError> {
        let admitted = self.shared.health.admit(Instant::now());
        admitted.map_err(|outage| Unavailable::of(&self.shared.id, &outage))?;
        let (reply, answer) = oneshot::channel();
        let overloaded = |what| OpenError::Unavailable(Unavailable::overloaded(self.id(), what));
        let queued = self.queue().try_send((job(reply), Span::current()));
        queued.map_err(|_| overloaded("too many keys wait for it"))?;
        match tokio::time::timeout(WAIT_LIMIT, answer).await {
            Ok(Ok(answer)) => answer,
            // The runtime of the task is gone.
            Ok(Err(_)) => Err(overloaded("the process is ending")),
            Err(_) => Err(overloaded("a key waited too long for its turn")),
        }
    }

    fn queue(&self) -> &mpsc::Sender<Queued> {
        self.queue.get_or_init(|| {
            let (queue, jobs) = mpsc::channel(QUEUE);
            tokio::spawn(run(Arc::clone(&self.shared), jobs));
            queue
        })
    }
}

/// Gathers what waits into calls until the key is dropped.
async fn run(shared: Arc<Shared>, mut jobs: mpsc::Receiver<Queued>) {
    let Manner { per_call, at_once, .. } = shared.engine.manner();
    let calls = Arc::new(Semaphore::new(at_once));
    while let Some(first) = jobs.recv().await {
        // While all calls are under way, more arrives for the next.
        let Ok(call) = Arc::clone(&calls).acquire_owned().await else { return };
        // Lets a caller that needs two keys ask for the second.
        tokio::task::yield_now().await;
        let mut batch = vec![first];
        while batch.len() < per_call
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let (batch, callers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let kind = shared.engine.kind();
            let span =
                tracing::trace_span!(parent: None, "master_key", otel.name = kind, shared = true);
            spans::link(&span, callers.iter());
            drop(callers);
            shared.serve(batch).instrument(span).await;
            drop(call);
        });
    }
}

impl Shared {
    async fn serve(&self, batch: Vec<Job>) {
        let (mut open, mut open_replies) = (Vec::new(), Vec::new());
        let (mut wrap, mut wrap_replies) = (Vec::new(), Vec::new());
        for job in batch {
            match job {
                Job::Open(key, reply) => {
                    open.push(key);
                    open_replies.push(reply);
                }
                Job::Wrap(new, reply) => {
                    wrap.push(new);
                    wrap_replies.push(reply);
                }
            }
        }
        let opened = async {
            if !open.is_empty() {
                let opened = self.call("open", self.engine.open(&self.id, &open)).await;
                answer(open_replies, opened, |key| key.ok_or(OpenError::DoesNotOpen));
            }
        };
        let wrapped = async {
            if !wrap.is_empty() {
                let wrapped = self.call("wrap", self.engine.wrap(&self.id, &wrap)).await;
                answer(wrap_replies, wrapped, Ok);
            }
        };
        tokio::join!(opened, wrapped);
    }

    /// Makes one call within its limit and records how it went.
    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, Down>>,
    ) -> Result<T, OpenError> {
        let began = Instant::now();
        let answer = tokio::time::timeout(CALL_LIMIT, call).await;
        let answer = answer.unwrap_or_else(|_| Err(Down("no answer in time".to_owned())));
        let now = Instant::now();
        if let Some(metrics) = self.metrics.get() {
            metrics.call(operation, answer.is_ok(), now.saturating_duration_since(began));
        }
        match answer {
            Ok(answer) => {
                if let Some(outage) = self.health.succeeded(now) {
                    tracing::info!(key = %self.id, ?outage, "a master key can be used again");
                }
                Ok(answer)
            }
            Err(Down(cause)) => {
                if self.health.failed(now, &cause) {
                    tracing::error!(key = %self.id, %cause, "a master key cannot be used");
                }
                Err(OpenError::Unavailable(Unavailable::now(&self.id, &self.health, cause)))
            }
        }
    }
}

fn answer<A, T>(
    replies: Vec<oneshot::Sender<Result<T, OpenError>>>,
    answers: Result<Vec<A>, OpenError>,
    each: impl Fn(A) -> Result<T, OpenError>,
) {
    // A caller that has gone away needs no answer.
    match answers {
        Ok(answers) => {
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _ = reply.send(each(answer));
            }
        }
        Err(error) => {
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}
