//! The tokens that a core has found valid: at most [`OUTCOMES_MAX`], the least recently used out.
//!
//! Contract: docs/contract/access.md#9

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::access::Key;
use crate::config::KeyDigest;

/// The most tokens that a core remembers.
pub(super) const OUTCOMES_MAX: usize = 10_000;

/// Valid tokens and their keys.
#[derive(Debug)]
pub(super) struct Outcomes {
    capacity: usize,
    /// Places by hash. The hashes are those of tokens with a valid signature, so that none can be
    /// chosen to collide.
    places: FxHashMap<KeyDigest, u32>,
    entries: Vec<Entry>,
    /// The ends of the list in the order of use.
    newest: u32,
    oldest: u32,
}

#[derive(Debug)]
struct Entry {
    digest: KeyDigest,
    key: Arc<Key>,
    /// Milliseconds since 1970 from which the token is checked again.
    until_ms: u64,
    newer: u32,
    older: u32,
}

/// No entry.
const NONE: u32 = u32::MAX;

impl Outcomes {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            places: FxHashMap::default(),
            entries: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.entries.clear();
        (self.newest, self.oldest) = (NONE, NONE);
    }

    /// The key of a token with this hash, while it holds.
    pub(super) fn find(&mut self, digest: &KeyDigest, now_ms: u64) -> Option<&Arc<Key>> {
        let place = *self.places.get(digest)?;
        self.detach(place);
        self.attach(place);
        let entry = self.entries.get(place as usize)?;
        (now_ms < entry.until_ms).then_some(&entry.key)
    }

    /// Remembers a valid token.
    pub(super) fn insert(&mut self, digest: KeyDigest, key: Arc<Key>, until_ms: u64) {
        let entry = Entry {
            digest,
            key,
            until_ms,
            newer: NONE,
            older: NONE,
        };
        let known = self.places.get(&digest).copied();
        let place = match known {
            Some(place) => place,
            None if self.entries.len() < self.capacity => {
                let place = u32::try_from(self.entries.len()).unwrap_or(NONE);
                self.entries.push(entry);
                self.places.insert(digest, place);
                return self.attach(place);
            }
            None => self.oldest,
        };
        self.detach(place);
        if let Some(slot) = self.entries.get_mut(place as usize) {
            self.places.remove(&slot.digest);
            *slot = entry;
            self.places.insert(digest, place);
            self.attach(place);
        }
    }

    /// Takes an entry out of the list.
    fn detach(&mut self, place: u32) {
        let Some(entry) = self.entries.get(place as usize) else {
            return;
        };
        let (newer, older) = (entry.newer, entry.older);
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Puts an entry at the list's newest end.
    fn attach(&mut self, place: u32) {
        let before = std::mem::replace(&mut self.newest, place);
        if let Some(entry) = self.entries.get_mut(place as usize) {
            (entry.newer, entry.older) = (NONE, before);
        }
        match self.entries.get_mut(before as usize) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::key;
    use super::*;
    use proptest::prelude::*;

    fn digest(n: u8) -> KeyDigest {
        KeyDigest::of(&[n])
    }

    #[test]
    fn an_outcome_holds_until_its_time() {
        let mut outcomes = Outcomes::new(2);
        let key = key("a");
        outcomes.insert(digest(1), Arc::clone(&key), 1000);
        assert!(outcomes.find(&digest(1), 999).is_some());
        assert!(outcomes.find(&digest(1), 1000).is_none());
        assert!(outcomes.find(&digest(2), 0).is_none());
        outcomes.insert(digest(1), key, 2000);
        assert!(outcomes.find(&digest(1), 1000).is_some());
        outcomes.clear();
        assert!(outcomes.find(&digest(1), 0).is_none());
    }

    proptest! {
        /// A list of digests, the newest last, is the model.
        #[test]
        fn the_least_recently_used_goes(steps in prop::collection::vec((any::<bool>(), 0_u8..8), 1..200)) {
            let (mut outcomes, mut model) = (Outcomes::new(4), Vec::new());
            let key = key("a");
            for (insert, n) in steps {
                let known = model.iter().position(|known| *known == n);
                if insert {
                    outcomes.insert(digest(n), Arc::clone(&key), 10);
                } else {
                    let found = outcomes.find(&digest(n), 0).is_some();
                    prop_assert_eq!(found, known.is_some());
                }
                if insert || known.is_some() {
                    model.retain(|known| *known != n);
                    model.push(n);
                }
                if model.len() > 4 {
                    model.remove(0);
                }
            }
            let left = (0..8).filter(|n| outcomes.find(&digest(*n), 0).is_some());
            model.sort_unstable();
            prop_assert_eq!(left.collect::<Vec<_>>(), model);
        }
    }
}
