//! The text, family by family and line by line.

use std::collections::BTreeSet;

use super::exposition::BUCKETS;
use super::*;
use crate::operations::process::ProcessFacts;
use crate::operations::stats::{BUCKETS_MS, Outcome, TranslatorEnd};
use crate::operations::testing::World;

fn text(world: &mut World) -> String {
    String::from_utf8(page(&world.inputs()).body).unwrap()
}

/// A family's lines.
fn family<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let start = text.find(&format!("# HELP {name} ")).expect(name);
    let rest = &text[start..];
    let end = rest[1..].find("# HELP").map_or(rest.len(), |end| end + 1);
    rest[..end].lines().collect()
}

fn samples<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    family(text, name).split_off(2)
}

fn busy_world() -> World {
    let mut world = World::new();
    world.endpoint("b", "http://b", 42, Status::Offline);
    world.endpoint("a\"\\\n", "http://a", 100, Status::Healthy);
    world.fleet.endpoints[1].live.begin();
    world.fleet.endpoints[1].model_count = 3;
    for _ in 0..2 {
        world.request("z", 1, Outcome::Success, 200, 100, 30);
    }
    world.request("z", 1, Outcome::Failure, 502, 50, 9);
    world.request("m", 0, Outcome::Cancelled, 200, 1, 9);
    world
}

#[test]
fn the_whole_text_of_an_empty_gateway_in_families() {
    let mut world = World::new();
    let text = text(&mut world);
    let mut seen = BTreeSet::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            current = rest.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(current.clone()), "{current} twice");
            assert!(rest.len() > current.len() + 1, "{current} without help");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            assert!(["gauge", "counter", "histogram"].contains(&kind));
        } else {
            assert!(line.starts_with(&current), "{line} outside of its family");
        }
    }
    let expected = [
        "olla_info",
        "olla_system_status",
        "olla_endpoints_total",
        "olla_endpoints_healthy",
        "olla_success_rate_percent",
        "olla_avg_latency_ms",
        "olla_total_traffic_bytes",
        "olla_uptime_seconds",
        "olla_active_connections",
        "olla_requests_total",
        "olla_failures_total",
        "olla_buffered_body_bytes",
        "olla_security_violations_total",
        "olla_security_rate_limit_violations_total",
        "olla_security_size_limit_violations_total",
        "olla_security_blocked_ips",
        "olla_security_status",
        "olla_access_enabled",
        "olla_access_keys",
        "olla_access_keys_file_ok",
        "olla_access_sessions",
        "olla_state_up",
        "olla_state_pending_rows",
        "olla_state_errors_total",
        "olla_usage_rejected_total",
        "olla_jwks_up",
        "olla_jwks_keys",
        "olla_jwks_last_success_timestamp_seconds",
        "olla_jwks_fetches_total",
        "olla_access_refused_total",
        "olla_access_limited_total",
        "olla_key_requests_total",
        "olla_key_errors_total",
        "olla_key_prompt_tokens_total",
        "olla_key_completion_tokens_total",
        "olla_key_limited_total",
        "olla_key_in_progress",
        "olla_key_quota_used_tokens",
        "olla_key_quota_limit_tokens",
        "olla_endpoint_up",
        "olla_endpoint_healthy",
        "olla_endpoint_requests_total",
        "olla_endpoint_traffic_bytes",
        "olla_endpoint_connections",
        "olla_endpoint_success_rate_percent",
        "olla_endpoint_avg_latency_ms",
        "olla_endpoint_priority",
        "olla_breaker_state",
        "olla_endpoint_models_count",
        "olla_retries_total",
        "olla_retry_budget_exhausted_total",
        "olla_endpoint_cooling",
        "olla_responses_total",
        "olla_request_duration_seconds",
        "olla_time_to_first_byte_seconds",
        "olla_client_disconnects_total",
        "olla_stream_keep_alives_total",
        "olla_accept_failures_total",
        "olla_local_faults_total",
        "olla_translator_requests_total",
        "olla_translation_dropped_total",
        "olla_responses_stored",
        "olla_responses_stored_bytes",
        "olla_responses_lookups_total",
        "olla_responses_evicted_total",
        "olla_sticky_sessions",
        "olla_config_reloads_total",
        "olla_config_last_reload_successful",
        "olla_models_total",
        "olla_models_active",
        "olla_models_success_rate_percent",
        "olla_models_requests_total",
        "olla_models_traffic_bytes",
        "olla_model_requests_total",
        "olla_model_successful_requests_total",
        "olla_model_failed_requests_total",
        "olla_model_traffic_bytes",
        "olla_model_routing_hits_total",
        "olla_model_routing_misses_total",
        "olla_model_routing_fallbacks_total",
        "olla_model_prompt_tokens_total",
        "olla_model_completion_tokens_total",
        "olla_model_success_rate_percent",
        "olla_model_avg_latency_ms",
        "olla_model_p95_latency_ms",
        "olla_model_p99_latency_ms",
        "olla_model_unique_clients",
        "olla_model_tokens_per_second",
        "olla_model_endpoint_requests_total",
        "olla_model_endpoint_success_rate_percent",
        "olla_model_endpoint_avg_latency_ms",
        "olla_model_endpoint_consecutive_errors",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_threads",
        "process_start_time_seconds",
    ];
    assert_eq!(seen, expected.map(str::to_owned).into());
}

#[test]
fn types_are_those_of_the_contract() {
    let text = text(&mut World::new());
    for (name, kind) in [
        ("olla_requests_total", "counter"),
        ("olla_uptime_seconds", "gauge"),
        ("olla_total_traffic_bytes", "gauge"),
        ("olla_endpoint_traffic_bytes", "counter"),
        ("olla_models_traffic_bytes", "counter"),
        ("olla_model_traffic_bytes", "counter"),
        ("olla_model_unique_clients", "gauge"),
        ("olla_model_endpoint_consecutive_errors", "gauge"),
        ("olla_request_duration_seconds", "histogram"),
    ] {
        assert_eq!(family(&text, name)[1], format!("# TYPE {name} {kind}"));
    }
}

#[test]
fn single_values() {
    let mut world = busy_world();
    world.held_bytes = 7;
    world.process = ProcessFacts {
        cpu_seconds: 1.5,
        open_fds: 9,
        ..ProcessFacts::default()
    };
    let text = text(&mut world);
    for line in [
        "olla_info{version=\"1.2.3\",commit=\"abc\",engine=\"olla\",profile=\"auto\",balancer=\"least-connections\"} 1",
        "olla_system_status 0",
        "olla_endpoints_total 2",
        "olla_endpoints_healthy 1",
        "olla_success_rate_percent 75",
        "olla_avg_latency_ms 30",
        "olla_total_traffic_bytes 251",
        "olla_uptime_seconds 7500",
        "olla_active_connections 1",
        "olla_requests_total 4",
        "olla_failures_total 1",
        "olla_buffered_body_bytes 7",
        "olla_security_status 1",
        "olla_client_disconnects_total 1",
        "olla_models_total 2",
        "olla_models_requests_total 4",
        "olla_models_traffic_bytes 251",
        "olla_config_reloads_total{result=\"success\"} 0",
        "olla_config_last_reload_successful 1",
        "process_cpu_seconds_total 1.5",
        "process_open_fds 9",
        "process_start_time_seconds 1776241500",
    ] {
        assert!(
            text.contains(&format!("\n{line}\n")) || text.starts_with(line),
            "{line}"
        );
    }
}

#[test]
fn endpoints_and_models_by_name_with_escapes() {
    let mut world = busy_world();
    world.recorder.translator(&TranslatorEnd {
        translator: "anthropic",
        passthrough: true,
        streaming: false,
        success: true,
        latency_ms: 1,
        fallback: None,
    });
    for field in ["tools.mcp", "tools.mcp", "made_up"] {
        world.recorder.dropped("responses", field);
    }
    let text = text(&mut world);
    let a = r#"endpoint="a\"\\\n""#;
    assert_eq!(
        samples(&text, "olla_endpoint_up"),
        [
            format!("olla_endpoint_up{{{a},status=\"healthy\"}} 1"),
            "olla_endpoint_up{endpoint=\"b\",status=\"offline\"} 0".to_owned(),
        ]
    );
    assert_eq!(
        samples(&text, "olla_endpoint_success_rate_percent"),
        [
            format!("olla_endpoint_success_rate_percent{{{a}}} 66.666667"),
            "olla_endpoint_success_rate_percent{endpoint=\"b\"} 100".to_owned(),
        ]
    );
    assert_eq!(
        samples(&text, "olla_responses_total"),
        [
            format!("olla_responses_total{{{a},code=\"2xx\"}} 2"),
            format!("olla_responses_total{{{a},code=\"3xx\"}} 0"),
            format!("olla_responses_total{{{a},code=\"4xx\"}} 0"),
            format!("olla_responses_total{{{a},code=\"5xx\"}} 1"),
            "olla_responses_total{endpoint=\"b\",code=\"2xx\"} 1".to_owned(),
            "olla_responses_total{endpoint=\"b\",code=\"3xx\"} 0".to_owned(),
            "olla_responses_total{endpoint=\"b\",code=\"4xx\"} 0".to_owned(),
            "olla_responses_total{endpoint=\"b\",code=\"5xx\"} 0".to_owned(),
        ]
    );
    assert_eq!(
        samples(&text, "olla_model_requests_total"),
        [
            "olla_model_requests_total{model=\"m\"} 1",
            "olla_model_requests_total{model=\"z\"} 3",
        ]
    );
    assert_eq!(
        samples(&text, "olla_model_endpoint_consecutive_errors"),
        [
            "olla_model_endpoint_consecutive_errors{model=\"m\",endpoint=\"b\"} 0".to_owned(),
            format!("olla_model_endpoint_consecutive_errors{{model=\"z\",{a}}} 1"),
        ]
    );
    assert_eq!(
        samples(&text, "olla_translator_requests_total"),
        [
            "olla_translator_requests_total{translator=\"anthropic\",mode=\"passthrough\"} 1",
            "olla_translator_requests_total{translator=\"anthropic\",mode=\"translation\"} 0",
        ]
    );
    assert_eq!(
        samples(&text, "olla_translation_dropped_total"),
        [
            "olla_translation_dropped_total{translator=\"responses\",field=\"other\"} 1",
            "olla_translation_dropped_total{translator=\"responses\",field=\"tools.mcp\"} 2",
        ]
    );
}

#[test]
fn histograms_are_cumulative() {
    let mut world = World::new();
    world.endpoint("a", "http://a", 1, Status::Healthy);
    for ms in [5, 6, 30, 400_000] {
        world.request("m", 0, Outcome::Success, 200, 1, ms);
    }
    let text = text(&mut world);
    let lines = samples(&text, "olla_request_duration_seconds");
    let expected: Vec<String> = [
        ("0.005", 1),
        ("0.01", 2),
        ("0.025", 2),
        ("0.05", 3),
        ("0.1", 3),
        ("0.25", 3),
        ("0.5", 3),
        ("1", 3),
        ("2.5", 3),
        ("5", 3),
        ("10", 3),
        ("30", 3),
        ("60", 3),
        ("120", 3),
        ("300", 3),
        ("+Inf", 4),
    ]
    .iter()
    .map(|(le, count)| {
        format!("olla_request_duration_seconds_bucket{{endpoint=\"a\",le=\"{le}\"}} {count}")
    })
    .collect();
    assert_eq!(lines[..16], expected);
    assert_eq!(
        lines[16..],
        [
            "olla_request_duration_seconds_sum{endpoint=\"a\"} 400.041",
            "olla_request_duration_seconds_count{endpoint=\"a\"} 4",
        ]
    );
    let first = samples(&text, "olla_time_to_first_byte_seconds");
    assert_eq!(
        first[16],
        "olla_time_to_first_byte_seconds_sum{endpoint=\"a\"} 0.006"
    );
    for (written, ms) in BUCKETS.iter().zip(BUCKETS_MS) {
        assert_eq!(written.parse::<f64>().unwrap() * 1000.0, ms);
    }
}
