//! Failed logins, counted by client and by network.
//!
//! The secret is always checked first, so that wrong secrets of others never lock out a caller that
//! has the right one: the count only decides the answer to a wrong one. Each replica counts for
//! itself, in bounded memory. A secret's 256 bits are what protects it; the limit reduces noise and
//! makes it visible.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::common::clock::Clock;

/// How many failed logins per minute are answered with 401 before the answer becomes 429.
const MAX_PER_WINDOW: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// How many clients and networks are counted at once; beyond that the least recently used is
/// dropped.
const CAPACITY: u64 = 20_000;

/// The key of a count. Client ids are hashed under a random key, because callers choose them freely
/// and at any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Client(u64),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Instant,
    failed: u32,
}

/// The counts. Clones share them.
#[derive(Clone)]
pub(super) struct FailedLogins {
    counts: Cache<Source, Count>,
    ids: Arc<RandomState>,
    clock: Clock,
}

impl FailedLogins {
    pub(super) fn new(clock: Clock) -> Self {
        let counts = Cache::builder()
            .max_capacity(CAPACITY)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(WINDOW * 2)
            .build();
        Self { counts, ids: Arc::default(), clock }
    }

    /// Counts a failed login. Returns the seconds to wait if there were too many.
    pub(super) fn record(&self, client: &str, address: Option<IpAddr>) -> Option<u64> {
        let by_client = self.count(Source::Client(self.ids.hash_one(client)));
        let by_address = address.and_then(|address| self.count(Source::Address(network(address))));
        by_client.max(by_address)
    }

    fn count(&self, source: Source) -> Option<u64> {
        let now = self.clock.instant();
        let entry = self.counts.entry(source).and_upsert_with(|before| {
            let before = before.map(moka::Entry::into_value);
            let running = before.filter(|count| now < count.since + WINDOW);
            let count = running.unwrap_or(Count { since: now, failed: 0 });
            Count { failed: count.failed.saturating_add(1), ..count }
        });
        let count = entry.into_value();
        let left = (count.since + WINDOW).saturating_duration_since(now);
        (count.failed > MAX_PER_WINDOW).then(|| left.as_secs().max(1))
    }
}

/// The network that one caller controls: an IPv4 address, or the /64 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_eleventh_wrong_secret_in_a_minute_has_to_wait_until_the_minute_is_over() {
        let clock = Clock::system();
        let failed_logins = FailedLogins::new(clock.clone());
        for _ in 0..10 {
            assert_eq!(failed_logins.record("ada", None), None);
        }
        let wait = failed_logins.record("ada", None).unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        assert_eq!(failed_logins.record("bob", None), None);
        clock.advance(WINDOW);
        assert_eq!(failed_logins.record("ada", None), None);
    }

    #[test]
    fn an_address_is_counted_whatever_ids_it_tries() {
        let failed_logins = FailedLogins::new(Clock::system());
        for n in 0..10 {
            assert_eq!(failed_logins.record(&n.to_string(), Some(address("192.0.2.1"))), None);
        }
        assert!(failed_logins.record("x", Some(address("192.0.2.1"))).is_some());
        assert!(failed_logins.record("y", Some(address("::ffff:192.0.2.1"))).is_some());
        assert!(failed_logins.record("z", Some(address("192.0.2.2"))).is_none());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_caller() {
        let failed_logins = FailedLogins::new(Clock::system());
        for n in 0..10 {
            let from = Some(address(&format!("2001:db8::{n}")));
            assert_eq!(failed_logins.record(&n.to_string(), from), None);
        }
        assert!(failed_logins.record("x", Some(address("2001:db8::ffff"))).is_some());
        assert!(failed_logins.record("y", Some(address("2001:db8:0:1::1"))).is_none());
    }

    #[test]
    fn however_many_callers_there_are_the_memory_is_bounded() {
        let failed_logins = FailedLogins::new(Clock::system());
        for n in 0..CAPACITY * 2 {
            failed_logins.record(&n.to_string(), None);
        }
        failed_logins.counts.run_pending_tasks();
        assert!(failed_logins.counts.entry_count() <= CAPACITY);
    }
}
