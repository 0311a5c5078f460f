//! What is known of one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use super::Limits;
use super::metrics::Why;

/// Stays.
const STAYS: u8 = 0;
/// Ends as if the caller had sent its last byte, unless a request comes first.
const ENDS: u8 = 1;
/// Ends at once, whatever is under way.
const BREAKS: u8 = 2;

/// A connection that has just come or just been used is about to be used.
const FRESH: Duration = Duration::from_millis(100);
/// How long a request waits before its caller is sent anything: most need not wait at all, and an interim
/// answer is a surprise to the simplest of clients.
const UNASKED: Duration = Duration::from_millis(500);
/// The least that a caller takes within the time for writing, in bytes: less is no progress.
const PROGRESS: usize = 16 * 1024;

/// What is known of one connection. Times are in milliseconds since the guard was made; 0 stands for none.
#[derive(Debug)]
pub struct Slot {
    started: Instant,
    accepted: u64,
    /// When a byte moved last.
    moved: AtomicU64,
    /// Since when a head, or what is left of a body that nobody reads, has been coming in.
    head: AtomicU64,
    /// Since when the caller has taken too little of what is written.
    stuck: AtomicU64,
    /// Bytes that went out since then.
    trickled: AtomicUsize,
    /// Since when a handler has waited for the body.
    receiving: AtomicU64,
    /// Requests that have begun and whose answers are not out.
    flying: AtomicUsize,
    /// Since when a request has waited that must not go on for a caller who has gone.
    asking: AtomicU64,
    /// How many bytes more the request under way may read, of its body.
    allowance: AtomicU64,
    /// Reading was put off until the request under way is answered.
    withheld: AtomicBool,
    served: AtomicBool,
    fate: AtomicU8,
    waker: AtomicWaker,
}

/// The size of a body that does not say how many bytes it has.
pub const UNTOLD: u64 = u64::MAX;

/// How much may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// A head.
    Head,
    /// A piece, which is looked at before the next one.
    Piece,
    /// Up to so many bytes.
    Bytes(u64),
}

/// In which order connections are ended to make room: idle ones first, then by the time that they have
/// stood still.
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
            flying: AtomicUsize::new(0),
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
        self.flying.load(Ordering::Relaxed) == 0
    }

    pub(super) fn watched_by(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Bytes came in. A connection that was to end for idleness stays.
    pub(super) fn has_read(&self, bytes: u64) {
        let now = self.now();
        self.moved.store(now, Ordering::Relaxed);
        let _ = self.allowance.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left != UNTOLD).then(|| left.saturating_sub(bytes))
        });
        if self.idle() && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(now, Ordering::Relaxed);
        }
        let _ = self.fate.compare_exchange(ENDS, STAYS, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Bytes went out: all that there were, or as many as the caller took.
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

    /// The caller takes nothing at the moment.
    pub(super) fn is_stuck(&self) {
        if self.stuck.load(Ordering::Relaxed) == 0 {
            self.trickled.store(0, Ordering::Relaxed);
            self.stuck.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Whether it is to end as if the caller had sent the last byte.
    pub(super) fn ends(&self) -> bool {
        self.fate.load(Ordering::Relaxed) == ENDS && self.idle()
    }

    /// Whether it is to end at once.
    pub(super) fn breaks(&self) -> bool {
        self.fate.load(Ordering::Relaxed) == BREAKS
    }

    pub(super) fn is_ending(&self) -> bool {
        self.fate.load(Ordering::Relaxed) != STAYS
    }

    /// Has it end: between two requests, or `at_once`.
    pub(super) fn end(&self, at_once: bool) {
        self.fate.store(if at_once { BREAKS } else { ENDS }, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Whether it can be spared when others want room, and after which others.
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

    /// Why it has to end by now.
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
        // The server itself answers a first head that does not come in time, if it may be slower by a little.
        let first = (!self.served.load(Ordering::Relaxed)).then_some(self.accepted);
        let (head, late) = (since(&self.head), limits.head + Duration::from_secs(1));
        if longer(head, late) || longer(first, late) {
            return Some(Why::SlowHead);
        }
        longer(since(&self.moved), limits.idle).then_some(Why::Idle)
    }

    /// Whether a request must not go on for a caller who has gone.
    pub(super) fn is_asking(&self) -> bool {
        self.asking.load(Ordering::Relaxed) != 0
    }

    /// Whether it has waited for long enough that the caller may be sent something to find out.
    pub(super) fn may_send(&self) -> bool {
        let since = self.asking.load(Ordering::Relaxed);
        since != 0 && self.for_longer(since, UNASKED)
    }

    pub(super) fn wake_if_asking(&self) {
        if self.is_asking() {
            self.waker.wake();
        }
    }

    /// How much may be read now: a head, or so much of the body of the request under way. `None` while nothing
    /// may: what is read is decoded at once, whatever it is, and a pipelined request takes a hundred times the
    /// memory of its bytes.
    pub(super) fn readable(&self) -> Option<Readable> {
        if self.idle() {
            return Some(Readable::Head);
        }
        match self.allowance.load(Ordering::Relaxed) {
            0 => {
                self.withheld.store(true, Ordering::Relaxed);
                None
            }
            UNTOLD => Some(Readable::Piece),
            bytes => Some(Readable::Bytes(bytes)),
        }
    }

    /// A request has begun whose body has so many bytes, [`UNTOLD`] if it does not say; it ends with the
    /// result, which goes with the answer's last byte.
    #[must_use]
    pub fn begin(self: &Arc<Self>, body: u64) -> Flight {
        self.allowance.store(body, Ordering::Relaxed);
        self.flying.fetch_add(1, Ordering::Relaxed);
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

/// A request under way.
#[derive(Debug)]
pub struct Flight(Arc<Slot>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.flying.fetch_sub(1, Ordering::Relaxed);
        if self.0.withheld.swap(false, Ordering::Relaxed) {
            self.0.waker.wake();
        }
        self.0.moved.store(self.0.now(), Ordering::Relaxed);
    }
}

/// A request whose body is awaited.
#[derive(Debug)]
pub struct Receiving(Arc<Slot>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.receiving.store(0, Ordering::Relaxed);
        self.0.allowance.store(0, Ordering::Relaxed);
    }
}

/// A request that must not go on for a caller who has gone.
#[derive(Debug)]
pub struct Asking(Arc<Slot>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.store(0, Ordering::Relaxed);
    }
}
