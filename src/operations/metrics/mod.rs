//! `/internal/metrics`: the text format of Prometheus, version 0.0.4.
//!
//! Each family stands together: HELP, TYPE, then its samples, endpoints and models in the order of
//! their names. A family without samples still has its two lines, so that a scrape of a fresh
//! process shows what there will be.
//!
//! Contract: docs/contract/operations.md#4

mod exposition;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use super::Inputs;
use super::conditional::{Caching, Page};
use super::stats::{Buckets, ModelTotals, PairTotals, resource_name};
use super::system::{Seen, System};
use crate::clock::since;
use crate::fleet::Status;
use crate::format::percent;
use exposition::Exposition;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

pub(super) fn page(inputs: &Inputs<'_>) -> Page {
    let mut text = Exposition::default();
    let system = System::of(inputs);
    let mut endpoints = Seen::all(inputs);
    endpoints.sort_by(|a, b| a.endpoint.name().cmp(b.endpoint.name()));
    let models = inputs.totals.models();
    system_families(&mut text, inputs, &system);
    security_families(&mut text, &system);
    endpoint_families(&mut text, &endpoints);
    traffic_families(&mut text, inputs, &endpoints, &system);
    models_families(&mut text, inputs, &models);
    model_families(&mut text, inputs, &models);
    pair_families(&mut text, inputs, &models);
    process_families(&mut text, inputs);
    Page {
        status: 200,
        content_type: CONTENT_TYPE,
        caching: Caching::NoStore,
        body: text.into_bytes(),
    }
}

fn system_families(text: &mut Exposition, inputs: &Inputs<'_>, system: &System) {
    let proxy = &inputs.fleet.plan.proxy;
    text.gauge("olla_info", "What runs, as labels.");
    text.sample(
        "olla_info",
        &[
            ("version", &inputs.build.version),
            ("commit", &inputs.build.commit),
            ("engine", proxy.engine.as_str()),
            ("profile", proxy.profile.as_str()),
            ("balancer", proxy.load_balancer.as_str()),
        ],
        1,
    );
    for (name, help, value) in system_gauges(inputs, system) {
        text.gauge(name, help);
        text.sample(name, &[], value);
    }
    let requests = &system.requests;
    text.counter_of("olla_requests_total", "Client requests.", requests.requests);
    text.counter_of(
        "olla_failures_total",
        "Client requests that failed.",
        requests.failures,
    );
}

fn system_gauges(inputs: &Inputs<'_>, system: &System) -> [(&'static str, &'static str, f64); 8] {
    let requests = &system.requests;
    let rate = percent(requests.unfailed(), requests.requests);
    let up_for = since(inputs.started, inputs.now).as_secs_f64();
    [
        (
            "olla_system_status",
            "State of the system: 2 healthy, 1 degraded, 0 critical.",
            system.verdict.as_number() as f64,
        ),
        (
            "olla_endpoints_total",
            "Configured endpoints.",
            system.total as f64,
        ),
        (
            "olla_endpoints_healthy",
            "Healthy endpoints.",
            system.healthy as f64,
        ),
        (
            "olla_success_rate_percent",
            "Requests that did not fail, in percent; 0 without traffic.",
            rate,
        ),
        (
            "olla_avg_latency_ms",
            "Mean latency of successful requests in milliseconds.",
            requests.mean_ms() as f64,
        ),
        (
            "olla_total_traffic_bytes",
            "Bytes of answers sent to clients.",
            system.traffic_bytes as f64,
        ),
        (
            "olla_uptime_seconds",
            "Seconds since the process started.",
            up_for,
        ),
        (
            "olla_active_connections",
            "Requests in flight on all endpoints.",
            system.active_connections as f64,
        ),
    ]
}

fn security_families(text: &mut Exposition, system: &System) {
    text.counter_of(
        "olla_security_violations_total",
        "Requests refused by a limit.",
        system.violations(),
    );
    text.counter_of(
        "olla_security_rate_limit_violations_total",
        "Requests refused by a rate limit.",
        system.rate_limit_violations,
    );
    text.counter_of(
        "olla_security_size_limit_violations_total",
        "Requests refused by a size limit.",
        system.size_violations,
    );
    text.gauge(
        "olla_security_blocked_ips",
        "Client addresses rate limited in the last hour.",
    );
    text.sample("olla_security_blocked_ips", &[], system.blocked_ips as u64);
    text.gauge(
        "olla_security_status",
        "State of security: 1 normal, 0 elevated.",
    );
    let normal = u64::from(!system.is_elevated());
    text.sample("olla_security_status", &[], normal);
}

/// Families with one sample for each endpoint: name, type, help, value.
type EndpointFamily = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Seen<'_>) -> f64,
);

const ENDPOINT_FAMILIES: [EndpointFamily; 9] = [
    (
        "olla_endpoint_healthy",
        "gauge",
        "Whether the endpoint is healthy.",
        |seen| is_up(seen),
    ),
    (
        "olla_endpoint_requests_total",
        "counter",
        "Attempts on the endpoint.",
        |seen| seen.counts.requests as f64,
    ),
    (
        "olla_endpoint_traffic_bytes",
        "counter",
        "Bytes of the endpoint's answers sent to clients.",
        |seen| seen.counts.bytes as f64,
    ),
    (
        "olla_endpoint_connections",
        "gauge",
        "Requests in flight on the endpoint.",
        |seen| f64::from(seen.endpoint.live.in_flight()),
    ),
    (
        "olla_endpoint_success_rate_percent",
        "gauge",
        "Attempts that did not fail, in percent; 0 without traffic.",
        |seen| percent(seen.counts.unfailed(), seen.counts.requests),
    ),
    (
        "olla_endpoint_avg_latency_ms",
        "gauge",
        "Mean latency of successful attempts in milliseconds.",
        |seen| seen.counts.mean_ms() as f64,
    ),
    (
        "olla_endpoint_priority",
        "gauge",
        "Configured priority of the endpoint.",
        |seen| f64::from(seen.endpoint.plan.priority),
    ),
    (
        "olla_endpoint_models_count",
        "gauge",
        "Models that the endpoint lists.",
        |seen| seen.endpoint.model_count as f64,
    ),
    (
        "olla_retries_total",
        "counter",
        "Attempts on the endpoint after another one failed.",
        |seen| seen.counts.retries as f64,
    ),
];

fn is_up(seen: &Seen<'_>) -> f64 {
    f64::from(u8::from(seen.endpoint.status == Status::Healthy))
}

fn endpoint_families(text: &mut Exposition, endpoints: &[Seen<'_>]) {
    let name = "olla_endpoint_up";
    text.gauge(name, "Whether the endpoint is healthy, with its status.");
    for seen in endpoints {
        let labels = [
            ("endpoint", seen.endpoint.name()),
            ("status", seen.endpoint.status.as_str()),
        ];
        text.sample(name, &labels, is_up(seen));
    }
    for (name, kind, help, value) in ENDPOINT_FAMILIES {
        text.family(name, kind, help);
        for seen in endpoints {
            text.sample(name, &[("endpoint", seen.endpoint.name())], value(seen));
        }
    }
}

fn traffic_families(
    text: &mut Exposition,
    inputs: &Inputs<'_>,
    endpoints: &[Seen<'_>],
    system: &System,
) {
    let name = "olla_responses_total";
    text.family(
        name,
        "counter",
        "Answers of the endpoint by class of status.",
    );
    for seen in endpoints {
        for (class, count) in CLASSES.iter().zip(seen.counts.classes) {
            let labels = [("endpoint", seen.endpoint.name()), ("code", class)];
            text.sample(name, &labels, count);
        }
    }
    let none = Buckets::default();
    let name = "olla_request_duration_seconds";
    text.family(name, "histogram", "Duration of successful attempts.");
    for seen in endpoints {
        let totals = inputs.totals.endpoint(seen.endpoint.id);
        let buckets = totals.map_or(&none, |totals| &totals.duration);
        text.histogram(name, seen.endpoint.name(), buckets);
    }
    let name = "olla_time_to_first_byte_seconds";
    text.family(
        name,
        "histogram",
        "Time to the first byte of an answer's body.",
    );
    for seen in endpoints {
        let totals = inputs.totals.endpoint(seen.endpoint.id);
        let buckets = totals.map_or(&none, |totals| &totals.first_byte);
        text.histogram(name, seen.endpoint.name(), buckets);
    }
    text.counter_of(
        "olla_client_disconnects_total",
        "Requests whose client hung up.",
        system.client_disconnects,
    );
    let name = "olla_accept_failures_total";
    text.family(
        name,
        "counter",
        "Attempts to accept a connection that failed, by the missing resource.",
    );
    for (resource, count) in inputs.totals.accept_failures() {
        text.sample(name, &[("reason", resource_name(resource))], count);
    }
    let name = "olla_translator_requests_total";
    text.family(name, "counter", "Requests of each translator by mode.");
    let mut translators = inputs.totals.translators().to_vec();
    translators.sort_by_key(|(name, _)| *name);
    for (translator, counts) in translators {
        for (mode, count) in [
            ("passthrough", counts.passthrough),
            ("translation", counts.requests - counts.passthrough),
        ] {
            text.sample(name, &[("translator", translator), ("mode", mode)], count);
        }
    }
    text.gauge("olla_sticky_sessions", "Sticky sessions kept now.");
    text.sample("olla_sticky_sessions", &[], inputs.sticky.active_sessions);
    let reloads = inputs.totals.reloads();
    let name = "olla_config_reloads_total";
    text.family(name, "counter", "Reloads of the configuration by result.");
    text.sample(name, &[("result", "success")], reloads.successes);
    text.sample(name, &[("result", "failure")], reloads.failures);
    let name = "olla_config_last_reload_successful";
    text.gauge(
        name,
        "Whether the last reload of the configuration succeeded.",
    );
    text.sample(name, &[], u64::from(reloads.last_successful));
}

fn models_families(text: &mut Exposition, inputs: &Inputs<'_>, models: &[(&str, &ModelTotals)]) {
    let ever = &inputs.totals.system().model_requests;
    let active = models
        .iter()
        .filter(|(_, totals)| totals.is_active(inputs.now));
    text.gauge("olla_models_total", "Models that have been requested.");
    text.sample("olla_models_total", &[], models.len() as u64);
    text.gauge("olla_models_active", "Models requested in the last hour.");
    text.sample("olla_models_active", &[], active.count() as u64);
    let name = "olla_models_success_rate_percent";
    text.gauge(
        name,
        "Requests with a model that did not fail, in percent; 0 without traffic.",
    );
    text.sample(name, &[], percent(ever.unfailed(), ever.requests));
    text.counter_of(
        "olla_models_requests_total",
        "Requests with a model.",
        ever.requests,
    );
    text.counter_of(
        "olla_models_traffic_bytes",
        "Bytes of answers to requests with a model.",
        ever.bytes,
    );
}

/// Families with one sample for each model: name, type, help, value at a time.
type ModelFamily = (
    &'static str,
    &'static str,
    &'static str,
    fn(&ModelTotals, SystemTime) -> f64,
);

const MODEL_FAMILIES: [ModelFamily; 15] = [
    (
        "olla_model_requests_total",
        "counter",
        "Requests for the model.",
        |model, _| model.counts.requests as f64,
    ),
    (
        "olla_model_successful_requests_total",
        "counter",
        "Requests that succeeded.",
        |model, _| model.counts.successes as f64,
    ),
    (
        "olla_model_failed_requests_total",
        "counter",
        "Requests that failed.",
        |model, _| model.counts.failures as f64,
    ),
    (
        "olla_model_traffic_bytes",
        "counter",
        "Bytes of answers.",
        |model, _| model.counts.bytes as f64,
    ),
    (
        "olla_model_routing_hits_total",
        "counter",
        "Requests served by the first endpoint.",
        |model, _| model.counts.hits as f64,
    ),
    (
        "olla_model_routing_misses_total",
        "counter",
        "Requests that needed another endpoint.",
        |model, _| model.counts.misses as f64,
    ),
    (
        "olla_model_routing_fallbacks_total",
        "counter",
        "Requests routed as a fallback.",
        |model, _| model.counts.fallbacks as f64,
    ),
    (
        "olla_model_prompt_tokens_total",
        "counter",
        "Tokens of prompts.",
        |model, _| model.counts.prompt_tokens as f64,
    ),
    (
        "olla_model_completion_tokens_total",
        "counter",
        "Tokens generated.",
        |model, _| model.counts.completion_tokens as f64,
    ),
    (
        "olla_model_success_rate_percent",
        "gauge",
        "Requests that did not fail, in percent.",
        |model, _| percent(model.counts.unfailed(), model.counts.requests),
    ),
    (
        "olla_model_avg_latency_ms",
        "gauge",
        "Mean latency of successful requests in milliseconds.",
        |model, _| model.counts.mean_ms() as f64,
    ),
    (
        "olla_model_p95_latency_ms",
        "gauge",
        "95th percentile of a sample of successful latencies in milliseconds.",
        |model, _| model.p95_p99().0 as f64,
    ),
    (
        "olla_model_p99_latency_ms",
        "gauge",
        "99th percentile of a sample of successful latencies in milliseconds.",
        |model, _| model.p95_p99().1 as f64,
    ),
    (
        "olla_model_unique_clients",
        "gauge",
        "Client addresses of the last hour, at most 100.",
        |model, now| model.unique_clients(now) as f64,
    ),
    (
        "olla_model_tokens_per_second",
        "gauge",
        "Tokens generated in a second of generation.",
        |model, _| model.counts.tokens_per_second(),
    ),
];

fn model_families(text: &mut Exposition, inputs: &Inputs<'_>, models: &[(&str, &ModelTotals)]) {
    for (name, kind, help, value) in MODEL_FAMILIES {
        text.family(name, kind, help);
        for (model, totals) in models {
            text.sample(name, &[("model", model)], value(totals, inputs.now));
        }
    }
}

fn pair_families(text: &mut Exposition, inputs: &Inputs<'_>, models: &[(&str, &ModelTotals)]) {
    let mut endpoints: Vec<_> = inputs.fleet.endpoints.iter().collect();
    endpoints.sort_by_key(|endpoint| endpoint.name());
    let mut family = |name, kind, help, value: &dyn Fn(&PairTotals) -> f64| {
        text.family(name, kind, help);
        for (model, totals) in models {
            for endpoint in &endpoints {
                if let Some(pair) = totals.endpoints.get(&endpoint.id) {
                    let labels = [("model", *model), ("endpoint", endpoint.name())];
                    text.sample(name, &labels, value(pair));
                }
            }
        }
    };
    family(
        "olla_model_endpoint_requests_total",
        "counter",
        "Attempts for the model on the endpoint.",
        &|pair| pair.counts.requests as f64,
    );
    family(
        "olla_model_endpoint_success_rate_percent",
        "gauge",
        "Attempts that did not fail, in percent.",
        &|pair| percent(pair.counts.unfailed(), pair.counts.requests),
    );
    family(
        "olla_model_endpoint_avg_latency_ms",
        "gauge",
        "Mean latency of successful attempts in milliseconds.",
        &|pair| pair.counts.mean_ms() as f64,
    );
    family(
        "olla_model_endpoint_consecutive_errors",
        "gauge",
        "Attempts that failed since the last that succeeded.",
        &|pair| pair.counts.consecutive_errors as f64,
    );
}

fn process_families(text: &mut Exposition, inputs: &Inputs<'_>) {
    let facts = inputs.process;
    text.family(
        "process_cpu_seconds_total",
        "counter",
        "Processor time used, in seconds.",
    );
    text.sample("process_cpu_seconds_total", &[], facts.cpu_seconds);
    let gauges: [(&str, &str, f64); 6] = [
        (
            "process_open_fds",
            "Open files and sockets.",
            facts.open_fds as f64,
        ),
        (
            "process_max_fds",
            "Most files and sockets that may be open.",
            facts.max_fds as f64,
        ),
        (
            "process_virtual_memory_bytes",
            "Address space in bytes.",
            facts.virtual_bytes as f64,
        ),
        (
            "process_resident_memory_bytes",
            "Bytes in memory.",
            facts.resident_bytes as f64,
        ),
        ("process_threads", "Threads.", facts.threads as f64),
        (
            "process_start_time_seconds",
            "Start of the process, in seconds since 1970.",
            since(UNIX_EPOCH, inputs.started).as_secs_f64(),
        ),
    ];
    for (name, help, value) in gauges {
        text.gauge(name, help);
        text.sample(name, &[], value);
    }
}
