//! `/internal/stats/requests` and `/internal/stats/latency`: the pages behind the dashboard's
//! views of single requests and of times. Olla does not have them.
//!
//! `/internal/stats/requests` is `{"timestamp", "requests": [...]}` with the last 200 requests,
//! newest first. Each has `at` (when it ended, to about 50 ms), `id`, `method`, `path` (without
//! query), `outcome` (`success`, `failure`, `cancelled`, `refused`), `duration_ms`, `bytes` sent,
//! `retries`, `streaming`, and, as far as there are any, `model`, `endpoint`, `status`,
//! `first_byte_ms`, `strategy`, `decision` and `reason` of the routing, `prompt_tokens`,
//! `completion_tokens`, `tokens_per_second`. No client addresses and no bodies: the page is not
//! protected by default.
//!
//! `/internal/stats/latency` is `{"timestamp", "scheduling", "endpoints": [...], "models": [...]}`.
//! `scheduling` has `waiting` (requests that wait for a slot) and, since the start, `prompt_tokens`
//! of prompts that were sent and `hit_tokens` of them that were believed to be cached. The lists are
//! sorted by name. Each has `name` (endpoints also `id`, as on the status pages), `count` of the
//! latencies, and in milliseconds `p50_ms`, `p95_ms`, `p99_ms` of the latency of successes and
//! `ttft_p50_ms`, `ttft_p95_ms`, `ttft_p99_ms` of the time to the first byte of a response body.
//! What was never measured is left out.

use serde::Serialize;

use super::Inputs;
use super::conditional::{Page, no_store};
use super::stats::{Quantiles, Recent};
use super::system::endpoint_ids;
use crate::format::{Number, instant};

#[derive(Serialize)]
struct Requests<'a> {
    timestamp: String,
    requests: Vec<RequestItem<'a>>,
}

#[derive(Serialize)]
struct RequestItem<'a> {
    at: String,
    id: &'a str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<Number>,
    bytes: u64,
    retries: u32,
    streaming: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    routing: Option<RoutingItem>,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    completion_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_second: Option<Number>,
}

#[derive(Serialize)]
struct RoutingItem {
    strategy: &'static str,
    decision: &'static str,
    reason: &'static str,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The last requests.
pub(super) fn requests(inputs: &Inputs<'_>) -> Page {
    let recent = inputs.totals.recent();
    no_store(&Requests {
        timestamp: instant(inputs.now),
        requests: recent
            .map(|(at, recent)| request_item(instant(*at), recent, inputs))
            .collect(),
    })
}

fn request_item<'a>(at: String, recent: &'a Recent, inputs: &Inputs<'a>) -> RequestItem<'a> {
    let figures = recent.figures();
    let mut endpoints = inputs.fleet.endpoints.iter();
    let endpoint = endpoints.find(|endpoint| Some(endpoint.id) == figures.endpoint_id);
    let speed = (figures.tokens_per_second * 10.0).round() / 10.0;
    RequestItem {
        at,
        id: recent.request_id(),
        method: recent.method(),
        path: recent.path(),
        model: recent.model(),
        endpoint: endpoint.map(|endpoint| endpoint.name()),
        outcome: figures.outcome.as_str(),
        status: figures.status,
        duration_ms: figures.latency_ms,
        first_byte_ms: figures.first_byte_us.map(|us| Number(us as f64 / 1000.0)),
        bytes: figures.bytes,
        retries: figures.retries,
        streaming: figures.streaming,
        routing: figures.routing.map(|routing| RoutingItem {
            strategy: routing.strategy,
            decision: routing.decision,
            reason: routing.reason,
        }),
        prompt_tokens: figures.prompt_tokens,
        completion_tokens: figures.completion_tokens,
        tokens_per_second: (speed > 0.0).then_some(Number(speed)),
    }
}

#[derive(Serialize)]
struct Latency<'a> {
    timestamp: String,
    scheduling: SchedulingItem,
    endpoints: Vec<Times<'a>>,
    models: Vec<Times<'a>>,
}

#[derive(Serialize)]
struct SchedulingItem {
    waiting: u64,
    prompt_tokens: u64,
    hit_tokens: u64,
}

#[derive(Serialize)]
struct Times<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p95_ms: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_p50_ms: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_p95_ms: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_p99_ms: Option<Number>,
}

impl<'a> Times<'a> {
    fn of(
        name: &'a str,
        id: Option<String>,
        latency: Option<&Quantiles>,
        first_byte: Option<&Quantiles>,
    ) -> Self {
        let at = |times: Option<&Quantiles>, percent| {
            let times = times.filter(|times| times.count() > 0);
            times.map(|times| Number(times.percentile_ms(percent)))
        };
        Self {
            name,
            id,
            count: latency.map_or(0, Quantiles::count),
            p50_ms: at(latency, 50.0),
            p95_ms: at(latency, 95.0),
            p99_ms: at(latency, 99.0),
            ttft_p50_ms: at(first_byte, 50.0),
            ttft_p95_ms: at(first_byte, 95.0),
            ttft_p99_ms: at(first_byte, 99.0),
        }
    }
}

/// Quantiles of times.
pub(super) fn latency(inputs: &Inputs<'_>) -> Page {
    let ids = endpoint_ids(&inputs.fleet.endpoints);
    let endpoints = inputs.fleet.endpoints.iter().zip(ids);
    let mut endpoints: Vec<Times<'_>> = endpoints
        .map(|(endpoint, id)| {
            let totals = inputs.totals.endpoint(endpoint.id);
            let latency = totals.map(|totals| &totals.latency);
            let first_byte = totals.map(|totals| &totals.first_token);
            Times::of(endpoint.name(), Some(id), latency, first_byte)
        })
        .collect();
    endpoints.sort_by_key(|times| times.name);
    let models = inputs.totals.models().into_iter().map(|(name, totals)| {
        Times::of(name, None, Some(&totals.latency), Some(&totals.first_token))
    });
    let scheduling = &inputs.totals.system().scheduling;
    no_store(&Latency {
        timestamp: instant(inputs.now),
        scheduling: SchedulingItem {
            waiting: inputs.scheduling.queue.count(),
            prompt_tokens: scheduling.prompt_tokens,
            hit_tokens: scheduling.hit_tokens,
        },
        endpoints,
        models: models.collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::Status;
    use crate::operations::stats::{Outcome, RECENT_MAX, RequestEnd, Routing, ServedBy};
    use crate::operations::testing::{World, value};
    use crate::providers::figures::ProviderFigures;

    #[test]
    fn the_last_requests_newest_first() {
        let mut world = World::new();
        world.endpoint("a", "http://a", 1, Status::Healthy);
        world.figures = Some(ProviderFigures {
            prompt_tokens: 3,
            completion_tokens: 4,
            tokens_per_second: 12.34,
            ..ProviderFigures::default()
        });
        world.request("m", 0, Outcome::Success, 200, 10, 7);
        world.recorder.request(&RequestEnd {
            request_id: "refused-1",
            method: "GET",
            path: "/olla/proxy/v1/x",
            retries: 0,
            model: Some("nosuch"),
            endpoint_id: None,
            client: [127, 0, 0, 1].into(),
            outcome: Outcome::Refused,
            status: Some(404),
            bytes: 90,
            latency_ms: 0,
            first_byte_us: None,
            route: ServedBy::Unserved,
            routing: Some(Routing {
                strategy: "strict",
                decision: "rejected",
                reason: "model_not_found",
            }),
            streaming: false,
            figures: None,
        });
        assert_eq!(
            value(&requests(&world.inputs())),
            json!({
                "timestamp": "2026-04-15T10:30:00Z",
                "requests": [
                    {
                        "at": "2026-04-15T10:30:00Z", "id": "refused-1", "method": "GET",
                        "path": "/olla/proxy/v1/x", "model": "nosuch", "outcome": "refused",
                        "status": 404, "duration_ms": 0, "bytes": 90, "retries": 0,
                        "streaming": false, "strategy": "strict", "decision": "rejected",
                        "reason": "model_not_found",
                    },
                    {
                        "at": "2026-04-15T10:30:00Z", "id": "id", "method": "POST",
                        "path": "/olla/proxy/v1/chat/completions", "model": "m",
                        "endpoint": "a", "outcome": "success", "status": 200,
                        "duration_ms": 7, "first_byte_ms": 1.5, "bytes": 10, "retries": 0,
                        "streaming": true, "prompt_tokens": 3, "completion_tokens": 4,
                        "tokens_per_second": 12.3,
                    },
                ],
            })
        );
        for _ in 0..2 * RECENT_MAX {
            world.request("m", 0, Outcome::Success, 200, 10, 7);
        }
        let page = value(&requests(&world.inputs()));
        assert_eq!(page["requests"].as_array().unwrap().len(), RECENT_MAX);
    }

    #[test]
    fn quantiles_by_endpoint_and_model() {
        let mut world = World::new();
        world.endpoint("b", "http://127.0.0.1:9", 1, Status::Healthy);
        world.endpoint("a", "http://127.0.0.1:9/api", 1, Status::Healthy);
        for ms in 1..=100 {
            world.request("m", 0, Outcome::Success, 200, 10, ms);
        }
        world.request("m", 0, Outcome::Failure, 200, 10, 5000);
        let mut b = json!({
            "name": "b", "id": "duzvjl", "count": 100, "p50_ms": 50.1, "p95_ms": 95.1,
            "p99_ms": 99.1, "ttft_p50_ms": 1.5, "ttft_p95_ms": 1.5, "ttft_p99_ms": 1.5,
        });
        world.recorder.prompt_sent(100, 40);
        world.scheduling.queue.models.insert("m".into(), 3);
        world.scheduling.queue.other_models = 1;
        let page = value(&latency(&world.inputs()));
        assert_eq!(
            page["scheduling"],
            json!({"waiting": 4, "prompt_tokens": 100, "hit_tokens": 40})
        );
        assert_eq!(
            page["endpoints"],
            json!([{"name": "a", "id": "gpo2ta", "count": 0}, b])
        );
        b["name"] = "m".into();
        b.as_object_mut().unwrap().remove("id");
        assert_eq!(page["models"], json!([b]));
    }
}
