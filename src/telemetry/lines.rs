//! The queue of log lines. A thread writes them, so that a slow or absent reader stalls no request. Lines that
//! do not fit into the queue are dropped and counted.

use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use tracing_subscriber::fmt::MakeWriter;

/// The most lines that wait.
const MAX_LINES: usize = 16 * 1024;
/// The most bytes that wait.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long the thread collects lines after the first: so that under load one wake-up and one write serve many.
const COLLECT_FOR: Duration = Duration::from_millis(10);
/// The most bytes of one write, unless one line has more.
const MAX_WRITE: usize = 256 * 1024;
/// How long the end of the process waits for unwritten lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The queues of the process, one for each destination; `flush` finds them here.
static QUEUES: Mutex<Vec<Lines>> = Mutex::new(Vec::new());
/// Lines that were dropped.
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Entry {
    Line(Box<[u8]>),
    /// Acknowledges that all earlier lines are written.
    Flushed(SyncSender<()>),
}

/// The queue of lines. Clones are the same.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Entry>,
    waiting: Arc<AtomicUsize>,
}

impl Lines {
    /// Starts the thread that writes to `out`.
    pub(super) fn to(out: impl Write + Send + 'static) -> Self {
        let (queue, entries) = sync_channel(MAX_LINES);
        let waiting = Arc::new(AtomicUsize::new(0));
        let bytes = Arc::clone(&waiting);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Without the thread the channel is closed, and every line counts as dropped.
        let _ = thread.spawn(move || write_all(out, &entries, &bytes));
        let lines = Self { queue, waiting };
        QUEUES.lock().unwrap_or_else(PoisonError::into_inner).push(lines.clone());
        lines
    }

    fn put(&self, line: &[u8]) {
        let before = self.waiting.fetch_add(line.len(), Ordering::Relaxed);
        let fits = before + line.len() <= MAX_BYTES;
        if !fits || self.queue.try_send(Entry::Line(line.into())).is_err() {
            self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let (sender, receiver) = sync_channel(1);
        let mut entry = Entry::Flushed(sender);
        loop {
            match self.queue.try_send(entry) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => entry = back,
                Err(_) => return,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_all(mut out: impl Write, entries: &Receiver<Entry>, waiting: &AtomicUsize) {
    let mut collected = Collected::default();
    while let Ok(first) = entries.recv() {
        if matches!(first, Entry::Line(_)) {
            std::thread::sleep(COLLECT_FOR);
        }
        for entry in std::iter::once(first).chain(entries.try_iter()) {
            match entry {
                Entry::Line(line) => collected.add(&line),
                Entry::Flushed(sender) => {
                    collected.write(&mut out, waiting);
                    let _ = out.flush();
                    let _ = sender.send(());
                }
            }
            if collected.bytes.len() >= MAX_WRITE {
                collected.write(&mut out, waiting);
            }
        }
        collected.write(&mut out, waiting);
    }
}

/// Lines that become one write.
#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    lines: u64,
}

impl Collected {
    fn add(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.lines += 1;
    }

    fn write(&mut self, out: &mut impl Write, waiting: &AtomicUsize) {
        if self.lines == 0 {
            return;
        }
        if out.write_all(&self.bytes).is_err() {
            DROPPED.fetch_add(self.lines, Ordering::Relaxed);
        }
        waiting.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.bytes.clear();
        self.lines = 0;
    }
}

/// Writes the waiting lines, for up to a second. To be called when the process ends.
pub fn flush() {
    let queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for lines in queues {
        lines.flush(LAST_LINES);
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

/// Each call is one line: the formatting layer writes an event in one piece.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Registers `log_lines_dropped`.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Dropped));
}

#[derive(Debug)]
struct Dropped;

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counter = ConstCounter::new(DROPPED.load(Ordering::Relaxed));
        let help = "Log lines that were not written, because the output did not take them in time";
        let kind = counter.metric_type();
        counter.encode(encoder.encode_descriptor("log_lines_dropped", help, None, kind)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Accepts nothing until it is released, then sends all it receives.
    struct Stuck(Mutex<Receiver<()>>, Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.lock().unwrap().recv();
            let _ = self.1.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_stops_nobody_and_what_is_dropped_is_counted() {
        let (go, wait) = channel();
        let (sender, receiver) = channel();
        let lines = Lines::to(Stuck(Mutex::new(wait), sender));
        let before = DROPPED.load(Ordering::Relaxed);
        let line = [b'x'; 1024];
        for _ in 0..MAX_BYTES / 1024 + 100 {
            (&lines).write_all(&line).unwrap();
        }
        assert_eq!(DROPPED.load(Ordering::Relaxed) - before, 100);
        let started = Instant::now();
        lines.flush(Duration::from_millis(50));
        assert!(started.elapsed() < Duration::from_secs(5));
        drop(go);
        lines.flush(Duration::from_secs(30));
        assert_eq!(receiver.try_iter().map(|it| it.len()).sum::<usize>(), MAX_BYTES);
        (&lines).write_all(&line).unwrap();
        lines.flush(Duration::from_secs(30));
        let written: usize = receiver.try_iter().map(|it| it.len()).sum();
        assert_eq!(written, 1024, "there is room again");
    }
}
