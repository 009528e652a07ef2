//! The whole plan from the whole file, and the declarations of the keys of small sections: path, type,
//! default, bounds, variable and remark, each where its value is put into the plan.
//!
//! Contract: docs/contract/operations.md#10, docs/contract/operations.md#11;
//! docs/contract/balancing.md#5; docs/contract/catalogue.md#3.1, docs/contract/catalogue.md#5.10

use std::sync::Arc;

use super::ConfigInputs;
use super::access::{AccessInputs, KeyPlan, access, state};
use super::bounds::{NO_MAX, U32_MAX, secs};
use super::check;
use super::fleet::{self, Context};
use super::logging::logging;
use super::plan::*;
use super::proxy::proxy;
use super::responses::responses;
use super::schedule::queue;
use super::section::Section;
use super::server::server;
use super::translators::translators;
use super::tree::ConfigValue;
use super::values::before;
use super::watch::{ModelDiscoveryPlan, dns, health_check, status};

/// Reads the whole configuration. `file_keys` are the keys of the keys file that are in force.
pub(super) fn plan(
    root: &mut Section<'_, '_>,
    inputs: &ConfigInputs<'_>,
    file_keys: &[Arc<KeyPlan>],
) -> Plan {
    let server = server(&mut root.section("server"), inputs);
    let proxy = proxy(&mut root.section("proxy"));
    let context = Context {
        inputs,
        profiles: &proxy.profile_filter,
        server: &server,
    };
    let discovery = discovery(&mut root.section("discovery"), &context);
    let state = state(&mut root.section("state"));
    let env = inputs.env;
    let access = Arc::new(access(root, &AccessInputs { env, file_keys }, &state));
    let plan = Plan {
        access,
        state,
        server,
        proxy,
        discovery,
        dns: dns(&mut root.section("dns")),
        status: status(&mut root.section("status")),
        model_registry: model_registry(&mut root.section("model_registry")),
        routing: RequestsPlan {
            no_model: root
                .section("routing")
                .key(
                    "no_model",
                    "What becomes of a request that should name a model and does not.",
                )
                .env("OLLA_ROUTING_NO_MODEL")
                .word(NoModel::Auto),
        },
        queue: queue(&mut root.section("queue")),
        model_aliases: model_aliases(root),
        translators: translators(&mut root.section("translators"), inputs.cwd),
        responses: responses(&mut root.section("responses")),
        logging: logging(&mut root.section("logging")),
        dashboard: dashboard(&mut root.section("dashboard")),
        engineering: EngineeringPlan {
            show_nerdstats: root
                .section("engineering")
                .key(
                    "show_nerdstats",
                    "Log memory and runtime statistics at shutdown.",
                )
                .env("OLLA_SHOW_NERD_STATS")
                .bool(false),
        },
        process: process(root),
    };
    ollas_own(root);
    check::plan(root, &plan);
    plan
}

/// Tables that Olla's examples have and neither gateway reads.
fn ollas_own(root: &mut Section<'_, '_>) {
    let mut security = root.section("security");
    let mut s = security.section("rate_limit");
    s.key("enabled", "Use server.rate_limits.")
        .inert()
        .bool(false);
    s.key(
        "requests_per_minute",
        "Use server.rate_limits.per_ip_requests_per_minute.",
    )
    .inert()
    .int(0, 0, U32_MAX);
    s.key("burst", "Use server.rate_limits.burst_size.")
        .inert()
        .int(0, 0, U32_MAX);
    root.key("profiles", "Use files in the folder config/profiles.")
        .inert()
        .any_table();
}

fn discovery(s: &mut Section<'_, '_>, context: &Context<'_>) -> DiscoveryPlan {
    let fixed = |text: &str| text == "static";
    s.key(
        "type",
        "Where endpoints come from; only the static list is supported.",
    )
    .text_such("static", "\"static\"", fixed);
    s.key(
        "refresh_interval",
        "Use discovery.model_discovery.interval.",
    )
    .inert()
    .duration(secs(30));
    DiscoveryPlan {
        health_check: health_check(&mut s.section("health_check")),
        model_discovery: model_discovery(&mut s.section("model_discovery")),
        endpoints: fleet::endpoints(&mut s.section("static"), context),
    }
}

fn model_discovery(s: &mut Section<'_, '_>) -> ModelDiscoveryPlan {
    let enabled = s
        .key("enabled", "Read the model lists of healthy endpoints.")
        .bool(true);
    ModelDiscoveryPlan {
        enabled,
        interval: s
            .key("interval", "Interval between two reads of the model lists.")
            .checked_if(enabled)
            .duration_above_zero(secs(300)),
        timeout: s
            .key("timeout", "Time limit for one read of one model list.")
            .checked_if(enabled)
            .duration_above_zero(secs(30)),
        concurrent_workers: s
            .key(
                "concurrent_workers",
                "Maximum number of model lists that are read at the same time.",
            )
            .checked_if(enabled)
            .int(5, 1, NO_MAX),
        retry_attempts: s
            .key("retry_attempts", "Retries after a failed read.")
            .checked_if(enabled)
            .int(3, 0, U32_MAX),
        retry_backoff: s
            .key("retry_backoff", "Pause before a retry.")
            .checked_if(enabled)
            .duration(secs(1)),
    }
}

fn model_registry(s: &mut Section<'_, '_>) -> ModelRegistryPlan {
    let day = secs(24 * 3600);
    s.key("type", "Where models are kept; only memory is supported.")
        .env("OLLA_MODEL_REGISTRY_TYPE")
        .text_such("memory", "\"memory\"", |text| {
            text == "memory" || text.is_empty()
        });
    let enable_unifier = s
        .key(
            "enable_unifier",
            "List a model that several endpoints serve once.",
        )
        .env("OLLA_MODEL_UNIFIER_ENABLED")
        .bool(true);
    let routing_strategy = routing(&mut s.section("routing_strategy"));
    let mut s = s.section("unification");
    s.key("enabled", "Use model_registry.enable_unifier.")
        .inert()
        .bool(true);
    let unification = UnificationPlan {
        stale_threshold: s
            .key(
                "stale_threshold",
                "A model not reported for this time is forgotten; 0 selects 24h.",
            )
            .duration_or(day, day),
        cleanup_interval: s
            .key(
                "cleanup_interval",
                "Interval between two removals of stale models; 0 selects 5m.",
            )
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
        .key("type", "What to do when no healthy endpoint has the model.")
        .word(Strategy::Strict);
    let mut s = s.section("options");
    let fallback_behavior = s
        .key(
            "fallback_behavior",
            "all sends such a request to any healthy endpoint.",
        )
        .word_by(Fallback::CompatibleOnly, |text| {
            if text.is_empty() {
                "compatible_only".to_owned()
            } else {
                text.to_owned()
            }
        });
    let discovery_timeout = s
        .key(
            "discovery_timeout",
            "Time limit for refreshing the model lists; 0 selects 2s.",
        )
        .duration_or(secs(2), secs(2));
    let discovery_refresh_on_miss = s
        .key(
            "discovery_refresh_on_miss",
            "Refresh the model lists when a request names a model that is not listed.",
        )
        .bool(true);
    if !discovery_refresh_on_miss {
        s.note_old_default("discovery_refresh_on_miss", true);
    }
    RoutingPlan {
        strategy,
        fallback_behavior,
        discovery_timeout,
        discovery_refresh_on_miss,
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
            "Alias or pattern (`*`), and the model names; the first available one is used.",
        )
        .resolve_map("a list of non-empty model names", names);
    if aliases.is_empty() {
        return Vec::new();
    }
    let mut s = root.section("model_aliases");
    let mut plans = Vec::with_capacity(aliases.len());
    for (name, mut targets) in aliases {
        if name.trim() != name || name.is_empty() || name.contains(char::is_control) {
            s.refuse(
                &name,
                "expected a name without leading, trailing or control characters",
            );
        }
        if name.len() > 1 && name.bytes().all(|byte| byte == b'*') {
            s.refuse(
                &name,
                "expected a pattern with other characters than \"*\"; one \"*\" alone covers every name",
            );
        }
        let before = targets.len();
        let mut seen = std::collections::HashSet::new();
        targets.retain(|target| seen.insert(target.clone()));
        if targets.len() < before {
            s.warn(&name, "lists a model twice; the repetition is ignored");
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
            "Apply the access policy to /internal/* and /version as well.",
        )
        .bool(false);
    let allow_changes_from = s
        .key(
            "allow_changes_from",
            "Networks with the rights of this machine below /internal/ while access is off.",
        )
        .networks(&[]);
    let is_checked = enabled || gate_internal_api;
    let mut s = s.section("access_policy");
    let allowed_cidrs = s
        .key(
            "allowed_cidrs",
            "Networks that may connect, by the address of the TCP peer.",
        )
        .checked_if(is_checked)
        .networks(&["127.0.0.0/8", "::1/128"]);
    let host = |text: &str| {
        let text = text.trim();
        (!text.contains(char::is_whitespace)).then(|| without_port(text).to_ascii_lowercase())
    };
    let allowed_hosts = s
        .key(
            "allowed_hosts",
            "Accepted Host names besides IP addresses; protects against DNS rebinding.",
        )
        .checked_if(is_checked)
        .texts(&["localhost"], "a host name", host);
    if is_checked && allowed_cidrs.is_empty() {
        s.expected(
            "allowed_cidrs",
            "at least one network while the dashboard is enabled",
        );
    }
    DashboardPlan {
        enabled,
        access_policy: AccessPlan {
            allowed_cidrs,
            allowed_hosts,
        },
        gate_internal_api,
        allow_changes_from,
    }
}

fn process(root: &mut Section<'_, '_>) -> ProcessPlan {
    root.variable(
        "OLLA_CONFIG_FILE",
        "Configuration file, when --config is not given.",
    )
    .path();
    root.variable("OLLA_SHOW_VERSION", "Print the version and exit.")
        .bool(false);
    root.variable(
        "OLLA_CONFIG_DIR",
        "Additional folder to search for models.toml.",
    )
    .path();
    ProcessPlan {
        enable_profiler: root
            .variable("OLLA_ENABLE_PROFILER", "Serve the profiler; not built in.")
            .bool(false),
    }
}

/// A host without its port and brackets.
fn without_port(text: &str) -> &str {
    if let Some(text) = text.strip_prefix('[') {
        return before(text, &[']']);
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => text,
    }
}
