//! The rules of the gate: who gets the next slot. No I/O and no clock, so that tests cover them exhaustively.
//!
//! - A lane leaves slots to the lanes of higher priority, and an app leaves some to apps that arrive later, so
//!   that a newcomer rarely waits.
//! - When slots are scarce, the lane of higher priority goes first, then the app that holds fewer slots, then
//!   the one that was served less recently. Demand that has waited for a few seconds counts as first lane.
//! - A slot is reserved for demand that goes first, for as long as that demand lasts.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Lane;
use crate::common::ids::AppId;

/// How long a declaration of the background work counts unless it is repeated.
const DECLARED: Duration = Duration::from_secs(3);
/// After how long demand of a later lane counts as first lane, so that nothing starves.
const AGED: Duration = Duration::from_secs(3);
/// How many apps are remembered before idle ones are dropped.
const REMEMBERED: usize = 1024;

/// How many slots a lane and all after it may hold together: over all apps, and within one.
#[derive(Clone, Copy, Debug)]
struct Limits {
    all: [usize; 3],
    one_app: [usize; 3],
}

impl Limits {
    fn of(slots: usize) -> Self {
        let share = |least: usize, part: usize| {
            if slots < least { 0 } else { (slots / part).max(1) }
        };
        // Reserved for exchanges; for exchanges and delinkings; for apps that arrive later.
        let (exchanges, both, newcomers) = (share(2, 8), share(2, 4), share(4, 16));
        let all = [slots, slots - exchanges, slots - both];
        let calls = all[2] - newcomers;
        let one_app =
            [slots - newcomers, (all[1] - newcomers).max(calls + newcomers.min(1)), calls];
        Self { all, one_app }
    }
}

/// The demand of one app in one lane, and its hold.
#[derive(Clone, Debug, Default)]
struct Demand {
    /// Waiting callers, in the order of their arrival.
    waiters: VecDeque<(u64, Instant)>,
    /// How many rows the background work has declared, and until when that counts.
    declared: usize,
    declared_until: Option<Instant>,
    /// Since when declared rows have waited.
    since: Option<Instant>,
    held_until: Option<Instant>,
}

impl Demand {
    fn held_for(&self, now: Instant) -> Option<Duration> {
        self.held_until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    fn declared(&self, now: Instant) -> usize {
        if self.declared_until.is_some_and(|until| until > now) { self.declared } else { 0 }
    }

    fn count(&self, now: Instant) -> usize {
        if self.held_for(now).is_some() { 0 } else { self.waiters.len() + self.declared(now) }
    }

    fn is_aged(&self, now: Instant) -> bool {
        let first = self.waiters.front().map(|(_, since)| *since).or(self.since);
        first.is_some_and(|since| now.saturating_duration_since(since) >= AGED)
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.held_for(now).is_none() && self.count(now) == 0
    }
}

#[derive(Clone, Debug, Default)]
struct App {
    used: [usize; 3],
    /// The number of the last grant to this app, counted over all apps: less is longer ago.
    served: u64,
    demand: [Demand; 3],
}

/// Slots in use, real or assumed while [`Rules::is_next`] plays the grants through.
#[derive(Clone, Debug, Default)]
struct Usage {
    all: [usize; 3],
    apps: HashMap<AppId, [usize; 3]>,
}

fn behind(used: &[usize; 3], lane: usize) -> usize {
    used.iter().skip(lane).sum()
}

impl Usage {
    fn of(&self, app: AppId) -> [usize; 3] {
        self.apps.get(&app).copied().unwrap_or_default()
    }

    fn has_slot(&self, limits: &Limits, app: AppId, lane: Lane) -> bool {
        let mine = self.of(app);
        let bounds = limits.all.iter().zip(limits.one_app).enumerate().take(lane.index() + 1);
        let mut bounds = bounds;
        bounds.all(|(at, (all, one))| behind(&self.all, at) < *all && behind(&mine, at) < one)
    }

    fn enter(&mut self, app: AppId, lane: Lane) {
        let counts = [Some(&mut self.all), Some(self.apps.entry(app).or_default())];
        for used in counts.into_iter().flatten() {
            used.iter_mut().skip(lane.index()).take(1).for_each(|used| *used += 1);
        }
    }
}

/// The order in which demand is served; the least goes first.
type Rank = (usize, usize, u64, usize);

/// The demand of one app in one lane, as the rules compare it.
struct Group {
    app: AppId,
    lane: Lane,
    left: usize,
    aged: bool,
    served: u64,
}

impl Group {
    fn rank(&self, usage: &Usage) -> Rank {
        let lane = if self.aged { 0 } else { self.lane.index() };
        (lane, usage.of(self.app).iter().sum(), self.served, self.lane.index())
    }
}

/// The result of giving out the free slots.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dispatch {
    /// Callers whose wait is over, with their app and lane; their slots are already taken.
    pub(super) granted: Vec<(u64, AppId, Lane)>,
    /// Whether the background work could use a slot.
    pub(super) background: bool,
}

/// The state of the gate.
#[derive(Debug)]
pub(super) struct Rules {
    limits: Limits,
    apps: HashMap<AppId, App>,
    grants: u64,
}

impl Rules {
    pub(super) fn new(slots: usize) -> Self {
        Self { limits: Limits::of(slots.max(1)), apps: HashMap::new(), grants: 0 }
    }

    fn demand(&mut self, app: AppId, lane: Lane) -> Option<&mut Demand> {
        self.apps.entry(app).or_default().demand.get_mut(lane.index())
    }

    /// Returns for how long Dapi's `Retry-After` still holds this app's lane.
    pub(super) fn held_for(&self, app: AppId, lane: Lane, now: Instant) -> Option<Duration> {
        self.apps.get(&app)?.demand.get(lane.index())?.held_for(now)
    }

    /// Takes a slot if one is free for this app and lane and no other demand goes first.
    pub(super) fn try_enter(&mut self, app: AppId, lane: Lane, now: Instant) -> bool {
        let waiting = |app: &App| {
            app.demand.get(lane.index()).is_some_and(|demand| !demand.waiters.is_empty())
        };
        let behind_others = self.apps.get(&app).is_some_and(waiting);
        if self.held_for(app, lane, now).is_some() || behind_others {
            return false;
        }
        let may = self.is_next(app, lane, now);
        if may {
            self.enter(app, lane, now);
        }
        may
    }

    /// Takes up to `most` slots for the background work.
    pub(super) fn take(&mut self, app: AppId, lane: Lane, most: usize, now: Instant) -> usize {
        (0..most).take_while(|_| self.try_enter(app, lane, now)).count()
    }

    fn is_next(&self, app: AppId, lane: Lane, now: Instant) -> bool {
        let mut usage = self.usage();
        let served = self.apps.get(&app).map_or(0, |app| app.served);
        let aged = self.apps.get(&app).is_some_and(|app| {
            app.demand.get(lane.index()).is_some_and(|demand| demand.is_aged(now))
        });
        let me = Group { app, lane, left: 1, aged, served };
        let mut groups = self.groups(now);
        groups.retain(|group| (group.app, group.lane) != (app, lane));
        loop {
            if !usage.has_slot(&self.limits, app, lane) {
                return false;
            }
            match best(&mut groups, &usage, &self.limits) {
                Some(first) if first.rank(&usage) <= me.rank(&usage) => {
                    first.left -= 1;
                    usage.enter(first.app, first.lane);
                }
                _ => return true,
            }
        }
    }

    fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for (id, app) in self.apps.iter().filter(|(_, app)| app.used.iter().any(|n| *n > 0)) {
            usage.all.iter_mut().zip(app.used).for_each(|(all, used)| *all += used);
            usage.apps.insert(*id, app.used);
        }
        usage
    }

    fn groups(&self, now: Instant) -> Vec<Group> {
        let mut groups = Vec::new();
        for (id, app) in &self.apps {
            for (lane, demand) in Lane::ALL.into_iter().zip(&app.demand) {
                let left = demand.count(now);
                if left > 0 {
                    let (app_id, aged) = (*id, demand.is_aged(now));
                    groups.push(Group { app: app_id, lane, left, aged, served: app.served });
                }
            }
        }
        groups
    }

    fn enter(&mut self, id: AppId, lane: Lane, now: Instant) {
        self.grants += 1;
        let app = self.apps.entry(id).or_default();
        app.served = self.grants;
        app.used.iter_mut().skip(lane.index()).take(1).for_each(|used| *used += 1);
        if let Some(demand) = app.demand.get_mut(lane.index()) {
            demand.declared = demand.declared.saturating_sub(1);
            demand.since = (demand.declared > 0).then_some(now);
        }
    }

    /// Frees a slot.
    pub(super) fn leave(&mut self, id: AppId, lane: Lane, now: Instant) {
        if let Some(app) = self.apps.get_mut(&id) {
            let used = app.used.iter_mut().skip(lane.index()).take(1);
            used.for_each(|used| *used = used.saturating_sub(1));
        }
        if self.apps.len() > REMEMBERED {
            self.apps.retain(|_, app| {
                app.used.iter().any(|used| *used > 0)
                    || !app.demand.iter().all(|demand| demand.is_idle(now))
            });
        }
    }

    /// Adds a waiting caller.
    pub(super) fn wait(&mut self, app: AppId, lane: Lane, waiter: u64, now: Instant) {
        if let Some(demand) = self.demand(app, lane) {
            demand.waiters.push_back((waiter, now));
        }
    }

    /// Removes a waiting caller.
    pub(super) fn give_up(&mut self, app: AppId, lane: Lane, waiter: u64) {
        if let Some(demand) = self.demand(app, lane) {
            demand.waiters.retain(|(id, _)| *id != waiter);
        }
    }

    /// Adds one row to the declared demand of the background work.
    pub(super) fn one_more(&mut self, app: AppId, lane: Lane, now: Instant) {
        if let Some(demand) = self.demand(app, lane) {
            demand.declared = demand.declared(now) + 1;
            demand.declared_until = Some(now + DECLARED);
            demand.since.get_or_insert(now);
        }
    }

    /// Replaces the declared demand of a lane.
    pub(super) fn declare(&mut self, lane: Lane, rows: &HashMap<AppId, usize>, now: Instant) {
        for (id, app) in &mut self.apps {
            let Some(demand) = app.demand.get_mut(lane.index()) else { continue };
            if !rows.contains_key(id) {
                (demand.declared, demand.since) = (0, None);
            }
        }
        for (app, count) in rows {
            let Some(demand) = self.demand(*app, lane) else { continue };
            demand.declared = *count;
            demand.declared_until = Some(now + DECLARED);
            demand.since = (*count > 0).then(|| demand.since.unwrap_or(now));
        }
    }

    /// Holds an app's lane until `until`; returns the callers to turn away.
    pub(super) fn hold(&mut self, app: AppId, lane: Lane, until: Instant) -> Vec<u64> {
        let Some(demand) = self.demand(app, lane) else { return Vec::new() };
        demand.held_until = Some(demand.held_until.map_or(until, |before| before.max(until)));
        demand.waiters.drain(..).map(|(id, _)| id).collect()
    }

    /// Returns when the first hold ends.
    pub(super) fn first_hold_ends_in(&self, now: Instant) -> Option<Duration> {
        let demand = self.apps.values().flat_map(|app| &app.demand);
        demand.filter_map(|demand| demand.held_for(now)).min()
    }

    /// Gives free slots to the demand that goes first.
    pub(super) fn dispatch(&mut self, now: Instant) -> Dispatch {
        let mut dispatch = Dispatch::default();
        let (mut usage, mut groups) = (self.usage(), self.groups(now));
        while let Some(first) = best(&mut groups, &usage, &self.limits) {
            let (app, lane) = (first.app, first.lane);
            first.left -= 1;
            usage.enter(app, lane);
            let waiter = self.demand(app, lane).and_then(|demand| demand.waiters.pop_front());
            match waiter {
                Some((id, _)) => {
                    self.enter(app, lane, now);
                    first.served = self.grants;
                    dispatch.granted.push((id, app, lane));
                }
                None => dispatch.background = true,
            }
        }
        dispatch
    }
}

fn best<'a>(groups: &'a mut [Group], usage: &Usage, limits: &Limits) -> Option<&'a mut Group> {
    let open = groups.iter_mut().filter(|group| group.left > 0);
    let open = open.filter(|group| usage.has_slot(limits, group.app, group.lane));
    open.min_by_key(|group| group.rank(usage))
}

#[cfg(test)]
mod tests;
