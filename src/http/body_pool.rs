//! Bodies of callers that are not authenticated yet: a client's secret comes in the body, so the
//! body has to be read first.
//!
//! They share a small pool, limited in bodies, in bodies per network and in bytes. At a limit, the
//! body that has been incomplete for longest is evicted, because an honest one arrives within
//! moments. A newcomer waits briefly for that and is then refused.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::body::{too_large, too_slow, unreadable};
use super::connection;
use super::problem::{Problem, ProblemCode};

/// The limits of the pool.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Concurrent bodies.
    pub slots: usize,
    /// Concurrent bodies of one IPv4 address or IPv6 network (/64).
    pub per_address: usize,
    /// Bytes of all bodies.
    pub bytes: usize,
    /// How long an incomplete body is safe from eviction.
    pub patience: Duration,
    /// How long a newcomer waits for a slot.
    pub wait: Duration,
    /// The time limit for a body to arrive.
    pub body: Duration,
}

impl Limits {
    /// The limits in production.
    pub const DEFAULT: Self = Self {
        slots: 256,
        per_address: 64,
        bytes: 16 * 1024 * 1024,
        patience: Duration::from_millis(250),
        wait: Duration::from_secs(2),
        body: Duration::from_secs(10),
    };
}

/// The pool of one replica. Clones share it.
#[derive(Clone, Debug)]
pub struct BodyPool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    bytes: usize,
    slots: HashMap<u64, Slot>,
}

#[derive(Debug)]
struct Slot {
    address: Option<IpAddr>,
    since: Instant,
    bytes: usize,
    /// It is complete, and keeps its slot until its caller is authenticated.
    complete: bool,
    evicted: CancellationToken,
}

impl State {
    fn of(&self, address: Option<IpAddr>) -> usize {
        self.slots.values().filter(|slot| slot.address == address).count()
    }

    /// Returns the body that has been incomplete for longest.
    fn oldest(&self, among: impl Fn(&Slot) -> bool) -> Option<(u64, Instant)> {
        let waiting = self.slots.iter().filter(|(_, slot)| !slot.complete && among(slot));
        waiting.map(|(key, slot)| (*key, slot.since)).min_by_key(|(_, since)| *since)
    }

    /// Returns the incomplete body with the most bytes.
    fn largest(&self) -> Option<u64> {
        let waiting = self.slots.iter().filter(|(_, slot)| !slot.complete);
        waiting.max_by_key(|(_, slot)| slot.bytes).map(|(key, _)| *key)
    }

    fn remove(&mut self, key: u64) {
        if let Some(slot) = self.slots.remove(&key) {
            self.bytes -= slot.bytes;
            slot.evicted.cancel();
        }
    }
}

/// Why a body gets no slot.
#[derive(Clone, Copy)]
enum Full {
    /// The network holds as many as it may.
    Address,
    /// The pool is full.
    Pool,
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        let (code, detail) = match full {
            Full::Address => {
                (ProblemCode::TooManyRequests, "Too many requests of this address are arriving.")
            }
            Full::Pool => (ProblemCode::Unavailable, "Too many requests are arriving."),
        };
        Self::new(code, detail).retry_after(1)
    }
}

impl BodyPool {
    /// Returns an empty pool.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner { limits, state: Mutex::default(), freed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a body of up to `max` bytes. Its slot is released with the [`Body`].
    ///
    /// # Errors
    /// Those of other bodies; 429 or 503 with `Retry-After` if the pool is full.
    pub async fn read(
        &self,
        req: &HttpRequest,
        address: Option<IpAddr>,
        payload: web::Payload,
        max: usize,
    ) -> Result<Body, Problem> {
        let receiving = connection::receiving(req);
        let (reservation, evicted) = self.reserve(address.map(network)).await?;
        let arriving = tokio::time::timeout(self.0.limits.body, reservation.fill(payload, max));
        let bytes = match evicted.run_until_cancelled(arriving).await {
            Some(Ok(read)) => read?,
            Some(Err(_)) => return Err(too_slow(self.0.limits.body)),
            None => return Err(Full::Pool.into()),
        };
        drop(receiving);
        if reservation.mark_complete() {
            Ok(Body { bytes, _reservation: reservation })
        } else {
            Err(Full::Pool.into())
        }
    }

    async fn reserve(
        &self,
        address: Option<IpAddr>,
    ) -> Result<(Reservation, CancellationToken), Problem> {
        let deadline = Instant::now() + self.0.limits.wait;
        loop {
            let freed = self.0.freed.notified();
            let full = match self.try_reserve(address) {
                Ok(reserved) => return Ok(reserved),
                Err(full) => full,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(full.into());
            }
            // Bodies become old enough for eviction without a notification.
            let _ = tokio::time::timeout(left.min(self.0.limits.patience), freed).await;
        }
    }

    fn try_reserve(
        &self,
        address: Option<IpAddr>,
    ) -> Result<(Reservation, CancellationToken), Full> {
        let limits = &self.0.limits;
        let mut state = self.state();
        if state.of(address) >= limits.per_address {
            self.evict_oldest(&mut state, |slot| slot.address == address).ok_or(Full::Address)?;
        } else if state.slots.len() >= limits.slots {
            self.evict_oldest(&mut state, |_| true).ok_or(Full::Pool)?;
        }
        let (key, evicted) = (state.next, CancellationToken::new());
        state.next += 1;
        let since = Instant::now();
        let slot = Slot { address, since, bytes: 0, complete: false, evicted: evicted.clone() };
        state.slots.insert(key, slot);
        drop(state);
        Ok((Reservation { pool: self.clone(), key }, evicted))
    }

    fn evict_oldest(&self, state: &mut State, among: impl Fn(&Slot) -> bool) -> Option<()> {
        let (key, since) = state.oldest(among)?;
        (since.elapsed() >= self.0.limits.patience).then(|| state.remove(key))
    }
}

/// Returns the network that one caller controls: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

/// A complete body. Its bytes count until it is dropped.
#[derive(Debug)]
pub struct Body {
    bytes: Bytes,
    _reservation: Reservation,
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug)]
struct Reservation {
    pool: BodyPool,
    key: u64,
}

impl Reservation {
    async fn fill(&self, mut payload: web::Payload, max: usize) -> Result<Bytes, Problem> {
        let mut body = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| unreadable())?;
            if body.len() + chunk.len() > max {
                return Err(too_large(max));
            }
            if !self.grow(chunk.len()) {
                return Err(Full::Pool.into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Reserves this many bytes more. If the pool exceeds its limit, the largest incomplete body is
    /// evicted, which may be this one.
    fn grow(&self, bytes: usize) -> bool {
        let mut state = self.pool.state();
        let Some(slot) = state.slots.get_mut(&self.key) else { return false };
        slot.bytes += bytes;
        state.bytes += bytes;
        while state.bytes > self.pool.0.limits.bytes {
            let largest = state.largest().unwrap_or(self.key);
            state.remove(largest);
            if largest == self.key {
                return false;
            }
        }
        true
    }

    /// Marks the body as complete. Returns whether it still has its slot.
    fn mark_complete(&self) -> bool {
        let mut state = self.pool.state();
        state.slots.get_mut(&self.key).map(|slot| slot.complete = true).is_some()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.state().remove(self.key);
        self.pool.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> BodyPool {
        BodyPool::new(Limits {
            slots: 4,
            per_address: 2,
            bytes: 100,
            patience: Duration::from_millis(20),
            wait: Duration::from_secs(10),
            ..Limits::DEFAULT
        })
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the callers of the pool have it")]
    fn address(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, n]))
    }

    #[tokio::test]
    async fn the_oldest_body_gives_way_where_all_places_are_taken() {
        let pool = pool();
        let mut slot = Vec::new();
        for n in 0..4 {
            slot.push(pool.reserve(address(n)).await.unwrap());
        }
        let late = pool.reserve(address(9)).await.unwrap();
        let evicted: Vec<_> = slot.iter().map(|(_, evicted)| evicted.is_cancelled()).collect();
        assert_eq!(evicted, [true, false, false, false]);
        assert!(!slot[0].0.grow(1) && late.0.grow(1));
    }

    #[tokio::test]
    async fn an_address_at_its_limit_takes_from_itself_alone() {
        let pool = pool();
        let other = pool.reserve(address(1)).await.unwrap();
        let first = pool.reserve(address(2)).await.unwrap();
        let _second = pool.reserve(address(2)).await.unwrap();
        let _third = pool.reserve(address(2)).await.unwrap();
        assert!(first.1.is_cancelled() && !other.1.is_cancelled());
    }

    #[tokio::test]
    async fn a_body_that_is_whole_keeps_its_place_and_a_newcomer_is_refused_in_the_end() {
        let limits = Limits { wait: Duration::from_millis(50), ..pool().0.limits };
        let pool = BodyPool::new(limits);
        let slot =
            [pool.reserve(address(1)).await.unwrap(), pool.reserve(address(1)).await.unwrap()];
        assert!(slot.iter().all(|(reservation, _)| reservation.mark_complete()));
        let refused = pool.reserve(address(1)).await.unwrap_err();
        assert_eq!(refused.code(), ProblemCode::TooManyRequests);
        assert!(pool.reserve(address(2)).await.is_ok());
    }

    #[tokio::test]
    async fn the_largest_body_gives_way_where_there_are_too_many_bytes() {
        let pool = pool();
        let (large, evicted) = pool.reserve(address(1)).await.unwrap();
        let (small, _) = pool.reserve(address(2)).await.unwrap();
        assert!(large.grow(90) && small.grow(20));
        assert!(evicted.is_cancelled() && !large.grow(1));
        assert!(!small.grow(81), "no body is larger than all may be together");
        drop((large, small));
        let state = pool.state();
        assert_eq!((state.bytes, state.slots.len()), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
