//! Wrong secrets, counted by the client that they were for and by the address that they came from.
//!
//! The secret is always looked at first, so nobody who knows it is ever held up by somebody else's
//! guesses: the count only decides how a wrong one is told. It is kept by each replica for itself and
//! bounded in memory; what protects a secret are its 256 bits, this keeps the noise down and shows it.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::base::clock::Clock;

/// How many wrong secrets a minute are told as wrong before they are told to wait.
const A_MINUTE: u32 = 10;
const MINUTE: Duration = Duration::from_mins(1);
/// How many clients and addresses are counted at once; beyond that, the longest unheard of is forgotten.
const COUNTED: u64 = 20_000;

/// Whose wrong secrets are counted together. Ids are hashed under a random key: callers choose them
/// freely, as long as they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Guesser {
    Client(u64),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Instant,
    wrong: u32,
}

/// The counts. Clones share them.
#[derive(Clone)]
pub(super) struct FailedLogins {
    counts: Cache<Guesser, Count>,
    ids: Arc<RandomState>,
    clock: Clock,
}

impl FailedLogins {
    pub(super) fn new(clock: Clock) -> Self {
        let counts = Cache::builder()
            .max_capacity(COUNTED)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(MINUTE * 2)
            .build();
        Self { counts, ids: Arc::default(), clock }
    }

    /// Counts a wrong secret; where there were too many, how long to wait before the next, in seconds.
    pub(super) fn wrong(&self, client: &str, address: Option<IpAddr>) -> Option<u64> {
        let by_client = self.count(Guesser::Client(self.ids.hash_one(client)));
        let by_address = address.and_then(|address| self.count(Guesser::Address(network(address))));
        by_client.max(by_address)
    }

    fn count(&self, guesser: Guesser) -> Option<u64> {
        let now = self.clock.instant();
        let entry = self.counts.entry(guesser).and_upsert_with(|before| {
            let before = before.map(moka::Entry::into_value);
            let running = before.filter(|count| now < count.since + MINUTE);
            let count = running.unwrap_or(Count { since: now, wrong: 0 });
            Count { wrong: count.wrong.saturating_add(1), ..count }
        });
        let count = entry.into_value();
        let left = (count.since + MINUTE).saturating_duration_since(now);
        (count.wrong > A_MINUTE).then(|| left.as_secs().max(1))
    }
}

/// What one caller has to itself: an IPv4 address, or the /64 that IPv6 gives to each.
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
            assert_eq!(failed_logins.wrong("ada", None), None);
        }
        let wait = failed_logins.wrong("ada", None).unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        assert_eq!(failed_logins.wrong("bob", None), None);
        clock.advance(MINUTE);
        assert_eq!(failed_logins.wrong("ada", None), None);
    }

    #[test]
    fn an_address_is_counted_whatever_ids_it_tries() {
        let failed_logins = FailedLogins::new(Clock::system());
        for n in 0..10 {
            assert_eq!(failed_logins.wrong(&n.to_string(), Some(address("192.0.2.1"))), None);
        }
        assert!(failed_logins.wrong("x", Some(address("192.0.2.1"))).is_some());
        assert!(failed_logins.wrong("y", Some(address("::ffff:192.0.2.1"))).is_some());
        assert!(failed_logins.wrong("z", Some(address("192.0.2.2"))).is_none());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_caller() {
        let failed_logins = FailedLogins::new(Clock::system());
        for n in 0..10 {
            let from = Some(address(&format!("2001:db8::{n}")));
            assert_eq!(failed_logins.wrong(&n.to_string(), from), None);
        }
        assert!(failed_logins.wrong("x", Some(address("2001:db8::ffff"))).is_some());
        assert!(failed_logins.wrong("y", Some(address("2001:db8:0:1::1"))).is_none());
    }

    #[test]
    fn however_many_callers_there_are_the_memory_is_bounded() {
        let failed_logins = FailedLogins::new(Clock::system());
        for n in 0..COUNTED * 2 {
            failed_logins.wrong(&n.to_string(), None);
        }
        failed_logins.counts.run_pending_tasks();
        assert!(failed_logins.counts.entry_count() <= COUNTED);
    }
}
