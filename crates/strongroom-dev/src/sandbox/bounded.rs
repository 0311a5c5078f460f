//! A bounded map: at capacity, an insert evicts the oldest entry. It bounds the sandbox's memory however long a
//! benchmark runs.
//!
//! Imports no other module.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks and ignores poisoning: every change under the sandbox's locks is a single step, so a panic leaves
/// nothing half done.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
    capacity: usize,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), capacity: capacity.max(1) }
    }

    pub(super) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// Inserts an entry; evicts the oldest beyond the capacity.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
            if self.order.len() > self.capacity
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
        }
    }

    pub(super) fn newest(&self) -> impl Iterator<Item = &V> {
        self.order.iter().rev().filter_map(|key| self.get(key))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_its_capacity_a_map_forgets_the_oldest() {
        let mut map = Bounded::new(2);
        for n in 1..=3 {
            map.insert(n, n * 10);
        }
        assert_eq!((map.get(&1), map.get(&2)), (None, Some(&20)));
        assert_eq!(map.newest().copied().collect::<Vec<_>>(), [30, 20]);
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn replacing_a_value_forgets_nobody() {
        let mut map = Bounded::new(2);
        map.insert(1, 10);
        map.insert(2, 20);
        map.insert(1, 11);
        assert_eq!((map.get(&1), map.get(&2)), (Some(&11), Some(&20)));
    }
}
