//! A map that knows which of its entries was used least recently.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

/// Entries by key, with the time at which each was used last.
#[derive(Debug)]
pub(super) struct Recency<K, V> {
    slots: HashMap<Arc<K>, RecencySlot<V>>,
    /// The keys in the order of use.
    order: BTreeMap<u64, Arc<K>>,
    uses: u64,
}

#[derive(Debug)]
struct RecencySlot<V> {
    /// The place in the order.
    turn: u64,
    used_ms: u64,
    value: V,
}

impl<K, V> Default for Recency<K, V> {
    fn default() -> Self {
        Self {
            slots: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
        }
    }
}

impl<K: Hash + Eq, V> Recency<K, V> {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The entry, unless it is older than `ttl_ms`. It counts as used now.
    pub(super) fn touch(&mut self, key: &K, now_ms: u64, ttl_ms: u64) -> Option<&V> {
        let slot = self.slots.get_mut(key)?;
        if now_ms.saturating_sub(slot.used_ms) > ttl_ms {
            return None;
        }
        let key = self.order.remove(&slot.turn)?;
        self.uses += 1;
        slot.turn = self.uses;
        slot.used_ms = now_ms.max(slot.used_ms);
        self.order.insert(slot.turn, key);
        Some(&slot.value)
    }

    /// Adds an entry, or replaces that of the same key, which is returned.
    pub(super) fn insert(&mut self, key: K, value: V, now_ms: u64) -> Option<V> {
        let before = self.remove(&key);
        let key = Arc::new(key);
        self.uses += 1;
        let slot = RecencySlot {
            turn: self.uses,
            used_ms: now_ms,
            value,
        };
        self.order.insert(slot.turn, Arc::clone(&key));
        self.slots.insert(key, slot);
        before
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.slots.remove(key)?;
        self.order.remove(&slot.turn);
        Some(slot.value)
    }

    /// Removes the entry that was used least recently.
    pub(super) fn pop(&mut self) -> Option<(Arc<K>, V)> {
        let (_, key) = self.order.pop_first()?;
        let slot = self.slots.remove(&key)?;
        Some((key, slot.value))
    }

    /// Removes the same if it is older than `ttl_ms`.
    pub(super) fn pop_expired(&mut self, now_ms: u64, ttl_ms: u64) -> Option<(Arc<K>, V)> {
        let (_, key) = self.order.first_key_value()?;
        let used_ms = self.slots.get(key)?.used_ms;
        (now_ms.saturating_sub(used_ms) > ttl_ms).then(|| self.pop())?
    }
}
