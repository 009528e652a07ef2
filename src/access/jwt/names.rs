//! The counters of the names of tokens: at most [`NAMES_MAX`] of them, whatever an issuer says.
//!
//! Contract: docs/contract/access.md#9

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam_channel::Sender;

use crate::access::Counters;

/// The most names of tokens that have counters.
const NAMES_MAX: usize = 100_000;

/// Names that are looked at for one that is to go. The others are looked at the next time.
const LOOKS_MAX: usize = 64;

/// Names that are looked at under one lock for what has changed, about 50 µs.
const SLICE: usize = 256;

/// How often a look over all names yields to cores between two slices.
const YIELDS_MAX: usize = 1_000;

/// The counters by name. Cores lock it for a token that they have not seen, which costs a check of
/// its signature before. Nothing holds the lock for longer than it takes to look at some names: the
/// maps are trees, which never move all of their entries at one time.
#[derive(Debug, Default)]
pub(crate) struct TokenNames {
    names: Mutex<Names>,
    /// Cores that wait for the lock. It is not fair: who takes it again at once may take it many
    /// times before one that waits.
    waiting: AtomicUsize,
    /// Wakes the thread of the state store, if there is one.
    store: OnceLock<Sender<()>>,
}

/// A name and its counters.
pub(crate) type NamedCounters = (Arc<str>, Arc<Counters>);

#[derive(Debug, Default)]
struct Names {
    by_name: BTreeMap<Arc<str>, Named>,
    /// By the time of the last use that is known here; a number keeps those of one time apart.
    by_use: BTreeMap<(u64, u64), Arc<str>>,
    next: u64,
    /// New names, of which the state store may have windows. They count as held.
    unread: Vec<NamedCounters>,
}

#[derive(Debug)]
struct Named {
    counters: Arc<Counters>,
    place: (u64, u64),
}

impl TokenNames {
    /// The counters of a name. `now_ms` is in milliseconds since 1970.
    pub(crate) fn of(&self, name: &Arc<str>, now_ms: u64) -> Arc<Counters> {
        let store = self.store.get();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut names = self.lock();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let (counters, is_new) = names.of(name, now_ms, NAMES_MAX);
        let is_to_be_read = is_new && store.is_some();
        if is_to_be_read {
            counters.set_awaits_store(true);
            names.unread.push((Arc::clone(name), Arc::clone(&counters)));
        }
        drop(names);
        if let Some(store) = store.filter(|_| is_to_be_read) {
            // A full channel has a message of the same meaning.
            let _ = store.try_send(());
        }
        counters
    }

    /// The number of names that have counters.
    pub(crate) fn count(&self) -> usize {
        self.lock().by_name.len()
    }

    /// From now on, new names wait for their windows in the state store, and the sender says so.
    pub(crate) fn attach_store(&self, wake: Sender<()>) {
        // There is one store, and one thread of it.
        let _ = self.store.set(wake);
    }

    /// Some new names of which the windows in the state store are not counted yet.
    pub(crate) fn take_unread(&self) -> Vec<NamedCounters> {
        let mut names = self.lock();
        let first = names.unread.len().saturating_sub(SLICE);
        names.unread.split_off(first)
    }

    /// Gives back what could not be read.
    pub(crate) fn put_unread(&self, unread: Vec<NamedCounters>) {
        self.lock().unread.extend(unread);
    }

    /// Calls a function with each name of which a window has changed, and takes the notes of that.
    pub(crate) fn each_changed(&self, mut look: impl FnMut(&Arc<str>, &Arc<Counters>)) {
        let mut last = None;
        loop {
            let (changed, next) = self.lock().changed(last.as_ref());
            changed
                .iter()
                .for_each(|(name, counters)| look(name, counters));
            if next.is_none() {
                return;
            }
            last = next;
            self.let_cores_go_first();
        }
    }

    /// Waits until no core waits for the lock, for a bounded time.
    fn let_cores_go_first(&self) {
        for _ in 0..YIELDS_MAX {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    /// The counters of a name, and whether they are new.
    fn of(&mut self, name: &Arc<str>, now_ms: u64, max: usize) -> (Arc<Counters>, bool) {
        let place = (now_ms, self.next);
        self.next += 1;
        if let Some(named) = self.by_name.get_mut(name) {
            let before = std::mem::replace(&mut named.place, place);
            if let Some(name) = self.by_use.remove(&before) {
                self.by_use.insert(place, name);
            }
            return (Arc::clone(&named.counters), false);
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
        (counters, true)
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

    /// Those of the names after `last` of which a window has changed, and the last name that was
    /// looked at; `None` = that was the last of all.
    fn changed(&self, last: Option<&Arc<str>>) -> (Vec<NamedCounters>, Option<Arc<str>>) {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut slice = self.by_name.range::<Arc<str>, _>((after, Bound::Unbounded));
        let mut next = None;
        let mut changed = Vec::new();
        for (name, named) in slice.by_ref().take(SLICE) {
            let counters = &named.counters;
            // What waits for the store is not to be written over it.
            if !counters.awaits_store() && counters.take_change() {
                changed.push((Arc::clone(name), Arc::clone(counters)));
            }
            next = Some(name);
        }
        let has_more = slice.next().is_some();
        (changed, next.filter(|_| has_more).map(Arc::clone))
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
        let (a, _) = names.of(&Arc::from("a"), minute, 3);
        drop(names.of(&Arc::from("b"), 2 * minute, 3));
        drop(names.of(&Arc::from("c"), 3 * minute, 3));
        assert!(
            Arc::ptr_eq(&a, &names.of(&Arc::from("a"), 4 * minute, 3).0),
            "one block for a name"
        );
        // b is the oldest.
        drop(names.of(&Arc::from("d"), 5 * minute, 3));
        assert!(!has(&names, "b") && has(&names, "c"));
        // c was used since, by a core that knows its token; a is in use.
        let (c, _) = names.of(&Arc::from("c"), 5 * minute, 3);
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
            .map(|n| names.of(&Arc::from(format!("n{n}")), n, 4).0)
            .collect();
        for (n, counters) in held.iter().enumerate() {
            assert!(Arc::ptr_eq(
                counters,
                &names.of(&Arc::from(format!("n{n}")), 20, 4).0
            ));
        }
    }

    #[test]
    fn all_changed_names_are_found_in_slices() {
        let names = TokenNames::default();
        let held: Vec<_> = (0..2 * SLICE + 1)
            .map(|n| names.of(&Arc::from(format!("n{n}")), 1))
            .collect();
        let changed = || {
            let mut all = Vec::new();
            names.each_changed(|name, _| all.push(name.to_string()));
            all
        };
        assert!(changed().is_empty());
        for n in [0, 7, 2 * SLICE] {
            held[n].note_change();
        }
        let mut found = changed();
        found.sort_unstable();
        assert_eq!(found, ["n0", "n512", "n7"]);
        assert!(changed().is_empty(), "the notes were taken");
    }

    #[test]
    fn a_new_name_waits_for_its_windows() {
        let names = TokenNames::default();
        let early = names.of(&Arc::from("early"), 1);
        assert!(!early.awaits_store(), "there is no store yet");
        let (wake, woken) = crossbeam_channel::bounded(1);
        names.attach_store(wake);
        let late = names.of(&Arc::from("late"), 1);
        assert!(late.awaits_store() && woken.try_recv().is_ok());
        names.of(&Arc::from("late"), 2);
        assert!(woken.try_recv().is_err(), "it is new once");
        // It is not written before it was read.
        late.note_change();
        let mut changed = 0;
        names.each_changed(|_, _| changed += 1);
        assert_eq!(changed, 0);
        let unread = names.take_unread();
        assert_eq!(unread.len(), 1);
        names.put_unread(unread);
        for (_, counters) in names.take_unread() {
            counters.set_awaits_store(false);
        }
        names.each_changed(|_, counters| changed += usize::from(Arc::ptr_eq(counters, &late)));
        assert_eq!(changed, 1);
        assert!(names.take_unread().is_empty());
    }

    #[test]
    fn names_come_while_all_are_looked_through() {
        let names = TokenNames::default();
        for n in 0..NAMES_MAX as u64 {
            names.of(&Arc::from(format!("jwt:{n}")), n).note_change();
        }
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut changed = 0;
                names.each_changed(|_, _| changed += 1);
                changed
            });
            for n in 0..2_000 {
                names.of(&Arc::from(format!("jwt:new {n}")), NAMES_MAX as u64 + n);
            }
            assert!(looking.join().unwrap() >= NAMES_MAX - 2_000);
        });
        assert_eq!(names.lock().by_name.len(), NAMES_MAX);
    }
}
