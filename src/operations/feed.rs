//! `/internal/stats/requests` and `/internal/stats/latency`: the pages behind the dashboard's
//! views of single requests and of times. Both are ours.
//!
//! `/internal/stats/requests` is `{"timestamp", "requests": [...]}` with the last 200 requests,
//! newest first. Each has `time` (to about 50 ms), `request_id`, `outcome` (`success`, `failure`,
//! `cancelled`, `refused`), `latency_ms`, `traffic_bytes`, `streaming`, and, as far as there are
//! any, `model`, `endpoint`, `status`, `first_byte_ms`, `routing_strategy`, `routing_decision`,
//! `routing_reason`, `prompt_tokens`, `completion_tokens`, `tokens_per_second`. No client
//! addresses, paths or bodies: the page is not protected by default.
//!
//! `/internal/stats/latency` is `{"timestamp", "endpoints": [...], "models": [...]}`, each sorted
//! by name. Each has `name` (endpoints also `id`, as on the status pages) and, in milliseconds,
//! `latency_ms` and `time_to_first_token_ms`: `{"count", "p50", "p95", "p99"}`. Latencies are of
//! successes; the first token is the first byte of an answer's body.

use serde::Serialize;

use super::Inputs;
use super::conditional::{Page, no_store};
use super::format::{Number, endpoint_ids, instant};
use super::stats::{Quantiles, Recent};

#[derive(Serialize)]
struct Requests<'a> {
    timestamp: String,
    requests: Vec<RequestItem<'a>>,
}

#[derive(Serialize)]
struct RequestItem<'a> {
    time: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    latency_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<Number>,
    traffic_bytes: u64,
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
    routing_strategy: &'static str,
    routing_decision: &'static str,
    routing_reason: &'static str,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The last requests.
pub(super) fn requests(inputs: &Inputs<'_>) -> Page {
    let item = |(at, recent)| request_item(at, recent, inputs);
    no_store(&Requests {
        timestamp: instant(inputs.now),
        requests: inputs
            .totals
            .recent()
            .map(|(at, recent)| (instant(*at), recent))
            .map(item)
            .collect(),
    })
}

fn request_item<'a>(time: String, recent: &'a Recent, inputs: &Inputs<'a>) -> RequestItem<'a> {
    let mut endpoints = inputs.fleet.endpoints.iter();
    let endpoint = endpoints.find(|endpoint| Some(endpoint.id) == recent.endpoint_id);
    let speed = (recent.tokens_per_second * 10.0).round() / 10.0;
    RequestItem {
        time,
        request_id: &recent.request_id,
        model: &recent.model,
        endpoint: endpoint.map(|endpoint| endpoint.name()),
        outcome: recent.outcome.as_str(),
        status: recent.status,
        latency_ms: recent.latency_ms,
        first_byte_ms: recent.first_byte_us.map(|us| Number(us as f64 / 1000.0)),
        traffic_bytes: recent.bytes,
        streaming: recent.streaming,
        routing: recent.routing.map(|routing| RoutingItem {
            routing_strategy: routing.strategy,
            routing_decision: routing.decision,
            routing_reason: routing.reason,
        }),
        prompt_tokens: recent.prompt_tokens,
        completion_tokens: recent.completion_tokens,
        tokens_per_second: (speed > 0.0).then_some(Number(speed)),
    }
}

#[derive(Serialize)]
struct Latency<'a> {
    timestamp: String,
    endpoints: Vec<EndpointTimes<'a>>,
    models: Vec<ModelTimes<'a>>,
}

#[derive(Serialize)]
struct EndpointTimes<'a> {
    name: &'a str,
    id: String,
    latency_ms: Times,
    time_to_first_token_ms: Times,
}

#[derive(Serialize)]
struct ModelTimes<'a> {
    name: &'a str,
    latency_ms: Times,
    time_to_first_token_ms: Times,
}

#[derive(Serialize)]
struct Times {
    count: u64,
    p50: Number,
    p95: Number,
    p99: Number,
}

impl Times {
    fn of(quantiles: Option<&Quantiles>) -> Self {
        let at = |percent| Number(quantiles.map_or(0.0, |times| times.percentile_ms(percent)));
        Self {
            count: quantiles.map_or(0, Quantiles::count),
            p50: at(50.0),
            p95: at(95.0),
            p99: at(99.0),
        }
    }
}

/// Quantiles of times.
pub(super) fn latency(inputs: &Inputs<'_>) -> Page {
    let ids = endpoint_ids(&inputs.fleet.endpoints);
    let times = |(endpoint, id): (&'_ crate::fleet::Endpoint, String)| {
        let totals = inputs.totals.endpoint(endpoint.id);
        (
            id,
            Times::of(totals.map(|totals| &totals.latency)),
            Times::of(totals.map(|totals| &totals.first_token)),
        )
    };
    let mut endpoints: Vec<EndpointTimes<'_>> = inputs
        .fleet
        .endpoints
        .iter()
        .zip(ids)
        .map(|(endpoint, id)| {
            let (id, latency_ms, time_to_first_token_ms) = times((endpoint, id));
            EndpointTimes {
                name: endpoint.name(),
                id,
                latency_ms,
                time_to_first_token_ms,
            }
        })
        .collect();
    endpoints.sort_by_key(|times| times.name);
    no_store(&Latency {
        timestamp: instant(inputs.now),
        endpoints,
        models: inputs
            .totals
            .models()
            .into_iter()
            .map(|(name, totals)| ModelTimes {
                name,
                latency_ms: Times::of(Some(&totals.latency)),
                time_to_first_token_ms: Times::of(Some(&totals.first_token)),
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::Status;
    use crate::operations::provider::ProviderFigures;
    use crate::operations::stats::{Outcome, RECENT_MAX, RequestEnd, Route, Routing};
    use crate::operations::testing::{World, value};

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
            model: Some("nosuch"),
            endpoint_id: None,
            client: [127, 0, 0, 1].into(),
            outcome: Outcome::Refused,
            status: Some(404),
            bytes: 90,
            latency_ms: 0,
            first_byte_us: None,
            route: Route::Unserved,
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
                        "time": "2026-04-15T10:30:00Z", "request_id": "refused-1",
                        "model": "nosuch", "outcome": "refused", "status": 404,
                        "latency_ms": 0, "traffic_bytes": 90, "streaming": false,
                        "routing_strategy": "strict", "routing_decision": "rejected",
                        "routing_reason": "model_not_found",
                    },
                    {
                        "time": "2026-04-15T10:30:00Z", "request_id": "id", "model": "m",
                        "endpoint": "a", "outcome": "success", "status": 200, "latency_ms": 7,
                        "first_byte_ms": 1.5, "traffic_bytes": 10, "streaming": true,
                        "prompt_tokens": 3, "completion_tokens": 4, "tokens_per_second": 12.3,
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
        let none = json!({"count": 0, "p50": 0, "p95": 0, "p99": 0});
        let latency_ms = json!({"count": 100, "p50": 50.1, "p95": 95.1, "p99": 99.1});
        let first = json!({"count": 101, "p50": 1.5, "p95": 1.5, "p99": 1.5});
        assert_eq!(
            value(&latency(&world.inputs())),
            json!({
                "timestamp": "2026-04-15T10:30:00Z",
                "endpoints": [
                    {"name": "a", "id": "gpo2ta", "latency_ms": none,
                     "time_to_first_token_ms": none},
                    {"name": "b", "id": "duzvjl", "latency_ms": latency_ms,
                     "time_to_first_token_ms": first},
                ],
                "models": [
                    {"name": "m", "latency_ms": latency_ms, "time_to_first_token_ms": first},
                ],
            })
        );
    }
}
