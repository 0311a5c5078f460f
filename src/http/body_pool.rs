//! Bodies of callers who are not known yet: a client's secret comes in the body, so it has to be read before
//! anybody knows whose it is.
//!
//! They have a small pool of their own: so many at once, so many of one address, so many bytes. Where one of
//! these is at its end, the body that has kept its place longest gives way, because an honest one is there in
//! no time. A newcomer waits a little for that, and is then refused.

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

/// What the pool holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bodies at once.
    pub places: usize,
    /// Of one address, or of one network of IPv6 (/64).
    pub per_address: usize,
    /// Bytes of bodies.
    pub bytes: usize,
    /// How long a body may keep its place while others want it.
    pub patience: Duration,
    /// How long a newcomer waits for a place.
    pub wait: Duration,
    /// How long a body may take to arrive.
    pub body: Duration,
}

impl Limits {
    /// What holds unless a test says otherwise.
    pub const DEFAULT: Self = Self {
        places: 256,
        per_address: 64,
        bytes: 16 * 1024 * 1024,
        patience: Duration::from_millis(250),
        wait: Duration::from_secs(2),
        body: Duration::from_secs(10),
    };
}

/// The pool of one replica. Clones are the same.
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
    places: HashMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    address: Option<IpAddr>,
    since: Instant,
    bytes: usize,
    /// Nothing is to come any more: it keeps its place until its caller is known.
    whole: bool,
    evicted: CancellationToken,
}

impl State {
    fn of(&self, address: Option<IpAddr>) -> usize {
        self.places.values().filter(|held| held.address == address).count()
    }

    /// The body that is incomplete for longest.
    fn oldest(&self, among: impl Fn(&Held) -> bool) -> Option<(u64, Instant)> {
        let waiting = self.places.iter().filter(|(_, held)| !held.whole && among(held));
        waiting.map(|(key, held)| (*key, held.since)).min_by_key(|(_, since)| *since)
    }

    /// The incomplete body with the most bytes.
    fn largest(&self) -> Option<u64> {
        let waiting = self.places.iter().filter(|(_, held)| !held.whole);
        waiting.max_by_key(|(_, held)| held.bytes).map(|(key, _)| *key)
    }

    fn remove(&mut self, key: u64) {
        if let Some(held) = self.places.remove(&key) {
            self.bytes -= held.bytes;
            held.evicted.cancel();
        }
    }
}

/// Why there is no room.
#[derive(Clone, Copy)]
enum Full {
    /// The address has as many as it may.
    Address,
    /// All do.
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
    /// An empty pool.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner { limits, state: Mutex::default(), freed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a body of up to `max` bytes. The place that it has goes with the [`Body`].
    ///
    /// # Errors
    /// As other bodies; and 429 or 503 with `Retry-After` where there is no room.
    pub async fn read(
        &self,
        req: &HttpRequest,
        address: Option<IpAddr>,
        payload: web::Payload,
        max: usize,
    ) -> Result<Body, Problem> {
        let receiving = connection::receiving(req);
        let (place, evicted) = self.enter(address.map(network)).await?;
        let arriving = tokio::time::timeout(self.0.limits.body, place.fill(payload, max));
        let bytes = match evicted.run_until_cancelled(arriving).await {
            Some(Ok(read)) => read?,
            Some(Err(_)) => return Err(too_slow(self.0.limits.body)),
            None => return Err(Full::Pool.into()),
        };
        drop(receiving);
        if place.is_whole() { Ok(Body { bytes, _place: place }) } else { Err(Full::Pool.into()) }
    }

    async fn enter(&self, address: Option<IpAddr>) -> Result<(Place, CancellationToken), Problem> {
        let deadline = Instant::now() + self.0.limits.wait;
        loop {
            let freed = self.0.freed.notified();
            let full = match self.try_enter(address) {
                Ok(entered) => return Ok(entered),
                Err(full) => full,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(full.into());
            }
            // What is there becomes old enough to give way without anybody's saying so.
            let _ = tokio::time::timeout(left.min(self.0.limits.patience), freed).await;
        }
    }

    fn try_enter(&self, address: Option<IpAddr>) -> Result<(Place, CancellationToken), Full> {
        let limits = &self.0.limits;
        let mut state = self.state();
        if state.of(address) >= limits.per_address {
            self.make_way(&mut state, |held| held.address == address).ok_or(Full::Address)?;
        } else if state.places.len() >= limits.places {
            self.make_way(&mut state, |_| true).ok_or(Full::Pool)?;
        }
        let (key, evicted) = (state.next, CancellationToken::new());
        state.next += 1;
        let since = Instant::now();
        let held = Held { address, since, bytes: 0, whole: false, evicted: evicted.clone() };
        state.places.insert(key, held);
        drop(state);
        Ok((Place { pool: self.clone(), key }, evicted))
    }

    fn make_way(&self, state: &mut State, among: impl Fn(&Held) -> bool) -> Option<()> {
        let (key, since) = state.oldest(among)?;
        (since.elapsed() >= self.0.limits.patience).then(|| state.remove(key))
    }
}

/// One address; of IPv6 the network, because a caller has all of it.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

/// A body that is whole. Its bytes count until it is dropped.
#[derive(Debug)]
pub struct Body {
    bytes: Bytes,
    _place: Place,
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug)]
struct Place {
    pool: BodyPool,
    key: u64,
}

impl Place {
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

    /// Whether it may have this many bytes more. Where all together have too many, the largest gives way.
    fn grow(&self, bytes: usize) -> bool {
        let mut state = self.pool.state();
        let Some(held) = state.places.get_mut(&self.key) else { return false };
        held.bytes += bytes;
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

    /// Says that nothing is to come; whether it still has its place.
    fn is_whole(&self) -> bool {
        let mut state = self.pool.state();
        state.places.get_mut(&self.key).map(|held| held.whole = true).is_some()
    }
}

impl Drop for Place {
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
            places: 4,
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
        let mut held = Vec::new();
        for n in 0..4 {
            held.push(pool.enter(address(n)).await.unwrap());
        }
        let late = pool.enter(address(9)).await.unwrap();
        let evicted: Vec<_> = held.iter().map(|(_, evicted)| evicted.is_cancelled()).collect();
        assert_eq!(evicted, [true, false, false, false]);
        assert!(!held[0].0.grow(1) && late.0.grow(1));
    }

    #[tokio::test]
    async fn an_address_at_its_limit_takes_from_itself_alone() {
        let pool = pool();
        let other = pool.enter(address(1)).await.unwrap();
        let first = pool.enter(address(2)).await.unwrap();
        let _second = pool.enter(address(2)).await.unwrap();
        let _third = pool.enter(address(2)).await.unwrap();
        assert!(first.1.is_cancelled() && !other.1.is_cancelled());
    }

    #[tokio::test]
    async fn a_body_that_is_whole_keeps_its_place_and_a_newcomer_is_refused_in_the_end() {
        let limits = Limits { wait: Duration::from_millis(50), ..pool().0.limits };
        let pool = BodyPool::new(limits);
        let held = [pool.enter(address(1)).await.unwrap(), pool.enter(address(1)).await.unwrap()];
        assert!(held.iter().all(|(place, _)| place.is_whole()));
        let refused = pool.enter(address(1)).await.unwrap_err();
        assert_eq!(refused.code(), ProblemCode::TooManyRequests);
        assert!(pool.enter(address(2)).await.is_ok());
    }

    #[tokio::test]
    async fn the_largest_body_gives_way_where_there_are_too_many_bytes() {
        let pool = pool();
        let (large, evicted) = pool.enter(address(1)).await.unwrap();
        let (small, _) = pool.enter(address(2)).await.unwrap();
        assert!(large.grow(90) && small.grow(20));
        assert!(evicted.is_cancelled() && !large.grow(1));
        assert!(!small.grow(81), "no body is larger than all may be together");
        drop((large, small));
        let state = pool.state();
        assert_eq!((state.bytes, state.places.len()), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
