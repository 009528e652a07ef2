//! The catalogue as a client with certain rights may see it: a catalogue of its own, merged of what
//! the client's fleet lists under names that it may use.
//!
//! What an alias stands for may be hidden while the alias is not, so the models behind aliases are
//! merged apart: they lend their facts to the alias's item, and nothing else shows them.
//!
//! Contract: docs/contract/access.md#6

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::entry::Entry;
use super::merged::{Alias, Merged, MergedEndpoint};
use super::{Catalogue, CatalogueOptions, build, scoped};
use crate::access::names;
use crate::config::AliasPlan;
use crate::endpoint_set::EndpointSet;
use crate::providers::{LATEST, with_folded};

/// The most views that a catalogue keeps.
const VIEWS_MAX: usize = 256;

/// The most places of models in all views together; the newest view is kept in any case.
const PLACES_MAX: usize = 200_000;

/// What a client may see, by the globs of its policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lens {
    /// The names of models.
    pub models: Vec<String>,
    /// The names of endpoints.
    pub endpoints: Vec<String>,
}

impl Lens {
    /// Whether it shows a model of this name.
    pub(crate) fn shows(&self, name: &str) -> bool {
        names::allows_model(&self.models, name, false)
    }

    /// Whether it shows an endpoint of this name.
    pub(crate) fn has(&self, endpoint: &str) -> bool {
        names::allows(&self.endpoints, endpoint)
    }
}

/// The part of a view that a whole catalogue does not have.
#[derive(Debug)]
pub(super) struct ViewPart {
    lens: Lens,
    /// The aliases that may be used, with the models that they stand for.
    behind: Merged,
}

/// The views of a catalogue, the last used last.
#[derive(Debug, Default)]
pub(super) struct Views(Mutex<Vec<(Arc<Lens>, Arc<Catalogue>)>>);

impl Catalogue {
    /// The view of a lens; it is made when it is first asked for.
    pub(crate) fn seen_by(&self, lens: &Arc<Lens>) -> Arc<Self> {
        if let Some(known) = self.known_view(lens) {
            return known;
        }
        let view = Arc::new(self.view(lens));
        let mut views = self.views.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.push((Arc::clone(lens), Arc::clone(&view)));
        let mut places: usize = views.iter().map(|(_, view)| view.places()).sum();
        while views.len() > VIEWS_MAX || (views.len() > 1 && places > PLACES_MAX) {
            let (_, oldest) = views.remove(0);
            places -= oldest.places();
        }
        view
    }

    /// The same if it takes little time; `None` if the view has to be made of many models.
    pub(crate) fn seen_at_once(&self, lens: &Arc<Lens>) -> Option<Arc<Self>> {
        if !self.is_large() {
            return Some(self.seen_by(lens));
        }
        self.known_view(lens)
    }

    fn known_view(&self, lens: &Arc<Lens>) -> Option<Arc<Self>> {
        let mut views = self.views.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = views.iter().position(|(known, _)| known == lens)?;
        let used = views.remove(at);
        let view = Arc::clone(&used.1);
        views.push(used);
        Some(view)
    }

    fn view(&self, lens: &Lens) -> Self {
        let merged = &*self.merged;
        let fleet: EndpointSet = merged
            .endpoints
            .iter()
            .enumerate()
            .filter(|(_, member)| lens.has(&member.name))
            .map(|(at, _)| at)
            .collect();
        let sources: Vec<_> = merged
            .endpoints
            .iter()
            .map(MergedEndpoint::source)
            .collect();
        let aliases: Vec<AliasPlan> = merged
            .alias_plans
            .iter()
            // The names that a pattern covers are looked at one by one.
            .filter(|plan| plan.is_pattern() || lens.shows(&plan.name))
            .cloned()
            .collect();
        let options = CatalogueOptions {
            aliases: &[],
            enable_unifier: merged.enable_unifier,
            rules: &merged.rules,
            now: std::time::SystemTime::UNIX_EPOCH,
        };
        let in_fleet = |at: usize| fleet.contains(at);
        let shown = build::merge(&sources, &options, Some(merged), &|at, model| {
            in_fleet(at) && lens.shows(&model.name)
        });
        let targets = Targets::of(&aliases);
        let with_aliases = CatalogueOptions {
            aliases: &aliases,
            ..options
        };
        let behind = build::merge(&sources, &with_aliases, Some(merged), &|at, model| {
            in_fleet(at) && targets.have(&model.name)
        });
        Self {
            routable: self.routable.and(&fleet),
            vision: self.vision.and(&fleet),
            unified: OnceLock::new(),
            openai: OnceLock::new(),
            scoped: scoped::usual(&shown),
            views: Views::default(),
            seen: Some(Box::new(ViewPart {
                lens: lens.clone(),
                behind,
            })),
            least_context: self.least_context,
            merged: Arc::new(shown),
        }
    }

    /// The models that aliases stand for.
    pub(super) fn behind(&self) -> &Merged {
        let seen = self.seen.as_deref();
        seen.map_or(&*self.merged, |seen| &seen.behind)
    }

    /// Whether a name is shown.
    pub(super) fn shows(&self, name: &str) -> bool {
        let seen = self.seen.as_deref();
        seen.is_none_or(|seen| seen.lens.shows(name))
    }

    /// Family and variant of an entry, unless they would tell the name of a hidden one.
    pub(super) fn shown_family<'c>(&self, entry: &'c Entry) -> (&'c str, &'c str) {
        if self.tells(entry) {
            (&entry.family, &entry.variant)
        } else {
            ("", "")
        }
    }

    /// Whether an entry has a name that is shown.
    pub(super) fn tells(&self, entry: &Entry) -> bool {
        self.seen.is_none() || entry.names().any(|name| self.shows(name))
    }

    /// Whether listings have an item for an alias.
    pub(super) fn lists(&self, alias: &Alias) -> bool {
        alias.is_listed && (self.seen.is_none() || self.merged.named_entry(&alias.name).is_none())
    }

    /// The alias of a name, in any letter case, if the client may use it.
    pub(super) fn alias_named(&self, name: &str) -> Option<&Alias> {
        self.behind().alias_named(name)
    }

    /// The alias for a name that no alias and no model has, if the client may use the name.
    pub(super) fn alias_covering(&self, name: &str) -> Option<&Alias> {
        self.behind()
            .alias_covering(name)
            .filter(|_| self.shows(name))
    }

    /// Places of models in it.
    fn places(&self) -> usize {
        let count = |merged: &Merged| {
            let entries = merged.entries.iter();
            entries.map(|entry| entry.places.len()).sum::<usize>()
        };
        count(&self.merged) + self.seen.as_deref().map_or(0, |seen| count(&seen.behind))
    }

    /// Whether a view has more models than a core lists.
    pub(super) fn is_large_view(&self, most: usize) -> bool {
        self.places() > most
    }
}

/// The names of the models that aliases stand for, in lower case.
struct Targets(rustc_hash::FxHashSet<Box<str>>);

impl Targets {
    fn of(aliases: &[AliasPlan]) -> Self {
        let mut names = rustc_hash::FxHashSet::default();
        for target in aliases.iter().flat_map(|plan| &plan.targets) {
            with_folded(target, "", |key| names.insert(Box::from(key)));
            with_folded(target, LATEST, |key| names.insert(Box::from(key)));
        }
        Self(names)
    }

    fn have(&self, name: &str) -> bool {
        with_folded(name, "", |key| self.0.contains(key))
    }
}
