//! Keeps the sources of keys and the state that was built of them. Every thread but the cores may
//! change a source; the control thread publishes the newest state.
//!
//! Contract: docs/contract/access.md#4.1

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, AccessSources, CountersBook, StoredKey};
use crate::config::{KeyAccessPlan, KeyPlan};

/// The sources of keys.
#[derive(Debug, Clone)]
pub(crate) struct KeySources {
    /// The configuration.
    pub plan: Arc<KeyAccessPlan>,
    /// The keys of the keys file.
    pub file: Arc<Vec<KeyPlan>>,
    /// The keys of the state store, by name.
    pub stored: Arc<Vec<StoredKey>>,
}

/// The sources of keys, their newest state, and the counters of all names.
#[derive(Debug)]
pub(crate) struct AccessKeeper {
    book: CountersBook,
    /// Held during a change, which may take 100 ms; never by cores or the control thread.
    sources: Mutex<KeySources>,
    /// Held only to read or replace it.
    newest: Mutex<Arc<Access>>,
}

impl KeySources {
    /// The sources of a configuration, with the keys of the store.
    pub(crate) fn new(plan: &Arc<KeyAccessPlan>, stored: Arc<Vec<StoredKey>>) -> Self {
        let file = plan.keys_file.as_ref().map(|file| Arc::clone(&file.keys));
        Self {
            plan: Arc::clone(plan),
            file: file.unwrap_or_default(),
            stored,
        }
    }
}

impl AccessKeeper {
    /// The state of a configuration.
    pub(crate) fn new(plan: &Arc<KeyAccessPlan>) -> Self {
        let keeper = Self {
            book: CountersBook::default(),
            sources: Mutex::new(KeySources::new(plan, Arc::default())),
            newest: Mutex::default(),
        };
        keeper.change(|_| ());
        keeper
    }

    /// The newest state.
    pub(crate) fn newest(&self) -> Arc<Access> {
        Arc::clone(&lock(&self.newest))
    }

    /// The sources as they are.
    pub(crate) fn sources(&self) -> KeySources {
        lock(&self.sources).clone()
    }

    /// The counters of names.
    pub(crate) fn book(&self) -> &CountersBook {
        &self.book
    }

    /// Changes the sources, and builds the state of them. It is in force once the control thread has
    /// published a snapshot. Changes happen one after the other; with 100,000 keys one takes some
    /// 100 ms, so neither a core nor the control thread makes one.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut KeySources) -> R) -> R {
        let mut sources = lock(&self.sources);
        let result = change(&mut sources);
        let built = Access::build(&AccessSources {
            plan: &sources.plan,
            file: &sources.file,
            stored: &sources.stored,
            book: &self.book,
        });
        let before = std::mem::replace(&mut *lock(&self.newest), Arc::new(built));
        drop(sources);
        drop(before);
        result
    }
}

/// A panic in a change leaves the state before it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
