//! Callers' connections: how many there may be, and how long each may stand still.
//!
//! [`Guarded`] is the stream that the server reads and writes; it notes what moves and ends when it is
//! told to. The [`Guard`] decides: [`Guard::watch`] looks at all connections a few times a second, and a
//! new connection that finds the house full makes room by the end of an idle one. What counts as idle
//! only the layers know, which is why they tell by [`Slot::begin`] and [`receiving`].

mod limit;
mod metrics;
mod slot;
mod stream;

pub use limit::{open_files, raise_limit};
pub use metrics::Metrics;
pub use slot::{Asking, Flight, Receiving, Slot, UNTOLD};
pub use stream::Guarded;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::dev::ServiceRequest;
use actix_web::http::Version;
use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use metrics::Why;

/// How often all connections are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How long a connection may stand still.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a byte between two requests.
    pub idle: Duration,
    /// From a head's first byte to its last, the connection's first head from its very beginning.
    pub head: Duration,
    /// While an answer is written that the caller does not take.
    pub write: Duration,
    /// While a body is awaited or an answer not taken, once others wait for room.
    pub patience: Duration,
}

impl Limits {
    /// What holds unless a test says otherwise.
    pub const DEFAULT: Self = Self {
        idle: Duration::from_secs(75),
        head: Duration::from_secs(10),
        write: Duration::from_secs(30),
        patience: Duration::from_secs(2),
    };
}

/// All connections of one listener. Clones are the same.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    limits: Limits,
    capacity: usize,
    slots: Mutex<HashMap<u64, Arc<Slot>>>,
    next: AtomicU64,
    metrics: Metrics,
}

impl Guard {
    /// A guard that lets `capacity` connections stand at once.
    #[must_use]
    pub fn new(capacity: usize, limits: Limits, metrics: Metrics) -> Self {
        let slots = Mutex::new(HashMap::new());
        let (started, next) = (Instant::now(), AtomicU64::new(0));
        Self(Arc::new(Inner { started, limits, capacity, slots, next, metrics }))
    }

    /// How many connections may stand at once.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// How many may stand before idle ones have to make room for new ones.
    fn comfortable(&self) -> usize {
        self.0.capacity - self.0.capacity.div_ceil(4)
    }

    /// Takes a new connection in; makes room for the next ones if there is little left.
    #[must_use]
    pub fn admit(&self, io: TcpStream) -> Guarded {
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = io.set_nodelay(true);
        let key = self.0.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot::new(self.0.started));
        let mut slots = self.slots();
        slots.insert(key, Arc::clone(&slot));
        self.0.metrics.open.inc();
        if slots.len() > self.comfortable() {
            self.make_room(&slots);
        }
        drop(slots);
        Guarded::new(io, slot, self.clone(), key)
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, key: u64) {
        self.slots().remove(&key);
        self.0.metrics.open.dec();
    }

    /// Ends idle connections, those that have been idle longest first, and then those that keep a place
    /// without using it. A sixteenth more than needed, so that a flood does not look for each newcomer.
    fn make_room(&self, slots: &HashMap<u64, Arc<Slot>>) {
        let staying: Vec<_> = slots.values().filter(|slot| !slot.is_ending()).collect();
        let too_many = staying.len().saturating_sub(self.comfortable());
        if too_many == 0 {
            return;
        }
        let mut victims: Vec<_> = staying
            .into_iter()
            .filter_map(|slot| Some((slot.dispensable(self.0.limits.patience)?, slot)))
            .collect();
        let wanted = (too_many + self.0.capacity / 16).min(victims.len());
        if wanted == 0 {
            return;
        }
        victims.select_nth_unstable_by_key(wanted - 1, |(rank, _)| *rank);
        for (rank, slot) in victims.into_iter().take(wanted) {
            self.0.metrics.ended(if rank.idle() { Why::Crowded } else { Why::Slow });
            slot.end(!rank.idle());
        }
    }

    /// Looks at all connections until `stop`: ends those that stand still, makes room, and has those asked
    /// whose callers may have gone.
    pub async fn watch(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let slots = self.slots();
            for slot in slots.values() {
                if let Some(why) = slot.overdue(&self.0.limits) {
                    self.0.metrics.ended(why);
                    slot.end(why == Why::Unread);
                }
                slot.wake_if_asking();
            }
            if slots.len() > self.comfortable() {
                self.make_room(&slots);
            }
        }
    }
}

/// The request is under way while the result lives.
#[must_use]
pub fn begin(req: &ServiceRequest) -> Option<Flight> {
    let slot = req.conn_data::<Arc<Slot>>()?;
    let length = req.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let untold = req.headers().contains_key(TRANSFER_ENCODING);
    let body = if untold { UNTOLD } else { length.and_then(|n| n.parse().ok()).unwrap_or(0) };
    Some(slot.begin(body))
}

/// The request waits for its body while the result lives.
#[must_use]
pub fn receiving(req: &HttpRequest) -> Option<Receiving> {
    req.conn_data::<Arc<Slot>>().map(Slot::receive)
}

/// While the result lives, the request waits for something that a caller who has gone must not take: a
/// caller who closed the connection loses it, one who only closed their half (RFC 9112 §9.6) keeps it.
///
/// The two look alike until something is sent. That is an interim answer (RFC 9110 §15.2), once, to a caller
/// whose half is closed; HTTP/1.0 has none, and its callers are taken to be there.
#[must_use]
pub fn asking(req: &HttpRequest) -> Option<Asking> {
    let slot = req.conn_data::<Arc<Slot>>().filter(|_| req.version() >= Version::HTTP_11);
    slot.map(Slot::ask)
}
