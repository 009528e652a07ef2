//! Keeps the sources of keys and the state that was built of them. Every thread but the cores may
//! change a source; the control thread publishes the newest state.
//!
//! Contract: docs/contract/access.md#4.1

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ring::hmac;

use super::secret::base62;
use super::{Access, AccessSources, CountersBook, IssuerKeys, StoredKey};
use crate::config::{JwksSource, KeyAccessPlan, KeyPlan};

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
    issuer: IssuerKeys,
    /// Held during a change, which may take 100 ms; never by cores or the control thread.
    sources: Mutex<KeySources>,
    /// Held only to read or replace it.
    newest: Mutex<Arc<Access>>,
    /// How often requests in progress were cut.
    cuts: AtomicU64,
    /// The secret of [`Self::cache_salt`].
    salt: OnceLock<hmac::Key>,
    /// Whether the newest version of the keys file is in force, or there is none.
    pub keys_file_ok: AtomicBool,
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
            issuer: IssuerKeys::default(),
            sources: Mutex::new(KeySources::new(plan, Arc::default())),
            newest: Mutex::default(),
            cuts: AtomicU64::new(0),
            salt: OnceLock::new(),
            keys_file_ok: AtomicBool::new(true),
        };
        keeper.change(|_| ());
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

    /// The counters of names.
    pub(crate) fn book(&self) -> &CountersBook {
        &self.book
    }

    /// Cuts the requests of a name that are in progress, within some ticks of their cores
    /// (docs/contract/access.md#4.3). The key is to be gone, or switched off, before.
    pub(crate) fn cut(&self, name: &str) {
        self.book.of_key(&Arc::from(name)).cut();
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
    /// published a snapshot. Changes happen one after the other; with 100,000 keys one takes some
    /// 100 ms, so neither a core nor the control thread makes one.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut KeySources) -> R) -> R {
        let mut sources = lock(&self.sources);
        let result = change(&mut sources);
        let before = self.newest();
        let parts = AccessSources {
            plan: &sources.plan,
            file: &sources.file,
            stored: &sources.stored,
            book: &self.book,
        };
        let built = Arc::new(Access::build(&parts, &before));
        *lock(&self.newest) = built;
        drop(sources);
        drop(before);
        result
    }
}

/// A panic in a change leaves the state before it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
