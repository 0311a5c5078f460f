//! The state of one connection, shared by its stream, its requests and the guard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use super::Limits;
use super::metrics::Why;

/// Stays open.
const STAYS: u8 = 0;
/// Ends as if the caller had sent its last byte, unless a request arrives first.
const ENDS: u8 = 1;
/// Ends at once, even during a request.
const BREAKS: u8 = 2;

/// A connection younger than this, or used more recently, is not idle: its request is on the way.
const FRESH: Duration = Duration::from_millis(100);
/// How long a request waits before its caller is probed: most need not wait at all, and an interim
/// response surprises the simplest clients.
const PROBE_AFTER: Duration = Duration::from_millis(500);
/// The least that a caller has to read within the time for writing, in bytes: less is no progress.
const PROGRESS: usize = 16 * 1024;

/// The state of one connection. Times are in milliseconds since the guard was created; 0 stands for
/// none.
#[derive(Debug)]
pub struct Slot {
    started: Instant,
    accepted: u64,
    /// When the last byte was read or written.
    moved: AtomicU64,
    /// Since when a head, or the unread rest of a body, has been arriving.
    head: AtomicU64,
    /// Since when the caller has read too little of the response.
    stuck: AtomicU64,
    /// Bytes written since then.
    trickled: AtomicUsize,
    /// Since when a handler has waited for the body.
    receiving: AtomicU64,
    /// Requests whose responses are not written yet.
    in_flight: AtomicUsize,
    /// Since when a request has waited that must not continue for a caller who has left.
    asking: AtomicU64,
    /// How many bytes of its body the current request may still read.
    allowance: AtomicU64,
    /// Reading is deferred until the current request is answered.
    withheld: AtomicBool,
    served: AtomicBool,
    fate: AtomicU8,
    waker: AtomicWaker,
}

/// The size of a body of unknown length (chunked).
pub const UNKNOWN_LENGTH: u64 = u64::MAX;

/// How much may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// A head.
    Head,
    /// A piece, which the server parses before the next one.
    Piece,
    /// At most this many bytes.
    Bytes(u64),
}

/// The order in which connections are ended to free capacity: idle ones first, then by the time
/// that they have stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    busy: bool,
    since: u64,
}

impl Rank {
    pub(super) fn idle(self) -> bool {
        !self.busy
    }
}

impl Slot {
    pub(super) fn new(started: Instant) -> Self {
        let mut slot = Self {
            started,
            accepted: 0,
            moved: AtomicU64::new(0),
            head: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
            trickled: AtomicUsize::new(0),
            receiving: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            asking: AtomicU64::new(0),
            allowance: AtomicU64::new(0),
            withheld: AtomicBool::new(false),
            served: AtomicBool::new(false),
            fate: AtomicU8::new(STAYS),
            waker: AtomicWaker::new(),
        };
        slot.accepted = slot.now();
        slot.moved = AtomicU64::new(slot.accepted);
        slot
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    pub(super) fn watched_by(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Records bytes that were read. A connection that was to end for idleness stays.
    pub(super) fn has_read(&self, bytes: u64) {
        let now = self.now();
        self.moved.store(now, Ordering::Relaxed);
        let _ = self.allowance.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left != UNKNOWN_LENGTH).then(|| left.saturating_sub(bytes))
        });
        if self.idle() && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(now, Ordering::Relaxed);
        }
        let _ = self.fate.compare_exchange(ENDS, STAYS, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Records bytes that were written, `all` of the buffer or as many as the caller read.
    pub(super) fn has_written(&self, bytes: usize, all: bool) {
        let now = self.now();
        self.moved.store(now, Ordering::Relaxed);
        if all {
            self.stuck.store(0, Ordering::Relaxed);
            return;
        }
        let trickled = self.trickled.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if trickled >= PROGRESS && self.stuck.load(Ordering::Relaxed) != 0 {
            self.stuck.store(now, Ordering::Relaxed);
            self.trickled.store(0, Ordering::Relaxed);
        }
    }

    /// Records that the caller reads nothing at the moment.
    pub(super) fn is_stuck(&self) {
        if self.stuck.load(Ordering::Relaxed) == 0 {
            self.trickled.store(0, Ordering::Relaxed);
            self.stuck.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Returns whether it has to end as if the caller had sent the last byte.
    pub(super) fn ends(&self) -> bool {
        self.fate.load(Ordering::Relaxed) == ENDS && self.idle()
    }

    /// Returns whether it has to end at once.
    pub(super) fn breaks(&self) -> bool {
        self.fate.load(Ordering::Relaxed) == BREAKS
    }

    pub(super) fn is_ending(&self) -> bool {
        self.fate.load(Ordering::Relaxed) != STAYS
    }

    /// Ends it: between two requests, or `at_once`.
    pub(super) fn end(&self, at_once: bool) {
        self.fate.store(if at_once { BREAKS } else { ENDS }, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Returns its rank among the connections that may be ended in favour of others, if it is one.
    pub(super) fn dispensable(&self, patience: Duration) -> Option<Rank> {
        if self.idle() && self.stuck.load(Ordering::Relaxed) == 0 {
            let since = self.moved.load(Ordering::Relaxed);
            return self.for_longer(since, FRESH).then_some(Rank { busy: false, since });
        }
        let still = [&self.receiving, &self.stuck].map(|since| since.load(Ordering::Relaxed));
        let since = still.into_iter().filter(|since| *since != 0).min()?;
        self.for_longer(since, patience).then_some(Rank { busy: true, since })
    }

    fn for_longer(&self, since: u64, than: Duration) -> bool {
        u128::from(self.now().saturating_sub(since)) > than.as_millis()
    }

    /// Returns why it has exceeded a limit, if it has.
    pub(super) fn overdue(&self, limits: &Limits) -> Option<Why> {
        if self.is_ending() {
            return None;
        }
        let since = |time: &AtomicU64| Some(time.load(Ordering::Relaxed)).filter(|time| *time != 0);
        let longer = |since: Option<u64>, than| since.is_some_and(|at| self.for_longer(at, than));
        if longer(since(&self.stuck), limits.write) {
            return Some(Why::Unread);
        }
        if !self.idle() || since(&self.stuck).is_some() {
            return None;
        }
        // The server's own timeout responds to a late first head, so this limit is slightly longer.
        let first = (!self.served.load(Ordering::Relaxed)).then_some(self.accepted);
        let (head, late) = (since(&self.head), limits.head + Duration::from_secs(1));
        if longer(head, late) || longer(first, late) {
            return Some(Why::SlowHead);
        }
        longer(since(&self.moved), limits.idle).then_some(Why::Idle)
    }

    /// Returns whether a request must not continue for a caller who has left.
    pub(super) fn is_asking(&self) -> bool {
        self.asking.load(Ordering::Relaxed) != 0
    }

    /// Returns whether it has waited long enough for its caller to be probed.
    pub(super) fn may_probe(&self) -> bool {
        let since = self.asking.load(Ordering::Relaxed);
        since != 0 && self.for_longer(since, PROBE_AFTER)
    }

    pub(super) fn wake_if_asking(&self) {
        if self.is_asking() {
            self.waker.wake();
        }
    }

    /// Returns how much may be read now: a head, or the rest of the current request's body. `None`
    /// while nothing may: the server decodes at once what is read, and a pipelined request takes a
    /// hundred times the memory of its bytes.
    pub(super) fn readable(&self) -> Option<Readable> {
        if self.idle() {
            return Some(Readable::Head);
        }
        match self.allowance.load(Ordering::Relaxed) {
            0 => {
                self.withheld.store(true, Ordering::Relaxed);
                None
            }
            UNKNOWN_LENGTH => Some(Readable::Piece),
            bytes => Some(Readable::Bytes(bytes)),
        }
    }

    /// Marks a request as in progress until the result is dropped, with the response's last byte.
    /// `body` is the size of its body, [`UNKNOWN_LENGTH`] if unknown.
    #[must_use]
    pub fn begin(self: &Arc<Self>, body: u64) -> Flight {
        self.allowance.store(body, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        self.head.store(0, Ordering::Relaxed);
        Flight(Arc::clone(self))
    }

    pub(super) fn receive(self: &Arc<Self>) -> Receiving {
        self.receiving.store(self.now(), Ordering::Relaxed);
        Receiving(Arc::clone(self))
    }

    pub(super) fn ask(self: &Arc<Self>) -> Asking {
        self.asking.store(self.now(), Ordering::Relaxed);
        self.waker.wake();
        Asking(Arc::clone(self))
    }
}

/// A request in progress.
#[derive(Debug)]
pub struct Flight(Arc<Slot>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.0.withheld.swap(false, Ordering::Relaxed) {
            self.0.waker.wake();
        }
        self.0.moved.store(self.0.now(), Ordering::Relaxed);
    }
}

/// A request that waits for its body.
#[derive(Debug)]
pub struct Receiving(Arc<Slot>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.receiving.store(0, Ordering::Relaxed);
        self.0.allowance.store(0, Ordering::Relaxed);
    }
}

/// A request that must not continue for a caller who has left.
#[derive(Debug)]
pub struct Asking(Arc<Slot>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.store(0, Ordering::Relaxed);
    }
}
