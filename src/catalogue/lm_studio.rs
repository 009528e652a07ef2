//! The items of LM Studio's two listings.
//!
//! Contract: docs/contract/catalogue.md#6.3, docs/contract/dialects.md#17

use serde::Serialize;

use super::Catalogue;
use super::entry::LOADED;
use super::render::{Item, List};
use crate::providers::ModelKind;

/// The capability of a model that was trained to call tools.
const TOOL_USE: &str = "tool_use";

/// An item of `/api/v0/models`.
#[derive(Serialize)]
struct V0<'a> {
    id: &'a str,
    object: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    publisher: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    arch: &'a str,
    compatibility_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    quantization: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_context_length: Option<u64>,
    capabilities: &'a [Box<str>],
}

/// An item of `/api/v1/models`, as LM Studio 0.4 has it.
#[derive(Serialize)]
struct V1<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    publisher: &'a str,
    key: &'a str,
    display_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    architecture: &'a str,
    quantization: Option<Quantization<'a>>,
    size_bytes: u64,
    params_string: Option<&'a str>,
    loaded_instances: Vec<Instance<'a>>,
    max_context_length: u64,
    format: &'a str,
    /// Embedding models have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Abilities>,
    description: Option<&'a str>,
}

#[derive(Serialize)]
struct Quantization<'a> {
    name: &'a str,
    bits_per_weight: Option<u8>,
}

#[derive(Serialize)]
struct Instance<'a> {
    id: &'a str,
    config: InstanceConfig,
}

#[derive(Serialize)]
struct InstanceConfig {
    context_length: u64,
}

#[derive(Serialize)]
struct Abilities {
    vision: bool,
    trained_for_tool_use: bool,
}

/// What both listings say of a model.
struct Facts<'c> {
    publisher: &'c str,
    family: &'c str,
    format: &'c str,
    quantization: &'c str,
    state: &'c str,
    trained_context: Option<u64>,
    capabilities: &'c [Box<str>],
}

impl Catalogue {
    pub(super) fn push_lm_studio(&self, list: &mut List, item: &Item<'_>) {
        let facts = self.lm_studio_facts(item);
        list.push(&V0 {
            id: item.id,
            object: "model",
            kind: item.entry.kind.as_str(),
            publisher: facts.publisher,
            arch: facts.family,
            compatibility_type: facts.format,
            quantization: facts.quantization,
            state: facts.state,
            max_context_length: facts.trained_context,
            capabilities: facts.capabilities,
        });
    }

    pub(super) fn push_lm_studio_v1(&self, list: &mut List, item: &Item<'_>) {
        let facts = self.lm_studio_facts(item);
        let kind = item.entry.kind;
        let is_embedding = kind == ModelKind::Embeddings;
        let trained = facts.trained_context.unwrap_or(0);
        let instance = (facts.state == LOADED).then(|| Instance {
            id: item.id,
            config: InstanceConfig {
                context_length: self
                    .own_fact(item, |model| model.served_context)
                    .unwrap_or(trained),
            },
        });
        list.push(&V1 {
            kind: if is_embedding { "embedding" } else { "llm" },
            publisher: facts.publisher,
            key: item.id,
            display_name: item.id,
            architecture: facts.family,
            quantization: (!facts.quantization.is_empty()).then_some(Quantization {
                name: facts.quantization,
                bits_per_weight: None,
            }),
            size_bytes: self.fact(item, |model| model.disk_size).unwrap_or(0),
            params_string: self.fact(item, |model| model.parameter_size.as_deref()),
            loaded_instances: instance.into_iter().collect(),
            max_context_length: trained,
            format: facts.format,
            capabilities: (!is_embedding).then(|| Abilities {
                vision: kind == ModelKind::Vlm,
                trained_for_tool_use: facts.capabilities.iter().any(|word| **word == *TOOL_USE),
            }),
            description: None,
        });
    }

    fn lm_studio_facts<'c>(&'c self, item: &Item<'c>) -> Facts<'c> {
        let lower = item.name.to_lowercase();
        let publisher = self
            .own_fact(item, |model| model.publisher.as_deref())
            .or_else(|| item.name.split_once('/').map(|(publisher, _)| publisher))
            .filter(|publisher| !publisher.is_empty())
            .or_else(|| self.merged.rules.publisher(&lower));
        let family = self.own_fact(item, |model| model.family.as_deref());
        let states = item
            .own
            .iter()
            .filter_map(|place| self.merged.listed(place));
        let mut states = states.filter_map(|model| model.state.as_deref());
        let first_state = states.clone().next().unwrap_or("not-loaded");
        // Clients know these two formats.
        let format = self.fact(item, |model| {
            let format = model.format.as_deref()?;
            matches!(format, "gguf" | "mlx").then_some(format)
        });
        let capabilities = self.own_fact(item, |model| {
            let capabilities = &model.extra.as_deref()?.capabilities;
            (!capabilities.is_empty()).then_some(capabilities.as_slice())
        });
        Facts {
            publisher: publisher.unwrap_or(""),
            family: family
                .filter(|_| self.tells(item.entry))
                .unwrap_or(self.shown_family(item.entry).0),
            format: format.unwrap_or("gguf"),
            quantization: self
                .fact(item, |model| model.quantization.as_deref())
                .unwrap_or(""),
            state: states.find(|state| *state == LOADED).unwrap_or(first_state),
            trained_context: self
                .own_fact(item, |model| model.trained_context)
                .or_else(|| self.context(item)),
            capabilities: capabilities.unwrap_or(&[]),
        }
    }
}
