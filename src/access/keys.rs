//! The table of keys: by hash for requests, by name for operators.
//!
//! Contract: docs/contract/access.md#4, docs/contract/access.md#17

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::sync::Arc;

use super::{Access, AccessSources, CountersBook, Key, Policy, find};
use crate::config::{KeyDigest, KeyPlan, KeySource, PolicyOverrides};

/// A key of the state store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredKey {
    /// The key.
    pub plan: Arc<KeyPlan>,
    /// The secret before, and the milliseconds since 1970 from which it is no longer valid.
    pub old: Option<Box<(KeyDigest, u64)>>,
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
    /// The index. At most half of the slots are taken, and their number is a power of two.
    slots: Vec<Slot>,
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

/// A slot of the index.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Some bits of the hash, so that hardly any other key has to be looked at.
    tag: u32,
    /// A place in `sorted`, or behind those in `old`; [`EMPTY`] = none.
    place: u32,
}

const EMPTY: u32 = u32::MAX;

/// What a key is made of.
#[derive(Clone, Copy)]
struct Origin<'a> {
    plan: &'a Arc<KeyPlan>,
    /// Its entry, if it is one of the state store.
    stored: Option<&'a StoredKey>,
}

/// Makes keys in the order of their names, with what is still valid of the state before.
struct Builder<'a> {
    book: &'a CountersBook,
    policies: &'a [Arc<Policy>],
    /// Whether the policies are those of the state before.
    is_same_policies: bool,
    /// The keys of the state before whose names have not come up yet.
    before: &'a [Arc<Key>],
    /// The policies with own fields that were made: keys that have the same share one.
    own: HashMap<(&'a str, &'a PolicyOverrides), Arc<Policy>>,
}

impl<'a> Builder<'a> {
    /// The key that had this name. Names before it are gone; their counters are kept.
    fn before(&mut self, name: &str) -> Option<&'a Arc<Key>> {
        loop {
            let (first, rest) = self.before.split_first()?;
            match (*first.name).cmp(name) {
                Ordering::Less => self.book.keep(first),
                Ordering::Equal => {
                    self.before = rest;
                    return Some(first);
                }
                Ordering::Greater => return None,
            }
            self.before = rest;
        }
    }

    /// The key of an origin, whose name `old` had before; `None` if its policy is gone.
    fn make(&mut self, origin: Origin<'a>, old: Option<&'a Arc<Key>>) -> Option<Arc<Key>> {
        let plan = origin.plan;
        let created_ms = origin.stored.map(|stored| stored.created_ms);
        let same =
            old.filter(|old| Arc::ptr_eq(old.plan(), plan) && old.created_ms() == created_ms);
        if let Some(same) = same.filter(|_| self.is_same_policies) {
            return Some(Arc::clone(same));
        }
        let policy = find(self.policies, &plan.policy)?;
        let policy = match plan.overrides.as_deref() {
            None => Arc::clone(policy),
            Some(own) => {
                let made = self.own.entry((&plan.policy, own));
                Arc::clone(made.or_insert_with(|| policy.with(own)))
            }
        };
        if let Some(same) = same.filter(|same| Arc::ptr_eq(&same.policy, &policy)) {
            return Some(Arc::clone(same));
        }
        let counters = match old {
            Some(old) => Arc::clone(&old.counters),
            None => self.book.claim(&plan.name),
        };
        Some(Arc::new(Key::new(plan, policy, counters, created_ms)))
    }
}

/// The origins of all sources by name. Of one name, that of the configuration or the file comes first.
fn origins<'a>(sources: &AccessSources<'a>) -> Vec<Origin<'a>> {
    let configured = sources.plan.keys.iter().chain(sources.file);
    let configured = configured.map(|plan| Origin { plan, stored: None });
    let stored = sources.stored.iter().map(|stored| Origin {
        plan: &stored.plan,
        stored: Some(stored),
    });
    let mut origins: Vec<_> = configured.chain(stored).collect();
    origins.sort_by(|a, b| a.plan.name.cmp(&b.plan.name));
    origins
}

impl Keys {
    /// The keys of all sources, whose policies are in the list. Keys that have not changed stay the
    /// same objects, and names keep their counters.
    pub(super) fn build(
        sources: &AccessSources<'_>,
        policies: &[Arc<Policy>],
        before: &Access,
    ) -> Self {
        let pairs = policies.iter().zip(&before.policies);
        let mut builder = Builder {
            book: sources.book,
            policies,
            is_same_policies: policies.len() == before.policies.len() && { pairs }
                .all(|(new, old)| Arc::ptr_eq(new, old)),
            before: &before.keys.sorted,
            own: HashMap::new(),
        };
        // The hashes that stored keys may not have.
        let configured = sources.plan.keys.iter().chain(sources.file);
        let configured = configured.take_while(|_| !sources.stored.is_empty());
        let taken: HashSet<&KeyDigest> = configured.map(|plan| &plan.digest).collect();
        let origins = origins(sources);
        let mut keys = Self {
            sorted: Vec::with_capacity(origins.len()),
            ..Self::default()
        };
        for origin in origins {
            let name = &origin.plan.name;
            let is_name_taken = keys.sorted.last().is_some_and(|last| last.name == *name);
            let old = if is_name_taken {
                None
            } else {
                builder.before(name)
            };
            let is_digest_taken = origin.stored.is_some() && taken.contains(&origin.plan.digest);
            let is_free = !is_name_taken && !is_digest_taken;
            match is_free.then(|| builder.make(origin, old)).flatten() {
                Some(key) => keys.push(key, origin.stored, &taken),
                None => {
                    old.into_iter().for_each(|old| sources.book.keep(old));
                    keys.aside.push(Arc::clone(name));
                }
            }
        }
        builder
            .before
            .iter()
            .for_each(|gone| sources.book.keep(gone));
        keys.place_all();
        keys
    }

    /// Appends a key, and its secret before if no other source has that.
    fn push(&mut self, key: Arc<Key>, stored: Option<&StoredKey>, taken: &HashSet<&KeyDigest>) {
        let place = u32::try_from(self.sorted.len()).unwrap_or(EMPTY);
        let old = stored.and_then(|stored| stored.old.as_deref());
        if let Some((digest, until_ms)) = old.filter(|(digest, _)| !taken.contains(digest)) {
            self.old.push(OldSecret {
                digest: *digest,
                key: place,
                until_ms: *until_ms,
            });
        }
        let sources = KeySource::ALL.iter().zip(&mut self.counts);
        for (_, count) in sources.filter(|(source, _)| **source == key.source) {
            *count += 1;
        }
        self.sorted.push(key);
    }

    /// Enters all secrets into the index.
    fn place_all(&mut self) {
        let count = self.sorted.len() + self.old.len();
        let empty = Slot {
            tag: 0,
            place: EMPTY,
        };
        self.slots = vec![empty; (count * 2).next_power_of_two()];
        for place in 0..count {
            self.place(place);
        }
    }

    /// Enters a secret into the index.
    fn place(&mut self, place: usize) {
        let Some((digest, _)) = self.secret(place) else {
            return;
        };
        let mask = self.slots.len() - 1;
        let (mut at, tag) = (start(digest) & mask, tag(digest));
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.place == EMPTY {
                let place = u32::try_from(place).unwrap_or(EMPTY);
                *slot = Slot { tag, place };
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
        let (mut at, tag) = (start(digest) & mask, tag(digest));
        loop {
            let slot = *self.slots.get(at)?;
            if slot.place == EMPTY {
                return None;
            }
            at = (at + 1) & mask;
            if slot.tag != tag {
                continue;
            }
            let place = slot.place as usize;
            let (own, old) = self.secret(place)?;
            if is_same(own, digest) {
                let place = match old {
                    Some(old) if old.until_ms <= now_ms => return None,
                    Some(old) => old.key as usize,
                    None => place,
                };
                return self.sorted.get(place);
            }
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

/// Where the search for a hash begins: its first bits, which are evenly distributed.
fn start(digest: &KeyDigest) -> usize {
    let first = digest.as_bytes().first_chunk::<8>();
    first.map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize)
}

/// What a slot keeps of a hash: bits that [`start`] does not use.
fn tag(digest: &KeyDigest) -> u32 {
    let last = digest.as_bytes().last_chunk::<4>();
    last.map_or(0, |bytes| u32::from_le_bytes(*bytes))
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
    use crate::config::{KeyAccessPlan, KeyFields, PolicyPlan};
    use std::time::Duration;

    fn digest(name: &str) -> KeyDigest {
        KeyDigest::of(name.as_bytes())
    }

    fn fields(name: &str) -> KeyFields {
        KeyFields::new(name.into(), "default".into())
    }

    fn key_plan(name: &str, secret: &str, source: KeySource) -> Arc<KeyPlan> {
        Arc::new(KeyPlan {
            fields: fields(name),
            digest: digest(secret),
            source,
        })
    }

    fn plan(names: &[&str]) -> KeyAccessPlan {
        let key = |name: &&str| key_plan(name, name, KeySource::Config);
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
        let mut other = plan(&["a", "b"]);
        let one = build(&other, &[], &book, &Access::default());
        Arc::make_mut(&mut other.keys)[1] = key_plan("b", "new", KeySource::Config);
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
        // A name that is gone for a while finds its counters again, also after access was off.
        let gone = build(&plan(&["b"]), &[], &book, &three);
        assert!(gone.keys.named("a").is_none());
        other.enabled = false;
        let off = build(&other, &[], &book, &gone);
        other.enabled = true;
        let four = build(&other, &[], &book, &off);
        for name in ["a", "b"] {
            let (old, new) = (named(&one, name), named(&four, name));
            assert!(Arc::ptr_eq(&old.counters, &new.counters), "{name}");
        }
    }

    #[test]
    fn keys_with_the_same_own_fields_share_a_policy() {
        let own = |limit| {
            Some(Arc::new(PolicyOverrides {
                tokens_per_day: Some(limit),
                ..PolicyOverrides::default()
            }))
        };
        let mut plan = plan(&["a", "b", "c", "d"]);
        for (key, limit) in Arc::make_mut(&mut plan.keys).iter_mut().zip([5, 6, 5]) {
            Arc::make_mut(key).fields.overrides = own(limit);
        }
        let book = CountersBook::default();
        let access = build(&plan, &[], &book, &Access::default());
        let policy = |name: &str| &access.keys.named(name).unwrap().policy;
        let limits = ["a", "b", "c", "d"].map(|name| policy(name).fields.limits.tokens_per_day);
        assert_eq!(limits, [5, 6, 5, 0]);
        assert!(Arc::ptr_eq(policy("a"), policy("c")));
        // With the same policies, keys with own fields stay the same too.
        let again = build(&plan, &[], &book, &access);
        let (old, new) = (access.keys.named("b"), again.keys.named("b"));
        assert!(Arc::ptr_eq(old.unwrap(), new.unwrap()));
    }

    #[test]
    fn a_rotated_secret_is_valid_until_its_grace_ends() {
        let stored = |name: &str, own: &str, old: Option<(KeyDigest, u64)>| StoredKey {
            plan: key_plan(name, own, KeySource::Store),
            old: old.map(Box::new),
            created_ms: 5,
        };
        let stored = [
            stored("a", "x", None),
            stored("s", "new", Some((digest("old"), 100))),
            stored("t", "a", None),
        ];
        let book = CountersBook::default();
        let access = build(&plan(&["a"]), &stored, &book, &Access::default());
        let keys = &access.keys;
        assert_eq!(
            keys.find(&digest("new"), 500).unwrap().created_ms(),
            Some(5)
        );
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
        assert_eq!(keys.count(KeySource::Store), 1);
        // Without the other, both come back.
        let alone = build(&plan(&[]), &stored, &book, &access);
        assert!(alone.keys.aside().is_empty());
        assert_eq!(alone.keys.named("a").unwrap().source, KeySource::Store);
    }
}
