//! Callers' connections: how many there may be, and how long each may stall.
//!
//! [`Guarded`] is the stream that the server reads and writes; it records progress and ends when
//! the guard says so. The [`Guard`] decides: [`Guard::watch`] checks all connections a few times a
//! second, and a new connection that finds little capacity left makes the guard end an idle one.
//! Only the layers know when a connection is idle, so they report requests by [`Slot::begin`] and
//! [`receiving`].

mod limit;
mod metrics;
mod slot;
mod stream;

pub use limit::{open_files, raise_limit};
pub use metrics::Metrics;
pub use slot::{Asking, Flight, Receiving, Slot, UNKNOWN_LENGTH};
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

/// How often all connections are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a connection may stall.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Between two requests.
    pub idle: Duration,
    /// From a head's first byte to its last; the connection's first head counts from the beginning.
    pub head: Duration,
    /// While the caller does not read a response.
    pub write: Duration,
    /// While a body does not arrive or a response is not read, once others need capacity.
    pub patience: Duration,
}

impl Limits {
    /// The limits in production.
    pub const DEFAULT: Self = Self {
        idle: Duration::from_secs(75),
        head: Duration::from_secs(10),
        write: Duration::from_secs(30),
        patience: Duration::from_secs(2),
    };
}

/// The guard of one listener's connections. Clones share it.
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
    /// Returns a guard for `capacity` concurrent connections.
    #[must_use]
    pub fn new(capacity: usize, limits: Limits, metrics: Metrics) -> Self {
        let slots = Mutex::new(HashMap::new());
        let (started, next) = (Instant::now(), AtomicU64::new(0));
        Self(Arc::new(Inner { started, limits, capacity, slots, next, metrics }))
    }

    /// How many connections may be open at once.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// How many may be open before idle ones are ended in favour of new ones: three quarters.
    fn soft_capacity(&self) -> usize {
        self.0.capacity - self.0.capacity.div_ceil(4)
    }

    /// Admits a new connection, and frees capacity for the next ones if little is left.
    #[must_use]
    pub fn admit(&self, io: TcpStream) -> Guarded {
        // Responses are written whole; Nagle's algorithm would only delay them.
        let _ = io.set_nodelay(true);
        let key = self.0.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot::new(self.0.started));
        let mut slots = self.slots();
        slots.insert(key, Arc::clone(&slot));
        self.0.metrics.open.inc();
        if slots.len() > self.soft_capacity() {
            self.free_capacity(&slots);
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

    /// Ends idle connections, longest idle first, and then those that stall. Ends a sixteenth more
    /// than needed, so that a flood does not cause a search for each newcomer.
    fn free_capacity(&self, slots: &HashMap<u64, Arc<Slot>>) {
        let staying: Vec<_> = slots.values().filter(|slot| !slot.is_ending()).collect();
        let too_many = staying.len().saturating_sub(self.soft_capacity());
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

    /// Checks all connections until `stop`: ends those that stall, frees capacity, and wakes those
    /// whose callers may have left.
    pub async fn watch(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
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
            if slots.len() > self.soft_capacity() {
                self.free_capacity(&slots);
            }
        }
    }
}

/// Marks the request as in progress until the result is dropped.
#[must_use]
pub fn begin(req: &ServiceRequest) -> Option<Flight> {
    let slot = req.conn_data::<Arc<Slot>>()?;
    let length = req.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let chunked = req.headers().contains_key(TRANSFER_ENCODING);
    let body =
        if chunked { UNKNOWN_LENGTH } else { length.and_then(|n| n.parse().ok()).unwrap_or(0) };
    Some(slot.begin(body))
}

/// Marks the request as waiting for its body until the result is dropped.
#[must_use]
pub fn receiving(req: &HttpRequest) -> Option<Receiving> {
    req.conn_data::<Arc<Slot>>().map(Slot::receive)
}

/// Marks the request, until the result is dropped, as waiting for something that a caller who has
/// left must not consume. A caller who closed the connection loses it, one who closed only their
/// half (RFC 9112 §9.6) keeps it.
///
/// The two look alike until something is sent: an interim response (RFC 9110 §15.2), once, to a
/// caller whose half is closed. HTTP/1.0 has none, and its callers are assumed to be there.
#[must_use]
pub fn asking(req: &HttpRequest) -> Option<Asking> {
    let slot = req.conn_data::<Arc<Slot>>().filter(|_| req.version() >= Version::HTTP_11);
    slot.map(Slot::ask)
}
