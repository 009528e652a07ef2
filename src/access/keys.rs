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
    /// The secrets that keys had before and that are still valid.
    old: Vec<OldSecret>,
    /// Places in `sorted`, behind those in `old`; [`EMPTY`] where there is none. At most half of
    /// them are taken, and their number is a power of two.
    slots: Vec<u32>,
    /// Stored keys of which another source has the name or the hash.
    aside: Vec<Arc<str>>,
    /// In the order of [`KeySource::ALL`].
    counts: [usize; KeySource::ALL.len()],
}

#[derive(Debug)]
struct OldSecret {
    digest: KeyDigest,
    /// The place of its key in `sorted`.
    key: u32,
    /// Milliseconds since 1970 from which it is no longer valid.
    until_ms: u64,
}

const EMPTY: u32 = u32::MAX;

/// A key and its secret before, before they have places.
struct Made {
    key: Arc<Key>,
    old: Option<(KeyDigest, u64)>,
}

/// What a key is made of.
struct Origin<'a> {
    fields: &'a KeyFields,
    digest: KeyDigest,
    source: KeySource,
    created_ms: Option<u64>,
}

impl Keys {
    /// The keys of all sources, whose policies are in the list. Keys that have not changed stay the
    /// same objects.
    pub(super) fn build(
        sources: &AccessSources<'_>,
        policies: &[Arc<Policy>],
        before: &Self,
    ) -> Self {
        let make = |origin: &Origin<'_>| {
            let policy = find(policies, &origin.fields.policy)?;
            let same = before.same(origin, policy).map(Arc::clone);
            Some(same.unwrap_or_else(|| Arc::new(new_key(origin, policy, sources))))
        };
        let configured = || sources.plan.keys.iter().chain(sources.file);
        let mut made = Vec::with_capacity(configured().count() + sources.stored.len());
        made.extend(configured().filter_map(|plan| {
            let key = make(&Origin {
                fields: &plan.fields,
                digest: plan.digest,
                source: plan.source,
                created_ms: None,
            })?;
            Some(Made { key, old: None })
        }));
        let mut aside = Vec::new();
        if !sources.stored.is_empty() {
            let names: HashSet<&str> = configured().map(|plan| &*plan.fields.name).collect();
            let digests: HashSet<KeyDigest> = configured().map(|plan| plan.digest).collect();
            for stored in sources.stored {
                let is_taken =
                    names.contains(&*stored.fields.name) || digests.contains(&stored.digest);
                let origin = Origin {
                    fields: &stored.fields,
                    digest: stored.digest,
                    source: KeySource::Store,
                    created_ms: Some(stored.created_ms),
                };
                match make(&origin).filter(|_| !is_taken) {
                    Some(key) => {
                        let old = stored.old.filter(|(old, _)| !digests.contains(old));
                        made.push(Made { key, old });
                    }
                    None => aside.push(Arc::clone(&stored.fields.name)),
                }
            }
        }
        made.sort_unstable_by(|a, b| a.key.name.cmp(&b.key.name));
        Self::placed(made, aside)
    }

    /// The key of the name, if it was made of the same.
    fn same(&self, origin: &Origin<'_>, policy: &Arc<Policy>) -> Option<&Arc<Key>> {
        let fields = origin.fields;
        self.named(&fields.name).filter(|key| {
            fields.overrides.is_none()
                && Arc::ptr_eq(&key.policy, policy)
                && key.digest == origin.digest
                && key.source == origin.source
                && key.enabled == fields.enabled
                && key.expires_ms == fields.expires_ms
                && key.created_ms == origin.created_ms
                && key.note == fields.note
        })
    }

    fn placed(made: Vec<Made>, aside: Vec<Arc<str>>) -> Self {
        let secrets = |made: &Made| 1 + usize::from(made.old.is_some());
        let count: usize = made.iter().map(secrets).sum();
        let of_source = |source| made.iter().filter(|made| made.key.source == source).count();
        let mut keys = Self {
            sorted: Vec::with_capacity(made.len()),
            old: Vec::new(),
            slots: vec![EMPTY; (count * 2).next_power_of_two()],
            aside,
            counts: KeySource::ALL.map(of_source),
        };
        for (place, Made { key, old }) in (0..).zip(made) {
            if let Some((digest, until_ms)) = old {
                keys.old.push(OldSecret {
                    digest,
                    key: place,
                    until_ms,
                });
            }
            keys.sorted.push(key);
        }
        for place in 0..count {
            keys.place(place);
        }
        keys
    }

    /// Enters a secret into the index.
    fn place(&mut self, place: usize) {
        let Some((digest, _)) = self.secret(place) else {
            return;
        };
        let mask = self.slots.len() - 1;
        let mut at = start(digest) & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == EMPTY {
                *slot = u32::try_from(place).unwrap_or(EMPTY);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// The hash of a place and, for an old one, its entry.
    fn secret(&self, place: usize) -> Option<(&KeyDigest, Option<&OldSecret>)> {
        match self.sorted.get(place) {
            Some(key) => Some((&key.digest, None)),
            None => {
                let old = self.old.get(place - self.sorted.len())?;
                Some((&old.digest, Some(old)))
            }
        }
    }

    /// The key of a secret with this hash, live or not. `now_ms` in milliseconds since 1970.
    pub(crate) fn find(&self, digest: &KeyDigest, now_ms: u64) -> Option<&Arc<Key>> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = start(digest) & mask;
        loop {
            let slot = *self.slots.get(at)?;
            if slot == EMPTY {
                return None;
            }
            let place = slot as usize;
            let (own, old) = self.secret(place)?;
            if is_same(own, digest) {
                let place = match old {
                    Some(old) if old.until_ms <= now_ms => return None,
                    Some(old) => old.key as usize,
                    None => place,
                };
                return self.sorted.get(place);
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

    /// The number of keys of a source.
    pub(crate) fn count(&self, source: KeySource) -> usize {
        let counts = KeySource::ALL.into_iter().zip(self.counts);
        counts
            .filter(|(each, _)| *each == source)
            .map(|(_, count)| count)
            .sum()
    }

    /// The names of the stored keys that another source displaces.
    pub(crate) fn aside(&self) -> &[Arc<str>] {
        &self.aside
    }
}

fn new_key(origin: &Origin<'_>, policy: &Arc<Policy>, sources: &AccessSources<'_>) -> Key {
    let (fields, digest) = (origin.fields, origin.digest);
    let mut key = Key::new(fields, digest, origin.source, policy, sources.book);
    key.created_ms = origin.created_ms;
    key
}

/// Where the search for a hash begins: its first bits, which are evenly distributed.
fn start(digest: &KeyDigest) -> usize {
    let first = digest.as_bytes().first_chunk::<8>();
    first.map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize)
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
fn is_same(a: &KeyDigest, b: &KeyDigest) -> bool {
    let (a, _) = a.as_bytes().as_chunks::<8>();
    let (b, _) = b.as_bytes().as_chunks::<8>();
    let words = a.iter().zip(b);
    let difference = words.fold(0, |difference, (a, b)| {
        black_box(difference | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)))
    });
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Access, CountersBook};
    use crate::config::{KeyAccessPlan, KeyPlan, PolicyPlan};
    use std::time::Duration;

    fn digest(name: &str) -> KeyDigest {
        KeyDigest::of(name.as_bytes())
    }

    fn fields(name: &str) -> KeyFields {
        KeyFields {
            name: name.into(),
            policy: "default".into(),
            enabled: true,
            expires_ms: None,
            note: "".into(),
            overrides: None,
        }
    }

    fn plan(names: &[&str]) -> KeyAccessPlan {
        let key = |name: &&str| KeyPlan {
            fields: fields(name),
            digest: digest(name),
            source: KeySource::Config,
        };
        KeyAccessPlan {
            enabled: true,
            keys: Arc::new(names.iter().map(key).collect()),
            keys_file: None,
            policies: Arc::new(vec![PolicyPlan::open("default")]),
            anonymous: None,
            placeholders: Vec::new(),
            default_output_tokens: 1,
            max_refused_per_minute: 0,
            session_ttl: Duration::ZERO,
            jwt: None,
        }
    }

    fn build(
        plan: &KeyAccessPlan,
        stored: &[StoredKey],
        book: &CountersBook,
        before: &Access,
    ) -> Access {
        let sources = AccessSources {
            plan: &Arc::new(plan.clone()),
            file: &[],
            stored,
            book,
        };
        Access::build(&sources, before)
    }

    #[test]
    fn keys_are_found_by_hash_and_by_name() {
        let names: Vec<String> = (0..1_000).map(|number| format!("k{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let book = CountersBook::default();
        let access = build(&plan(&names), &[], &book, &Access::default());
        for name in &names {
            let key = access.keys.find(&digest(name), 0).unwrap();
            assert_eq!(&*key.name, *name);
            assert!(Arc::ptr_eq(key, access.keys.named(name).unwrap()));
        }
        assert!(access.keys.find(&digest("other"), 0).is_none());
        assert!(access.keys.named("other").is_none());
        assert!(Access::default().keys.find(&digest("k1"), 0).is_none());
        assert_eq!(access.keys.count(KeySource::Config), 1_000);
    }

    #[test]
    fn unchanged_keys_stay_the_same_objects_and_names_keep_their_counters() {
        let book = CountersBook::default();
        let one = build(&plan(&["a", "b"]), &[], &book, &Access::default());
        let mut other = plan(&["a", "b"]);
        let keys = Arc::make_mut(&mut other.keys);
        keys[1].digest = digest("new");
        let two = build(&other, &[], &book, &one);
        let named = |access: &Access, name: &str| Arc::clone(access.keys.named(name).unwrap());
        assert!(Arc::ptr_eq(&named(&one, "a"), &named(&two, "a")));
        assert!(!Arc::ptr_eq(&named(&one, "b"), &named(&two, "b")));
        assert!(Arc::ptr_eq(
            &named(&one, "b").counters,
            &named(&two, "b").counters
        ));
        assert!(two.keys.find(&digest("b"), 0).is_none());
        // Another policy of the same name changes its keys.
        Arc::make_mut(&mut other.policies)[0]
            .fields
            .max_output_tokens = 7;
        let three = build(&other, &[], &book, &two);
        assert_eq!(named(&three, "a").policy.fields.max_output_tokens, 7);
        assert_eq!(named(&two, "a").policy.fields.max_output_tokens, 0);
    }

    #[test]
    fn a_rotated_secret_is_valid_until_its_grace_ends() {
        let stored = |name: &str, own: &str, old: Option<(KeyDigest, u64)>| StoredKey {
            fields: fields(name),
            digest: digest(own),
            old,
            created_ms: 5,
        };
        let stored = [
            stored("s", "new", Some((digest("old"), 100))),
            stored("a", "x", None),
            stored("t", "a", None),
        ];
        let book = CountersBook::default();
        let access = build(&plan(&["a"]), &stored, &book, &Access::default());
        let keys = &access.keys;
        assert_eq!(keys.find(&digest("new"), 500).unwrap().created_ms, Some(5));
        assert!(Arc::ptr_eq(
            keys.find(&digest("old"), 99).unwrap(),
            keys.named("s").unwrap()
        ));
        assert!(keys.find(&digest("old"), 100).is_none());
        // Another source has the name of one and the hash of the other.
        let aside: Vec<&str> = keys.aside().iter().map(|name| &**name).collect();
        assert_eq!(aside, ["a", "t"]);
        assert_eq!(keys.named("a").unwrap().source, KeySource::Config);
        assert!(keys.named("t").is_none());
    }
}
