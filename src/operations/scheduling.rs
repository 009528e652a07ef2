//! What the pages show of scheduling: slots, the queue, and models in memory.
//!
//! Contract: docs/contract/scheduling.md#8, docs/contract/observe.md#1

use rustc_hash::FxHashMap;

use super::Inputs;
use crate::fleet::Endpoint;
use crate::schedule::pair::Pair;
use crate::schedule::survey::QueueSurvey;
use crate::schedule::{ModelKey, Warmth};

/// What the scheduler knows besides the loads of the endpoints.
#[derive(Debug, Default)]
pub(crate) struct SchedulingFacts<'a> {
    /// The requests that wait for a slot.
    pub queue: QueueSurvey,
    /// The names of models by their keys. Of several spellings the first in the alphabet counts, so
    /// that a model has one name everywhere.
    names: FxHashMap<u64, &'a str>,
    /// How often a page of metrics of an endpoint was given up.
    pub pages_given_up: u64,
}

impl<'a> SchedulingFacts<'a> {
    /// With the names of all models that may be shown.
    pub(crate) fn new(
        queue: QueueSurvey,
        names: impl Iterator<Item = &'a str>,
        pages_given_up: u64,
    ) -> Self {
        let mut by_key: FxHashMap<u64, &'a str> = FxHashMap::default();
        for name in names {
            let known = by_key.entry(ModelKey::of(name).get()).or_insert(name);
            *known = name.min(known);
        }
        Self {
            queue,
            names: by_key,
            pages_given_up,
        }
    }

    /// The name of a model; `None` if no endpoint lists it any more.
    pub(super) fn name(&self, key: u64) -> Option<&'a str> {
        self.names.get(&key).copied()
    }

    /// The models that were requested of an endpoint lately, or are known to be in its memory, by
    /// name.
    pub(super) fn pairs<'e>(&self, endpoint: &'e Endpoint) -> Vec<(&'a str, &'e Pair)> {
        let all = endpoint.load.pairs().all();
        let named = all.filter_map(|(key, pair)| Some((self.name(key)?, pair)));
        let mut named: Vec<_> = named.collect();
        named.sort_unstable_by_key(|(name, _)| *name);
        named
    }
}

/// What the status pages show of an endpoint.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct SlotsItem<'a> {
    /// How many requests it can work on at a time; null = without limit.
    slots: Option<u32>,
    /// Requests that hold a slot.
    running: u32,
    /// Requests that wait and would go there.
    queued: u64,
    /// The models in its memory; left out for an endpoint that does not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    models_warm: Option<Vec<&'a str>>,
}

impl<'a> SlotsItem<'a> {
    pub(super) fn of(endpoint: &Endpoint, inputs: &Inputs<'a>) -> Self {
        let facts = inputs.scheduling;
        let warm = |(name, pair): (&'a str, &Pair)| (pair.warmth() == Warmth::Warm).then_some(name);
        let tells = endpoint.profile.scheduling.memory.is_some();
        let models_warm =
            tells.then(|| facts.pairs(endpoint).into_iter().filter_map(warm).collect());
        Self {
            slots: endpoint.load.slots(),
            running: endpoint.load.running(),
            queued: facts.queue.of_endpoint(endpoint.load.number()),
            models_warm,
        }
    }
}
