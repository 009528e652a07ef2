//! The whole plan from the whole file, and the declarations of the keys that have no file of their
//! own: path, type, default, bounds, variable and remark, each where its value goes into the plan.
//!
//! contract: operations 10, 11; balancing 5; catalogue 3.1, 5.10

use std::time::Duration;

use super::ConfigInputs;
use super::bounds::{NO_MAX, U32_MAX, secs};
use super::endpoint::{EndpointPlan, NameFilter};
use super::fleet;
use super::logging::logging;
use super::plan::*;
use super::proxy::proxy;
use super::section::Section;
use super::server::server;
use super::translators::translators;
use super::tree::ConfigValue;

/// Reads the whole configuration.
pub(super) fn plan(root: &mut Section<'_, '_>, inputs: &ConfigInputs<'_>) -> Plan {
    let server = server(&mut root.section("server"));
    let proxy = proxy(&mut root.section("proxy"));
    let discovery = discovery(
        &mut root.section("discovery"),
        inputs,
        &proxy.profile_filter,
    );
    check_overrides(root, &server.rate_limits.per_endpoint, &discovery.endpoints);
    Plan {
        server,
        proxy,
        discovery,
        model_registry: model_registry(&mut root.section("model_registry")),
        model_aliases: model_aliases(root),
        translators: translators(&mut root.section("translators"), inputs.cwd),
        logging: logging(&mut root.section("logging")),
        dashboard: dashboard(&mut root.section("dashboard")),
        engineering: EngineeringPlan {
            show_nerdstats: root
                .section("engineering")
                .key(
                    "show_nerdstats",
                    "Log memory and runtime figures at shutdown.",
                )
                .env("OLLA_SHOW_NERD_STATS")
                .bool(false),
        },
        process: process(root),
    }
}

/// Warns of rates for endpoints that are not there.
fn check_overrides(
    root: &mut Section<'_, '_>,
    rates: &EndpointRatesPlan,
    endpoints: &[EndpointPlan],
) {
    for (name, _) in &rates.overrides {
        if endpoints.iter().all(|endpoint| endpoint.name != *name) {
            let mut server = root.section("server");
            let mut limits = server.section("rate_limits");
            let mut rates = limits.section("per_endpoint");
            rates
                .section("overrides")
                .warn(name, "no endpoint has this name");
        }
    }
}

fn discovery(
    s: &mut Section<'_, '_>,
    inputs: &ConfigInputs<'_>,
    profiles: &NameFilter,
) -> DiscoveryPlan {
    let fixed = |text: &str| text == "static";
    s.key("type", "Endpoints are those written here.")
        .text_such("static", "static", fixed);
    s.key("refresh_interval", "Former key.")
        .inert()
        .duration(secs(30));
    s.section("health_check")
        .key("initial_delay", "Former key.")
        .inert()
        .duration(secs(1));
    DiscoveryPlan {
        model_discovery: model_discovery(&mut s.section("model_discovery")),
        endpoints: fleet::endpoints(&mut s.section("static"), inputs, profiles),
    }
}

fn model_discovery(s: &mut Section<'_, '_>) -> ModelDiscoveryPlan {
    let enabled = s
        .key("enabled", "Ask healthy endpoints for their models.")
        .bool(true);
    let instant = Duration::from_nanos(1);
    ModelDiscoveryPlan {
        enabled,
        interval: s
            .key("interval", "Between two rounds; above 0.")
            .judged_if(enabled)
            .duration_from(secs(300), instant),
        timeout: s
            .key("timeout", "For each endpoint and attempt; above 0.")
            .judged_if(enabled)
            .duration_from(secs(30), instant),
        concurrent_workers: s
            .key("concurrent_workers", "Most endpoints asked at one time.")
            .judged_if(enabled)
            .int(5, 1, NO_MAX),
        retry_attempts: s
            .key("retry_attempts", "Further attempts after a failed one.")
            .judged_if(enabled)
            .int(3, 0, U32_MAX),
        retry_backoff: s
            .key("retry_backoff", "Pause before a further attempt.")
            .judged_if(enabled)
            .duration(secs(1)),
    }
}

fn model_registry(s: &mut Section<'_, '_>) -> ModelRegistryPlan {
    let day = secs(24 * 3600);
    s.key("type", "Where models are kept; only memory.")
        .env("OLLA_MODEL_REGISTRY_TYPE")
        .text_such("memory", "memory", |text| {
            text == "memory" || text.is_empty()
        });
    let enable_unifier = s
        .key(
            "enable_unifier",
            "Show one model served by many endpoints as one.",
        )
        .env("OLLA_MODEL_UNIFIER_ENABLED")
        .bool(true);
    let routing_strategy = routing(&mut s.section("routing_strategy"));
    let mut s = s.section("unification");
    s.key("enabled", "Former key; see enable_unifier.")
        .inert()
        .bool(true);
    let unification = UnificationPlan {
        stale_threshold: s
            .key(
                "stale_threshold",
                "A model not reported for so long is forgotten; 0 = 24h.",
            )
            .duration_or(day, day),
        cleanup_interval: s
            .key("cleanup_interval", "Between two sweeps; 0 = 5m.")
            .duration_or(secs(600), secs(300)),
    };
    ModelRegistryPlan {
        enable_unifier,
        routing_strategy,
        unification,
    }
}

fn routing(s: &mut Section<'_, '_>) -> RoutingPlan {
    let strategy = s
        .key(
            "type",
            "What to do when no healthy endpoint is known to have the model.",
        )
        .word(Strategy::Strict);
    let mut s = s.section("options");
    RoutingPlan {
        strategy,
        fallback_behavior: s
            .key(
                "fallback_behavior",
                "all = send it to any healthy endpoint then.",
            )
            .word_by(Fallback::CompatibleOnly, |text| {
                if text.is_empty() {
                    "compatible_only".to_owned()
                } else {
                    text.to_owned()
                }
            }),
        discovery_timeout: s
            .key(
                "discovery_timeout",
                "For asking all endpoints again; 0 = 2s.",
            )
            .duration_or(secs(2), secs(2)),
        discovery_refresh_on_miss: s
            .key(
                "discovery_refresh_on_miss",
                "With type = discovery: ask them again at a miss.",
            )
            .bool(false),
    }
}

fn model_aliases(root: &mut Section<'_, '_>) -> Vec<AliasPlan> {
    let names = |value: &ConfigValue| match value {
        ConfigValue::List(items) => items
            .iter()
            .map(|item| {
                let text = item.value.text().filter(|text| !text.trim().is_empty());
                text.map(str::to_owned)
            })
            .collect::<Option<Vec<_>>>()
            .filter(|names| !names.is_empty()),
        _ => None,
    };
    let aliases = root
        .key(
            "model_aliases",
            "Name = list of real model names, the first served is used.",
        )
        .resolve_map(
            "a list of model names, not empty, none of them blank",
            names,
        );
    if aliases.is_empty() {
        return Vec::new();
    }
    let mut s = root.section("model_aliases");
    let mut plans = Vec::with_capacity(aliases.len());
    for (name, mut targets) in aliases {
        if name.trim() != name || name.is_empty() || name.contains(char::is_control) {
            s.refuse(&name, "an alias needs a name, without outer blanks");
        }
        let before = targets.len();
        let mut seen = std::collections::HashSet::new();
        targets.retain(|target| seen.insert(target.clone()));
        if targets.len() < before {
            s.warn(&name, "names a model twice; the first counts");
        }
        plans.push(AliasPlan { name, targets });
    }
    plans
}

fn dashboard(s: &mut Section<'_, '_>) -> DashboardPlan {
    let enabled = s
        .key("enabled", "Serve the dashboard at /internal/ui/.")
        .bool(true);
    let gate_internal_api = s
        .key(
            "gate_internal_api",
            "Apply the access policy to /internal/* and /version too.",
        )
        .bool(false);
    let judged = enabled || gate_internal_api;
    let mut s = s.section("access_policy");
    let allowed_cidrs = s
        .key(
            "allowed_cidrs",
            "Networks that may connect; the TCP peer counts.",
        )
        .judged_if(judged)
        .networks(&["127.0.0.0/8", "::1/128"]);
    let host = |text: &str| {
        let text = text.trim();
        (!text.contains(char::is_whitespace)).then(|| without_port(text).to_ascii_lowercase())
    };
    let allowed_hosts = s
        .key(
            "allowed_hosts",
            "Host names besides addresses; guards against DNS rebinding.",
        )
        .judged_if(judged)
        .texts(&["localhost"], "a host name", host);
    if judged && allowed_cidrs.is_empty() {
        s.refuse(
            "allowed_cidrs",
            "at least one network while dashboard.enabled is true",
        );
    }
    DashboardPlan {
        enabled,
        access_policy: AccessPlan {
            allowed_cidrs,
            allowed_hosts,
        },
        gate_internal_api,
    }
}

fn process(root: &mut Section<'_, '_>) -> ProcessPlan {
    root.variable(
        "OLLA_CONFIG_FILE",
        "The configuration file, when --config is not given.",
    )
    .path();
    root.variable("OLLA_SHOW_VERSION", "Print the version and end.")
        .bool(false);
    ProcessPlan {
        config_dir: root
            .variable("OLLA_CONFIG_DIR", "Another place for models.toml.")
            .path(),
        enable_profiler: root
            .variable("OLLA_ENABLE_PROFILER", "Serve the profiler.")
            .bool(false),
    }
}

/// A host without its port and brackets.
fn without_port(text: &str) -> &str {
    if let Some(text) = text.strip_prefix('[') {
        return text.split(']').next().unwrap_or_default();
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => text,
    }
}
