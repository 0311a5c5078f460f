//! How many deliveries each endpoint gets in a round. No I/O.
//!
//! Slots are given one at a time to each app in turn, and within an app to each endpoint in turn. An app may hold as many
//! as are still free (dynamic thresholds: Choudhury and Hahne, 1998), so an app that comes later finds some.

use std::collections::HashMap;

use uuid::Uuid;

use super::store::Lane;
use crate::common::ids::AppId;

/// How many attempts are under way at once from one replica.
pub const CAPACITY: usize = 256;
/// How many of them at one endpoint.
const AT_AN_ENDPOINT: usize = 16;
/// From how many failures in a row on an endpoint gets one attempt at a time.
pub const FAILING: i32 = 3;

/// Attempts under way.
#[derive(Debug, Default)]
pub struct InFlight {
    apps: HashMap<AppId, usize>,
    endpoints: HashMap<Uuid, usize>,
    total: usize,
}

impl InFlight {
    /// How many there are.
    pub const fn total(&self) -> usize {
        self.total
    }

    /// One more.
    pub fn add(&mut self, app: AppId, endpoint: Uuid) {
        *self.apps.entry(app).or_default() += 1;
        *self.endpoints.entry(endpoint).or_default() += 1;
        self.total += 1;
    }

    /// One less.
    pub fn remove(&mut self, app: AppId, endpoint: Uuid) {
        self.total = self.total.saturating_sub(1);
        take_one(&mut self.apps, &app);
        take_one(&mut self.endpoints, &endpoint);
    }

    /// Returns how many deliveries each of these endpoints may begin.
    pub fn plan(&self, lanes: &[Lane]) -> Vec<(Uuid, i32)> {
        let mut apps: HashMap<AppId, Vec<(Uuid, usize)>> = HashMap::new();
        for lane in lanes {
            let most = if lane.failures >= FAILING { 1 } else { AT_AN_ENDPOINT };
            let held = self.endpoints.get(&lane.endpoint).copied().unwrap_or_default();
            if most > held {
                apps.entry(lane.app).or_default().push((lane.endpoint, most - held));
            }
        }
        let mut free = CAPACITY.saturating_sub(self.total);
        let mut quotas: HashMap<Uuid, i32> = HashMap::new();
        let mut held = self.apps.clone();
        while free > 0 && !apps.is_empty() {
            apps.retain(|app, endpoints| {
                let held = held.entry(*app).or_default();
                let Some((endpoint, left)) = endpoints.pop().filter(|_| *held < free) else {
                    return false;
                };
                *held += 1;
                free -= 1;
                *quotas.entry(endpoint).or_default() += 1;
                if left > 1 {
                    endpoints.insert(0, (endpoint, left - 1));
                }
                !endpoints.is_empty()
            });
        }
        quotas.into_iter().collect()
    }
}

fn take_one<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::endpoints::Signature;

    fn lane(app: AppId, failures: i32) -> Lane {
        #[expect(clippy::disallowed_methods, reason = "any will do")]
        let endpoint = Uuid::now_v7();
        Lane { endpoint, app, failures, signature: Signature::V1 }
    }

    fn total(quotas: &[(Uuid, i32)]) -> i32 {
        quotas.iter().map(|(_, quota)| quota).sum()
    }

    #[test]
    fn an_endpoint_gets_its_slots_and_one_that_fails_a_single_one() {
        let app = AppId::new();
        let (healthy, failing) = (lane(app, 2), lane(app, 3));
        let ids = (healthy.endpoint, failing.endpoint);
        let mut in_flight = InFlight::default();
        let quotas: HashMap<_, _> = in_flight.plan(&[healthy, failing]).into_iter().collect();
        assert_eq!((quotas[&ids.0], quotas[&ids.1]), (16, 1));
        in_flight.add(app, ids.1);
        for _ in 0..10 {
            in_flight.add(app, ids.0);
        }
        let lanes = [(ids.0, 0), (ids.1, 3)].map(|(endpoint, failures)| Lane {
            endpoint,
            failures,
            ..lane(app, 0)
        });
        assert_eq!(in_flight.plan(&lanes), [(ids.0, 6)]);
        for _ in 0..10 {
            in_flight.remove(app, ids.0);
        }
        in_flight.remove(app, ids.1);
        assert_eq!((in_flight.total(), in_flight.apps.len(), in_flight.endpoints.len()), (0, 0, 0));
    }

    #[test]
    fn an_app_with_many_endpoints_that_hang_leaves_room_for_another() {
        let (greedy, modest) = (AppId::new(), AppId::new());
        let many: Vec<_> = (0..100).map(|_| lane(greedy, 0)).collect();
        let mut in_flight = InFlight::default();
        let quotas = in_flight.plan(&many);
        assert_eq!(total(&quotas), 128);
        for (endpoint, quota) in quotas {
            (0..quota).for_each(|_| in_flight.add(greedy, endpoint));
        }
        assert_eq!(total(&in_flight.plan(&many)), 0);
        assert_eq!(total(&in_flight.plan(&[lane(modest, 0)])), 16);
    }
}
