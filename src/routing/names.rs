//! The index of model names: which endpoints list a name, in which spelling.
//!
//! It is built when a listing has changed. A lookup allocates only for names that are not ASCII or
//! long. Names are never merged by digest, family or size: a request goes only to endpoints that
//! report this name (docs/contract/catalogue.md#5.2).
//!
//! Contract: docs/contract/balancing.md#4.1

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::endpoint_set::EndpointSet;
use crate::providers::{NameForm, find_by_name, with_folded};

/// The names of all endpoints.
#[derive(Debug, Default)]
pub struct ModelIndex {
    exact: FxHashMap<Arc<str>, SetId>,
    /// The spellings of each name, by the name in lower case.
    folded: FxHashMap<Arc<str>, Spellings>,
    sets: Sets,
    ollama: EndpointSet,
}

/// The spellings of one name that differ only in letter case.
#[derive(Debug, Default)]
struct Spellings {
    endpoints: SetId,
    /// The first spelling in each endpoint's listing, sorted by endpoint; only spellings that are
    /// not in lower case.
    of_endpoint: Vec<(u32, Arc<str>)>,
}

/// Sets of endpoints, each kept once: there are far fewer than names.
#[derive(Debug, Default)]
struct Sets {
    all: Vec<EndpointSet>,
    /// A set and one more endpoint to the set of both.
    with: FxHashMap<(SetId, u32), SetId>,
}

/// The place of a set in [`Sets`] plus one.
type SetId = u32;

/// The empty set.
const EMPTY_SET: SetId = 0;

impl Sets {
    fn get(&self, id: SetId) -> EndpointSet {
        match id.checked_sub(1) {
            Some(at) => self.all[at as usize],
            None => EndpointSet::EMPTY,
        }
    }

    fn with(&mut self, id: SetId, endpoint: u32) -> SetId {
        let mut set = self.get(id);
        if set.contains(endpoint as usize) {
            return id;
        }
        *self.with.entry((id, endpoint)).or_insert_with(|| {
            set.insert(endpoint as usize);
            self.all.push(set);
            self.all.len() as SetId
        })
    }
}

impl ModelIndex {
    /// Indexes listings, one for each endpoint: its index, whether its type is `ollama`, and the
    /// names that it listed and its filter left.
    pub fn build<N>(listings: impl IntoIterator<Item = (usize, bool, N)>) -> Self
    where
        N: IntoIterator<Item: Into<Arc<str>>>,
    {
        let mut index = Self::default();
        for (endpoint, is_ollama, names) in listings {
            if is_ollama {
                index.ollama.insert(endpoint);
            }
            for name in names {
                index.add(endpoint as u32, &name.into());
            }
        }
        for spellings in index.folded.values_mut() {
            spellings.of_endpoint.sort_by_key(|(endpoint, _)| *endpoint);
            spellings.of_endpoint.shrink_to_fit();
        }
        // It is needed only while the index is built.
        index.sets.with = FxHashMap::default();
        index
    }

    fn add(&mut self, endpoint: u32, name: &Arc<str>) {
        let Self {
            exact,
            folded,
            sets,
            ..
        } = self;
        match exact.get_mut(name) {
            Some(listed) => *listed = sets.with(*listed, endpoint),
            None => {
                exact.insert(Arc::clone(name), sets.with(EMPTY_SET, endpoint));
            }
        }
        with_folded(name, "", |key| {
            let is_lower = *key == **name;
            let spellings = match folded.get_mut(key) {
                Some(known) => known,
                None => {
                    let key = if is_lower {
                        Arc::clone(name)
                    } else {
                        Arc::from(key)
                    };
                    folded.entry(key).or_default()
                }
            };
            let before = spellings.endpoints;
            spellings.endpoints = sets.with(before, endpoint);
            if spellings.endpoints != before && !is_lower {
                spellings.of_endpoint.push((endpoint, Arc::clone(name)));
            }
        });
    }

    /// Whether the endpoints of a scope list exactly one name between them.
    pub fn has_one_name(&self, scope: &EndpointSet) -> bool {
        let listed = self.exact.values();
        let mut names = listed.filter(|id| !self.sets.get(**id).and(scope).is_empty());
        names.next().is_some() && names.next().is_none()
    }

    /// The endpoints of a scope that have a model: those that list it in this spelling; if there
    /// are none, in any letter case; if there are none and the name has no tag, the Ollama
    /// endpoints that list it as `:latest`.
    pub fn find(&self, name: &str, scope: &EndpointSet) -> EndpointSet {
        if let Some(listed) = self.exact.get(name) {
            let found = self.sets.get(*listed).and(scope);
            if !found.is_empty() {
                return found;
            }
        }
        let look = |key: &str, form: NameForm| {
            let among = match form {
                NameForm::Own => *scope,
                NameForm::Completed => self.ollama.and(scope),
            };
            let found = self.folded_in(key, &among);
            (!found.is_empty()).then_some(found)
        };
        find_by_name(name, look).unwrap_or(EndpointSet::EMPTY)
    }

    /// Every name that is listed, in any order.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.exact.keys().map(|name| &**name)
    }

    /// The endpoint's spelling of a name that it lists, perhaps in another letter case. `None` if
    /// it does not list the name. Also `None` if it lists the name only with a tag, because the
    /// endpoint understands the name without the tag.
    pub fn spelling(&self, endpoint: usize, name: &str) -> Option<&str> {
        let has = |set: SetId| self.sets.get(set).contains(endpoint);
        if let Some((own, listed)) = self.exact.get_key_value(name)
            && has(*listed)
        {
            return Some(own);
        }
        with_folded(name, "", |key| {
            let (lower, spellings) = self.folded.get_key_value(key)?;
            let number = u32::try_from(endpoint).ok()?;
            let others = &spellings.of_endpoint;
            match others.binary_search_by_key(&number, |(endpoint, _)| *endpoint) {
                Ok(at) => others.get(at).map(|(_, own)| &**own),
                Err(_) => has(spellings.endpoints).then_some(&**lower),
            }
        })
    }

    fn folded_in(&self, key: &str, scope: &EndpointSet) -> EndpointSet {
        let spellings = self.folded.get(key);
        let listed = spellings.map_or(EMPTY_SET, |spellings| spellings.endpoints);
        self.sets.get(listed).and(scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(listings: &[(bool, &[&str])]) -> ModelIndex {
        let listings = listings.iter().enumerate();
        ModelIndex::build(
            listings.map(|(at, (ollama, names))| (at, *ollama, names.iter().copied())),
        )
    }

    #[test]
    fn names_are_found_by_the_nearest_spelling() {
        let long = "Long".repeat(100);
        let index = index(&[
            (false, &["alpha:7b", "Qwen/X", "GRÖSSE", "solo"]),
            (false, &["Alpha:7B", "qwen/x", &long]),
            (
                true,
                &["llama3:latest", "Solo:latest", "phi:Latest", "a:b:latest"],
            ),
            (false, &["llama3:latest", "zeta:latest"]),
        ]);
        let all = EndpointSet::first(4);
        let table: [(&str, &[usize], &[usize]); 18] = [
            // asked for, in scope, found
            ("alpha:7b", &[0, 1, 2, 3], &[0]),
            ("Alpha:7B", &[0, 1, 2, 3], &[1]),
            ("ALPHA:7B", &[0, 1, 2, 3], &[0, 1]),
            ("alpha:7b", &[1, 2, 3], &[1]),
            ("alpha", &[0, 1, 2, 3], &[]),
            ("alpha:7", &[0, 1, 2, 3], &[]),
            ("größe", &[0, 1, 2, 3], &[]),
            ("grösse", &[0, 1, 2, 3], &[0]),
            ("QWEN/X", &[0, 1], &[0, 1]),
            ("llama3", &[0, 1, 2, 3], &[2]),
            ("LLAMA3", &[0, 1, 2, 3], &[2]),
            ("llama3:latest", &[0, 1, 2, 3], &[2, 3]),
            ("zeta", &[0, 1, 2, 3], &[]),
            ("solo", &[0, 1, 2, 3], &[0]),
            ("solo", &[1, 2, 3], &[2]),
            ("phi", &[2], &[2]),
            ("a:b", &[2], &[]),
            ("", &[0, 1, 2, 3], &[]),
        ];
        for (name, scope, found) in table {
            let scope: EndpointSet = scope.iter().copied().collect();
            let found: EndpointSet = found.iter().copied().collect();
            assert_eq!(index.find(name, &scope), found, "{name} in {scope:?}");
        }
        assert_eq!(index.find(&long.to_lowercase(), &all).len(), 1);
        assert!(index.find(&"x".repeat(4000), &all).is_empty());
    }

    #[test]
    fn an_endpoint_keeps_its_spelling() {
        let index = index(&[
            (false, &["B/X", "b/x", "Ä"]),
            (false, &["b/X"]),
            (true, &["llama3:latest"]),
        ]);
        let table = [
            (0, "b/x", Some("b/x")),
            (0, "B/x", Some("B/X")),
            (1, "b/x", Some("b/X")),
            (0, "ä", Some("Ä")),
            (1, "ä", None),
            (2, "Llama3:LATEST", Some("llama3:latest")),
            (2, "llama3", None),
            (9, "b/x", None),
        ];
        for (endpoint, name, spelling) in table {
            assert_eq!(
                index.spelling(endpoint, name),
                spelling,
                "{endpoint} {name}"
            );
        }
    }

    #[test]
    fn listings_may_come_in_any_order() {
        let index = ModelIndex::build([(5, false, ["M"]), (2, false, ["m"])]);
        assert_eq!(index.spelling(5, "m"), Some("M"));
        assert_eq!(index.spelling(2, "M"), Some("m"));
    }
}
