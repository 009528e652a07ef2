//! Configured aliases: names that stand for real models.
//!
//! Contract: docs/contract/balancing.md#4.3, docs/contract/catalogue.md#5.10

use super::names::ModelIndex;
use crate::catalogue::AliasNames;
use crate::config::AliasPlan;
use crate::endpoint_set::EndpointSet;

/// The aliases of a configuration.
#[derive(Debug, Default)]
pub struct Aliases {
    all: Vec<AliasPlan>,
    names: AliasNames,
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
        Self {
            all: all.to_vec(),
            names: AliasNames::new(all),
        }
    }

    /// The alias of this name: in this spelling, else in any letter case.
    pub fn named(&self, name: &str) -> Option<AliasId> {
        self.names.named(name).map(AliasId)
    }

    /// The alias for a name that neither an alias nor a known model has.
    pub fn covering(&self, name: &str) -> Option<AliasId> {
        self.names.covering(name).map(AliasId)
    }

    /// Whether the alias is a pattern.
    pub fn is_pattern(&self, id: AliasId) -> bool {
        self.all.get(id.0).is_some_and(AliasPlan::is_pattern)
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
