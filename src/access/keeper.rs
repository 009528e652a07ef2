//! Keeps the sources of keys and the state that was built of them. Every thread but the cores may
//! change a source; the control thread publishes the newest state.
//!
//! Contract: docs/contract/access.md#4.1

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ring::hmac;

use super::jwt::TOKEN_PREFIX;
use super::secret::base62;
use super::{Access, AccessSources, Counters, CountersBook, IssuerKeys, StoredKey};
use crate::config::{JwksSource, KeyAccessPlan, KeyPlan};

/// The sources of keys.
#[derive(Debug, Clone)]
pub(crate) struct KeySources {
    /// The configuration.
    pub plan: Arc<KeyAccessPlan>,
    /// The keys of the keys file, by name.
    pub file: Arc<Vec<Arc<KeyPlan>>>,
    /// The keys of the state store, by name.
    pub stored: Arc<Vec<StoredKey>>,
}

/// The sources of keys, their newest state, and the counters of all names.
#[derive(Debug)]
pub(crate) struct AccessKeeper {
    book: CountersBook,
    issuer: IssuerKeys,
    /// Held during a change, which may take 60 ms; never by cores or the control thread.
    sources: Mutex<KeySources>,
    /// Held only to read or replace it.
    newest: Mutex<Arc<Access>>,
    /// Earlier states that may still be in use; see [`Self::reclaim`].
    retired: Mutex<Retired>,
    /// How often requests in progress were cut.
    cuts: AtomicU64,
    /// The secret of [`Self::cache_salt`].
    salt: OnceLock<hmac::Key>,
    /// Whether the newest version of the keys file is in force, or there is none.
    pub keys_file_ok: AtomicBool,
}

/// What was in force before, and what it was made of.
#[derive(Debug, Default)]
struct Retired {
    states: Vec<Arc<Access>>,
    plans: Vec<Arc<KeyAccessPlan>>,
}

impl KeySources {
    /// The sources of a configuration, with the keys of the store. It takes the keys of the file
    /// from the plan, so that these are not kept for as long as that is.
    pub(crate) fn following(&self, plan: &Arc<KeyAccessPlan>) -> Self {
        let file = plan.keys_file.as_ref().map(|file| file.keys.take());
        Self {
            plan: Arc::clone(plan),
            file: self.file_keys(by_name(Arc::unwrap_or_clone(file.unwrap_or_default()))),
            stored: Arc::clone(&self.stored),
        }
    }

    /// The keys of a version of the file. Those that have not changed since the version here are
    /// shared with it.
    fn file_keys(&self, mut keys: Vec<Arc<KeyPlan>>) -> Arc<Vec<Arc<KeyPlan>>> {
        let mut before = self.file.iter().peekable();
        for key in &mut keys {
            while before.next_if(|old| old.name < key.name).is_some() {}
            if let Some(same) = before.next_if(|old| **old == *key) {
                *key = Arc::clone(same);
            }
        }
        Arc::new(keys)
    }
}

/// Sorts keys by their names.
pub(crate) fn by_name(mut keys: Vec<Arc<KeyPlan>>) -> Vec<Arc<KeyPlan>> {
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    keys
}

impl AccessKeeper {
    /// The state of a configuration.
    pub(crate) fn new(plan: &Arc<KeyAccessPlan>) -> Self {
        let keeper = Self {
            book: CountersBook::default(),
            issuer: IssuerKeys::default(),
            sources: Mutex::new(KeySources {
                plan: Arc::clone(plan),
                file: Arc::default(),
                stored: Arc::default(),
            }),
            newest: Mutex::default(),
            retired: Mutex::default(),
            cuts: AtomicU64::new(0),
            salt: OnceLock::new(),
            keys_file_ok: AtomicBool::new(true),
        };
        keeper.change(|sources| *sources = sources.following(plan));
        // Tokens are valid from the first request on; what is fetched comes later.
        if let Some(JwksSource::File { set, .. }) = plan.jwt.as_ref().map(|jwt| &jwt.jwks) {
            keeper.issuer.replace(Some(Arc::clone(set)));
        }
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

    /// The counters of a name of a key or a token. `now_ms` is in milliseconds since 1970.
    pub(crate) fn counters_of(&self, name: &Arc<str>, now_ms: u64) -> Arc<Counters> {
        if name.starts_with(TOKEN_PREFIX) {
            return self.book.of_token(name, now_ms);
        }
        let newest = self.newest();
        match newest.keys.named(name) {
            Some(key) => Arc::clone(&key.counters),
            None => self.book.of_key(name),
        }
    }

    /// The counters that no table of keys holds.
    pub(crate) fn book(&self) -> &CountersBook {
        &self.book
    }

    /// Cuts the requests of a name that are in progress, within some ticks of their cores
    /// (docs/contract/access.md#4.3). The key is to be gone, or switched off, before.
    pub(crate) fn cut(&self, name: &str) {
        let newest = self.newest();
        let key = newest.keys.named(name);
        let counters = key.map(|key| Arc::clone(&key.counters));
        if let Some(counters) = counters.or_else(|| self.book.kept(name)) {
            counters.cut();
        }
        self.cuts.fetch_add(1, Ordering::Release);
    }

    /// How often requests in progress were cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Sets the secret of [`Self::cache_salt`], which the state store keeps; the first one counts.
    pub(crate) fn set_salt(&self, secret: &[u8]) {
        let _ = self.salt.set(hmac::Key::new(hmac::HMAC_SHA256, secret));
    }

    /// What keeps the prompt cache of a key apart: 43 characters that differ between keys and are
    /// always the same for one (docs/contract/access.md#15).
    pub(crate) fn cache_salt(&self, name: &str) -> String {
        if self.salt.get().is_none() {
            let mut secret = [0; 32];
            // Without a random source the names alone keep caches apart.
            let _ = getrandom::fill(&mut secret);
            self.set_salt(&secret);
        }
        let Some(key) = self.salt.get() else {
            return String::new();
        };
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(key, name.as_bytes()).as_ref());
        base62(tag)
    }

    /// The keys that tokens are checked with.
    pub(crate) fn issuer(&self) -> &IssuerKeys {
        &self.issuer
    }

    /// Changes the sources, and builds the state of them. It is in force once the control thread has
    /// published a snapshot. Changes happen one after the other; with 100,000 keys one takes 10 to
    /// 60 ms, so neither a core nor the control thread makes one.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut KeySources) -> R) -> R {
        let mut sources = lock(&self.sources);
        self.reclaim();
        let plan = Arc::clone(&sources.plan);
        let result = change(&mut sources);
        if !Arc::ptr_eq(&plan, &sources.plan) {
            lock(&self.retired).plans.push(plan);
        }
        let before = self.newest();
        let parts = AccessSources {
            plan: &sources.plan,
            file: &sources.file,
            stored: &sources.stored,
            book: &self.book,
        };
        let built = Arc::new(Access::build(&parts, &before));
        lock(&self.retired).states.push(before);
        *lock(&self.newest) = built;
        result
    }

    /// Frees earlier states that nothing uses any more, which takes long with 100,000 keys. Until
    /// then they are held here, so that neither a core nor the control thread is the one to free them.
    /// Returns whether there was one.
    pub(crate) fn reclaim(&self) -> bool {
        let mut retired = lock(&self.retired);
        // A retired state is not handed out any more, so a single reference stays single.
        let states = retired
            .states
            .extract_if(.., |old| Arc::strong_count(old) == 1);
        let states: Vec<_> = states.collect();
        let plans = retired
            .plans
            .extract_if(.., |old| Arc::strong_count(old) == 1);
        let plans: Vec<_> = plans.collect();
        drop(retired);
        !states.is_empty() || !plans.is_empty()
    }
}

/// A panic in a change leaves the state before it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
