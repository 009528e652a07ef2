//! `/internal/status/models`.
//!
//! Contract: docs/contract/operations.md#4

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::Serialize;

use super::conditional::{Page, Tagged, tagged};
use super::system::endpoint_ids;
use super::{Inputs, asks};
use crate::endpoint_set::EndpointSet;
use crate::format::{ago, bytes, instant};

/// Models in `recent_models`.
const RECENT_MAX: usize = 10;

/// The group of models without a family.
const UNKNOWN: &str = "unknown";

/// One reported model name, over all endpoints that report it. The catalogue merges what they
/// report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelFact<'a> {
    /// The name as reported.
    pub name: &'a str,
    /// The endpoints that list it, routable or not.
    pub endpoints: EndpointSet,
    /// When one of them last listed it.
    pub last_seen: Option<SystemTime>,
    /// `llm`, `vlm` or `embeddings`; empty = unknown, as for the other texts.
    pub kind: &'a str,
    /// Such as `llama`.
    pub family: &'a str,
    /// Size in bytes; 0 = unknown.
    pub size: u64,
    /// Such as `8.0B`.
    pub params: &'a str,
    /// Such as `Q4_0`.
    pub quant: &'a str,
    /// Other names of the same model, sorted; a bounded number.
    pub aliases: &'a [&'a str],
    /// The names and the order are those of the contract.
    pub capabilities: &'a [&'a str],
}

#[derive(Serialize)]
struct Models<'a> {
    timestamp: String,
    total_models: usize,
    total_families: usize,
    total_endpoints: usize,
    models_by_family: BTreeMap<&'a str, Vec<&'a str>>,
    recent_models: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_groups: Option<Vec<Group<'a>>>,
}

#[derive(Serialize)]
struct Group<'a> {
    family: &'a str,
    model_count: usize,
    endpoints: BTreeSet<&'a str>,
    models: Vec<Item<'a>>,
}

#[derive(Serialize, Clone)]
struct Item<'a> {
    name: &'a str,
    last_seen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_at: Option<String>,
    endpoints: Vec<&'a str>,
    endpoint_ids: Vec<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    family: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    params: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    quant: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    aliases: &'a [&'a str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    capabilities: &'a [&'a str],
}

impl Tagged for Models<'_> {
    fn blank(&mut self) {
        self.timestamp.clear();
        let grouped = self.model_groups.iter_mut().flatten();
        let items = grouped.flat_map(|group| &mut group.models);
        for item in items.chain(&mut self.recent_models) {
            item.last_seen.clear();
        }
    }
}

pub(super) fn page(query: &str, inputs: &Inputs<'_>) -> Page {
    let ids = endpoint_ids(&inputs.fleet.endpoints);
    let mut models: Vec<&ModelFact<'_>> = inputs.models.iter().collect();
    models.sort_by_key(|model| model.name);
    let mut families: BTreeMap<&str, Vec<&ModelFact<'_>>> = BTreeMap::new();
    for model in &models {
        let family = match model.family {
            "" => UNKNOWN,
            family => family,
        };
        families.entry(family).or_default().push(model);
    }
    let mut recent = models.clone();
    recent.sort_by_key(|model| Reverse(model.last_seen));
    let reporting = inputs
        .models
        .iter()
        .fold(EndpointSet::EMPTY, |all, model| all.or(&model.endpoints));
    let grouped = asks(query, "detailed=true") && asks(query, "group=family");
    tagged(Models {
        timestamp: instant(inputs.now),
        total_models: models.len(),
        total_families: families.len(),
        total_endpoints: reporting.len(),
        models_by_family: families
            .iter()
            .map(|(family, models)| (*family, models.iter().map(|model| model.name).collect()))
            .collect(),
        recent_models: recent
            .iter()
            .take(RECENT_MAX)
            .map(|model| item(model, inputs, &ids))
            .collect(),
        model_groups: grouped.then(|| {
            let mut groups: Vec<_> = families.iter().collect();
            groups.sort_by_key(|(family, _)| (**family == UNKNOWN, **family));
            groups
                .into_iter()
                .map(|(family, models)| group(family, models, inputs, &ids))
                .collect()
        }),
    })
}

fn group<'a>(
    family: &'a str,
    models: &[&ModelFact<'a>],
    inputs: &Inputs<'a>,
    ids: &'a [String],
) -> Group<'a> {
    let items: Vec<Item<'a>> = models
        .iter()
        .map(|model| item(model, inputs, ids))
        .collect();
    Group {
        family,
        model_count: items.len(),
        endpoints: items
            .iter()
            .flat_map(|item| &item.endpoints)
            .copied()
            .collect(),
        models: items,
    }
}

fn item<'a>(model: &ModelFact<'a>, inputs: &Inputs<'a>, ids: &'a [String]) -> Item<'a> {
    let named = |at: usize| {
        let endpoint = inputs.fleet.endpoints.get(at)?;
        Some((endpoint.name(), ids.get(at)?.as_str()))
    };
    let mut endpoints: Vec<(&str, &str)> = model.endpoints.iter().filter_map(named).collect();
    endpoints.sort_unstable();
    let (endpoints, endpoint_ids) = endpoints.into_iter().unzip();
    Item {
        name: model.name,
        last_seen: ago(model.last_seen, inputs.now),
        last_seen_at: model.last_seen.map(instant),
        endpoints,
        endpoint_ids,
        kind: model.kind,
        family: model.family,
        size: (model.size > 0).then(|| bytes(model.size)),
        params: model.params,
        quant: model.quant,
        aliases: model.aliases,
        capabilities: model.capabilities,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::Status;
    use crate::operations::testing::{World, value};

    fn fact(endpoints: &[usize], name: &'static str, last_seen: SystemTime) -> ModelFact<'static> {
        ModelFact {
            name,
            endpoints: endpoints.iter().copied().collect(),
            last_seen: Some(last_seen),
            kind: "",
            family: "",
            size: 0,
            params: "",
            quant: "",
            aliases: &[],
            capabilities: &[],
        }
    }

    fn world() -> World {
        let mut world = World::new();
        world.endpoint("b", "http://127.0.0.1:9", 1, Status::Healthy);
        world.endpoint("a", "http://127.0.0.1:9/api", 1, Status::Healthy);
        world.endpoint("idle", "http://idle", 1, Status::Healthy);
        world
    }

    #[test]
    fn every_field() {
        let mut world = world();
        world.models = vec![
            fact(&[0], "odd-one", world.at(-9)),
            ModelFact {
                kind: "vlm",
                family: "llama",
                size: 4_661_224_676,
                params: "8.0B",
                quant: "BF16",
                aliases: &["l3", "llama3-8b"],
                capabilities: &["vision", "multimodal", "long_context", "high_precision"],
                ..fact(&[0, 1], "llama3:8b", world.at(-2))
            },
        ];
        assert_eq!(
            value(&page("", &world.inputs())),
            json!({
                "timestamp": "2026-04-15T10:30:00Z",
                "total_models": 2, "total_families": 2, "total_endpoints": 2,
                "models_by_family": {"llama": ["llama3:8b"], "unknown": ["odd-one"]},
                "recent_models": [
                    {
                        "name": "llama3:8b", "last_seen": "2s ago",
                        "last_seen_at": "2026-04-15T10:29:58Z",
                        "endpoints": ["a", "b"], "endpoint_ids": ["gpo2ta", "duzvjl"],
                        "type": "vlm", "family": "llama", "size": "4.34 GB", "params": "8.0B",
                        "quant": "BF16", "aliases": ["l3", "llama3-8b"],
                        "capabilities":
                            ["vision", "multimodal", "long_context", "high_precision"],
                    },
                    {
                        "name": "odd-one", "last_seen": "9s ago",
                        "last_seen_at": "2026-04-15T10:29:51Z",
                        "endpoints": ["b"], "endpoint_ids": ["duzvjl"],
                    },
                ],
            })
        );
    }

    #[test]
    fn groups_only_when_asked_for_literally() {
        let mut world = world();
        world.models = vec![
            fact(&[0], "z", world.at(0)),
            ModelFact {
                family: "zeta",
                ..fact(&[1], "b", world.at(0))
            },
            ModelFact {
                family: "zeta",
                ..fact(&[0], "a", world.at(0))
            },
        ];
        for query in [
            "",
            "detailed=true",
            "group=family",
            "detailed=1&group=family",
            "detailed=true&group=type",
        ] {
            let page = value(&page(query, &world.inputs()));
            assert!(page.get("model_groups").is_none(), "{query}");
        }
        let page = value(&page("x=1&group=family&detailed=true", &world.inputs()));
        let groups: Vec<_> = page["model_groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| {
                let names: Vec<_> = group["models"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|model| model["name"].clone())
                    .collect();
                json!([
                    group["family"],
                    group["model_count"],
                    group["endpoints"],
                    names
                ])
            })
            .collect();
        assert_eq!(
            groups,
            [
                json!(["zeta", 2, ["a", "b"], ["a", "b"]]),
                json!(["unknown", 1, ["b"], ["z"]])
            ]
        );
    }

    #[test]
    fn the_ten_newest() {
        let mut world = world();
        let names: Vec<&'static str> = (0..12).map(|nth| &*format!("m{nth:02}").leak()).collect();
        world.models = names
            .iter()
            .enumerate()
            .map(|(nth, name)| fact(&[0], name, world.at(if nth < 6 { -5 } else { -1 })))
            .collect();
        let page = value(&page("", &world.inputs()));
        let recent: Vec<_> = page["recent_models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["name"].as_str().unwrap())
            .collect();
        assert_eq!(recent, [&names[6..], &names[..4]].concat());
    }
}
