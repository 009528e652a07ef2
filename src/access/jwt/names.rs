//! The counters of the names of tokens: at most [`NAMES_MAX`] of them, whatever an issuer says.
//!
//! Contract: docs/contract/access.md#9

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::access::Counters;

/// The most names of tokens that have counters.
const NAMES_MAX: usize = 100_000;

/// Names that are looked at for one that is to go. The others are looked at the next time.
const LOOKS_MAX: usize = 64;

/// The counters by name. Cores lock it for a token that they have not seen, which costs a check of
/// its signature before.
#[derive(Debug, Default)]
pub(crate) struct TokenNames(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<Arc<str>, Named>,
    /// By the time of the last use that is known here; a number keeps those of one time apart.
    by_use: BTreeMap<(u64, u64), Arc<str>>,
    next: u64,
}

#[derive(Debug)]
struct Named {
    counters: Arc<Counters>,
    place: (u64, u64),
}

impl TokenNames {
    /// The counters of a name. `now_ms` is in milliseconds since 1970.
    pub(crate) fn of(&self, name: &Arc<str>, now_ms: u64) -> Arc<Counters> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.of(name, now_ms, NAMES_MAX)
    }

    /// The number of names that have counters.
    pub(crate) fn count(&self) -> usize {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.by_name.len()
    }

    /// All names with their counters. The lock is held to copy them only.
    pub(crate) fn all(&self) -> Vec<(Arc<str>, Arc<Counters>)> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = names.by_name.iter();
        all.map(|(name, named)| (Arc::clone(name), Arc::clone(&named.counters)))
            .collect()
    }
}

impl Names {
    fn of(&mut self, name: &Arc<str>, now_ms: u64, max: usize) -> Arc<Counters> {
        let place = (now_ms, self.next);
        self.next += 1;
        if let Some(named) = self.by_name.get_mut(name) {
            let before = std::mem::replace(&mut named.place, place);
            if let Some(name) = self.by_use.remove(&before) {
                self.by_use.insert(place, name);
            }
            return Arc::clone(&named.counters);
        }
        if self.by_name.len() >= max {
            self.drop_idle(now_ms);
        }
        let counters = Arc::new(Counters::new());
        self.by_use.insert(place, Arc::clone(name));
        let named = Named {
            counters: Arc::clone(&counters),
            place,
        };
        self.by_name.insert(Arc::clone(name), named);
        counters
    }

    /// Drops the name that has been idle for the longest time. One that a request or a core's
    /// outcome holds is in use: if it went, two blocks would count for it.
    fn drop_idle(&mut self, now_ms: u64) {
        for _ in 0..LOOKS_MAX {
            let Some((place, name)) = self.by_use.pop_first() else {
                return;
            };
            let Some(named) = self.by_name.get_mut(&name) else {
                continue;
            };
            let is_held = Arc::strong_count(&named.counters) > 1;
            let last_ms = if is_held {
                now_ms
            } else {
                named.counters.last_used_ms().unwrap_or(0)
            };
            if !is_held && last_ms <= place.0 {
                self.by_name.remove(&name);
                return;
            }
            // It was used since; its turn comes later.
            named.place = (last_ms, self.next);
            self.next += 1;
            self.by_use.insert(named.place, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(names: &Names, name: &str) -> bool {
        names.by_name.contains_key(name)
    }

    #[test]
    fn the_longest_idle_name_goes() {
        let mut names = Names::default();
        let minute = 60_000;
        let a = names.of(&Arc::from("a"), minute, 3);
        drop(names.of(&Arc::from("b"), 2 * minute, 3));
        drop(names.of(&Arc::from("c"), 3 * minute, 3));
        assert!(
            Arc::ptr_eq(&a, &names.of(&Arc::from("a"), 4 * minute, 3)),
            "one block for a name"
        );
        // b is the oldest.
        drop(names.of(&Arc::from("d"), 5 * minute, 3));
        assert!(!has(&names, "b") && has(&names, "c"));
        // c was used since, by a core that knows its token; a is in use.
        let c = names.of(&Arc::from("c"), 5 * minute, 3);
        c.used(9 * minute);
        drop(c);
        drop(names.of(&Arc::from("e"), 10 * minute, 3));
        assert!(has(&names, "a") && has(&names, "c") && !has(&names, "d"));
        assert_eq!(names.by_name.len(), 3);
        assert_eq!(names.by_use.len(), 3);
    }

    #[test]
    fn names_in_use_are_never_dropped() {
        let mut names = Names::default();
        let held: Vec<_> = (0..10)
            .map(|n| names.of(&Arc::from(format!("n{n}")), n, 4))
            .collect();
        for (n, counters) in held.iter().enumerate() {
            assert!(Arc::ptr_eq(
                counters,
                &names.of(&Arc::from(format!("n{n}")), 20, 4)
            ));
        }
    }
}
