//! The text, family by family and line by line.

use std::collections::BTreeSet;

use super::exposition::{RATIO_BOUNDS, TIME_BOUNDS};
use super::*;
use crate::operations::SchedulingFacts;
use crate::operations::process::ProcessFacts;
use crate::operations::stats::{Outcome, QueueRefusal, RATIOS, TIMES_MS, TranslatorEnd};
use crate::operations::testing::World;
use crate::schedule::survey::QueueSurvey;
use crate::schedule::{ModelKey, Warmth};

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
        "olla_scheduler_predicted_ttft_seconds",
        "olla_scheduler_ttft_error_ratio",
        "olla_prefix_prompt_tokens_total",
        "olla_prefix_hit_tokens_total",
        "olla_prefix_believed_tokens_total",
        "olla_prefix_reported_tokens_total",
        "olla_scheduler_samples_rejected_total",
        "olla_endpoint_metrics_given_up_total",
        "olla_queue_waiting",
        "olla_queue_wait_seconds",
        "olla_queue_rejected_total",
        "olla_endpoint_slots",
        "olla_endpoint_running",
        "olla_model_loads_total",
        "olla_model_state",
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
        ("olla_scheduler_ttft_error_ratio", "histogram"),
        ("olla_queue_wait_seconds", "histogram"),
        ("olla_queue_waiting", "gauge"),
        ("olla_model_loads_total", "counter"),
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
        "olla_info{version=\"1.2.3\",commit=\"abc\",engine=\"olla\",profile=\"auto\",balancer=\"least-time\"} 1",
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
    for (written, ms) in TIME_BOUNDS.iter().zip(TIMES_MS) {
        assert_eq!(written.parse::<f64>().unwrap() * 1000.0, ms);
    }
    let ratios = RATIO_BOUNDS.map(|written| written.parse::<f64>().unwrap());
    assert_eq!(ratios, RATIOS);
}

#[test]
fn predictions_by_model() {
    let mut world = World::new();
    world.recorder.first_token("m", 0.1, 0.05);
    world.recorder.first_token("other", 3.0, 3.0);
    let long = "x".repeat(1000);
    world.recorder.first_token(&long, 1.0, 1.0);
    let text = text(&mut world);
    let lines = samples(&text, "olla_scheduler_ttft_error_ratio");
    assert_eq!(
        lines[..4],
        [
            r#"olla_scheduler_ttft_error_ratio_bucket{model="m",le="0.1"} 0"#,
            r#"olla_scheduler_ttft_error_ratio_bucket{model="m",le="0.2"} 0"#,
            r#"olla_scheduler_ttft_error_ratio_bucket{model="m",le="0.35"} 0"#,
            r#"olla_scheduler_ttft_error_ratio_bucket{model="m",le="0.5"} 0"#,
        ]
    );
    let series = |name: &str| {
        let line = lines.iter().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next())
    };
    let name = "olla_scheduler_ttft_error_ratio";
    assert_eq!(
        series(&format!("{name}_bucket{{model=\"m\",le=\"1.4\"}}")),
        Some("0")
    );
    assert_eq!(
        series(&format!("{name}_bucket{{model=\"m\",le=\"2\"}}")),
        Some("1")
    );
    // A model of this name and those without counters of their own are one row.
    assert_eq!(
        series(&format!("{name}_count{{model=\"other\"}}")),
        Some("2")
    );
    assert_eq!(lines.len(), 2 * (RATIOS.len() + 3));
    let predicted = samples(&text, "olla_scheduler_predicted_ttft_seconds");
    let sum = r#"olla_scheduler_predicted_ttft_seconds_sum{model="other"} 4"#;
    assert!(predicted.contains(&sum), "{predicted:?}");
}

#[test]
fn the_queue_by_model_and_reason() {
    let mut world = World::new();
    assert_eq!(
        samples(&text(&mut world), "olla_queue_rejected_total"),
        [
            r#"olla_queue_rejected_total{reason="max_waiting"} 0"#,
            r#"olla_queue_rejected_total{reason="max_waiting_per_flow"} 0"#,
            r#"olla_queue_rejected_total{reason="max_wait"} 0"#,
            r#"olla_queue_rejected_total{reason="model_loading"} 0"#,
            r#"olla_queue_rejected_total{reason="shutting_down"} 0"#,
        ]
    );
    world.endpoint("a", "http://a", 1, Status::Healthy);
    world.request("idle", 0, Outcome::Success, 200, 1, 1);
    world.scheduling.queue.models.insert("m".into(), 3);
    world.recorder.queue_refused(QueueRefusal::ModelLoading);
    world.recorder.queue_waited(0.2);
    let page = text(&mut world);
    assert_eq!(
        samples(&page, "olla_queue_waiting"),
        [
            r#"olla_queue_waiting{model="idle"} 0"#,
            r#"olla_queue_waiting{model="m"} 3"#,
        ]
    );
    let reason = r#"olla_queue_rejected_total{reason="model_loading"} 1"#;
    assert!(samples(&page, "olla_queue_rejected_total").contains(&reason));
    let waits = samples(&page, "olla_queue_wait_seconds");
    assert_eq!(
        waits[4..6],
        [
            r#"olla_queue_wait_seconds_bucket{le="0.1"} 0"#,
            r#"olla_queue_wait_seconds_bucket{le="0.25"} 1"#,
        ]
    );
    assert_eq!(
        waits[16..],
        [
            "olla_queue_wait_seconds_sum 0.2",
            "olla_queue_wait_seconds_count 1"
        ]
    );
    world.scheduling.queue.other_models = 2;
    let other = r#"olla_queue_waiting{model="other"} 2"#;
    assert!(text(&mut world).contains(other));
}

#[test]
fn slots_and_models_of_endpoints() {
    let mut world = World::new();
    world.endpoint("b", "http://b", 1, Status::Healthy);
    world.endpoint("a", "http://a", 1, Status::Healthy);
    let names = ["big", "Big:latest", "small"];
    world.scheduling = SchedulingFacts::new(QueueSurvey::default(), names.into_iter(), 4);
    let load = &world.fleet.endpoints[1].load;
    load.configure(2, 1);
    load.start();
    for (model, state, at_ms) in [
        ("big", Warmth::Warm, 1),
        ("big", Warmth::Cold, 2),
        ("big", Warmth::Loading, 3),
        ("small", Warmth::Warm, 1),
        ("not listed", Warmth::Warm, 1),
    ] {
        load.hear_warmth(ModelKey::of(model), state, at_ms);
    }
    world.recorder.prompt_sent(10, 4);
    let text = text(&mut world);
    for line in [
        "olla_endpoint_metrics_given_up_total 4",
        "olla_prefix_prompt_tokens_total 10",
        "olla_prefix_hit_tokens_total 4",
        "olla_scheduler_samples_rejected_total 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}");
    }
    assert_eq!(
        samples(&text, "olla_endpoint_slots"),
        [r#"olla_endpoint_slots{endpoint="a"} 2"#],
        "b has no limit"
    );
    assert_eq!(
        samples(&text, "olla_endpoint_running"),
        [
            r#"olla_endpoint_running{endpoint="a"} 1"#,
            r#"olla_endpoint_running{endpoint="b"} 0"#,
        ]
    );
    // Two spellings of one model are one, by the same name everywhere.
    assert_eq!(
        samples(&text, "olla_model_state"),
        [
            r#"olla_model_state{endpoint="a",model="Big:latest",state="loading"} 1"#,
            r#"olla_model_state{endpoint="a",model="small",state="warm"} 1"#,
        ]
    );
    assert_eq!(
        samples(&text, "olla_model_loads_total"),
        [
            r#"olla_model_loads_total{endpoint="a",model="Big:latest"} 1"#,
            r#"olla_model_loads_total{endpoint="a",model="small"} 0"#,
        ]
    );
}
