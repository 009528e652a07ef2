//! `/internal/metrics`: the text format of Prometheus, version 0.0.4.
//!
//! Each family is written as a whole: HELP, TYPE, then its samples, sorted by the names of endpoints
//! and models. A family without samples has these two lines too, so that a scrape of a fresh process
//! lists every family.
//!
//! Contract: docs/contract/operations.md#4

mod access;
mod exposition;
mod keys;
mod scheduling;
mod state;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use super::Inputs;
use super::conditional::{Caching, Page};
use super::process::ProcessFacts;
use super::stats::{
    EndpointTotals, LeftBecause, ModelTotals, PairCounts, RequestCounts, Times, resource_name,
};
use super::system::{Seen, System};
use crate::clock::{since, unix_millis};
use crate::fleet::{Status, breaker};
use crate::format::percent;
pub(crate) use state::StateFacts;

use exposition::{Exposition, MetricFamily, counter, gauge};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

pub(super) fn page(inputs: &Inputs<'_>) -> Page {
    let mut text = Exposition::default();
    let system = System::of(inputs);
    let mut endpoints = Seen::all(inputs);
    endpoints.sort_by(|a, b| a.endpoint.name().cmp(b.endpoint.name()));
    let models = inputs.totals.models();
    system_families(&mut text, inputs, &system);
    text.families(&SECURITY_FAMILIES, std::slice::from_ref(&system), |_| []);
    access::families(&mut text, inputs);
    keys::families(&mut text, inputs);
    endpoint_families(&mut text, &endpoints);
    retry_families(&mut text, inputs, &endpoints);
    scheduling::families(&mut text, inputs, &endpoints, &models);
    state::families(&mut text, inputs.state);
    traffic_families(&mut text, inputs, &endpoints);
    all_models_families(&mut text, inputs, &models);
    model_families(&mut text, inputs, &models);
    text.families(&of_process(), &[(inputs.process, inputs.started)], |_| []);
    Page {
        status: 200,
        content_type: CONTENT_TYPE,
        caching: Caching::NoStore,
        body: text.into_bytes(),
    }
}

const SYSTEM_FAMILIES: [MetricFamily<System>; 6] = [
    gauge(
        "olla_system_status",
        "State of the system: 2 healthy, 1 degraded, 0 critical.",
        |system| system.health.as_number().into(),
    ),
    gauge("olla_endpoints_total", "Configured endpoints.", |system| {
        system.total.into()
    }),
    gauge("olla_endpoints_healthy", "Healthy endpoints.", |system| {
        system.healthy.into()
    }),
    gauge(
        "olla_success_rate_percent",
        "Requests that did not fail, in percent; 0 without traffic.",
        |system| {
            percent(
                system.requests.tally.unfailed(),
                system.requests.tally.requests,
            )
            .into()
        },
    ),
    gauge(
        "olla_avg_latency_ms",
        "Mean latency of successful requests in milliseconds.",
        |system| system.requests.tally.mean_ms().into(),
    ),
    gauge(
        "olla_total_traffic_bytes",
        "Bytes of responses sent to clients.",
        |system| system.traffic_bytes.into(),
    ),
];

const REQUEST_FAMILIES: [MetricFamily<System>; 3] = [
    gauge(
        "olla_active_connections",
        "Requests in flight on all endpoints.",
        |system| system.active_connections.into(),
    ),
    counter("olla_requests_total", "Client requests.", |system| {
        system.requests.tally.requests.into()
    }),
    counter(
        "olla_failures_total",
        "Client requests that failed.",
        |system| system.requests.tally.failures.into(),
    ),
];

fn system_families(text: &mut Exposition, inputs: &Inputs<'_>, system: &System) {
    let proxy = &inputs.fleet.plan.proxy;
    text.gauge("olla_info", "Version and configuration, as labels.");
    text.sample(
        "olla_info",
        &[
            ("version", &inputs.build.version),
            ("commit", &inputs.build.commit),
            ("engine", proxy.engine.as_str()),
            ("profile", proxy.profile.as_str()),
            ("balancer", proxy.load_balancer.as_str()),
        ],
        1_u64,
    );
    text.families(&SYSTEM_FAMILIES, std::slice::from_ref(system), |_| []);
    let uptime = since(inputs.started, inputs.now).as_secs_f64();
    text.gauge("olla_uptime_seconds", "Seconds since the process started.");
    text.sample("olla_uptime_seconds", &[], uptime);
    text.families(&REQUEST_FAMILIES, std::slice::from_ref(system), |_| []);
    let name = "olla_buffered_body_bytes";
    text.gauge(name, "Bytes of requests that are held in memory.");
    text.sample(name, &[], inputs.held_bytes);
}

const SECURITY_FAMILIES: [MetricFamily<System>; 5] = [
    counter(
        "olla_security_violations_total",
        "Requests refused by a limit.",
        |system| system.violations().into(),
    ),
    counter(
        "olla_security_rate_limit_violations_total",
        "Requests refused by a rate limit.",
        |system| system.rate_limit_violations.into(),
    ),
    counter(
        "olla_security_size_limit_violations_total",
        "Requests refused by a size limit.",
        |system| system.size_violations.into(),
    ),
    gauge(
        "olla_security_blocked_ips",
        "Client addresses rate limited in the last hour.",
        |system| system.blocked_ips.into(),
    ),
    gauge(
        "olla_security_status",
        "State of security: 1 normal, 0 elevated.",
        |system| (!system.is_elevated()).into(),
    ),
];

fn of_endpoint<'a>() -> [MetricFamily<Seen<'a>>; 9] {
    [
        gauge(
            "olla_endpoint_healthy",
            "Whether the endpoint is healthy.",
            |seen| is_healthy(seen).into(),
        ),
        counter(
            "olla_endpoint_requests_total",
            "Attempts on the endpoint.",
            |seen| seen.counts.tally.requests.into(),
        ),
        counter(
            "olla_endpoint_traffic_bytes",
            "Bytes of the endpoint's responses sent to clients.",
            |seen| seen.counts.bytes.into(),
        ),
        gauge(
            "olla_endpoint_connections",
            "Requests in flight on the endpoint.",
            |seen| u64::from(seen.endpoint.live.in_flight()).into(),
        ),
        gauge(
            "olla_endpoint_success_rate_percent",
            "Attempts that did not fail, in percent; 0 without traffic.",
            |seen| percent(seen.counts.tally.unfailed(), seen.counts.tally.requests).into(),
        ),
        gauge(
            "olla_endpoint_avg_latency_ms",
            "Mean latency of successful attempts in milliseconds.",
            |seen| seen.counts.tally.mean_ms().into(),
        ),
        gauge(
            "olla_endpoint_priority",
            "Configured priority of the endpoint.",
            |seen| u64::from(seen.endpoint.plan.priority).into(),
        ),
        gauge(
            "olla_breaker_state",
            "Breaker of the endpoint: 0 closed, 1 half-open, 2 open.",
            |seen| {
                breaker::shown(&seen.endpoint.live, seen.clock_ms)
                    .state
                    .as_number()
                    .into()
            },
        ),
        gauge(
            "olla_endpoint_models_count",
            "Models that the endpoint lists.",
            |seen| seen.endpoint.model_count.into(),
        ),
    ]
}

fn is_healthy(seen: &Seen<'_>) -> bool {
    seen.endpoint.status == Status::Healthy
}

fn endpoint_families(text: &mut Exposition, endpoints: &[Seen<'_>]) {
    let name = "olla_endpoint_up";
    text.gauge(name, "Whether the endpoint is healthy, with its status.");
    for seen in endpoints {
        let labels = [
            ("endpoint", seen.endpoint.name()),
            ("status", seen.endpoint.status.as_str()),
        ];
        text.sample(name, &labels, is_healthy(seen));
    }
    text.families(&of_endpoint(), endpoints, |seen| {
        [("endpoint", seen.endpoint.name())]
    });
}

fn translator_families(text: &mut Exposition, inputs: &Inputs<'_>) {
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
    let name = "olla_translation_dropped_total";
    let help = "Request fields without effect after translation.";
    text.family(name, "counter", help);
    for ((translator, field), count) in inputs.totals.dropped() {
        let labels = [("translator", translator), ("field", field)];
        text.sample(name, &labels, count);
    }
}

/// The responses that are kept (docs/contract/dialects.md#14).
fn store_families(text: &mut Exposition, inputs: &Inputs<'_>) {
    let counts = &inputs.responses;
    let name = "olla_responses_stored";
    text.gauge(name, "Responses that are kept for previous_response_id.");
    text.sample(name, &[], counts.items as u64);
    let name = "olla_responses_stored_bytes";
    text.gauge(name, "Bytes of the items of kept responses.");
    text.sample(name, &[], counts.bytes as u64);
    let name = "olla_responses_lookups_total";
    text.family(name, "counter", "Look-ups of kept responses by outcome.");
    text.sample(name, &[("outcome", "hit")], counts.hits);
    text.sample(name, &[("outcome", "miss")], counts.misses);
    let name = "olla_responses_evicted_total";
    let help = "Responses that were forgotten because a bound was reached.";
    text.family(name, "counter", help);
    text.sample(name, &[], counts.evictions);
}

fn traffic_families(text: &mut Exposition, inputs: &Inputs<'_>, endpoints: &[Seen<'_>]) {
    let name = "olla_responses_total";
    let help = "Responses of the endpoint by status class.";
    text.family(name, "counter", help);
    for seen in endpoints {
        for (class, count) in CLASSES.iter().zip(seen.counts.classes) {
            let labels = [("endpoint", seen.endpoint.name()), ("code", class)];
            text.sample(name, &labels, count);
        }
    }
    let mut histogram = |name, help, times: fn(&EndpointTotals) -> &Times| {
        text.family(name, "histogram", help);
        for seen in endpoints {
            let totals = inputs.totals.endpoint(seen.endpoint.id);
            let labels = [("endpoint", seen.endpoint.name())];
            let none = Times::default();
            text.times(name, &labels, totals.map_or(&none, times));
        }
    };
    histogram(
        "olla_request_duration_seconds",
        "Duration of successful attempts.",
        |totals| &totals.duration,
    );
    histogram(
        "olla_time_to_first_byte_seconds",
        "Time to the first byte of a response body.",
        |totals| &totals.first_byte,
    );
    let name = "olla_client_disconnects_total";
    let help = "Requests that ended because the client disconnected.";
    text.family(name, "counter", help);
    text.sample(name, &[], inputs.totals.system().client_disconnects);
    let name = "olla_stream_keep_alives_total";
    let help = "Comments and pings that silent streams got from the gateway.";
    text.family(name, "counter", help);
    text.sample(name, &[], inputs.totals.system().stream_keep_alives);
    let name = "olla_accept_failures_total";
    let help = "Attempts to accept a connection that failed, by the missing resource.";
    text.family(name, "counter", help);
    for (resource, count) in inputs.totals.accept_failures() {
        text.sample(name, &[("reason", resource_name(resource))], count);
    }
    let name = "olla_local_faults_total";
    let help =
        "Connections to endpoints that this machine could not open, by the missing resource.";
    text.family(name, "counter", help);
    for (resource, count) in inputs.totals.local_faults() {
        text.sample(name, &[("reason", resource_name(resource))], count);
    }
    translator_families(text, inputs);
    store_families(text, inputs);
    text.gauge("olla_sticky_sessions", "Current sticky sessions.");
    text.sample("olla_sticky_sessions", &[], inputs.sticky.active_sessions);
    let reloads = inputs.totals.reloads();
    let name = "olla_config_reloads_total";
    text.family(name, "counter", "Reloads of the configuration by result.");
    text.sample(name, &[("result", "success")], reloads.successes);
    text.sample(name, &[("result", "failure")], reloads.failures);
    let name = "olla_config_last_reload_successful";
    let help = "Whether the last reload of the configuration succeeded.";
    text.gauge(name, help);
    text.sample(name, &[], reloads.last_successful);
}

fn retry_families(text: &mut Exposition, inputs: &Inputs<'_>, endpoints: &[Seen<'_>]) {
    let name = "olla_retries_total";
    let help = "Requests that left the endpoint for another, by the reason.";
    text.family(name, "counter", help);
    for seen in endpoints {
        for because in LeftBecause::ALL {
            let labels = [
                ("endpoint", seen.endpoint.name()),
                ("reason", because.as_str()),
            ];
            text.sample(name, &labels, seen.counts.left[because as usize]);
        }
    }
    let name = "olla_retry_budget_exhausted_total";
    let help = "Responses passed on because too many requests had been repeated for a status.";
    text.family(name, "counter", help);
    text.sample(name, &[], inputs.totals.system().retry_budget_exhausted);
    let name = "olla_endpoint_cooling";
    text.gauge(name, "Models of the endpoint that cool down.");
    let now_ms = unix_millis(inputs.now);
    for seen in endpoints {
        let count = seen.endpoint.live.cooling.list(now_ms).len();
        text.sample(name, &[("endpoint", seen.endpoint.name())], count);
    }
}

const ALL_MODELS_FAMILIES: [MetricFamily<RequestCounts>; 3] = [
    gauge(
        "olla_models_success_rate_percent",
        "Requests with a model that did not fail, in percent; 0 without traffic.",
        |counts| percent(counts.tally.unfailed(), counts.tally.requests).into(),
    ),
    counter(
        "olla_models_requests_total",
        "Requests with a model.",
        |counts| counts.tally.requests.into(),
    ),
    counter(
        "olla_models_traffic_bytes",
        "Bytes of responses to requests with a model.",
        |counts| counts.bytes.into(),
    ),
];

fn all_models_families(
    text: &mut Exposition,
    inputs: &Inputs<'_>,
    models: &[(&str, &ModelTotals)],
) {
    let is_active = |(_, totals): &&(&str, &ModelTotals)| totals.is_active(inputs.now);
    let active = models.iter().filter(is_active).count();
    text.gauge("olla_models_total", "Models that have been requested.");
    text.sample("olla_models_total", &[], models.len());
    text.gauge("olla_models_active", "Models requested in the last hour.");
    text.sample("olla_models_active", &[], active);
    let counts = &inputs.totals.system().model_requests;
    text.families(&ALL_MODELS_FAMILIES, std::slice::from_ref(counts), |_| []);
}

/// A model at the time of the scrape.
struct ModelRow<'a> {
    name: &'a str,
    totals: &'a ModelTotals,
    now: SystemTime,
}

fn model_counters<'a>() -> [MetricFamily<ModelRow<'a>>; 9] {
    [
        counter(
            "olla_model_requests_total",
            "Requests for the model.",
            |model| model.totals.counts.tally.requests.into(),
        ),
        counter(
            "olla_model_successful_requests_total",
            "Requests that succeeded.",
            |model| model.totals.counts.tally.successes.into(),
        ),
        counter(
            "olla_model_failed_requests_total",
            "Requests that failed.",
            |model| model.totals.counts.tally.failures.into(),
        ),
        counter("olla_model_traffic_bytes", "Bytes of responses.", |model| {
            model.totals.counts.bytes.into()
        }),
        counter(
            "olla_model_routing_hits_total",
            "Requests served by the first endpoint.",
            |model| model.totals.counts.hits.into(),
        ),
        counter(
            "olla_model_routing_misses_total",
            "Requests that needed another endpoint.",
            |model| model.totals.counts.misses.into(),
        ),
        counter(
            "olla_model_routing_fallbacks_total",
            "Requests routed as a fallback.",
            |model| model.totals.counts.fallbacks.into(),
        ),
        counter(
            "olla_model_prompt_tokens_total",
            "Tokens of prompts.",
            |model| model.totals.counts.prompt_tokens.into(),
        ),
        counter(
            "olla_model_completion_tokens_total",
            "Tokens generated.",
            |model| model.totals.counts.completion_tokens.into(),
        ),
    ]
}

fn model_gauges<'a>() -> [MetricFamily<ModelRow<'a>>; 6] {
    [
        gauge(
            "olla_model_success_rate_percent",
            "Requests that did not fail, in percent.",
            |model| {
                let counts = &model.totals.counts;
                percent(counts.tally.unfailed(), counts.tally.requests).into()
            },
        ),
        gauge(
            "olla_model_avg_latency_ms",
            "Mean latency of successful requests in milliseconds.",
            |model| model.totals.counts.tally.mean_ms().into(),
        ),
        gauge(
            "olla_model_p95_latency_ms",
            "95th percentile of a sample of successful latencies in milliseconds.",
            |model| model.totals.p95_p99().0.into(),
        ),
        gauge(
            "olla_model_p99_latency_ms",
            "99th percentile of a sample of successful latencies in milliseconds.",
            |model| model.totals.p95_p99().1.into(),
        ),
        gauge(
            "olla_model_unique_clients",
            "Client addresses of the last hour, at most 100.",
            |model| model.totals.unique_clients(model.now).into(),
        ),
        gauge(
            "olla_model_tokens_per_second",
            "Tokens generated per second of generation.",
            |model| model.totals.counts.tokens_per_second().into(),
        ),
    ]
}

/// A model on an endpoint.
struct PairRow<'a> {
    model: &'a str,
    endpoint: &'a str,
    counts: &'a PairCounts,
}

fn of_pair<'a>() -> [MetricFamily<PairRow<'a>>; 4] {
    [
        counter(
            "olla_model_endpoint_requests_total",
            "Attempts for the model on the endpoint.",
            |pair| pair.counts.tally.requests.into(),
        ),
        gauge(
            "olla_model_endpoint_success_rate_percent",
            "Attempts that did not fail, in percent.",
            |pair| percent(pair.counts.tally.unfailed(), pair.counts.tally.requests).into(),
        ),
        gauge(
            "olla_model_endpoint_avg_latency_ms",
            "Mean latency of successful attempts in milliseconds.",
            |pair| pair.counts.tally.mean_ms().into(),
        ),
        gauge(
            "olla_model_endpoint_consecutive_errors",
            "Attempts that failed since the last successful one.",
            |pair| pair.counts.consecutive_errors.into(),
        ),
    ]
}

fn model_families(text: &mut Exposition, inputs: &Inputs<'_>, models: &[(&str, &ModelTotals)]) {
    let rows = models.iter().map(|(name, totals)| ModelRow {
        name,
        totals,
        now: inputs.now,
    });
    let rows: Vec<_> = rows.collect();
    text.families(&model_counters(), &rows, |model| [("model", model.name)]);
    text.families(&model_gauges(), &rows, |model| [("model", model.name)]);
    let mut endpoints: Vec<_> = inputs.fleet.endpoints.iter().collect();
    endpoints.sort_by_key(|endpoint| endpoint.name());
    let mut pairs = Vec::new();
    for (model, totals) in models {
        for endpoint in &endpoints {
            if let Some(pair) = totals.endpoints.get(&endpoint.id) {
                pairs.push(PairRow {
                    model,
                    endpoint: endpoint.name(),
                    counts: &pair.counts,
                });
            }
        }
    }
    text.families(&of_pair(), &pairs, |pair| {
        [("model", pair.model), ("endpoint", pair.endpoint)]
    });
}

/// The process and its start.
type ProcessRow<'a> = (&'a ProcessFacts, SystemTime);

fn of_process<'a>() -> [MetricFamily<ProcessRow<'a>>; 7] {
    [
        counter(
            "process_cpu_seconds_total",
            "Processor time used, in seconds.",
            |(facts, _)| facts.cpu_seconds.into(),
        ),
        gauge(
            "process_open_fds",
            "Open files and sockets.",
            |(facts, _)| facts.open_fds.into(),
        ),
        gauge(
            "process_max_fds",
            "Limit of open files and sockets.",
            |(facts, _)| facts.max_fds.into(),
        ),
        gauge(
            "process_virtual_memory_bytes",
            "Address space in bytes.",
            |(facts, _)| facts.virtual_bytes.into(),
        ),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory in bytes.",
            |(facts, _)| facts.resident_bytes.into(),
        ),
        gauge("process_threads", "Threads.", |(facts, _)| {
            facts.threads.into()
        }),
        gauge(
            "process_start_time_seconds",
            "Start of the process, in seconds since 1970.",
            |(_, started)| since(UNIX_EPOCH, *started).as_secs_f64().into(),
        ),
    ]
}
