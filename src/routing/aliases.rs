//! Configured aliases: names that stand for real models.
//!
//! Contract: docs/contract/balancing.md#4.3, docs/contract/catalogue.md#5.10

use rustc_hash::FxHashMap;

use super::names::{ModelIndex, with_folded};
use crate::config::AliasPlan;
use crate::endpoint_set::EndpointSet;

/// The aliases of a configuration.
#[derive(Debug, Default)]
pub struct Aliases {
    all: Vec<AliasPlan>,
    exact: FxHashMap<Box<str>, AliasId>,
    /// By the name in lower case; of several the first.
    folded: FxHashMap<Box<str>, AliasId>,
}

/// One alias of an [`Aliases`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AliasId(usize);

/// The alias that a request was routed by, kept to name the real model to each endpoint tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AliasUse {
    alias: AliasId,
    /// The scope in which names were matched when the candidates were chosen.
    scope: EndpointSet,
}

impl Aliases {
    /// The aliases of a plan's `model_aliases`.
    pub fn new(all: &[AliasPlan]) -> Self {
        let mut aliases = Self {
            all: all.to_vec(),
            ..Self::default()
        };
        for (place, alias) in all.iter().enumerate() {
            let id = AliasId(place);
            aliases.exact.insert(alias.name.as_str().into(), id);
            with_folded(&alias.name, "", |key| {
                aliases.folded.entry(key.into()).or_insert(id);
            });
        }
        aliases
    }

    /// The alias of this name: in this spelling, else in any letter case.
    pub fn find(&self, name: &str) -> Option<AliasId> {
        if self.all.is_empty() {
            return None;
        }
        let exact = self.exact.get(name).copied();
        exact.or_else(|| with_folded(name, "", |key| self.folded.get(key).copied()))
    }

    /// The alias as it is configured.
    pub fn name(&self, id: AliasId) -> &str {
        self.all.get(id.0).map_or("", |alias| &alias.name)
    }

    /// The endpoints of a scope that have one of an alias's models.
    pub fn endpoints(&self, id: AliasId, models: &ModelIndex, scope: &EndpointSet) -> EndpointSet {
        let targets = self.targets(id).iter();
        targets.fold(EndpointSet::EMPTY, |all, target| {
            all.or(&models.find(target, scope))
        })
    }

    /// The name to put in place of the alias for an endpoint: of the first listed model that it
    /// has, spelled as it spells it. `None` if it has none of them.
    pub fn real_name<'a>(
        &'a self,
        used: &AliasUse,
        models: &'a ModelIndex,
        endpoint: usize,
    ) -> Option<&'a str> {
        let target = self
            .targets(used.alias)
            .iter()
            .find(|target| models.find(target, &used.scope).contains(endpoint))?;
        Some(models.spelling(endpoint, target).unwrap_or(target))
    }

    fn targets(&self, id: AliasId) -> &[String] {
        self.all.get(id.0).map_or(&[], |alias| &alias.targets)
    }
}

impl AliasUse {
    /// An alias with the scope in which its names were matched.
    pub(super) fn new(alias: AliasId, scope: EndpointSet) -> Self {
        Self { alias, scope }
    }
}
