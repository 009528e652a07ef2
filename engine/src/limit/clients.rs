//! A bucket for each client.
//!
//! The buckets are in a shared table in parts with a lock each. A core looks up only the
//! clients that its own small cache does not hold; for the others it goes straight to the bucket.
//! A bucket that the table drops is retired in its own atomic word, so a core that still caches it
//! notices at its next request and never admits from it beside its successor.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHasher;

use super::bucket::{Cell, Rate, Retired};
use super::lease::{Stash, lease_max};
use super::{Admission, Nanos};

/// Maximum number of buckets of one limiter, so that many addresses cannot fill the memory
/// (docs/contract/surface.md#10.2). About 100 bytes each.
pub const CLIENTS_MAX: usize = 100_000;

/// A bucket without a request for this long is dropped by the next sweep
/// (docs/contract/surface.md#10.2).
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// [`FORGOTTEN_AFTER`], in the unit of this module.
const FORGOTTEN: Nanos = 600_000_000_000;
const _: () = assert!(FORGOTTEN as u128 == FORGOTTEN_AFTER.as_nanos());

/// Parts of the table. More than cores that would meet at one lock.
const PARTS: usize = 16;

/// When a part is full, this fraction of it, the buckets unused the longest, goes at once: finding
/// them takes a walk over the part, which is so paid for by many new addresses.
const EVICTED_PART: usize = 32;

/// Sets of a core's cache, a power of two, and the clients in each.
const SETS: usize = 512;
const WAYS: usize = 2;
const _: () = assert!(SETS.is_power_of_two());

/// What identifies a client to a limit.
pub trait LimitKey: Copy + Eq + Hash + Debug {
    /// The one form of all keys that identify the same client.
    #[must_use]
    fn canonical(self) -> Self {
        self
    }

    /// Feeds the key to a hasher in as few steps as possible. It chooses a place in a core's cache.
    fn feed(self, hasher: &mut impl Hasher);
}

/// IPv4 addresses written as IPv6 ones are the same client.
impl LimitKey for IpAddr {
    fn canonical(self) -> Self {
        self.to_canonical()
    }

    fn feed(self, hasher: &mut impl Hasher) {
        match self {
            Self::V4(address) => hasher.write_u32(address.to_bits()),
            Self::V6(address) => hasher.write_u128(address.to_bits()),
        }
    }
}

type Part<K> = HashMap<K, Arc<Cell>>;

/// The buckets of all clients under one limit, shared by all cores.
#[derive(Debug)]
pub struct KeyedLimiter<K> {
    rate: Rate,
    lease_max: u32,
    part_max: usize,
    /// Keyed at random, so that no client can choose keys that meet in one part.
    hash: RandomState,
    parts: Box<[Mutex<Part<K>>]>,
}

impl<K: LimitKey> KeyedLimiter<K> {
    /// An empty table for the clients of `cores` cores.
    pub fn new(rate: Rate, cores: usize) -> Self {
        Self::with_bound(rate, cores, CLIENTS_MAX)
    }

    /// The same with another bound than [`CLIENTS_MAX`].
    pub fn with_bound(rate: Rate, cores: usize, clients_max: usize) -> Self {
        Self {
            rate,
            lease_max: lease_max(&rate, cores),
            part_max: (clients_max / PARTS).max(1),
            hash: RandomState::new(),
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Drops the buckets of clients that made no request for [`FORGOTTEN_AFTER`]; returns how many.
    /// To be called by the control thread, at the configured interval.
    pub fn sweep(&self, now: Nanos) -> usize {
        let mut dropped = 0;
        for part in &self.parts {
            let mut part = lock(part);
            let before = part.len();
            part.retain(|_, cell| {
                let keep = now.saturating_sub(cell.used()) < FORGOTTEN;
                if !keep {
                    cell.retire();
                }
                keep
            });
            dropped += before - part.len();
            if part.len() < part.capacity() / 4 {
                part.shrink_to_fit();
            }
        }
        dropped
    }

    /// Number of clients with a bucket.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }

    /// Whether no client has a bucket.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bucket of a client; a new one is full.
    fn cell(&self, client: K, now: Nanos) -> Arc<Cell> {
        let mut part = self.part(client);
        if let Some(cell) = part.get(&client) {
            return Arc::clone(cell);
        }
        if part.len() >= self.part_max {
            evict(&mut part);
        }
        let cell = Arc::new(Cell::new());
        // Not the oldest from its first moment on.
        cell.touch(now);
        part.insert(client, Arc::clone(&cell));
        cell
    }

    fn find(&self, client: K) -> Option<Arc<Cell>> {
        self.part(client).get(&client).cloned()
    }

    fn part(&self, client: K) -> MutexGuard<'_, Part<K>> {
        lock(&self.parts[self.hash.hash_one(client) as usize % PARTS])
    }
}

/// No code that can panic runs under these locks; the table would be valid even after a panic.
fn lock<K>(part: &Mutex<Part<K>>) -> MutexGuard<'_, Part<K>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops the buckets that were unused for the longest time.
fn evict<K: LimitKey>(part: &mut Part<K>) {
    let mut ages: Vec<_> = part.values().map(|cell| cell.used()).collect();
    let mut left = (ages.len() / EVICTED_PART).max(1);
    if ages.is_empty() {
        return;
    }
    let (_, newest, _) = ages.select_nth_unstable(left - 1);
    let newest = *newest;
    part.retain(|_, cell| {
        let keep = left == 0 || cell.used() > newest;
        if !keep {
            left -= 1;
            cell.retire();
        }
        keep
    });
}

/// A client in a core's cache.
#[derive(Debug)]
struct Slot<K> {
    client: K,
    cell: Arc<Cell>,
    stash: Stash,
}

/// One core's side of a [`KeyedLimiter`].
#[derive(Debug)]
pub struct KeyedShard<K> {
    limiter: Arc<KeyedLimiter<K>>,
    /// Begins the hash that chooses a set. A cheap hash will do: clients chosen to meet in one set
    /// only make the core look them up in the table.
    seed: usize,
    /// In each set the one used last comes first.
    sets: Box<[[Option<Slot<K>>; WAYS]]>,
}

impl<K: LimitKey> KeyedShard<K> {
    /// A core's side, with an empty cache.
    pub fn new(limiter: Arc<KeyedLimiter<K>>) -> Self {
        let seed = limiter.hash.hash_one("sets") as usize;
        Self {
            limiter,
            seed,
            sets: (0..SETS).map(|_| [const { None }; WAYS]).collect(),
        }
    }

    /// Takes a token from the client's bucket, if there is a whole one.
    pub fn take(&mut self, client: K, now: Nanos) -> Admission {
        let client = client.canonical();
        let limiter = &*self.limiter;
        let Some(set) = self.sets.get_mut(set_of(client, self.seed)) else {
            return limiter.rate.full(now);
        };
        loop {
            let slot = cached(set, limiter, client, now);
            match slot
                .stash
                .take(&slot.cell, &limiter.rate, limiter.lease_max, now)
            {
                Ok(grab) => return grab.admission(&limiter.rate, now),
                // The table dropped the bucket. The next one is new, so this ends.
                Err(Retired) => {
                    slot.cell = limiter.cell(client, now);
                    slot.stash = Stash::default();
                }
            }
        }
    }

    /// What [`KeyedShard::take`] would find, without taking and without making a bucket.
    pub fn peek(&self, client: K, now: Nanos) -> Admission {
        let client = client.canonical();
        let limiter = &*self.limiter;
        let set = self.sets.get(set_of(client, self.seed));
        let slot = set
            .into_iter()
            .flatten()
            .flatten()
            .find(|slot| slot.client == client);
        let known = match slot {
            Some(slot) => slot
                .cell
                .zero()
                .ok()
                .map(|zero| (zero, slot.stash.tokens(now))),
            None => None,
        };
        let known = known.or_else(|| {
            let cell = limiter.find(client)?;
            Some((cell.zero().ok()?, 0))
        });
        match known {
            Some((zero, aside)) => {
                let state = limiter.rate.admission(false, zero, aside, now);
                Admission {
                    admitted: state.remaining > 0,
                    ..state
                }
            }
            None => limiter.rate.full(now),
        }
    }

    /// Undoes a [`KeyedShard::take`] that admitted; see
    /// [`Bucket::give_back`](super::Bucket::give_back).
    pub fn give_back(&mut self, client: K) {
        let client = client.canonical();
        let limiter = &*self.limiter;
        // From the table, not the cache: a bucket that was dropped in between needs nothing back.
        if let Some(cell) = limiter.find(client) {
            cell.give_back(&limiter.rate, 1);
        }
    }

    /// Gives expired tokens back; see [`Leased::tick`](super::Leased::tick).
    pub fn tick(&mut self, now: Nanos) {
        let limiter = &*self.limiter;
        if limiter.lease_max > 1 {
            for slot in self.sets.iter_mut().flatten().flatten() {
                slot.stash.expire(&slot.cell, &limiter.rate, now);
            }
        }
    }
}

impl<K> Drop for KeyedShard<K> {
    fn drop(&mut self) {
        for slot in self.sets.iter_mut().flatten().flatten() {
            slot.stash.release(&slot.cell, &self.limiter.rate);
        }
    }
}

/// Which set of a core's cache a client is in.
fn set_of(client: impl LimitKey, seed: usize) -> usize {
    let mut hasher = FxHasher::with_seed(seed);
    client.feed(&mut hasher);
    hasher.finish() as usize % SETS
}

/// The client's place at the head of its set; another client may lose its own.
fn cached<'a, K: LimitKey>(
    set: &'a mut [Option<Slot<K>>; WAYS],
    limiter: &KeyedLimiter<K>,
    client: K,
    now: Nanos,
) -> &'a mut Slot<K> {
    let is_it = |slot: &Option<Slot<K>>| slot.as_ref().is_some_and(|slot| slot.client == client);
    let place = set.iter().position(is_it);
    let [first, rest @ ..] = set;
    match place {
        Some(0) => {}
        Some(place) => {
            if let Some(there) = rest.get_mut(place - 1) {
                std::mem::swap(first, there);
            }
        }
        None => {
            // The first entry moves to the last place, and the last one is dropped.
            if let Some(last) = rest.last_mut() {
                std::mem::swap(first, last);
            }
            if let Some(mut gone) = first.take() {
                gone.stash.release(&gone.cell, &limiter.rate);
            }
        }
    }
    first.get_or_insert_with(|| Slot {
        client,
        cell: limiter.cell(client, now),
        stash: Stash::default(),
    })
}
