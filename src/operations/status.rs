//! `/internal/status`.
//!
//! Contract: docs/contract/operations.md#4

use std::time::SystemTime;

use serde::Serialize;

use super::Inputs;
use super::conditional::{Page, Tagged, tagged};
use super::last_error::LastErrorItem;
use super::scheduling::SlotsItem;
use super::system::{Seen, System};
use crate::clock::since;
use crate::format::{ago, bytes, instant, latency, percentage_or_na, until, uptime};

#[derive(Serialize)]
struct Status<'a> {
    timestamp: String,
    proxy: Proxy,
    security: Security,
    system: SystemItem<'a>,
    endpoints: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Proxy {
    engine: &'static str,
    profile: &'static str,
    balancer: &'static str,
}

#[derive(Serialize)]
struct Security {
    status: &'static str,
    blocked_ips: usize,
    violations: Violations,
}

#[derive(Serialize)]
struct Violations {
    rate_limits: u64,
    size_limits: u64,
}

#[derive(Serialize)]
struct SystemItem<'a> {
    status: &'static str,
    endpoints_up: String,
    success_rate: String,
    avg_latency: String,
    total_traffic: String,
    uptime: String,
    start_time: String,
    version: &'a str,
    commit: &'a str,
    active_connections: u64,
    security_violations: u64,
    total_requests: u64,
    total_failures: u64,
    has_traffic: bool,
    issues: Vec<SystemIssue<'a>>,
}

/// Something that is wrong with the system as a whole (docs/contract/observe.md#2).
#[derive(Serialize)]
struct SystemIssue<'a> {
    kind: &'static str,
    model: &'a str,
    since: String,
}

#[derive(Serialize)]
struct Item<'a> {
    id: String,
    name: &'a str,
    url: &'a str,
    status: &'static str,
    priority: u32,
    connections: u32,
    requests: u64,
    success_rate: String,
    avg_latency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_latency_ms: Option<u64>,
    min_latency_ms: u64,
    max_latency_ms: u64,
    traffic: String,
    last_check: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check_at: Option<String>,
    next_check: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_check_at: Option<String>,
    issues: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastErrorItem>,
    #[serde(flatten)]
    scheduling: SlotsItem<'a>,
    models: Models,
}

#[derive(Serialize)]
struct Models {
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_updated: Option<String>,
}

impl Tagged for Status<'_> {
    fn blank(&mut self) {
        self.timestamp.clear();
        self.system.uptime.clear();
        for item in &mut self.endpoints {
            item.last_check.clear();
            item.next_check.clear();
            item.health_check_at = None;
            item.next_check_at = None;
        }
    }
}

pub(super) fn page(inputs: &Inputs<'_>) -> Page {
    let system = System::of(inputs);
    let proxy = &inputs.fleet.plan.proxy;
    tagged(Status {
        timestamp: instant(inputs.now),
        proxy: Proxy {
            engine: proxy.engine.as_str(),
            profile: proxy.profile.as_str(),
            balancer: proxy.load_balancer.as_str(),
        },
        security: Security {
            status: if system.is_elevated() {
                "elevated"
            } else {
                "normal"
            },
            blocked_ips: system.blocked_ips,
            violations: Violations {
                rate_limits: system.rate_limit_violations,
                size_limits: system.size_violations,
            },
        },
        system: system_item(inputs, &system),
        endpoints: Seen::all(inputs)
            .into_iter()
            .map(|seen| item(seen, inputs))
            .collect(),
    })
}

fn system_item<'a>(inputs: &Inputs<'a>, system: &System) -> SystemItem<'a> {
    let requests = &system.requests;
    SystemItem {
        status: system.health.as_str(),
        endpoints_up: format!("{}/{}", system.healthy, system.total),
        success_rate: percentage_or_na(requests.tally.unfailed(), requests.tally.requests),
        avg_latency: latency(requests.tally.mean_ms()),
        total_traffic: bytes(system.traffic_bytes),
        uptime: uptime(since(inputs.started, inputs.now)),
        start_time: instant(inputs.started),
        version: &inputs.build.version,
        commit: &inputs.build.commit,
        active_connections: system.active_connections,
        security_violations: system.violations(),
        total_requests: requests.tally.requests,
        total_failures: requests.tally.failures,
        has_traffic: requests.tally.requests > 0,
        issues: system_issues(inputs),
    }
}

/// Models that no endpoint serves any more.
fn system_issues<'a>(inputs: &Inputs<'a>) -> Vec<SystemIssue<'a>> {
    let issue = |(model, since): &(&'a str, SystemTime)| SystemIssue {
        kind: "model_unavailable",
        model,
        since: instant(*since),
    };
    inputs.outages.iter().map(issue).collect()
}

fn item<'a>(seen: Seen<'a>, inputs: &Inputs<'a>) -> Item<'a> {
    let issues = issues(&seen);
    let Seen {
        id,
        endpoint,
        counts,
        ..
    } = seen;
    let health = &endpoint.health;
    Item {
        id,
        name: endpoint.name(),
        url: &endpoint.plan.url.display,
        status: endpoint.status.as_str(),
        priority: endpoint.plan.priority,
        connections: endpoint.live.in_flight(),
        requests: counts.tally.requests,
        success_rate: percentage_or_na(counts.tally.unfailed(), counts.tally.requests),
        avg_latency: latency(counts.tally.mean_ms()),
        avg_latency_ms: (counts.tally.requests > 0).then(|| counts.tally.mean_ms()),
        min_latency_ms: counts.latency_min_ms.unwrap_or(0),
        max_latency_ms: counts.latency_max_ms,
        traffic: bytes(counts.bytes),
        last_check: ago(health.checked_at, inputs.now),
        health_check_at: health.checked_at.map(instant),
        next_check: until(health.next_check_at, inputs.now),
        next_check_at: health.next_check_at.map(instant),
        issues,
        last_error: LastErrorItem::of(endpoint),
        scheduling: SlotsItem::of(endpoint, inputs),
        models: Models {
            count: endpoint.model_count,
            last_updated: endpoint.last_model_sync.map(instant),
        },
    }
}

/// What is wrong with an endpoint, in the contract's order.
fn issues(seen: &Seen<'_>) -> String {
    let all = [
        (seen.fails_checks(), "consecutive failures"),
        (seen.fails_often(), "low success rate"),
        (seen.is_slow(), "high latency"),
        (seen.is_unavailable(), "unavailable"),
    ];
    let there: Vec<&str> = all
        .iter()
        .filter(|(there, _)| *there)
        .map(|(_, issue)| *issue)
        .collect();
    there.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::Status as EndpointStatus;
    use crate::operations::conditional::Caching;
    use crate::operations::stats::{Outcome, Violation};
    use crate::operations::testing::{World, value};

    #[test]
    fn a_fresh_gateway() {
        let mut world = World::new();
        world.endpoint("a", "http://h:1/?key=s", 70, EndpointStatus::Healthy);
        let synced = world.at(-1);
        let endpoint = &mut world.fleet.endpoints[0];
        endpoint.plan = {
            let mut plan = (*endpoint.plan).clone();
            plan.url.display = "http://127.0.0.1:9".to_owned();
            plan.into()
        };
        endpoint.model_count = 1;
        endpoint.last_model_sync = Some(synced);
        world.checked(0, -2, 3);
        let page = page(&world.inputs());
        assert_eq!(
            value(&page),
            json!({
                "timestamp": "2026-04-15T10:30:00Z",
                "proxy": {"engine": "olla", "profile": "auto", "balancer": "least-time"},
                "security": {
                    "status": "normal", "blocked_ips": 0,
                    "violations": {"rate_limits": 0, "size_limits": 0},
                },
                "system": {
                    "status": "healthy", "endpoints_up": "1/1", "success_rate": "N/A",
                    "avg_latency": "0ms", "total_traffic": "0 B", "uptime": "2h 5m",
                    "start_time": "2026-04-15T08:25:00Z", "version": "1.2.3",
                    "commit": "abc", "active_connections": 0, "security_violations": 0,
                    "total_requests": 0, "total_failures": 0, "has_traffic": false,
                    "issues": [],
                },
                "endpoints": [{
                    "id": "duzvjl", "name": "a", "url": "http://127.0.0.1:9",
                    "status": "healthy", "priority": 70, "connections": 0, "requests": 0,
                    "success_rate": "N/A", "avg_latency": "0ms", "min_latency_ms": 0,
                    "max_latency_ms": 0, "traffic": "0 B", "last_check": "2s ago",
                    "health_check_at": "2026-04-15T10:29:58Z", "next_check": "in 3s",
                    "next_check_at": "2026-04-15T10:30:03Z", "issues": "",
                    "slots": null, "running": 0, "queued": 0,
                    "models": {"count": 1, "last_updated": "2026-04-15T10:29:59Z"},
                }],
            })
        );
    }

    #[test]
    fn traffic_and_a_never_checked_endpoint() {
        let mut world = World::new();
        world.endpoint("a", "http://h", 1, EndpointStatus::Healthy);
        world.endpoint("new", "http://n", 1, EndpointStatus::Unknown);
        world.fleet.endpoints[0].live.begin();
        for _ in 0..4 {
            world.request("m", 0, Outcome::Success, 200, 121, 1500);
        }
        world.request("m", 0, Outcome::Success, 503, 10, 9000);
        world.recorder.violation(Violation::Size);
        let value = value(&page(&world.inputs()));
        let system = &value["system"];
        assert_eq!(system["success_rate"], "80.0%");
        assert_eq!(system["status"], "critical");
        assert_eq!(system["avg_latency"], "1.5s");
        assert_eq!(system["total_traffic"], "494 B");
        assert_eq!(system["total_requests"], 5);
        assert_eq!(system["total_failures"], 1);
        assert_eq!(system["has_traffic"], true);
        assert_eq!(system["active_connections"], 1);
        assert_eq!(system["security_violations"], 1);
        let a = &value["endpoints"][0];
        assert_eq!(a["avg_latency_ms"], 1500);
        assert_eq!(a["min_latency_ms"], 1500);
        assert_eq!(a["max_latency_ms"], 1500);
        assert_eq!(a["traffic"], "494 B");
        let new = &value["endpoints"][1];
        assert_eq!(new["last_check"], "never");
        assert_eq!(new["next_check"], "unknown");
        for absent in ["health_check_at", "next_check_at", "avg_latency_ms"] {
            assert!(new.get(absent).is_none(), "{absent}");
        }
        assert!(new["models"].get("last_updated").is_none());
    }

    #[test]
    fn old_failures_do_not_count_and_lost_models_do() {
        let mut world = World::new();
        world.endpoint("a", "http://a", 10, EndpointStatus::Healthy);
        for _ in 0..9 {
            world.request("m", 0, Outcome::Failure, 503, 0, 1);
        }
        let status = |world: &mut World| value(&page(&world.inputs()))["system"].clone();
        assert_eq!(status(&mut world)["status"], "critical");
        world.now = world.at(301);
        let later = status(&mut world);
        assert_eq!(later["status"], "healthy");
        assert_eq!(later["success_rate"], "0%", "since the start");
        world.outages.push(("gone", world.at(-60)));
        let missing = status(&mut world);
        assert_eq!(missing["status"], "degraded");
        let since = world.at(-60);
        let issue = json!({"kind": "model_unavailable", "model": "gone", "since": instant(since)});
        assert_eq!(missing["issues"], json!([issue]));
    }

    #[test]
    fn order_and_issues() {
        let mut world = World::new();
        world.endpoint("a", "http://a", 10, EndpointStatus::Healthy);
        world.endpoint("zulu", "http://z", 50, EndpointStatus::Offline);
        world.endpoint("c", "http://c", 50, EndpointStatus::Unhealthy);
        world.endpoint("alpha", "http://l", 50, EndpointStatus::Offline);
        world.endpoint("up", "http://u", 50, EndpointStatus::Healthy);
        world.fleet.endpoints[1].health.consecutive_failures = 4;
        for outcome in [Outcome::Success, Outcome::Failure] {
            for _ in 0..6 {
                world.request("m", 1, outcome, 200, 0, 5001);
            }
        }
        let page = value(&page(&world.inputs()));
        let names: Vec<&str> = page["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["up", "alpha", "c", "zulu", "a"]);
        let issues = |at: usize| page["endpoints"][at]["issues"].as_str().unwrap();
        assert_eq!(issues(0), "");
        assert_eq!(issues(1), "unavailable");
        assert_eq!(
            issues(3),
            "consecutive failures, low success rate, high latency, unavailable"
        );
    }

    #[test]
    fn the_tag_outlives_the_passing_of_time() {
        let mut world = World::new();
        world.endpoint("a", "http://a", 10, EndpointStatus::Healthy);
        world.checked(0, -2, 3);
        let tag = |world: &mut World| match page(&world.inputs()).caching {
            Caching::Tagged(tag) => tag,
            other => panic!("{other:?}"),
        };
        let before = tag(&mut world);
        world.now = world.at(3000);
        world.checked(0, 1, 4);
        assert_eq!(tag(&mut world), before);
        world.fleet.endpoints[0].live.begin();
        assert_ne!(tag(&mut world), before);
    }

    #[test]
    fn an_attack_shows() {
        let mut world = World::new();
        for last in 0..11 {
            let client = [10, 0, 0, last].into();
            world.recorder.violation(Violation::RateLimit(client));
            world.recorder.violation(Violation::RateLimit(client));
        }
        let security = value(&page(&world.inputs()))["security"].clone();
        assert_eq!(
            security,
            json!({"status": "elevated", "blocked_ips": 11,
                   "violations": {"rate_limits": 22, "size_limits": 0}})
        );
        world.now = world.at(3601);
        let security = value(&page(&world.inputs()))["security"].clone();
        assert_eq!(
            (&security["blocked_ips"], &security["status"]),
            (&json!(0), &json!("normal"))
        );
    }
}
