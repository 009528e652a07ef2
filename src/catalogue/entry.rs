//! One model of the catalogue: its names, its endpoints and its facts.
//!
//! Contract: docs/contract/catalogue.md#5.1

use std::sync::Arc;

use super::Catalogue;
use super::rules::Capabilities;
use crate::endpoint_set::EndpointSet;
use crate::providers::{ListedModel, ModelKind};

/// One model, under whatever names its endpoints report it.
#[derive(Debug)]
pub struct Entry {
    pub(super) id: Arc<str>,
    /// Each spelling once, in the order of the endpoints and of their listings; never empty.
    pub(super) names: Box<[Arc<str>]>,
    /// In the order of the endpoints and of their listings; never empty.
    pub(super) places: Box<[Place]>,
    /// As reported, else from the name; `""` = unknown.
    pub family: Arc<str>,
    /// From the name, unless the family was reported; `""` = none.
    pub variant: Arc<str>,
    /// In the short form (`3.2b`); `""` = unknown.
    pub parameter_size: Arc<str>,
    /// 0 = unknown.
    pub parameter_count: u64,
    /// Quantisation in the short form (`q4km`); `""` = unknown.
    pub quantization: Arc<str>,
    /// Format of the file (`gguf`); `""` = unknown.
    pub format: Arc<str>,
    /// The kind of model.
    pub kind: ModelKind,
    /// Its capabilities, named by the model rules.
    pub capabilities: Capabilities,
    /// Context length in tokens, as reported, never guessed: the largest that an endpoint serves,
    /// else the largest that the model was trained with.
    pub context_length: Option<u64>,
    /// Unix seconds.
    pub(super) first_seen: u64,
}

/// One item of one endpoint's listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the endpoint.
    pub(super) endpoint: u32,
    /// Index in its listing.
    pub(super) model: u32,
    /// The number of its name in lower case.
    pub(super) fold: u32,
}

impl Entry {
    /// The id in unified listings; unlike names, it is unique.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Every name under which an endpoint reports it, in the order of the configuration.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.iter().map(|name| &**name)
    }

    /// The name that clients should use.
    pub fn first_name(&self) -> &str {
        self.names.first().unwrap_or(&self.id)
    }

    /// The endpoints that have it, routable or not.
    pub fn endpoints(&self) -> EndpointSet {
        let indices = self.places.iter().map(|place| place.endpoint as usize);
        indices.collect()
    }

    pub(super) fn is_on(&self, endpoints: &EndpointSet) -> bool {
        let mut places = self.places.iter();
        places.any(|place| endpoints.contains(place.endpoint as usize))
    }

    /// Its places, those of one endpoint together.
    pub(super) fn by_endpoint(&self) -> impl Iterator<Item = &[Place]> + Clone {
        self.places.chunk_by(|a, b| a.endpoint == b.endpoint)
    }
}

/// The state of a model on an endpoint that is not routable.
pub(super) const OFFLINE: &str = "offline";

/// The state of a model that is loaded.
pub(super) const LOADED: &str = "loaded";

/// The state of a model on a routable endpoint (docs/contract/catalogue.md#5.8).
pub(super) fn state(model: &ListedModel) -> &str {
    match &model.state {
        Some(state) => state,
        None if model.disk_size.is_some() => "available",
        None => "unknown",
    }
}

impl Catalogue {
    /// The state of a model at the places of one endpoint. A model with several names is loaded if
    /// it is loaded under one of them.
    pub(super) fn state_at(&self, places: &[Place]) -> &str {
        let Some(first) = places.first() else {
            return OFFLINE;
        };
        if !self.routable.contains(first.endpoint as usize) {
            return OFFLINE;
        }
        let mut states = places
            .iter()
            .filter_map(|place| self.merged.listed(place))
            .map(state);
        let first = states.clone().next().unwrap_or(OFFLINE);
        states.find(|state| *state == LOADED).unwrap_or(first)
    }
}
