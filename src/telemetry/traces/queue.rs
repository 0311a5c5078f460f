//! The queue of spans that ended. A thread with a runtime of its own exports them in batches, so that a slow, silent or
//! absent collector delays no request. Spans that do not fit into the queue, or that the collector does not take, are
//! dropped and counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::collector::{Collector, Refused};
use crate::config::TracesConfig;

/// How long the end of the process waits for the last export.
const LAST_EXPORT: Duration = Duration::from_secs(2);
/// The pauses before a batch is sent again that may yet be taken.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// How often such a pause looks whether the process ends.
const STEP: Duration = Duration::from_millis(50);
/// The least time between two warnings.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The queues of the process; `flush` finds them here.
static QUEUES: Mutex<Vec<Queue>> = Mutex::new(Vec::new());
/// Spans that the collector took.
static EXPORTED: AtomicU64 = AtomicU64::new(0);
/// Spans that were dropped.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns how many spans the collector took, and how many were dropped, since the process began.
pub(super) fn counts() -> (u64, u64) {
    (EXPORTED.load(Ordering::Relaxed), DROPPED.load(Ordering::Relaxed))
}

fn dropped(spans: usize) {
    DROPPED.fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
}

enum Entry {
    Span(Box<SpanData>),
    /// Acknowledges that all earlier spans were exported, or dropped.
    Flushed(SyncSender<()>),
}

/// The queue. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    entries: SyncSender<Entry>,
    /// Whether the process is about to end.
    ending: Arc<AtomicBool>,
}

impl Queue {
    /// Starts the thread that exports.
    ///
    /// # Errors
    /// Returns why there can be no exports.
    pub(super) fn start(config: &TracesConfig) -> Result<Self, String> {
        let (entries, received) = sync_channel(config.queue);
        let ending = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let export = Export {
            collector: Collector::new(config)?,
            runtime: runtime.map_err(|error| error.to_string())?,
            batch: config.batch,
            delay: config.delay,
            ending: Arc::clone(&ending),
            warned: None,
            last_cause: None,
        };
        let thread = std::thread::Builder::new().name("traces".to_owned());
        thread.spawn(move || export.run(&received)).map_err(|error| error.to_string())?;
        let queue = Self { entries, ending };
        QUEUES.lock().unwrap_or_else(PoisonError::into_inner).push(queue.clone());
        Ok(queue)
    }

    fn flush(&self) {
        self.ending.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + LAST_EXPORT;
        let (sender, receiver) = sync_channel(1);
        let mut entry = Entry::Flushed(sender);
        while let Err(refused) = self.entries.try_send(entry) {
            let full = matches!(refused, std::sync::mpsc::TrySendError::Full(_));
            if !full || Instant::now() > deadline {
                return;
            }
            entry = match refused {
                std::sync::mpsc::TrySendError::Full(entry)
                | std::sync::mpsc::TrySendError::Disconnected(entry) => entry,
            };
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Exports the waiting spans, for up to two seconds. To be called when the process ends.
pub(in crate::telemetry) fn flush() {
    let queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    queues.iter().for_each(Queue::flush);
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled()
            && self.entries.try_send(Entry::Span(Box::new(span))).is_err()
        {
            dropped(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The thread that exports.
struct Export {
    collector: Collector,
    runtime: tokio::runtime::Runtime,
    batch: usize,
    delay: Duration,
    ending: Arc<AtomicBool>,
    /// When the last warning was written, and how many spans had been dropped then.
    warned: Option<(Instant, u64)>,
    /// Why the collector did not take the last batch that it did not take.
    last_cause: Option<String>,
}

impl Export {
    fn run(mut self, entries: &Receiver<Entry>) {
        let mut waiting = Vec::new();
        let mut due = Instant::now() + self.delay;
        loop {
            let mut flushed = None;
            match entries.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Entry::Span(span)) => {
                    waiting.push(*span);
                    if waiting.len() < self.batch {
                        continue;
                    }
                }
                Ok(Entry::Flushed(sender)) => flushed = Some(sender),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !waiting.is_empty() {
                self.export(std::mem::take(&mut waiting));
            }
            self.warn();
            if let Some(sender) = flushed {
                let _ = sender.send(());
            }
            due = Instant::now() + self.delay;
        }
    }

    fn export(&mut self, spans: Vec<SpanData>) {
        let count = spans.len();
        let body = self.collector.encode(spans);
        match self.send(&body) {
            Ok(refused) => {
                let refused = usize::try_from(refused).unwrap_or(usize::MAX).min(count);
                let taken = u64::try_from(count - refused).unwrap_or(u64::MAX);
                EXPORTED.fetch_add(taken, Ordering::Relaxed);
                if refused > 0 {
                    self.last_cause = Some("some spans were refused".to_owned());
                }
                dropped(refused);
            }
            Err(Refused { what, .. }) => {
                self.last_cause = Some(what);
                dropped(count);
            }
        }
    }

    /// Sends a batch, and again if it may yet be taken.
    fn send(&self, body: &Bytes) -> Result<u64, Refused> {
        let mut pauses = PAUSES.iter();
        loop {
            let sent = self.runtime.block_on(self.collector.send(body.clone()));
            match sent {
                Err(refused) if refused.passes && !self.is_ending() => match pauses.next() {
                    Some(pause) => self.pause(*pause),
                    None => return Err(refused),
                },
                sent => return sent,
            }
        }
    }

    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.is_ending() {
            std::thread::sleep(STEP);
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Warns if spans were dropped since the last warning, and that was a while ago.
    fn warn(&mut self) {
        let (_, all) = counts();
        let before = self.warned.map_or(0, |(_, before)| before);
        let is_recent = self.warned.is_some_and(|(at, _)| at.elapsed() < WARN_EVERY);
        if all == before || is_recent {
            return;
        }
        self.warned = Some((Instant::now(), all));
        let cause = self.last_cause.take().unwrap_or_else(|| "the queue was full".to_owned());
        tracing::warn!(
            cause,
            spans = all - before,
            "spans were dropped; the collector did not take them"
        );
    }
}
