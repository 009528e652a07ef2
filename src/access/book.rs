//! The counters of all names. They belong to names, not to keys: they survive a new secret, another
//! policy and a reload, and end a day after the last key of the name is gone.
//!
//! Contract: docs/contract/access.md#4.3

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::jwt::TokenNames;
use super::{Counters, Key};

/// How long counters outlive the last key of their name, in milliseconds.
const KEPT_MS: u64 = 24 * 3600 * 1000;

/// The counters that no table of keys holds: those of policies, of tokens, of requests without a
/// credential, and of names whose keys are gone. Cores lock only those of tokens.
#[derive(Debug, Default)]
pub(crate) struct CountersBook {
    keys: Mutex<Names>,
    policies: Mutex<Names>,
    tokens: TokenNames,
}

type Names = HashMap<Arc<str>, Entry>;

#[derive(Debug)]
struct Entry {
    counters: Arc<Counters>,
    /// When the last key of the name was found gone, in milliseconds of the process's clock.
    gone_ms: Option<u64>,
}

impl CountersBook {
    /// The counters of a name that no table of keys has.
    pub(crate) fn of_key(&self, name: &Arc<str>) -> Arc<Counters> {
        of(&mut lock(&self.keys), name)
    }

    /// The counters of a policy's name.
    pub(crate) fn of_policy(&self, name: &Arc<str>) -> Arc<Counters> {
        of(&mut lock(&self.policies), name)
    }

    /// The counters for a key that comes into the table of keys.
    pub(super) fn claim(&self, name: &Arc<str>) -> Arc<Counters> {
        let kept = lock(&self.keys).remove(name);
        kept.map_or_else(|| Arc::new(Counters::new()), |entry| entry.counters)
    }

    /// Keeps the counters of a key that leaves the table of keys.
    pub(super) fn keep(&self, key: &Key) {
        let entry = Entry {
            counters: Arc::clone(&key.counters),
            gone_ms: None,
        };
        lock(&self.keys).insert(Arc::clone(&key.name), entry);
    }

    /// The counters of a name whose key is gone, if it had one within a day.
    pub(super) fn kept(&self, name: &str) -> Option<Arc<Counters>> {
        let keys = lock(&self.keys);
        keys.get(name).map(|entry| Arc::clone(&entry.counters))
    }

    /// Calls a function with the counters of each name that is neither in the table of keys nor that
    /// of a token. The flag is set for policies.
    pub(crate) fn each(&self, mut look: impl FnMut(bool, &Arc<str>, &Arc<Counters>)) {
        for (is_policy, names) in [(false, &self.keys), (true, &self.policies)] {
            for (name, entry) in lock(names).iter() {
                look(is_policy, name, &entry.counters);
            }
        }
    }

    /// The number of names of tokens that have counters.
    pub(crate) fn token_names(&self) -> usize {
        self.tokens.count()
    }

    /// The counters of a token's name; `now_ms` in milliseconds since 1970.
    pub(crate) fn of_token(&self, name: &Arc<str>, now_ms: u64) -> Arc<Counters> {
        self.tokens.of(name, now_ms)
    }

    /// The names of tokens.
    pub(crate) fn tokens(&self) -> &TokenNames {
        &self.tokens
    }

    /// Drops the counters of names that nothing has had for a day, and those that have counted
    /// nothing. `now_ms` is a time of the process's clock. A name is in use while a key, a policy or
    /// a request holds its counters. It may take some milliseconds.
    pub(crate) fn sweep(&self, now_ms: u64) {
        for names in [&self.keys, &self.policies] {
            let mut names = lock(names);
            names.retain(|_, entry| {
                if Arc::strong_count(&entry.counters) > 1 {
                    entry.gone_ms = None;
                    return true;
                }
                let gone = *entry.gone_ms.get_or_insert(now_ms);
                now_ms.saturating_sub(gone) < KEPT_MS && !entry.counters.is_untouched()
            });
            if names.capacity() / 4 > names.len() {
                names.shrink_to_fit();
            }
        }
    }
}

fn of(names: &mut Names, name: &Arc<str>) -> Arc<Counters> {
    if let Some(entry) = names.get(name) {
        return Arc::clone(&entry.counters);
    }
    let counters = Arc::new(Counters::new());
    let entry = Entry {
        counters: Arc::clone(&counters),
        gone_ms: None,
    };
    names.insert(Arc::clone(name), entry);
    counters
}

/// A panic while a map was locked leaves it whole.
fn lock(names: &Mutex<Names>) -> MutexGuard<'_, Names> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_outlive_their_keys_by_a_day() {
        let book = CountersBook::default();
        let name = Arc::from("a");
        let held = book.of_key(&name);
        held.used(60_000);
        assert!(Arc::ptr_eq(&held, &book.of_key(&name)));
        assert!(!Arc::ptr_eq(&held, &book.of_policy(&name)));
        book.sweep(0);
        let weak = Arc::downgrade(&held);
        drop(held);
        book.sweep(1_000);
        book.sweep(1_000 + KEPT_MS - 1);
        assert!(weak.upgrade().is_some());
        // A key of the name came back in between: its day begins anew.
        let back = book.of_key(&name);
        book.sweep(1_000 + KEPT_MS);
        drop(back);
        book.sweep(2_000 + KEPT_MS);
        book.sweep(1_999 + 2 * KEPT_MS);
        assert!(weak.upgrade().is_some());
        book.sweep(2_000 + 2 * KEPT_MS);
        assert!(weak.upgrade().is_none());
        // Counters that have counted nothing are not kept for a day.
        drop(book.of_key(&name));
        book.sweep(0);
        assert!(book.kept("a").is_none());
    }
}
