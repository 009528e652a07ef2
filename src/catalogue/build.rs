//! Merges the listings of all endpoints into entries.
//!
//! One pass over every item, in the order of the endpoints and of their listings; each step is a
//! look-up in a hash map, so that the cost grows with the number of items alone. Names and derived
//! texts are kept once however often they occur.
//!
//! contract: catalogue 5.2-5.7

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rustc_hash::{FxHashMap, FxHashSet};

use super::entry::{Entry, Place};
use super::figures;
use super::rules::Capabilities;
use super::{Alias, AliasTarget, Catalogue, Member, Options, Source};
use crate::config::AliasPlan;
use crate::fleet::EndpointSet;
use crate::providers::{Kind, ListedModel, Profile, glob};

/// Everything but what is rendered.
pub(super) fn merge(
    sources: &[Source<'_>],
    options: &Options<'_>,
    previous: Option<&Catalogue>,
) -> Catalogue {
    let mut builder = Builder::new(sources, options);
    for (endpoint, source) in sources.iter().enumerate() {
        if !options.enable_unifier {
            builder.forget_matches();
        }
        for (at, model) in source.models.models.iter().enumerate() {
            builder.add(endpoint, at, model);
        }
    }
    builder.finish(previous)
}

/// An entry in the making.
struct Draft<'a> {
    digest: Option<&'a str>,
    /// Its name was taken by a model with another digest.
    split: bool,
    names: Vec<Arc<str>>,
    places: Vec<Place>,
    capabilities: Capabilities,
}

/// What a name alone tells.
struct NameFacts {
    fold: u32,
    capabilities: Capabilities,
}

struct Builder<'a> {
    sources: &'a [Source<'a>],
    options: &'a Options<'a>,
    /// Derived texts, each once.
    texts: FxHashSet<Arc<str>>,
    nothing: Arc<str>,
    folds: FxHashMap<Arc<str>, u32>,
    names: FxHashMap<&'a str, u32>,
    name_facts: Vec<NameFacts>,
    drafts: Vec<Draft<'a>>,
    by_digest: FxHashMap<&'a str, u32>,
    /// For each fold the first entry that takes its models: of several with one name only the
    /// first can be without a digest, for a model without one always joins it.
    by_fold: FxHashMap<u32, u32>,
    /// For each fold the first entry ever.
    first: Vec<u32>,
    /// Pairs of an entry and a name that it has.
    spelled: FxHashSet<(u32, u32)>,
}

impl<'a> Builder<'a> {
    fn new(sources: &'a [Source<'a>], options: &'a Options<'a>) -> Self {
        Self {
            sources,
            options,
            texts: FxHashSet::default(),
            nothing: Arc::from(""),
            folds: FxHashMap::default(),
            names: FxHashMap::default(),
            name_facts: Vec::new(),
            drafts: Vec::new(),
            by_digest: FxHashMap::default(),
            by_fold: FxHashMap::default(),
            first: Vec::new(),
            spelled: FxHashSet::default(),
        }
    }

    /// What comes now is merged with nothing before.
    fn forget_matches(&mut self) {
        self.by_digest.clear();
        self.by_fold.clear();
    }

    fn add(&mut self, endpoint: usize, at: usize, model: &'a ListedModel) {
        let name = self.name(&model.name);
        let Some(facts) = self.name_facts.get(name as usize) else {
            return;
        };
        let (fold, capabilities) = (facts.fold, facts.capabilities);
        // Without the unifier names alone count, within one endpoint.
        let digest = model
            .digest
            .as_deref()
            .filter(|_| self.options.enable_unifier);
        let entry = self.entry(fold, digest);
        let is_new_name = self.spelled.insert((entry, name));
        let Some(draft) = self.drafts.get_mut(entry as usize) else {
            return;
        };
        if is_new_name {
            draft.names.push(Arc::clone(&model.name));
        }
        let context = model.context_length.unwrap_or(0);
        let by_context = self.options.rules.of_context(context);
        draft.capabilities = draft.capabilities.or(capabilities).or(by_context);
        draft.places.push(Place {
            endpoint: endpoint as u32,
            model: at as u32,
            fold,
        });
    }

    /// The entry that a model belongs to, by the three rules of catalogue 5.2.
    fn entry(&mut self, fold: u32, digest: Option<&'a str>) -> u32 {
        if let Some(digest) = digest
            && let Some(entry) = self.by_digest.get(digest)
        {
            let entry = *entry;
            self.by_fold.entry(fold).or_insert(entry);
            self.note_first(fold, entry);
            return entry;
        }
        let taken = self.by_fold.get(&fold).copied();
        if let Some(entry) = taken
            && let Some(draft) = self.drafts.get_mut(entry as usize)
            && (digest.is_none() || draft.digest.is_none())
        {
            if let Some(digest) = digest {
                draft.digest = Some(digest);
                self.by_digest.insert(digest, entry);
            }
            return entry;
        }
        let entry = self.drafts.len() as u32;
        self.drafts.push(Draft {
            digest,
            split: taken.is_some(),
            names: Vec::with_capacity(1),
            places: Vec::with_capacity(1),
            capabilities: Capabilities::default(),
        });
        if let Some(digest) = digest {
            self.by_digest.insert(digest, entry);
        }
        self.by_fold.entry(fold).or_insert(entry);
        self.note_first(fold, entry);
        entry
    }

    fn note_first(&mut self, fold: u32, entry: u32) {
        if let Some(first) = self.first.get_mut(fold as usize) {
            *first = (*first).min(entry);
        }
    }

    /// The number of a name, with everything derived from it.
    fn name(&mut self, name: &'a Arc<str>) -> u32 {
        if let Some(known) = self.names.get(&**name) {
            return *known;
        }
        let number = self.name_facts.len() as u32;
        let lower = name.to_lowercase();
        let capabilities = self.options.rules.of_name(&lower);
        let fold = match self.folds.get(lower.as_str()) {
            Some(known) => *known,
            None => {
                let fold = self.first.len() as u32;
                self.first.push(u32::MAX);
                // Most names are in lower case already and need no text of their own.
                let key = if lower == **name {
                    Arc::clone(name)
                } else {
                    Arc::from(lower)
                };
                self.folds.insert(key, fold);
                fold
            }
        };
        self.name_facts.push(NameFacts { fold, capabilities });
        self.names.insert(name, number);
        number
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return Arc::clone(&self.nothing);
        }
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = Arc::from(text);
        self.texts.insert(Arc::clone(&text));
        text
    }

    fn finish(mut self, previous: Option<&Catalogue>) -> Catalogue {
        let drafts = std::mem::take(&mut self.drafts);
        let mut ids = Ids::default();
        let mut entries = Vec::with_capacity(drafts.len());
        let now = unix_seconds(self.options.now);
        for draft in drafts {
            let name = draft.names.first().cloned().unwrap_or_default();
            let id = match draft.digest.filter(|_| draft.split) {
                Some(digest) => ids.make(&name, digest, entries.len() as u32, &self.folds),
                None => Arc::clone(&name),
            };
            let before = previous.and_then(|previous| previous.named_entry(&name));
            let first_seen = before.map_or(now, |entry| entry.first_seen);
            entries.push(self.entry_of(draft, id, first_seen));
        }
        let routable = self.sources.iter().enumerate();
        let routable = routable.filter(|(_, source)| source.routable);
        let routable: EndpointSet = routable.map(|(at, _)| at).collect();
        let aliases = aliases(self.options.aliases, &self.folds, &entries);
        Catalogue {
            endpoints: self.sources.iter().map(member).collect(),
            routable,
            entries,
            folds: self.folds,
            first: self.first,
            ids: ids.made,
            aliases,
            rules: Arc::clone(self.options.rules),
            vision: EndpointSet::EMPTY,
            unified: OnceLock::new(),
            openai: OnceLock::new(),
            scoped: Vec::new(),
        }
    }

    /// Gathers the facts: each from the first place that reports it.
    fn entry_of(&mut self, draft: Draft<'a>, id: Arc<str>, first_seen: u64) -> Entry {
        let sources = self.sources;
        let source = |place: &Place| sources.get(place.endpoint as usize);
        let listed = |place: &Place| source(place)?.models.models.get(place.model as usize);
        let models: Vec<&ListedModel> = draft.places.iter().filter_map(listed).collect();
        let (family, variant) = match models.iter().find_map(|model| model.family.as_deref()) {
            Some(reported) => (self.text(reported), self.text("")),
            None => self.family_of(&draft.names),
        };
        let sizes = models
            .iter()
            .find_map(|model| model.parameter_size.as_deref());
        let (size, count) = sizes.map(figures::parameter_size).unwrap_or_default();
        let counted = models.iter().find_map(|model| model.parameter_count);
        let quantization = models
            .iter()
            .find_map(|model| model.quantization.as_deref());
        let quantization = quantization.map(|text| figures::quantization(text, self.options.rules));
        let format = models.iter().find_map(|model| model.format.as_deref());
        let reported = models.iter().find_map(|model| model.kind);
        let kind = reported.unwrap_or_else(|| {
            let mut told = draft
                .places
                .iter()
                .filter_map(|place| told_by_name(source(place)?.profile, &listed(place)?.name));
            told.next().unwrap_or(Kind::Llm)
        });
        Entry {
            id,
            family,
            variant,
            parameter_size: self.text(&size),
            parameter_count: counted.filter(|_| count == 0).unwrap_or(count),
            quantization: self.text(&quantization.unwrap_or_default()),
            format: self.text(format.unwrap_or_default()),
            kind,
            capabilities: draft.capabilities.or(self.options.rules.of_kind(kind)),
            context_length: models.iter().find_map(|model| model.context_length),
            first_seen,
            names: draft.names.into_boxed_slice(),
            places: draft.places.into_boxed_slice(),
        }
    }

    /// What the first name tells that tells something.
    fn family_of(&mut self, names: &[Arc<str>]) -> (Arc<str>, Arc<str>) {
        for name in names {
            let lower = name.to_lowercase();
            let (family, variant) = self.options.rules.family(&lower);
            if !family.is_empty() {
                return (self.text(family), self.text(variant));
            }
        }
        (self.text(""), self.text(""))
    }
}

fn told_by_name(profile: &Profile, name: &str) -> Option<Kind> {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, name));
    if any(&profile.embedding_patterns) {
        Some(Kind::Embeddings)
    } else {
        any(&profile.vision_patterns).then_some(Kind::Vlm)
    }
}

/// The ids of entries whose name another one has.
#[derive(Default)]
struct Ids {
    made: FxHashMap<String, u32>,
}

impl Ids {
    /// `<name>-<last 8 characters of the digest>`; more of the digest where that is taken.
    fn make(
        &mut self,
        name: &str,
        digest: &str,
        entry: u32,
        names: &FxHashMap<Arc<str>, u32>,
    ) -> Arc<str> {
        let short = digest.char_indices().rev().nth(7).map_or(0, |(at, _)| at);
        let short = digest.get(short..).unwrap_or(digest);
        let numbered = format!("{digest}-{entry}");
        for end in [short, digest, &numbered] {
            let id = format!("{name}-{end}");
            let lower = id.to_lowercase();
            if !names.contains_key(lower.as_str()) && !self.made.contains_key(&lower) {
                self.made.insert(lower, entry);
                return Arc::from(id);
            }
        }
        // Somebody went to great lengths; the entry is listed, and found by its name.
        Arc::from(format!("{name}-{numbered}"))
    }
}

fn member(source: &Source<'_>) -> Member {
    Member {
        name: Arc::from(source.name),
        profile: Arc::clone(source.profile),
        url_key: Arc::from(source.url_key),
        listing: Arc::clone(source.models),
    }
}

/// The aliases that no model has for its name, with those of their targets that are listed
/// somewhere.
fn aliases(plans: &[AliasPlan], folds: &FxHashMap<Arc<str>, u32>, entries: &[Entry]) -> Vec<Alias> {
    let number = |name: &str| folds.get(name.to_lowercase().as_str()).copied();
    let targets = plans.iter().flat_map(|plan| &plan.targets);
    let mut having: FxHashMap<u32, Vec<u32>> = targets
        .filter_map(|name| Some((number(name)?, Vec::new())))
        .collect();
    if !having.is_empty() {
        for (at, entry) in entries.iter().enumerate() {
            for place in &entry.places {
                if let Some(found) = having.get_mut(&place.fold)
                    && found.last() != Some(&(at as u32))
                {
                    found.push(at as u32);
                }
            }
        }
    }
    let target = |name: &String| {
        let fold = number(name)?;
        Some(AliasTarget {
            name: name.clone(),
            fold,
            entries: having.get(&fold)?.clone(),
        })
    };
    let unclaimed = plans.iter().filter(|plan| number(&plan.name).is_none());
    let known = unclaimed.map(|plan| Alias {
        name: plan.name.clone(),
        targets: plan.targets.iter().filter_map(target).collect(),
    });
    known.filter(|alias| !alias.targets.is_empty()).collect()
}

/// 0 before 1970.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
