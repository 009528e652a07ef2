//! The table of keys: by hash for requests, by name for operators.
//!
//! Contract: docs/contract/access.md#4, docs/contract/access.md#17

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;

use super::{AccessSources, Key, Policy, find};
use crate::config::{KeyDigest, KeyFields, KeySource};

/// A key of the state store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredKey {
    /// All but the secret.
    pub fields: KeyFields,
    /// What is kept of the secret.
    pub digest: KeyDigest,
    /// The secret before, and the milliseconds since 1970 from which it is no longer valid.
    pub old: Option<(KeyDigest, u64)>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// All keys with a secret. The index over the hashes sees only bits of hashes, and the comparison
/// that decides takes the same time whatever differs.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// By name.
    sorted: Vec<Arc<Key>>,
    secrets: Vec<KeySecret>,
    /// Places in `secrets`, [`EMPTY`] where there is none; the length is a power of two.
    slots: Vec<u32>,
    /// Stored keys of which another source has the name or the hash, by name.
    aside: Vec<Box<str>>,
}

#[derive(Debug)]
struct KeySecret {
    digest: KeyDigest,
    /// Its place in `sorted`.
    key: u32,
    /// Milliseconds since 1970 from which it is no longer valid.
    until_ms: u64,
}

const EMPTY: u32 = u32::MAX;

/// A secret that is valid as long as its key.
const ALWAYS: u64 = u64::MAX;

/// A key and its secrets, before they have places.
struct Made {
    key: Arc<Key>,
    old: Option<(KeyDigest, u64)>,
}

impl Keys {
    /// The keys of all sources, whose policies are in the list.
    pub(super) fn build(sources: &AccessSources<'_>, policies: &[Arc<Policy>]) -> Self {
        let book = sources.book;
        let configured = || sources.plan.keys.iter().chain(sources.file);
        let mut made = Vec::with_capacity(configured().count() + sources.stored.len());
        for plan in configured() {
            if let Some(policy) = find(policies, &plan.fields.policy) {
                let key = Key::new(&plan.fields, plan.digest, plan.source, policy, book);
                let key = Arc::new(key);
                made.push(Made { key, old: None });
            }
        }
        let mut aside = Vec::new();
        if !sources.stored.is_empty() {
            let names: HashSet<&str> = configured().map(|plan| &*plan.fields.name).collect();
            let digests: HashSet<KeyDigest> = configured().map(|plan| plan.digest).collect();
            for stored in sources.stored {
                let is_taken =
                    names.contains(&*stored.fields.name) || digests.contains(&stored.digest);
                let Some(policy) = find(policies, &stored.fields.policy).filter(|_| !is_taken)
                else {
                    aside.push(stored.fields.name.clone());
                    continue;
                };
                let source = KeySource::Store;
                let mut key = Key::new(&stored.fields, stored.digest, source, policy, book);
                key.created_ms = Some(stored.created_ms);
                let old = stored.old.filter(|(old, _)| !digests.contains(old));
                let key = Arc::new(key);
                made.push(Made { key, old });
            }
        }
        made.sort_unstable_by(|a, b| a.key.name.cmp(&b.key.name));
        Self::placed(made, aside)
    }

    fn placed(made: Vec<Made>, aside: Vec<Box<str>>) -> Self {
        let count = made
            .iter()
            .map(|made| 1 + usize::from(made.old.is_some()))
            .sum::<usize>();
        let mut keys = Self {
            sorted: Vec::with_capacity(made.len()),
            secrets: Vec::with_capacity(count),
            slots: vec![EMPTY; (count * 2).next_power_of_two()],
            aside,
        };
        for Made { key, old } in made {
            let place = u32::try_from(keys.sorted.len()).unwrap_or(EMPTY);
            let digest = key.digest;
            keys.sorted.push(key);
            keys.place(digest, place, ALWAYS);
            if let Some((digest, until_ms)) = old {
                keys.place(digest, place, until_ms);
            }
        }
        keys
    }

    fn place(&mut self, digest: KeyDigest, key: u32, until_ms: u64) {
        let secret = u32::try_from(self.secrets.len()).unwrap_or(EMPTY);
        let mask = self.slots.len() - 1;
        let mut at = start(&digest) & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == EMPTY {
                *slot = secret;
                break;
            }
            at = (at + 1) & mask;
        }
        self.secrets.push(KeySecret {
            digest,
            key,
            until_ms,
        });
    }

    /// The key of a secret with this hash, live or not. `now_ms` in milliseconds since 1970.
    pub(crate) fn find(&self, digest: &KeyDigest, now_ms: u64) -> Option<&Arc<Key>> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = start(digest) & mask;
        // At most half of the slots are taken, so that an empty one ends the search.
        loop {
            let slot = *self.slots.get(at)?;
            if slot == EMPTY {
                return None;
            }
            let secret = self.secrets.get(slot as usize)?;
            if is_same(&secret.digest, digest) {
                return self
                    .sorted
                    .get(secret.key as usize)
                    .filter(|_| now_ms < secret.until_ms);
            }
            at = (at + 1) & mask;
        }
    }

    /// The key of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Key>> {
        let at = self.sorted.binary_search_by(|key| (*key.name).cmp(name));
        at.ok().and_then(|at| self.sorted.get(at))
    }

    /// All keys, by name.
    pub(crate) fn all(&self) -> &[Arc<Key>] {
        &self.sorted
    }

    /// The names of the stored keys that another source displaces.
    pub(crate) fn aside(&self) -> &[Box<str>] {
        &self.aside
    }
}

/// Where the search for a hash begins: its first bits, which are evenly distributed.
fn start(digest: &KeyDigest) -> usize {
    let first = digest.as_bytes().first_chunk::<8>();
    first.map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize)
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
fn is_same(a: &KeyDigest, b: &KeyDigest) -> bool {
    let pairs = a.as_bytes().iter().zip(b.as_bytes());
    let difference = pairs.fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    black_box(difference) == 0
}
