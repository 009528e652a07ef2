//! The counters of all names. They belong to names, not to keys: they survive a new secret, another
//! policy and a reload, and end a day after the last key of the name is gone.
//!
//! Contract: docs/contract/access.md#4.3

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Counters;
use super::jwt::{TOKEN_PREFIX, TokenNames};

/// How long counters outlive the last key of their name, in milliseconds.
const KEPT_MS: u64 = 24 * 3600 * 1000;

/// The counters by name. It is locked while keys are built and swept, never for a request with a
/// key that is known.
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
    /// The counters of a key's name.
    pub(crate) fn of_key(&self, name: &Arc<str>) -> Arc<Counters> {
        of(&mut lock(&self.keys), name)
    }

    /// The counters of a policy's name.
    pub(crate) fn of_policy(&self, name: &Arc<str>) -> Arc<Counters> {
        of(&mut lock(&self.policies), name)
    }

    /// Calls a function with the counters of each name: those of tokens and keys, then those of
    /// policies, for which the flag is set.
    pub(crate) fn each(&self, mut look: impl FnMut(bool, &Arc<str>, &Counters)) {
        for (name, counters) in self.tokens.all() {
            look(false, &name, &counters);
        }
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

    /// The counters of a name of a key or a token.
    pub(crate) fn of_name(&self, name: &Arc<str>, now_ms: u64) -> Arc<Counters> {
        if name.starts_with(TOKEN_PREFIX) {
            self.of_token(name, now_ms)
        } else {
            self.of_key(name)
        }
    }

    /// Drops the counters of names that nothing has had for a day. `now_ms` is a time of the
    /// process's clock. A name is in use while a key, a policy or a request holds its counters.
    pub(crate) fn sweep(&self, now_ms: u64) {
        for names in [&self.keys, &self.policies] {
            lock(names).retain(|_, entry| {
                if Arc::strong_count(&entry.counters) > 1 {
                    entry.gone_ms = None;
                    return true;
                }
                let gone = *entry.gone_ms.get_or_insert(now_ms);
                now_ms.saturating_sub(gone) < KEPT_MS
            });
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
    }
}
