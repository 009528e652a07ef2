//! The facts behind `/internal/status/models`: one item for each reported name.
//!
//! Contract: docs/contract/operations.md#4

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::Catalogue;
use super::build::context_of;
use super::entry::{Entry, Place};
use crate::endpoint_set::EndpointSet;
use crate::providers::{ListedModel, ModelKind};

/// A longer context is `long_context` on the status pages.
const LONG_CONTEXT_TOKENS: u64 = 100_000;

/// Other names of a model that its item shows. Without a bound the page grows with the square of
/// the names of one model.
const ALIASES_MAX: usize = 16;

/// The facts of one name. Of facts that several endpoints report, that of the endpoint with the
/// lowest display URL counts.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedModel<'c> {
    /// The name as reported.
    pub name: &'c str,
    /// The endpoints that list it under this name, routable or not.
    pub endpoints: EndpointSet,
    /// The kind of model: reported, or derived from its name.
    pub kind: ModelKind,
    /// As reported, else derived from the name; `None` = unknown.
    pub family: Option<&'c str>,
    /// Bytes on disk.
    pub size: Option<u64>,
    /// Number of parameters as reported: `8.0B`.
    pub params: Option<&'c str>,
    /// Quantisation as reported: `Q4_K_M`.
    pub quant: Option<&'c str>,
    /// Other names of the same model, sorted: the first [`ALIASES_MAX`].
    pub aliases: Vec<&'c str>,
    /// The names and the order of the status pages.
    pub capabilities: Vec<&'static str>,
}

impl Catalogue {
    /// Every reported name, sorted.
    pub fn named_models(&self) -> Vec<NamedModel<'_>> {
        let mut by_name: BTreeMap<&str, Vec<(&Entry, Place)>> = BTreeMap::new();
        for entry in &self.merged.entries {
            for place in &entry.places {
                if let Some(model) = self.merged.listed(place) {
                    by_name
                        .entry(&model.name)
                        .or_default()
                        .push((entry, *place));
                }
            }
        }
        let rank = self.url_ranks();
        let firsts: FxHashMap<*const Entry, Vec<&str>> = self
            .merged
            .entries
            .iter()
            .map(|entry| (std::ptr::from_ref(entry), first_names(entry)))
            .collect();
        let models = by_name.into_iter().map(|(name, mut places)| {
            places.sort_by_key(|(_, place)| rank.get(place.endpoint as usize));
            self.named_model(name, &places, &firsts)
        });
        models.collect()
    }

    /// For each endpoint its rank in the order of display URLs.
    fn url_ranks(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.merged.endpoints.len()).collect();
        let url = |at: &usize| self.merged.endpoints.get(*at).map(|member| &member.url_key);
        order.sort_by(|a, b| url(a).cmp(&url(b)));
        let mut ranks = vec![0; order.len()];
        for (rank, at) in order.into_iter().enumerate() {
            if let Some(slot) = ranks.get_mut(at) {
                *slot = rank;
            }
        }
        ranks
    }

    fn named_model<'c>(
        &'c self,
        name: &'c str,
        places: &[(&'c Entry, Place)],
        firsts: &FxHashMap<*const Entry, Vec<&'c str>>,
    ) -> NamedModel<'c> {
        let bare: Vec<Place> = places.iter().map(|(_, place)| *place).collect();
        let entry = places.first().map(|(entry, _)| *entry);
        let derived = entry
            .map(|entry| &*entry.family)
            .filter(|family| !family.is_empty());
        let kind = entry.map_or(ModelKind::Llm, |entry| entry.kind);
        let quant = self
            .merged
            .first_fact(&bare, |model| model.quantization.as_deref());
        let context = context_of(bare.iter().filter_map(|place| self.merged.listed(place)));
        let mut aliases: Vec<_> = places
            .iter()
            .filter_map(|(entry, _)| firsts.get(&std::ptr::from_ref(*entry)))
            .flatten()
            .copied()
            .filter(|other| *other != name)
            .collect();
        aliases.sort_unstable();
        aliases.dedup();
        aliases.truncate(ALIASES_MAX);
        let family = |model: &'c ListedModel| model.family.as_deref();
        NamedModel {
            name,
            endpoints: bare.iter().map(|place| place.endpoint as usize).collect(),
            kind,
            family: self.merged.first_fact(&bare, family).or(derived),
            size: self.merged.first_fact(&bare, |model| model.disk_size),
            params: self
                .merged
                .first_fact(&bare, |model| model.parameter_size.as_deref()),
            quant,
            aliases,
            capabilities: capabilities(kind, context, quant),
        }
    }
}

/// The first names of an entry in alphabetical order: as many as an item shows, and one more, since
/// an item does not show its own.
fn first_names(entry: &Entry) -> Vec<&str> {
    let mut names: Vec<_> = entry.names().collect();
    names.sort_unstable();
    names.truncate(ALIASES_MAX + 1);
    names
}

fn capabilities(kind: ModelKind, context: Option<u64>, quant: Option<&str>) -> Vec<&'static str> {
    let mut words = match kind {
        ModelKind::Vlm => vec!["vision", "multimodal"],
        ModelKind::Embeddings => vec!["embeddings", "vector_search"],
        ModelKind::Llm => vec!["text_generation", "chat"],
    };
    if context.is_some_and(|tokens| tokens > LONG_CONTEXT_TOKENS) {
        words.push("long_context");
    }
    let quant = quant.unwrap_or("").to_lowercase();
    if quant.contains("fp16") || quant.contains("bf16") {
        words.push("high_precision");
    }
    words
}
