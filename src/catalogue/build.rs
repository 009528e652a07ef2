//! Merges the listings of all endpoints into entries.
//!
//! One pass over every item, in the order of the endpoints and of their listings; each step is a
//! look-up in a hash map, so the cost is linear in the number of items. Equal derived texts are
//! stored once, and facts derived from a name are reused from the previous catalogue, because
//! deriving them needs regular expressions.
//!
//! Contract: docs/contract/catalogue.md#5.2 to docs/contract/catalogue.md#5.7

use std::iter;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustc_hash::{FxHashMap, FxHashSet};

use super::entry::{Entry, Place};
use super::merged::{Alias, AliasTarget, Merged, MergedEndpoint, NameFacts, NameTable, TargetName};
use super::rules::{Capabilities, ModelRules};
use super::{AliasNames, CatalogueOptions, CatalogueSource, figures};
use crate::config::AliasPlan;
use crate::glob::glob;
use crate::providers::{LATEST, ListedModel, ModelKind, Profile};

/// Merges all listings into one, of the models that are shown. The indices of places are those of
/// whole listings in any case.
pub(super) fn merge(
    sources: &[CatalogueSource<'_>],
    options: &CatalogueOptions<'_>,
    previous: Option<&Merged>,
    shows: &dyn Fn(usize, &ListedModel) -> bool,
) -> Merged {
    let mut builder = Builder::new(sources, options, previous);
    for (endpoint, source) in sources.iter().enumerate() {
        if !options.enable_unifier {
            builder.forget_matches();
        }
        for (at, model) in source.models.iter().enumerate() {
            if shows(endpoint, model) {
                builder.add(endpoint, at, model);
            }
        }
    }
    builder.finish()
}

/// No entry.
const NONE: u32 = u32::MAX;

/// An entry under construction.
struct Draft<'a> {
    digest: Option<&'a str>,
    /// Whether its name was taken by a model with another digest.
    split: bool,
    name: Arc<str>,
    other_names: Vec<Arc<str>>,
    places: Vec<Place>,
    capabilities: Capabilities,
}

struct Builder<'a> {
    sources: &'a [CatalogueSource<'a>],
    options: &'a CatalogueOptions<'a>,
    previous: Option<&'a Merged>,
    names: NameTable,
    /// For each fold the first entry with that name. Of several entries with one name only the
    /// first can be without a digest, because a model without one always joins it.
    by_fold: Vec<u32>,
    /// For each fold when its name was first seen.
    first_seen: Vec<u64>,
    drafts: Vec<Draft<'a>>,
    by_digest: FxHashMap<&'a str, u32>,
    /// Pairs of an entry and another name of it besides the first.
    also_spelled: FxHashSet<(u32, &'a str)>,
    /// Kinds derived from a name by the patterns of a profile.
    kinds: FxHashMap<(u32, *const Profile), Option<ModelKind>>,
    derived: Derived<'a>,
}

impl<'a> Builder<'a> {
    fn new(
        sources: &'a [CatalogueSource<'a>],
        options: &'a CatalogueOptions<'a>,
        previous: Option<&'a Merged>,
    ) -> Self {
        Self {
            sources,
            options,
            previous,
            names: NameTable::default(),
            by_fold: Vec::new(),
            first_seen: Vec::new(),
            drafts: Vec::new(),
            by_digest: FxHashMap::default(),
            also_spelled: FxHashSet::default(),
            kinds: FxHashMap::default(),
            derived: Derived::default(),
        }
    }

    /// Separates later models from earlier ones: they are not merged.
    fn forget_matches(&mut self) {
        self.by_digest.clear();
        self.by_fold.fill(NONE);
    }

    fn add(&mut self, endpoint: usize, at: usize, model: &'a ListedModel) {
        let fold = self.fold(&model.name);
        // Without the unifier, only the names of one endpoint are compared.
        let digest = model
            .digest
            .as_deref()
            .filter(|_| self.options.enable_unifier);
        let entry = self.entry(fold, &model.name, digest);
        let (Some(draft), Some(facts)) = (
            self.drafts.get_mut(entry as usize),
            self.names.facts.get(fold as usize),
        ) else {
            return;
        };
        if draft.name != model.name && self.also_spelled.insert((entry, &model.name)) {
            draft.other_names.push(Arc::clone(&model.name));
        }
        draft.capabilities = draft.capabilities.or(facts.capabilities);
        draft.places.push(Place {
            endpoint: endpoint as u32,
            model: at as u32,
            fold,
        });
    }

    /// The entry that a model belongs to, by the three rules of catalogue 5.2.
    fn entry(&mut self, fold: u32, name: &Arc<str>, digest: Option<&'a str>) -> u32 {
        if let Some(digest) = digest
            && let Some(entry) = self.by_digest.get(digest)
        {
            let entry = *entry;
            self.take_name(fold, entry);
            return entry;
        }
        let taken = self.by_fold.get(fold as usize).copied().unwrap_or(NONE);
        if let Some(draft) = self.drafts.get_mut(taken as usize)
            && (digest.is_none() || draft.digest.is_none())
        {
            if let Some(digest) = digest {
                draft.digest = Some(digest);
                self.by_digest.insert(digest, taken);
            }
            return taken;
        }
        let entry = self.drafts.len() as u32;
        self.drafts.push(Draft {
            digest,
            split: taken != NONE,
            name: Arc::clone(name),
            other_names: Vec::new(),
            places: Vec::with_capacity(1),
            capabilities: Capabilities::default(),
        });
        if let Some(digest) = digest {
            self.by_digest.insert(digest, entry);
        }
        self.take_name(fold, entry);
        entry
    }

    /// Makes an entry the first one of a name, unless there is one already.
    fn take_name(&mut self, fold: u32, entry: u32) {
        if let Some(slot) = self.by_fold.get_mut(fold as usize)
            && *slot == NONE
        {
            *slot = entry;
        }
        if let Some(facts) = self.names.facts.get_mut(fold as usize) {
            facts.first = facts.first.min(entry);
        }
    }

    /// The fold of a name, created with the facts derived from the name.
    fn fold(&mut self, name: &Arc<str>) -> u32 {
        // Most names are in lower case already and need no other string.
        let is_lower = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
        let lower = if name.bytes().all(is_lower) {
            Arc::clone(name)
        } else {
            Arc::from(name.to_lowercase())
        };
        if let Some(known) = self.names.folds.get(&lower) {
            return *known;
        }
        let before = self.previous.and_then(|previous| {
            let facts = previous.names.get(&lower)?;
            Some((previous, facts))
        });
        let same_rules = |previous: &Merged| Arc::ptr_eq(&previous.rules, self.options.rules);
        let facts = match before.filter(|(previous, _)| same_rules(previous)) {
            Some((_, facts)) => NameFacts {
                first: NONE,
                ..facts.clone()
            },
            None => NameFacts {
                first: NONE,
                capabilities: self.options.rules.of_name(&lower),
                family: None,
            },
        };
        let entry = before.and_then(|(previous, facts)| previous.entries.get(facts.first as usize));
        let now = || unix_seconds(self.options.now);
        self.first_seen
            .push(entry.map_or_else(now, |entry| entry.first_seen));
        let fold = self.names.facts.len() as u32;
        self.names.facts.push(facts);
        self.by_fold.push(NONE);
        self.names.folds.insert(lower, fold);
        fold
    }

    fn finish(mut self) -> Merged {
        let drafts = std::mem::take(&mut self.drafts);
        let mut ids = Ids::default();
        let mut entries = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let id = match draft.digest.filter(|_| draft.split) {
                Some(digest) => ids.make(&draft.name, digest, entries.len() as u32, &self.names),
                None => Arc::clone(&draft.name),
            };
            entries.push(self.entry_of(draft, id));
        }
        self.names.facts.shrink_to_fit();
        Merged {
            endpoints: self.sources.iter().map(member).collect(),
            aliases: aliases(self.options.aliases, &self.names, &entries),
            families: families(&entries),
            entries,
            names: self.names,
            ids: ids.made,
            alias_names: AliasNames::new(self.options.aliases),
            alias_plans: self.options.aliases.to_vec(),
            enable_unifier: self.options.enable_unifier,
            rules: Arc::clone(self.options.rules),
        }
    }

    /// Collects the facts, each from the first place that reports it.
    fn entry_of(&mut self, draft: Draft<'a>, id: Arc<str>) -> Entry {
        let sources = self.sources;
        let models = || {
            draft
                .places
                .iter()
                .filter_map(|place| listed(sources, place))
        };
        let (family, variant) = match models().find_map(|model| model.family.as_deref()) {
            Some(reported) => (self.derived.text(reported), self.derived.text("")),
            None => self.family_of(&draft.places),
        };
        let derived = &mut self.derived;
        let size = models().find_map(|model| model.parameter_size.as_deref());
        let (parameter_size, count) = derived.size(size.unwrap_or(""));
        let counted = models().find_map(|model| model.parameter_count);
        let quantization = match models().find_map(|model| model.quantization.as_deref()) {
            Some(reported) => derived.quantization(reported, self.options.rules),
            None => derived.text(""),
        };
        let format = models().find_map(|model| model.format.as_deref());
        let format = derived.text(format.unwrap_or(""));
        let reported = models().find_map(|model| model.kind);
        let kind = reported
            .or_else(|| self.kind_of(&draft.places))
            .unwrap_or(ModelKind::Llm);
        let context_length = context_of(models());
        let by_context = self.options.rules.of_context(context_length.unwrap_or(0));
        let by_kind = self.options.rules.of_kind(kind);
        let first_seen = draft
            .places
            .first()
            .and_then(|place| self.first_seen.get(place.fold as usize));
        Entry {
            id,
            family,
            variant,
            parameter_size,
            parameter_count: counted.filter(|_| count == 0).unwrap_or(count),
            quantization,
            format,
            kind,
            capabilities: draft.capabilities.or(by_kind).or(by_context),
            context_length,
            first_seen: first_seen.copied().unwrap_or(0),
            names: iter::once(draft.name).chain(draft.other_names).collect(),
            places: draft.places.into_boxed_slice(),
        }
    }

    /// Family and variant derived from the first name that has any.
    fn family_of(&mut self, places: &[Place]) -> (Arc<str>, Arc<str>) {
        let mut last = NONE;
        for place in places {
            if place.fold == last {
                continue;
            }
            last = place.fold;
            let (Some(model), Some(facts)) = (
                listed(self.sources, place),
                self.names.facts.get_mut(place.fold as usize),
            ) else {
                continue;
            };
            let (family, variant) = facts.family.get_or_insert_with(|| {
                let lower = model.name.to_lowercase();
                let (family, variant) = self.options.rules.family(&lower);
                (self.derived.text(family), self.derived.text(variant))
            });
            if !family.is_empty() {
                return (Arc::clone(family), Arc::clone(variant));
            }
        }
        (self.derived.text(""), self.derived.text(""))
    }

    /// The kind derived from the first name that matches a pattern of its endpoint's profile.
    fn kind_of(&mut self, places: &[Place]) -> Option<ModelKind> {
        places.iter().find_map(|place| {
            let profile = self.sources.get(place.endpoint as usize)?.profile;
            let key = (place.fold, Arc::as_ptr(profile));
            *self
                .kinds
                .entry(key)
                .or_insert_with(|| told_by_name(profile, &listed(self.sources, place)?.name))
        })
    }
}

/// The largest served context, else the largest trained one. Requests are sent where they fit
/// (docs/contract/catalogue.md#5.2).
pub(super) fn context_of<'m>(models: impl Iterator<Item = &'m ListedModel> + Clone) -> Option<u64> {
    let served = models.clone().filter_map(|model| model.served_context);
    let trained = models.filter_map(|model| model.trained_context);
    served.max().or_else(|| trained.max())
}

fn listed<'a>(sources: &[CatalogueSource<'a>], place: &Place) -> Option<&'a ListedModel> {
    let source = sources.get(place.endpoint as usize)?;
    source.models.get(place.model as usize)
}

/// Strings derived from reported ones, each stored once.
#[derive(Default)]
struct Derived<'a> {
    nothing: Arc<str>,
    texts: FxHashSet<Arc<str>>,
    sizes: FxHashMap<&'a str, (Arc<str>, u64)>,
    quantizations: FxHashMap<&'a str, Arc<str>>,
}

impl<'a> Derived<'a> {
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

    /// A parameter size in its short form, and the number.
    fn size(&mut self, reported: &'a str) -> (Arc<str>, u64) {
        if let Some((short, count)) = self.sizes.get(reported) {
            return (Arc::clone(short), *count);
        }
        let (short, count) = figures::parameter_size(reported);
        let short = self.text(&short);
        self.sizes.insert(reported, (Arc::clone(&short), count));
        (short, count)
    }

    fn quantization(&mut self, reported: &'a str, rules: &ModelRules) -> Arc<str> {
        if let Some(short) = self.quantizations.get(reported) {
            return Arc::clone(short);
        }
        let short = self.text(&figures::quantization(reported, rules));
        self.quantizations.insert(reported, Arc::clone(&short));
        short
    }
}

fn told_by_name(profile: &Profile, name: &str) -> Option<ModelKind> {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, name));
    if any(&profile.embedding_patterns) {
        Some(ModelKind::Embeddings)
    } else {
        any(&profile.vision_patterns).then_some(ModelKind::Vlm)
    }
}

/// The ids of entries that share their name with another one.
#[derive(Default)]
struct Ids {
    made: FxHashMap<String, u32>,
}

impl Ids {
    /// `<name>-<last 8 characters of the digest>`; more of the digest where that is taken.
    fn make(&mut self, name: &str, digest: &str, entry: u32, names: &NameTable) -> Arc<str> {
        let short = digest.char_indices().rev().nth(7).map_or(0, |(at, _)| at);
        let short = digest.get(short..).unwrap_or(digest);
        let numbered = format!("{digest}-{entry}");
        for end in [short, digest, &numbered] {
            let id = format!("{name}-{end}");
            let lower = id.to_lowercase();
            if names.get(&lower).is_none() && !self.made.contains_key(&lower) {
                self.made.insert(lower, entry);
                return Arc::from(id);
            }
        }
        // All of these ids are taken, so the entry is listed and found by its name.
        Arc::from(format!("{name}-{numbered}"))
    }
}

/// The families of entries, in lower case.
fn families(entries: &[Entry]) -> FxHashSet<String> {
    // Few texts, each shared by many entries.
    let reported: FxHashSet<&str> = entries.iter().map(|entry| &*entry.family).collect();
    reported.into_iter().map(str::to_lowercase).collect()
}

fn member(source: &CatalogueSource<'_>) -> MergedEndpoint {
    MergedEndpoint {
        name: Arc::from(source.name),
        profile: Arc::clone(source.profile),
        url_key: Arc::from(source.url_key),
        models: Arc::clone(source.models),
    }
}

/// The aliases, with those of their targets that an endpoint lists.
fn aliases(plans: &[AliasPlan], names: &NameTable, entries: &[Entry]) -> Vec<Alias> {
    let number = |name: &str| names.folds.get(name.to_lowercase().as_str()).copied();
    let numbers = |name: &str| {
        let completed = (!name.contains(':')).then(|| format!("{name}{LATEST}"));
        let completed = completed.and_then(|name| number(&name));
        let own = number(name).map(|fold| (fold, false));
        own.into_iter().chain(completed.map(|fold| (fold, true)))
    };
    let targets = plans.iter().flat_map(|plan| &plan.targets);
    let mut having: FxHashMap<u32, Vec<u32>> = targets
        .flat_map(|name| numbers(name).map(|(fold, _)| (fold, Vec::new())))
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
        let named = numbers(name).filter_map(|(fold, is_completed)| {
            Some(TargetName {
                fold,
                is_completed,
                entries: having.get(&fold)?.clone(),
            })
        });
        let names: Vec<_> = named.collect();
        (!names.is_empty()).then(|| AliasTarget {
            name: name.clone(),
            names,
        })
    };
    let known = plans.iter().map(|plan| Alias {
        name: plan.name.clone(),
        is_listed: !plan.is_pattern() && number(&plan.name).is_none(),
        targets: plan.targets.iter().filter_map(target).collect(),
    });
    known.collect()
}

/// Seconds since 1970; 0 for an earlier time.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
