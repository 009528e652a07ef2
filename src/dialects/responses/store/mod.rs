//! Responses that are kept for `previous_response_id`, and where others were made
//! (docs/contract/dialects.md#9).
//!
//! All cores share one store. Its lock is held to find, add or remove an entry and for nothing
//! longer: what is parsed, copied or freed is so outside of it. The time is an argument.

mod kept;
mod recency;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::millis;
use crate::config::ResponseStorePlan;
use crate::dialects::responses::stored_input::StoredInput;
use kept::{BytesKept, ItemPlace};
use recency::Recency;

pub(crate) use kept::{KeptObject, KeptResponse, uncovered};

/// The part of all bytes that one response may have.
const SHARE: usize = 8;

/// Entries that are looked at for their age with each call.
const EXPIRED_AT_ONCE: usize = 4;

/// The bounds of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StoreBounds {
    /// Responses are kept at all.
    pub(crate) enabled: bool,
    pub(crate) max_items: usize,
    pub(crate) max_bytes: usize,
    pub(crate) ttl_ms: u64,
}

impl StoreBounds {
    /// Those of the configuration.
    pub(crate) fn of(plan: &ResponseStorePlan) -> Self {
        Self {
            enabled: plan.enabled,
            max_items: plan.max_items,
            max_bytes: usize::try_from(plan.max_bytes).unwrap_or(usize::MAX),
            ttl_ms: millis(plan.ttl),
        }
    }

    /// The most bytes that one response may have.
    pub(crate) fn response_bytes_max(&self) -> usize {
        self.max_bytes / SHARE
    }
}

/// The only client that finds a response: a hash of its credential, or nobody's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Owner(pub(crate) Option<[u8; 32]>);

/// An owner and an id.
type OwnedId = (Owner, String);

/// What is kept.
#[derive(Debug)]
pub(crate) struct ResponseStore {
    state: Mutex<StoreState>,
    bytes: Arc<BytesKept>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

#[derive(Debug)]
struct StoreState {
    bounds: StoreBounds,
    responses: Recency<OwnedId, StoredResponse>,
    /// The response that has an item, and where.
    items: HashMap<OwnedId, (String, ItemPlace)>,
    /// The endpoints that made responses which are not kept here.
    made: Recency<OwnedId, Arc<str>>,
}

#[derive(Debug)]
struct StoredResponse {
    response: Arc<KeptResponse>,
    item_ids: Vec<String>,
}

/// The state of a store, for statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StoreCounts {
    pub(crate) bounds: StoreBounds,
    pub(crate) items: usize,
    pub(crate) bytes: usize,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) evictions: u64,
}

/// Keeps one response when it is finished.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) store: Arc<ResponseStore>,
    pub(crate) owner: Owner,
    /// Its input.
    pub(crate) input: StoredInput,
    /// What it continues.
    pub(crate) parent: Option<Arc<KeptResponse>>,
}

impl Keeper {
    /// Keeps it.
    pub(crate) fn keep(self, id: &str, object: KeptObject, now_ms: u64) {
        let response = KeptResponse::new(object, self.input, self.parent);
        self.store.keep(self.owner, id, response, now_ms);
    }
}

impl ResponseStore {
    pub(crate) fn new(bounds: StoreBounds) -> Self {
        Self {
            state: Mutex::new(StoreState {
                bounds,
                responses: Recency::default(),
                items: HashMap::new(),
                made: Recency::default(),
            }),
            bytes: Arc::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, StoreState> {
        // Each change of the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bounds in force.
    pub(crate) fn bounds(&self) -> StoreBounds {
        self.state().bounds
    }

    /// Applies other bounds.
    pub(crate) fn set_bounds(&self, bounds: StoreBounds) {
        self.state().bounds = bounds;
        self.make_room();
    }

    /// Keeps a response, unless it is too large.
    pub(crate) fn keep(&self, owner: Owner, id: &str, mut response: KeptResponse, now_ms: u64) {
        let bounds = self.bounds();
        if !bounds.enabled || response.bytes() > bounds.response_bytes_max() {
            return;
        }
        response.count(&self.bytes);
        let places = response.places();
        let stored = StoredResponse {
            response: Arc::new(response),
            item_ids: places.iter().map(|place| place.id.clone()).collect(),
        };
        let key = (owner, id.to_owned());
        let mut state = self.state();
        let mut freed = state.take_expired(now_ms);
        if let Some(before) = state.responses.remove(&key) {
            state.forget_items(&key, &before);
            freed.push(before);
        }
        for place in places {
            let item = (owner, place.id.clone());
            state.items.insert(item, (id.to_owned(), place));
        }
        freed.extend(state.responses.insert(key, stored, now_ms));
        drop(state);
        drop(freed);
        self.make_room();
    }

    /// Removes what is beyond the bounds, the least recently used first.
    fn make_room(&self) {
        loop {
            let mut state = self.state();
            let bounds = state.bounds;
            while state.made.len() > bounds.max_items {
                state.made.pop();
            }
            let is_full = state.responses.len() > bounds.max_items
                || self.bytes.get() > bounds.max_bytes
                || !bounds.enabled && state.responses.len() > 0;
            let popped = is_full.then(|| state.pop()).flatten();
            drop(state);
            // What it alone builds on is freed here.
            if popped.is_none() {
                return;
            }
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A response that is kept.
    pub(crate) fn find(&self, owner: Owner, id: &str, now_ms: u64) -> Option<Arc<KeptResponse>> {
        let mut state = self.state();
        let freed = state.take_expired(now_ms);
        let ttl_ms = state.bounds.ttl_ms;
        let found = state
            .responses
            .touch(&(owner, id.to_owned()), now_ms, ttl_ms);
        let found = found.map(|stored| Arc::clone(&stored.response));
        drop(state);
        drop(freed);
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// The JSON text of an item of a response that is kept.
    pub(crate) fn item(&self, owner: Owner, id: &str, now_ms: u64) -> Option<Vec<u8>> {
        let mut state = self.state();
        let (response, place) = state.items.get(&(owner, id.to_owned()))?.clone();
        let ttl_ms = state.bounds.ttl_ms;
        let stored = state.responses.touch(&(owner, response), now_ms, ttl_ms)?;
        let response = Arc::clone(&stored.response);
        drop(state);
        response.item(&place).map(<[u8]>::to_vec)
    }

    /// Forgets a response; false if it is not kept. Others that build on it still work.
    pub(crate) fn delete(&self, owner: Owner, id: &str, now_ms: u64) -> bool {
        let key = (owner, id.to_owned());
        let mut state = self.state();
        let ttl_ms = state.bounds.ttl_ms;
        let is_kept = state.responses.touch(&key, now_ms, ttl_ms).is_some();
        let removed = state.responses.remove(&key);
        if let Some(removed) = &removed {
            state.forget_items(&key, removed);
        }
        drop(state);
        is_kept
    }

    /// Remembers which endpoint made a response that is not kept here.
    pub(crate) fn note_made(&self, owner: Owner, id: &str, endpoint: &Arc<str>, now_ms: u64) {
        let mut state = self.state();
        let ttl_ms = state.bounds.ttl_ms;
        for _ in 0..EXPIRED_AT_ONCE {
            if state.made.pop_expired(now_ms, ttl_ms).is_none() {
                break;
            }
        }
        let key = (owner, id.to_owned());
        state.made.insert(key, Arc::clone(endpoint), now_ms);
        if state.made.len() > state.bounds.max_items {
            state.made.pop();
        }
    }

    /// The endpoint that made a response.
    pub(crate) fn made_by(&self, owner: Owner, id: &str, now_ms: u64) -> Option<Arc<str>> {
        let mut state = self.state();
        let ttl_ms = state.bounds.ttl_ms;
        let made = state.made.touch(&(owner, id.to_owned()), now_ms, ttl_ms);
        made.map(Arc::clone)
    }

    /// Its state now.
    pub(crate) fn counts(&self, now_ms: u64) -> StoreCounts {
        loop {
            let mut state = self.state();
            let expired = state.take_expired(now_ms);
            if expired.is_empty() {
                return StoreCounts {
                    bounds: state.bounds,
                    items: state.responses.len(),
                    bytes: self.bytes.get(),
                    hits: self.hits.load(Ordering::Relaxed),
                    misses: self.misses.load(Ordering::Relaxed),
                    evictions: self.evictions.load(Ordering::Relaxed),
                };
            }
            drop(state);
        }
    }
}

impl StoreState {
    /// Removes some of what is older than allowed.
    fn take_expired(&mut self, now_ms: u64) -> Vec<StoredResponse> {
        let mut taken = Vec::new();
        while taken.len() < EXPIRED_AT_ONCE {
            let ttl_ms = self.bounds.ttl_ms;
            let Some((key, stored)) = self.responses.pop_expired(now_ms, ttl_ms) else {
                break;
            };
            self.forget_items(&key, &stored);
            taken.push(stored);
        }
        taken
    }

    fn pop(&mut self) -> Option<StoredResponse> {
        let (key, stored) = self.responses.pop()?;
        self.forget_items(&key, &stored);
        Some(stored)
    }

    /// Removes the items of a response, unless a later one has them too.
    fn forget_items(&mut self, key: &OwnedId, stored: &StoredResponse) {
        let (owner, response) = key;
        for id in &stored.item_ids {
            let item = (*owner, id.clone());
            if self.items.get(&item).is_some_and(|(of, _)| of == response) {
                self.items.remove(&item);
            }
        }
    }
}

#[cfg(test)]
mod tests;
