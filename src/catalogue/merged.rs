//! The merged models of all listings: the part of a catalogue that does not depend on the health of
//! endpoints.
//!
//! Catalogues share it until a listing changes, because it is most of their work and memory.
//!
//! Contract: docs/contract/catalogue.md#5.1 to docs/contract/catalogue.md#5.3

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::entry::{Entry, Place};
use super::rules::{Capabilities, ModelRules};
use super::{AliasNames, CatalogueOptions, CatalogueSource};
use crate::config::AliasPlan;
use crate::endpoint_set::EndpointSet;
use crate::providers::{ListedModel, Profile};

/// The merged models; see the module's documentation.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) endpoints: Vec<MergedEndpoint>,
    pub(super) entries: Vec<Entry>,
    /// The families of the entries, in lower case.
    pub(super) families: FxHashSet<String>,
    pub(super) names: NameTable,
    /// Ids that are not names, in lower case (docs/contract/catalogue.md#5.2, rule 3).
    pub(super) ids: FxHashMap<String, u32>,
    /// In the order of the configuration.
    pub(super) aliases: Vec<Alias>,
    pub(super) alias_names: AliasNames,
    /// The configuration of the aliases.
    pub(super) alias_plans: Vec<AliasPlan>,
    pub(super) enable_unifier: bool,
    pub(super) rules: Arc<ModelRules>,
}

/// An endpoint as the catalogue keeps it.
#[derive(Debug)]
pub(super) struct MergedEndpoint {
    pub(super) name: Arc<str>,
    pub(super) profile: Arc<Profile>,
    pub(super) url_key: Arc<str>,
    pub(super) models: Arc<[ListedModel]>,
}

impl MergedEndpoint {
    /// What it was made from, whatever its health.
    pub(super) fn source(&self) -> CatalogueSource<'_> {
        CatalogueSource {
            name: &self.name,
            profile: &self.profile,
            routable: true,
            url_key: &self.url_key,
            models: &self.models,
        }
    }
}

/// A configured alias.
#[derive(Debug)]
pub(super) struct Alias {
    pub(super) name: String,
    /// Whether listings have an item for it: not for a pattern, and not if a model has its name.
    pub(super) is_listed: bool,
    /// The targets that some endpoint lists.
    pub(super) targets: Vec<AliasTarget>,
}

#[derive(Debug)]
pub(super) struct AliasTarget {
    /// The name as configured.
    pub(super) name: String,
    /// The names that it may stand for: this one, and the one that Ollama completes it to.
    pub(super) names: Vec<TargetName>,
}

/// A name that a target may stand for.
#[derive(Debug)]
pub(super) struct TargetName {
    pub(super) fold: u32,
    /// Whether only endpoints that complete names know it by the target.
    pub(super) is_completed: bool,
    /// The entries that have the name.
    pub(super) entries: Vec<u32>,
}

impl TargetName {
    /// The entries that have the name, with its places.
    pub(super) fn places<'m>(
        &'m self,
        merged: &'m Merged,
    ) -> impl Iterator<Item = (&'m Entry, impl Iterator<Item = &'m Place>)> {
        let entries = self.entries.iter();
        entries
            .filter_map(|at| merged.entries.get(*at as usize))
            .map(move |entry| {
                let is_own = |place: &&Place| {
                    let completes = |member: &MergedEndpoint| member.profile.completes_tags();
                    let member = merged.endpoints.get(place.endpoint as usize);
                    place.fold == self.fold && (!self.is_completed || member.is_some_and(completes))
                };
                (entry, entry.places.iter().filter(is_own))
            })
    }

    /// Whether one of these endpoints has it.
    pub(super) fn is_on(&self, merged: &Merged, endpoints: &EndpointSet) -> bool {
        let on = |place: &Place| endpoints.contains(place.endpoint as usize);
        self.places(merged).any(|(_, mut places)| places.any(on))
    }
}

/// All names in lower case. Each has a number, its fold.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    /// The fold of each name in lower case.
    pub(super) folds: FxHashMap<Arc<str>, u32>,
    /// The facts of each name, indexed by fold.
    pub(super) facts: Vec<NameFacts>,
}

/// Facts derived from a name.
#[derive(Debug, Clone)]
pub(super) struct NameFacts {
    /// The first entry that has it.
    pub(super) first: u32,
    /// Capabilities derived from the name.
    pub(super) capabilities: Capabilities,
    /// Family and variant derived from the name; `None` = not derived yet.
    pub(super) family: Option<(Arc<str>, Arc<str>)>,
}

impl NameTable {
    pub(super) fn get(&self, lower: &str) -> Option<&NameFacts> {
        self.facts.get(*self.folds.get(lower)? as usize)
    }
}

impl Merged {
    /// Whether merging these sources would have the same result.
    pub(super) fn is_of(
        &self,
        sources: &[CatalogueSource<'_>],
        options: &CatalogueOptions<'_>,
    ) -> bool {
        self.endpoints.len() == sources.len()
            && self.enable_unifier == options.enable_unifier
            && Arc::ptr_eq(&self.rules, options.rules)
            && self.alias_plans == options.aliases
            && self.endpoints.iter().zip(sources).all(|(member, source)| {
                Arc::ptr_eq(&member.models, source.models)
                    && Arc::ptr_eq(&member.profile, source.profile)
                    && *member.name == *source.name
                    && *member.url_key == *source.url_key
            })
    }

    /// The first entry that has a name, in any letter case.
    pub(super) fn named_entry(&self, name: &str) -> Option<&Entry> {
        let facts = self.names.get(&name.to_lowercase())?;
        self.entries.get(facts.first as usize)
    }

    /// The endpoints that list a model with one of these capabilities.
    pub(super) fn with_capability(&self, capability: Capabilities) -> EndpointSet {
        let having = self.entries.iter();
        having
            .filter(|entry| entry.capabilities.meets(capability))
            .fold(EndpointSet::EMPTY, |all, entry| all.or(&entry.endpoints()))
    }

    pub(super) fn endpoints_of(&self, wanted: impl Fn(&Profile) -> bool) -> EndpointSet {
        let members = self.endpoints.iter().enumerate();
        let members = members.filter(|(_, member)| wanted(&member.profile));
        members.map(|(at, _)| at).collect()
    }

    pub(super) fn listed(&self, place: &Place) -> Option<&ListedModel> {
        let member = self.endpoints.get(place.endpoint as usize)?;
        member.models.get(place.model as usize)
    }

    pub(super) fn endpoint_name(&self, place: &Place) -> &str {
        let member = self.endpoints.get(place.endpoint as usize);
        member.map_or("", |member| &member.name)
    }

    /// The first fact of its kind that a place reports.
    pub(super) fn first_fact<'c, T>(
        &'c self,
        places: &[Place],
        fact: impl Fn(&'c ListedModel) -> Option<T>,
    ) -> Option<T> {
        let mut listed = places.iter().filter_map(|place| self.listed(place));
        listed.find_map(fact)
    }

    /// Unix seconds: when the backend made the model, else when the gateway first saw it.
    pub(super) fn created(&self, entry: &Entry, own: &[Place]) -> u64 {
        let created = |model: &ListedModel| model.created;
        self.first_fact(own, created)
            .or_else(|| self.first_fact(&entry.places, created))
            .unwrap_or(entry.first_seen)
    }
}
