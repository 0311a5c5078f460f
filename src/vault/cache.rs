//! Opened data keys, kept for a bounded time and number, so that a user seen lately costs no trip to a master key that is
//! elsewhere. Each key is opened once, however many ask for it at the same moment.
//!
//! A kept key is returned only for exactly the wrapped key that it was opened from: a row that was changed, by a rewrap or
//! by hand, is opened anew. Keys are wiped when they leave.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::OpenError;
use super::keys::{DataKey, WrappedKey};
use crate::common::ids::DataKeyId;

/// How many keys are kept.
const MOST: usize = 10_000;
/// How long a destroyed key's id is remembered, so that one that was being opened meanwhile is not kept: longer than any
/// opening.
const REMEMBER_DESTROYED: Duration = Duration::from_mins(1);

pub(super) type Opened = Result<Arc<DataKey>, OpenError>;

#[derive(Debug)]
pub(super) struct Cache {
    state: Mutex<State>,
    keep: Duration,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<DataKeyId, Kept>,
    /// The order in which keys leave, with ids that have left already.
    order: VecDeque<(Instant, DataKeyId)>,
    opening: HashMap<DataKeyId, (WrappedKey, watch::Receiver<Option<Opened>>)>,
    destroyed: HashMap<DataKeyId, Instant>,
}

#[derive(Debug)]
struct Kept {
    wrapped: WrappedKey,
    key: Arc<DataKey>,
    until: Instant,
}

/// What a caller has to do.
pub(super) enum Found {
    /// Use this.
    Kept(Arc<DataKey>),
    /// Wait: another caller's opening brings it.
    Wait(watch::Receiver<Option<Opened>>),
    /// Open it, and tell those who wait by [`Cache::finish`].
    Open(watch::Sender<Option<Opened>>),
}

impl Cache {
    pub(super) fn new(keep: Duration) -> Self {
        Self { state: Mutex::default(), keep, most: MOST }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, wrapped: &WrappedKey, now: Instant) -> Found {
        let mut state = self.state();
        if let Some(kept) = state.kept.get(&wrapped.id)
            && kept.until > now
            && kept.wrapped == *wrapped
        {
            return Found::Kept(Arc::clone(&kept.key));
        }
        if let Some((opening, done)) = state.opening.get(&wrapped.id)
            && opening == wrapped
            // The task that was opening it is gone.
            && done.has_changed().is_ok()
        {
            return Found::Wait(done.clone());
        }
        let (sender, done) = watch::channel(None);
        state.opening.insert(wrapped.id, (wrapped.clone(), done));
        Found::Open(sender)
    }

    /// Ends an opening: keeps the key and tells those who wait.
    pub(super) fn finish(
        &self,
        wrapped: &WrappedKey,
        sender: &watch::Sender<Option<Opened>>,
        opened: Opened,
        now: Instant,
    ) {
        if let Ok(key) = &opened {
            self.keep(wrapped, key, now);
        }
        let mut state = self.state();
        if state.opening.get(&wrapped.id).is_some_and(|(opening, _)| opening == wrapped) {
            state.opening.remove(&wrapped.id);
        }
        drop(state);
        sender.send_replace(Some(opened));
    }

    /// Keeps a key, unless it was destroyed meanwhile.
    pub(super) fn keep(&self, wrapped: &WrappedKey, key: &Arc<DataKey>, now: Instant) {
        let mut state = self.state();
        let is_destroyed = |id: &DataKeyId| state.destroyed.contains_key(id);
        let other = wrapped.other.as_ref().is_some_and(|other| is_destroyed(&other.id));
        if self.keep.is_zero() || other || is_destroyed(&wrapped.id) {
            return;
        }
        let until = now + self.keep;
        let kept = Kept { wrapped: wrapped.clone(), key: Arc::clone(key), until };
        state.kept.insert(wrapped.id, kept);
        state.order.push_back((until, wrapped.id));
        state.drop_old(now, self.most);
    }

    /// Drops keys whose time is over. Returns how many are left.
    pub(super) fn sweep(&self, now: Instant) -> usize {
        let mut state = self.state();
        state.drop_old(now, self.most);
        state.destroyed.retain(|_, at| now < *at + REMEMBER_DESTROYED);
        state.kept.len()
    }

    /// Drops keys that were changed or destroyed.
    pub(super) fn evict(&self, changed: &[(DataKeyId, bool)], now: Instant) {
        let mut state = self.state();
        for (id, destroyed) in changed {
            state.kept.remove(id);
            if *destroyed {
                state.destroyed.insert(*id, now);
            }
        }
    }

    /// Drops every key.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.kept.clear();
        state.order.clear();
    }
}

impl State {
    fn drop_old(&mut self, now: Instant, most: usize) {
        while let Some((until, id)) = self.order.front().copied() {
            let current = self.kept.get(&id).is_some_and(|kept| kept.until == until);
            if current && until > now && self.kept.len() <= most {
                return;
            }
            self.order.pop_front();
            if current {
                self.kept.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::keys::{KeyOwner, MasterKeyId};

    const KEEP: Duration = Duration::from_mins(5);

    fn wrapped() -> WrappedKey {
        let master_key_id = MasterKeyId::parse("k").unwrap();
        let id = DataKeyId::new();
        let (owner, wrapped, other) = (KeyOwner::Service, vec![1], None);
        WrappedKey { id, owner, master_key_id, wrapped, other }
    }

    fn key(wrapped: &WrappedKey) -> Arc<DataKey> {
        Arc::new(DataKey::new(wrapped.id, &[1; 32]))
    }

    fn is_kept(cache: &Cache, wrapped: &WrappedKey, now: Instant) -> bool {
        matches!(cache.find(wrapped, now), Found::Kept(_))
    }

    #[test]
    fn a_key_is_kept_for_its_time_and_wiped_after_it() {
        let (cache, start, wrapped) = (Cache::new(KEEP), Instant::now(), wrapped());
        let key = key(&wrapped);
        cache.keep(&wrapped, &key, start);
        assert!(is_kept(&cache, &wrapped, start + Duration::from_secs(299)));
        assert!(!is_kept(&cache, &wrapped, start + KEEP));
        assert_eq!(cache.sweep(start + KEEP), 0);
        assert_eq!(Arc::strong_count(&key), 1, "nothing holds it any more");
    }

    #[test]
    fn at_most_a_number_is_kept_and_the_oldest_leaves() {
        let cache = Cache { most: 3, ..Cache::new(KEEP) };
        let (start, all) = (Instant::now(), [(); 5].map(|()| wrapped()));
        for (index, wrapped) in (0..).zip(&all) {
            cache.keep(wrapped, &key(wrapped), start + Duration::from_millis(index));
        }
        let kept =
            all.iter().map(|wrapped| is_kept(&cache, wrapped, start + Duration::from_secs(1)));
        assert_eq!(kept.collect::<Vec<_>>(), [false, false, true, true, true]);
    }

    #[test]
    fn a_changed_row_does_not_get_the_key_of_the_one_before() {
        let (cache, now, before) = (Cache::new(KEEP), Instant::now(), wrapped());
        cache.keep(&before, &key(&before), now);
        let changed = WrappedKey { wrapped: vec![2], ..before.clone() };
        let moved = WrappedKey { owner: KeyOwner::CodeHash, ..before.clone() };
        assert!(!is_kept(&cache, &changed, now) && !is_kept(&cache, &moved, now));
        assert!(is_kept(&cache, &before, now));
    }

    #[test]
    fn a_key_that_was_destroyed_while_it_was_opened_is_not_kept() {
        let (cache, now, wrapped) = (Cache::new(KEEP), Instant::now(), wrapped());
        let Found::Open(sender) = cache.find(&wrapped, now) else { panic!("opened before") };
        cache.evict(&[(wrapped.id, true)], now);
        cache.finish(&wrapped, &sender, Ok(key(&wrapped)), now);
        assert!(!is_kept(&cache, &wrapped, now));
    }

    #[test]
    fn callers_who_come_at_once_wait_for_one_opening() {
        let (cache, now, wrapped) = (Cache::new(KEEP), Instant::now(), wrapped());
        let Found::Open(sender) = cache.find(&wrapped, now) else { panic!("opened before") };
        let Found::Wait(mut done) = cache.find(&wrapped, now) else { panic!("opened twice") };
        cache.finish(&wrapped, &sender, Err(OpenError::DoesNotOpen), now);
        assert!(matches!(*done.borrow_and_update(), Some(Err(OpenError::DoesNotOpen))));
        assert!(matches!(cache.find(&wrapped, now), Found::Open(_)), "a failure is not kept");
    }

    #[test]
    fn an_opening_whose_task_is_gone_is_begun_anew() {
        let (cache, now, wrapped) = (Cache::new(KEEP), Instant::now(), wrapped());
        drop(cache.find(&wrapped, now));
        assert!(matches!(cache.find(&wrapped, now), Found::Open(_)));
    }
}
