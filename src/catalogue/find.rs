//! Finds what a requested name stands for: a model, an alias, or what covers the name.
//!
//! Contract: docs/contract/catalogue.md#5.10, docs/contract/catalogue.md#6.4,
//! docs/contract/balancing.md#4.1, docs/contract/balancing.md#4.3

use super::Catalogue;
use super::entry::Entry;
use super::merged::{Alias, AliasTarget, Merged, TargetName};
use crate::endpoint_set::EndpointSet;
use crate::providers::{NameForm, find_by_name};

impl Merged {
    /// The alias of a name, in any letter case.
    pub(super) fn alias_named(&self, name: &str) -> Option<&Alias> {
        self.aliases.get(self.alias_names.named(name)?)
    }

    /// The alias for a name that no alias and no model has.
    pub(super) fn alias_covering(&self, name: &str) -> Option<&Alias> {
        self.aliases.get(self.alias_names.covering(name)?)
    }

    /// The first entry that some of these endpoints report under a name, with the name's fold: in
    /// any letter case, else with the tag that Ollama completes names with.
    pub(super) fn entry_by_name(
        &self,
        name: &str,
        endpoints: &EndpointSet,
    ) -> Option<(&Entry, u32)> {
        find_by_name(name, |lower, form| {
            self.entry_on(lower, &self.knowing(form, endpoints))
        })
    }

    /// The name of a target that some of these endpoints report, by the same rule.
    pub(super) fn target_name<'t>(
        &self,
        target: &'t AliasTarget,
        endpoints: &EndpointSet,
    ) -> Option<&'t TargetName> {
        find_by_name(&target.name, |lower, form| {
            let fold = *self.names.folds.get(lower)?;
            let named = target.names.iter().find(|named| named.fold == fold)?;
            let on = self.knowing(form, endpoints);
            named.is_on(self, &on).then_some(named)
        })
    }

    /// Those of some endpoints that know names in a form.
    fn knowing(&self, form: NameForm, endpoints: &EndpointSet) -> EndpointSet {
        match form {
            NameForm::Own => *endpoints,
            NameForm::Completed => {
                endpoints.and(&self.endpoints_of(|profile| profile.completes_tags()))
            }
        }
    }

    fn entry_on(&self, lower: &str, endpoints: &EndpointSet) -> Option<(&Entry, u32)> {
        let fold = *self.names.folds.get(lower)?;
        let first = self.names.facts.get(fold as usize)?.first as usize;
        // Other entries have the name only if digests set them apart, or without the unifier.
        let mut entries = self.entries.get(first..)?.iter();
        let entry = entries.find(|entry| {
            let mut named = entry.places.iter().filter(|place| place.fold == fold);
            named.any(|place| endpoints.contains(place.endpoint as usize))
        })?;
        Some((entry, fold))
    }
}

impl Catalogue {
    /// The name under which the Messages API shows the alias that a name stands for, while one of
    /// its targets is served: its own, or the requested one that it covers.
    pub(crate) fn served_alias<'n>(&'n self, name: &'n str) -> Option<&'n str> {
        let served = self.served();
        let (alias, shown) = match self.alias_named(name) {
            Some(alias) => (alias, &*alias.name),
            // A model that is known and down is not replaced by what covers its name.
            None if self.is_known(name) => return None,
            None => (self.alias_covering(name)?, name),
        };
        let view = self.alias_view(alias, shown, &served)?;
        Some(view.name)
    }

    fn is_known(&self, name: &str) -> bool {
        let all = EndpointSet::first(self.merged.endpoints.len());
        self.merged.entry_by_name(name, &all).is_some()
    }
}
