//! The tables that requests of one snapshot are routed by, made together.
//!
//! contract: balancing 1

use std::sync::Arc;

use super::aliases::Aliases;
use super::decide::Rules;
use super::names::ModelIndex;
use super::route::RouteTable;
use super::scope::Scopes;
use crate::config::Plan;
use crate::fleet::{Endpoint, EndpointSet};
use crate::providers::{Profile, Profiles};

/// The profile whose servers complete a name without a tag (contract: balancing 4.1).
const OLLAMA: &str = "ollama";

/// What follows from configuration and profiles alone. Made at start and at a reload.
#[derive(Debug)]
pub struct FixedTables {
    /// Path to route.
    pub routes: RouteTable,
    /// The aliases.
    pub aliases: Aliases,
}

impl FixedTables {
    /// Of a plan and the profiles that its filter leaves.
    pub fn new(plan: &Plan, profiles: &Profiles) -> Self {
        Self {
            routes: RouteTable::new(profiles.all(), plan.translators.anthropic.enabled),
            aliases: Aliases::new(&plan.model_aliases),
        }
    }
}

/// What follows from endpoints and their models. Made with each snapshot in which their kinds or
/// models differ from those of the last; health makes no difference.
#[derive(Debug)]
pub struct FleetTables {
    /// Prefix and path to endpoints.
    pub scopes: Scopes,
    /// Model name to endpoints.
    pub models: ModelIndex,
    /// Endpoints that list a model with the vision capability.
    pub vision: EndpointSet,
}

impl FleetTables {
    /// Of endpoints and, in their order, the names each listed and its filter left.
    pub fn new<N>(
        profiles: &[Arc<Profile>],
        endpoints: &[Endpoint],
        listings: impl IntoIterator<Item = N>,
        vision: EndpointSet,
    ) -> Self
    where
        N: IntoIterator<Item: Into<Arc<str>>>,
    {
        let listings = endpoints.iter().zip(listings).enumerate();
        Self {
            scopes: Scopes::new(profiles, endpoints),
            models: ModelIndex::build(
                listings.map(|(index, (endpoint, names))| {
                    (index, endpoint.profile.name == OLLAMA, names)
                }),
            ),
            vision,
        }
    }

    /// What a decision goes by.
    pub fn rules<'a>(&'a self, plan: &'a Plan, fixed: &'a FixedTables) -> Rules<'a> {
        Rules {
            routing: &plan.model_registry.routing_strategy,
            aliases: &fixed.aliases,
            models: &self.models,
            vision: &self.vision,
        }
    }
}
