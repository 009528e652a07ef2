//! The snapshot: everything that a request needs, prepared once for each state of the fleet.
//!
//! Contract: docs/contract/balancing.md#1

use std::sync::Arc;

use super::Limiters;
use crate::access::Access;
use crate::catalogue::{Catalogue, MissingModels};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Fleet;
use crate::routing::aliases::Aliases;
use crate::routing::names::ModelIndex;
use crate::routing::route::RouteTable;
use crate::routing::scope::{Scopes, Standing};

/// One state of the fleet, with the tables made from it. Cores serve requests from it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The fleet itself.
    pub fleet: Fleet,
    /// Paths to routes.
    pub routes: Arc<RouteTable>,
    /// Prefixes and paths to endpoints.
    pub scopes: Scopes,
    /// `[model_aliases]`.
    pub aliases: Arc<Aliases>,
    /// The models of all endpoints, merged, and the listings.
    pub catalogue: Arc<Catalogue>,
    /// The models that have disappeared from it.
    pub missing: MissingModels,
    /// Names of models to endpoints.
    pub models: Arc<ModelIndex>,
    /// Keys, policies and their settings.
    pub access: Arc<Access>,
    /// The rate limits of clients.
    pub limiters: Arc<Limiters>,
}

impl Snapshot {
    /// The endpoints that requests may go to or wait for, without those that were lost since.
    pub(crate) fn standing(&self, lost: &EndpointSet, wait: bool) -> Standing {
        Standing {
            routable: self.fleet.routable.minus(lost),
            unchecked: if wait {
                self.fleet.unchecked
            } else {
                EndpointSet::EMPTY
            },
            fleet: None,
        }
    }
}
