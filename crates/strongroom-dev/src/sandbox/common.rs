//! What all the APIs of a sandbox share: its clock, rules, faults and journal.
//!
//! May import: calls, faults, settings.

use std::sync::{PoisonError, RwLock};

use super::calls::Calls;
use super::faults::Faults;
use super::settings::Rules;
use strongroom_common::clock::Clock;

pub(super) struct Common {
    pub(super) clock: Clock,
    pub(super) faults: Faults,
    pub(super) calls: Calls,
    rules: RwLock<Rules>,
}

impl Common {
    pub(super) fn new(clock: Clock, faults: Faults, calls: Calls, rules: Rules) -> Self {
        Self { clock, faults, calls, rules: RwLock::new(rules) }
    }

    pub(super) fn rules(&self) -> Rules {
        *self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_rules(&self, change: impl FnOnce(Rules) -> Rules) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *rules = change(*rules);
    }
}
