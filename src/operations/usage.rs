//! `/internal/stats/models`: the use of each model.
//!
//! Contract: docs/contract/operations.md#4

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::conditional::{Page, no_store};
use super::stats::{ModelTotals, PairCounts, PairTotals};
use super::{Inputs, asks};
use crate::format::{Number, ago, bytes, instant, latency, percent, percentage};

#[derive(Serialize)]
struct Usage<'a> {
    timestamp: String,
    models: Vec<Item<'a>>,
    endpoints: BTreeMap<&'a str, EndpointItem<'a>>,
    summary: Summary<'a>,
}

#[derive(Serialize)]
struct Item<'a> {
    name: &'a str,
    total_requests: u64,
    successful_requests: u64,
    failed_requests: u64,
    success_rate: String,
    total_traffic: String,
    average_latency: String,
    p95_latency: String,
    p99_latency: String,
    unique_clients: usize,
    last_requested: String,
    routing_hits: u64,
    routing_misses: u64,
    routing_fallbacks: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    tokens_per_second: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_breakdown: Option<BTreeMap<&'a str, EndpointItem<'a>>>,
}

#[derive(Serialize)]
struct EndpointItem<'a> {
    endpoint_name: &'a str,
    request_count: u64,
    success_rate: Number,
    average_latency: String,
    last_used: String,
    consecutive_errors: u64,
}

#[derive(Serialize)]
struct Summary<'a> {
    total_models: usize,
    active_models: usize,
    total_requests: u64,
    overall_success_rate: String,
    total_traffic: String,
    most_popular_model: &'a str,
    least_popular_model: &'a str,
    total_prompt_tokens: u64,
    total_completion_tokens: u64,
}

pub(super) fn page(query: &str, inputs: &Inputs<'_>) -> Page {
    // Sorted by name, so that the stable sort below keeps equal models in this order.
    let mut models = inputs.totals.models();
    models.sort_by_key(|(_, totals)| Reverse(totals.counts.tally.requests));
    let names: Names<'_> = inputs
        .fleet
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.id, endpoint.name()))
        .collect();
    let with_endpoints = asks(query, "include_endpoints=true");
    let endpoints = if asks(query, "include_summary=true") {
        over_models(&models, &names, inputs.now)
    } else {
        BTreeMap::new()
    };
    no_store(&Usage {
        timestamp: instant(inputs.now),
        models: models
            .iter()
            .map(|(name, totals)| item(name, totals, with_endpoints.then_some(&names), inputs.now))
            .collect(),
        endpoints,
        summary: summary(&models, inputs),
    })
}

/// The names of the configured endpoints by id.
type Names<'a> = FxHashMap<u32, &'a str>;

fn summary<'a>(models: &[(&'a str, &ModelTotals)], inputs: &Inputs<'_>) -> Summary<'a> {
    // Over all models since the start: a sum over the models still kept could decrease.
    let ever = &inputs.totals.system().model_requests;
    let fewest = models
        .iter()
        .map(|(_, totals)| totals.counts.tally.requests)
        .min();
    let least = models
        .iter()
        .find(|(_, totals)| Some(totals.counts.tally.requests) == fewest);
    Summary {
        total_models: models.len(),
        active_models: models
            .iter()
            .filter(|(_, totals)| totals.is_active(inputs.now))
            .count(),
        total_requests: ever.tally.requests,
        overall_success_rate: percentage(ever.tally.unfailed(), ever.tally.requests),
        total_traffic: bytes(ever.bytes),
        most_popular_model: models.first().map_or("", |(name, _)| name),
        least_popular_model: least.map_or("", |(name, _)| name),
        total_prompt_tokens: ever.prompt_tokens,
        total_completion_tokens: ever.completion_tokens,
    }
}

fn item<'a>(
    name: &'a str,
    totals: &ModelTotals,
    names: Option<&Names<'a>>,
    now: SystemTime,
) -> Item<'a> {
    let counts = &totals.counts;
    let (p95, p99) = totals.p95_p99();
    Item {
        name,
        total_requests: counts.tally.requests,
        successful_requests: counts.tally.successes,
        failed_requests: counts.tally.failures,
        success_rate: percentage(counts.tally.unfailed(), counts.tally.requests),
        total_traffic: bytes(counts.bytes),
        average_latency: latency(counts.tally.mean_ms()),
        p95_latency: latency(p95),
        p99_latency: latency(p99),
        unique_clients: totals.unique_clients(now),
        last_requested: ago(Some(totals.last_requested), now),
        routing_hits: counts.hits,
        routing_misses: counts.misses,
        routing_fallbacks: counts.fallbacks,
        prompt_tokens: counts.prompt_tokens,
        completion_tokens: counts.completion_tokens,
        total_tokens: counts.total_tokens,
        tokens_per_second: Number(counts.tokens_per_second()),
        endpoint_breakdown: names.map(|names| {
            let named = |(id, pair): (&u32, &PairTotals)| {
                let name = *names.get(id)?;
                Some((name, endpoint_item(name, &pair.counts, pair.last_used, now)))
            };
            totals.endpoints.iter().filter_map(named).collect()
        }),
    }
}

/// Each endpoint over all models that are listed.
fn over_models<'a>(
    models: &[(&'a str, &ModelTotals)],
    names: &Names<'a>,
    now: SystemTime,
) -> BTreeMap<&'a str, EndpointItem<'a>> {
    let mut sums: BTreeMap<&str, (PairCounts, SystemTime)> = BTreeMap::new();
    for (id, pair) in models.iter().flat_map(|(_, totals)| &totals.endpoints) {
        let Some(name) = names.get(id) else { continue };
        let (sum, last_used) = sums
            .entry(name)
            .or_insert_with(|| (PairCounts::default(), pair.last_used));
        sum.tally.add(&pair.counts.tally);
        // The highest value of any model on the endpoint.
        sum.consecutive_errors = sum.consecutive_errors.max(pair.counts.consecutive_errors);
        *last_used = (*last_used).max(pair.last_used);
    }
    let item = |(name, (counts, last_used))| (name, endpoint_item(name, &counts, last_used, now));
    sums.into_iter().map(item).collect()
}

fn endpoint_item<'a>(
    name: &'a str,
    counts: &PairCounts,
    last_used: SystemTime,
    now: SystemTime,
) -> EndpointItem<'a> {
    EndpointItem {
        endpoint_name: name,
        request_count: counts.tally.requests,
        success_rate: Number(percent(counts.tally.unfailed(), counts.tally.requests)),
        average_latency: latency(counts.tally.mean_ms()),
        last_used: ago(Some(last_used), now),
        consecutive_errors: counts.consecutive_errors,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::Status;
    use crate::operations::stats::Outcome;
    use crate::operations::testing::{World, value};
    use crate::providers::figures::ProviderFigures;

    fn world() -> World {
        let mut world = World::new();
        world.endpoint("a", "http://a", 1, Status::Healthy);
        world.endpoint("b", "http://b", 1, Status::Healthy);
        world
    }

    #[test]
    fn before_any_use() {
        let mut page = value(&page("include_summary=true", &world().inputs()));
        page.as_object_mut().unwrap().remove("timestamp");
        assert_eq!(
            page,
            json!({
                "models": [], "endpoints": {},
                "summary": {
                    "total_models": 0, "active_models": 0, "total_requests": 0,
                    "overall_success_rate": "0%", "total_traffic": "0 B",
                    "most_popular_model": "", "least_popular_model": "",
                    "total_prompt_tokens": 0, "total_completion_tokens": 0,
                },
            })
        );
    }

    #[test]
    fn every_field() {
        let mut world = world();
        let figures = ProviderFigures {
            prompt_tokens: 7,
            completion_tokens: 9,
            total_tokens: 16,
            generation_ms: 700,
            ..ProviderFigures::default()
        };
        world.figures = Some(figures);
        world.request("big", 0, Outcome::Success, 200, 100, 10);
        world.request("big", 0, Outcome::Success, 200, 100, 31);
        world.figures = None;
        world.request("big", 1, Outcome::Failure, 502, 50, 99);
        world.request("small", 1, Outcome::Success, 404, 1, 5);
        world.request("also", 1, Outcome::Cancelled, 200, 1, 5);
        world.now = world.at(3);
        let query = "include_endpoints=true&include_summary=true";
        let page = value(&page(query, &world.inputs()));
        let names: Vec<&str> = page["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["big", "also", "small"]);
        assert_eq!(
            page["models"][0],
            json!({
                "name": "big", "total_requests": 3, "successful_requests": 2,
                "failed_requests": 1, "success_rate": "66.7%", "total_traffic": "250 B",
                "average_latency": "20ms", "p95_latency": "31ms", "p99_latency": "31ms",
                "unique_clients": 1, "last_requested": "0s ago", "routing_hits": 3,
                "routing_misses": 0, "routing_fallbacks": 0, "prompt_tokens": 14,
                "completion_tokens": 18, "total_tokens": 32, "tokens_per_second": 12.9,
                "endpoint_breakdown": {
                    "a": {"endpoint_name": "a", "request_count": 2, "success_rate": 100,
                          "average_latency": "20ms", "last_used": "0s ago",
                          "consecutive_errors": 0},
                    "b": {"endpoint_name": "b", "request_count": 1, "success_rate": 0,
                          "average_latency": "0ms", "last_used": "0s ago",
                          "consecutive_errors": 1},
                },
            })
        );
        assert_eq!(page["models"][1]["success_rate"], "100%");
        assert_eq!(page["models"][1]["successful_requests"], 0);
        assert_eq!(
            page["endpoints"]["b"],
            json!({"endpoint_name": "b", "request_count": 3, "success_rate": 66.666667,
                   "average_latency": "5ms", "last_used": "0s ago", "consecutive_errors": 1})
        );
        assert_eq!(
            page["summary"],
            json!({
                "total_models": 3, "active_models": 3, "total_requests": 5,
                "overall_success_rate": "80.0%", "total_traffic": "252 B",
                "most_popular_model": "big", "least_popular_model": "also",
                "total_prompt_tokens": 14, "total_completion_tokens": 18,
            })
        );
    }

    #[test]
    fn parts_only_when_asked_for_literally() {
        let mut world = world();
        world.request("m", 0, Outcome::Success, 200, 1, 1);
        for query in ["", "include_endpoints=1", "include_summary=TRUE"] {
            let page = value(&page(query, &world.inputs()));
            assert_eq!(page["endpoints"], json!({}));
            assert!(page["models"][0].get("endpoint_breakdown").is_none());
        }
        world.now = world.at(3601);
        let page = value(&page("", &world.inputs()));
        assert_eq!(page["summary"]["active_models"], 0);
        assert_eq!(page["models"][0]["unique_clients"], 0);
        assert_eq!(page["models"][0]["last_requested"], "1h ago");
    }
}
