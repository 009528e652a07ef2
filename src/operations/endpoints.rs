//! `/internal/status/endpoints`.
//!
//! Contract: docs/contract/operations.md#4

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::Inputs;
use super::conditional::{Page, Tagged, tagged};
use super::last_error::{BreakerItem, LastErrorItem};
use super::scheduling::SlotsItem;
use super::system::{Seen, healthy};
use crate::clock::{millis, unix_millis};
use crate::fleet::{Endpoint, Status};
use crate::format::{ago, instant, latency, percentage_or_na};

#[derive(Serialize)]
struct Endpoints<'a> {
    timestamp: String,
    total_count: usize,
    healthy_count: usize,
    routable_count: usize,
    endpoints: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    id: String,
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    status: &'static str,
    priority: u32,
    url: &'a str,
    model_count: usize,
    request_count: u64,
    success_rate: String,
    min_latency_ms: u64,
    max_latency_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_latency_ms: Option<u64>,
    active_connections: u32,
    health_check: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_check_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_model_sync: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_model_sync_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issues: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cooling: Vec<CoolingModel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastErrorItem>,
    #[serde(flatten)]
    scheduling: SlotsItem<'a>,
    breaker: BreakerItem,
}

/// A model that the endpoint is not asked for until a time; an empty name is the whole endpoint.
#[derive(Serialize)]
struct CoolingModel {
    model: Box<str>,
    until: String,
}

impl Tagged for Endpoints<'_> {
    fn blank(&mut self) {
        self.timestamp.clear();
        for item in &mut self.endpoints {
            item.health_check.clear();
            item.health_check_at = None;
            item.next_check_at = None;
            item.last_model_sync = None;
            item.last_model_sync_at = None;
        }
    }
}

pub(super) fn page(inputs: &Inputs<'_>) -> Page {
    let endpoints = &inputs.fleet.endpoints;
    tagged(Endpoints {
        timestamp: instant(inputs.now),
        total_count: endpoints.len(),
        healthy_count: healthy(inputs.fleet),
        routable_count: endpoints.iter().filter(|e| e.status.is_routable()).count(),
        endpoints: Seen::all(inputs)
            .into_iter()
            .map(|seen| item(seen, inputs))
            .collect(),
    })
}

fn item<'a>(seen: Seen<'a>, inputs: &Inputs<'a>) -> Item<'a> {
    let issues = issue(&seen);
    let Seen {
        id,
        endpoint,
        counts,
        ..
    } = seen;
    let health = &endpoint.health;
    let response_ms = health.response_time.map_or(0, millis);
    let synced = endpoint.last_model_sync;
    Item {
        id,
        name: endpoint.name(),
        // The canonical type, for `auto` the one found (docs/contract/README.md#4,
        // docs/contract/catalogue.md#3.6).
        kind: &endpoint.profile.name,
        status: endpoint.status.as_str(),
        priority: endpoint.plan.priority,
        url: &endpoint.plan.url.display,
        model_count: endpoint.model_count,
        request_count: counts.tally.requests,
        success_rate: percentage_or_na(counts.tally.unfailed(), counts.tally.requests),
        min_latency_ms: counts.latency_min_ms.unwrap_or(0),
        max_latency_ms: counts.latency_max_ms,
        avg_latency_ms: (counts.tally.requests > 0).then(|| counts.tally.mean_ms()),
        active_connections: endpoint.live.in_flight(),
        health_check: health
            .checked_at
            .map_or_else(String::new, |at| ago(Some(at), inputs.now)),
        health_check_at: health.checked_at.map(instant),
        next_check_at: health.next_check_at.map(instant),
        response_time: (response_ms > 0).then(|| latency(response_ms)),
        last_model_sync: synced.map(|at| ago(Some(at), inputs.now)),
        last_model_sync_at: synced.map(instant),
        issues,
        cooling: cooling(endpoint, inputs),
        last_error: LastErrorItem::of(endpoint),
        scheduling: SlotsItem::of(endpoint, inputs),
        breaker: BreakerItem::of(endpoint, inputs),
    }
}

fn cooling(endpoint: &Endpoint, inputs: &Inputs<'_>) -> Vec<CoolingModel> {
    let list = endpoint.live.cooling.list(unix_millis(inputs.now));
    let shown = list.into_iter().map(|cool_down| CoolingModel {
        model: cool_down.model,
        until: instant(UNIX_EPOCH + Duration::from_millis(cool_down.until_unix_ms)),
    });
    shown.collect()
}

/// The most important message about the endpoint.
fn issue(seen: &Seen<'_>) -> Option<&'static str> {
    let endpoint = seen.endpoint;
    let sound = endpoint.status == Status::Healthy && endpoint.health.consecutive_failures == 0;
    if seen.is_unavailable() {
        Some("unavailable")
    } else if seen.fails_checks() {
        Some("unstable")
    } else if !sound && seen.fails_often() {
        Some("low success rate")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::breaker::on_failure;
    use crate::fleet::cooling::CoolDown;
    use crate::fleet::{ErrorKind, Failed, Failure};
    use crate::operations::SchedulingFacts;
    use crate::operations::stats::Outcome;
    use crate::operations::testing::{CLOCK_MS, World, value};
    use crate::providers::readings::MemorySource;
    use crate::schedule::load::EndpointLoad;
    use crate::schedule::survey::QueueSurvey;
    use crate::schedule::{ModelKey, Warmth};

    /// The first endpoint tells about its models, of which one is in memory, and is at work.
    fn loaded(world: &mut World) {
        let endpoint = &mut world.fleet.endpoints[0];
        let mut profile = (*endpoint.profile).clone();
        profile.scheduling.memory = Some(MemorySource::default());
        endpoint.profile = profile.into();
        endpoint.load = EndpointLoad::new(7, 0).into();
        endpoint.load.configure(4, 1);
        endpoint.load.start();
        for (model, state) in [("m", Warmth::Warm), ("cold", Warmth::Cold)] {
            endpoint.load.hear_warmth(ModelKey::of(model), state, 1);
        }
        let mut queue = QueueSurvey::default();
        queue.endpoints.insert(7, 2);
        world.scheduling = SchedulingFacts::new(queue, ["m", "cold"].into_iter(), 0);
    }

    #[test]
    fn every_field() {
        let mut world = World::new();
        world.endpoint("a", "http://127.0.0.1:9/far", 80, Status::Healthy);
        world.endpoint("b", "http://b", 20, Status::Busy);
        world.endpoint("c", "http://c", 10, Status::RateLimited);
        world.checked(0, -61, 4);
        world.fleet.endpoints[0].health.response_time = Some(Duration::from_micros(4_900));
        world.fleet.endpoints[1].health.response_time = Some(Duration::from_micros(900));
        world.fleet.endpoints[0].last_model_sync = Some(world.at(-3600));
        world.fleet.endpoints[0].model_count = 2;
        for (model, until_ms) in [("m", 60_500), ("", 5_000), ("gone", 0)] {
            let cool_down = CoolDown {
                model: model.into(),
                until_ms: 1,
                until_unix_ms: unix_millis(world.at(0)) + until_ms,
            };
            world.fleet.endpoints[1].live.cooling.begin(0, cool_down);
        }
        world.request("m", 0, Outcome::Success, 200, 5, 10);
        world.request("m", 0, Outcome::Failure, 200, 5, 99);
        world.request("m", 0, Outcome::Success, 200, 5, 31);
        let failure = Failure {
            kind: ErrorKind::RateLimited,
            message: "responded with HTTP status 429".to_owned(),
            url: "http://c/up".to_owned(),
            status: Some(429),
        };
        for at in [world.at(-9), world.at(-4)] {
            let errors = &mut world.fleet.endpoints[2].errors;
            errors.failed(Failed::Check, failure.clone(), at);
        }
        for _ in 0..5 {
            on_failure(&world.fleet.endpoints[1].live, CLOCK_MS - 1000, None);
        }
        loaded(&mut world);
        let closed = json!({"state": "closed", "opened_at": null, "retry_at": null});
        assert_eq!(
            value(&page(&world.inputs())),
            json!({
                "timestamp": "2026-04-15T10:30:00Z",
                "total_count": 3, "healthy_count": 1, "routable_count": 2,
                "endpoints": [
                    {
                        "id": "1jhonaf", "name": "a", "type": "vllm", "status": "healthy",
                        "priority": 80, "url": "http://127.0.0.1:9/far", "model_count": 2,
                        "request_count": 3, "success_rate": "66.7%", "min_latency_ms": 10,
                        "max_latency_ms": 31, "avg_latency_ms": 20, "active_connections": 0,
                        "health_check": "1m ago", "health_check_at": "2026-04-15T10:28:59Z",
                        "next_check_at": "2026-04-15T10:30:04Z", "response_time": "4ms",
                        "last_model_sync": "1h ago",
                        "last_model_sync_at": "2026-04-15T09:30:00Z", "breaker": closed,
                        "slots": 4, "running": 1, "queued": 2, "models_warm": ["m"],
                    },
                    {
                        "id": "vnximj", "name": "b", "type": "vllm", "status": "busy",
                        "priority": 20, "url": "http://b", "model_count": 0, "request_count": 0,
                        "success_rate": "N/A", "min_latency_ms": 0, "max_latency_ms": 0,
                        "active_connections": 0, "health_check": "",
                        "slots": null, "running": 0, "queued": 0,
                        "cooling": [
                            { "model": "", "until": "2026-04-15T10:30:05Z" },
                            { "model": "m", "until": "2026-04-15T10:31:00.5Z" },
                        ],
                        "breaker": {
                            "state": "open", "opened_at": "2026-04-15T10:29:59Z",
                            "retry_at": "2026-04-15T10:30:29Z",
                        },
                    },
                    {
                        "id": "vdxwxk", "name": "c", "type": "vllm", "status": "rate_limited",
                        "priority": 10, "url": "http://c", "model_count": 0, "request_count": 0,
                        "success_rate": "N/A", "min_latency_ms": 0, "max_latency_ms": 0,
                        "active_connections": 0, "health_check": "", "breaker": closed,
                        "slots": null, "running": 0, "queued": 0,
                        "last_error": {
                            "kind": "rate_limited", "message": "responded with HTTP status 429",
                            "url": "http://c/up", "status": 429, "count": 2,
                            "at": "2026-04-15T10:29:56Z", "since": "2026-04-15T10:29:51Z",
                        },
                    },
                ],
            })
        );
    }

    #[test]
    fn one_issue_at_most() {
        let table = [
            // status, failed checks, failures of 11 requests
            (Status::Offline, 9, 11, Some("unavailable")),
            (Status::Unhealthy, 0, 0, Some("unavailable")),
            (Status::Healthy, 4, 11, Some("unstable")),
            (Status::Healthy, 1, 2, Some("low success rate")),
            (Status::Healthy, 0, 11, None),
            (Status::Busy, 0, 11, Some("low success rate")),
            (Status::Busy, 3, 1, None),
        ];
        for (status, checks, failures, expected) in table {
            let mut world = World::new();
            world.endpoint("a", "http://a", 1, status);
            world.fleet.endpoints[0].health.consecutive_failures = checks;
            for nth in 0..11 {
                let outcome = if nth < failures {
                    Outcome::Failure
                } else {
                    Outcome::Success
                };
                world.request("m", 0, outcome, 200, 0, 1);
            }
            let page = value(&page(&world.inputs()));
            let issues = page["endpoints"][0].get("issues").and_then(|i| i.as_str());
            assert_eq!(issues, expected, "{status} {checks} {failures}");
        }
    }

    #[test]
    fn endpoints_with_one_address_get_numbers() {
        let mut world = World::new();
        world.endpoint("z", "http://127.0.0.1:9", 1, Status::Healthy);
        world.endpoint("a", "http://127.0.0.1:9", 1, Status::Healthy);
        world.endpoint("b", "http://127.0.0.1:9/api", 1, Status::Healthy);
        let page = value(&page(&world.inputs()));
        let ids: Vec<&str> = page["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["duzvjl-0", "gpo2ta", "duzvjl-1"]);
    }
}
