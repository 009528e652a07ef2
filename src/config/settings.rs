//! The declarations of the keys, but for those of the listener and of the endpoints: path, type,
//! default, bounds, variable and remark, each where its value goes into the plan.
//!
//! contract: operations 10, 11; balancing 5, 8, 9, 13; translation 2, 13

use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::Inputs;
use super::endpoint::{EndpointPlan, NameFilter, is_token};
use super::fleet;
use super::kinds::NO_MAX;
use super::plan::*;
use super::reader::Section;
use super::server::server;
use super::tree::Value;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const U32_MAX: i128 = u32::MAX as i128;

/// Reads the whole configuration.
pub(super) fn plan(root: &mut Section<'_, '_>, inputs: &Inputs<'_>) -> Plan {
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

fn proxy(s: &mut Section<'_, '_>) -> ProxyPlan {
    let engine = s
        .key(
            "engine",
            "Both names stand for the same engine; shown in status and metrics.",
        )
        .env("OLLA_PROXY_ENGINE")
        .restart()
        .word(Engine::Olla);
    let buffer: usize = s
        .key(
            "stream_buffer_size",
            "Bytes that wait here for one answer; 0 = 65536 (sherpa: 8192).",
        )
        .int(0, 0, 64 * i128::from(MIB));
    let buffer_default = if engine == Engine::Olla { 65536 } else { 8192 };
    let plan = ProxyPlan {
        engine,
        profile: s
            .key(
                "profile",
                "auto = pass everything on at once but binary types, which may gather.",
            )
            .env("OLLA_PROXY_PROFILE")
            .word(StreamProfile::Auto),
        load_balancer: s
            .key(
                "load_balancer",
                "How one endpoint is chosen among those that have the model.",
            )
            .env("OLLA_PROXY_LOAD_BALANCER")
            .word(Balancer::LeastConnections),
        connection_timeout: s
            .key(
                "connection_timeout",
                "To connect to a backend; 0 = the default.",
            )
            .duration_or(secs(60), secs(60)),
        connection_keep_alive: s
            .key(
                "connection_keep_alive",
                "Interval of TCP keep-alive probes; 0 = the default.",
            )
            .env("OLLA_PROXY_CONNECTION_KEEP_ALIVE")
            .duration_or(secs(30), secs(30)),
        idle_connection_timeout: s
            .key(
                "idle_connection_timeout",
                "Idle backend connections are kept so long; 0 = not.",
            )
            .env("OLLA_PROXY_IDLE_CONNECTION_TIMEOUT")
            .duration(secs(4)),
        response_timeout: s
            .key(
                "response_timeout",
                "First byte sent to end of the answer; 0 = none.",
            )
            .env("OLLA_PROXY_RESPONSE_TIMEOUT")
            .duration_or_none(secs(900)),
        read_timeout: s
            .key("read_timeout", "Longest silence inside an answer; 0 = 60s.")
            .env("OLLA_PROXY_READ_TIMEOUT")
            .duration_or(secs(600), secs(60)),
        response_header_timeout: s
            .key(
                "response_header_timeout",
                "Request sent to first header; 0 = the default.",
            )
            .env("OLLA_PROXY_RESPONSE_HEADER_TIMEOUT")
            .duration_or(secs(30), secs(30)),
        tls_handshake_timeout: s
            .key(
                "tls_handshake_timeout",
                "For https endpoints; 0 = the default.",
            )
            .env("OLLA_PROXY_TLS_HANDSHAKE_TIMEOUT")
            .duration_or(secs(10), secs(10)),
        stream_buffer_size: if buffer == 0 { buffer_default } else { buffer },
        model_management: s
            .key(
                "model_management",
                "Ollama's pull, push, create, copy and delete.",
            )
            .env("OLLA_PROXY_MODEL_MANAGEMENT")
            .word(ModelManagement::Refuse),
        retry: retry(&mut s.section("retry")),
        sticky_sessions: sticky(&mut s.section("sticky_sessions")),
        profile_filter: name_filter(
            &mut s.section("profile_filter"),
            "Globs over provider types that exist; empty = all.",
            "Globs over provider types that do not exist; wins.",
        ),
    };
    s.key("max_retries", "Former key; see proxy.retry.")
        .inert()
        .int(3, 0, U32_MAX);
    s.key(
        "retry_backoff",
        "Former key; there is no pause between attempts.",
    )
    .inert()
    .duration(Duration::from_millis(500));
    plan
}

fn retry(s: &mut Section<'_, '_>) -> RetryPlan {
    RetryPlan {
        enabled: s
            .key(
                "enabled",
                "Try another endpoint when one cannot be reached.",
            )
            .bool(true),
        on_connection_failure: s
            .key(
                "on_connection_failure",
                "The only failure that is retried; false = none is.",
            )
            .bool(true),
        max_attempts: NonZeroUsize::new(
            s.key(
                "max_attempts",
                "Most endpoints for one request, the first included; 0 = all.",
            )
            .int(0, 0, U32_MAX),
        ),
    }
}

fn sticky(s: &mut Section<'_, '_>) -> StickyPlan {
    use StickySource::{AuthHeader, PrefixHash, SessionHeader};
    let enabled = s
        .key(
            "enabled",
            "Keep a conversation on the endpoint that has its prompt cached.",
        )
        .env("OLLA_PROXY_STICKY_SESSIONS_ENABLED")
        .bool(false);
    let ttl: u64 = s
        .key(
            "idle_ttl_seconds",
            "Seconds without a request until forgotten; 0 = never.",
        )
        .int(600, 0, U32_MAX);
    if enabled && ttl == 0 {
        s.warn("idle_ttl_seconds", "sessions never expire");
    }
    StickyPlan {
        enabled,
        idle_ttl: Some(secs(ttl)).filter(|ttl| !ttl.is_zero()),
        max_sessions: NonZeroUsize::new(
            s.key(
                "max_sessions",
                "Most sessions kept, the oldest go first; 0 = no limit.",
            )
            .int(10_000, 0, U32_MAX),
        ),
        key_sources: s
            .key(
                "key_sources",
                "What tells conversations apart; the first that is there counts.",
            )
            .words(&[SessionHeader, PrefixHash, AuthHeader]),
        prefix_hash_bytes: NonZeroUsize::new(
            s.key(
                "prefix_hash_bytes",
                "Leading bytes of the messages that count; 0 = all.",
            )
            .int(512, 0, U32_MAX),
        ),
    }
}

/// Two lists of globs (contract: catalogue 4.1).
pub(super) fn name_filter(
    s: &mut Section<'_, '_>,
    include: &'static str,
    exclude: &'static str,
) -> NameFilter {
    let kind = "a glob, not blank";
    let glob = |text: &str| (!text.trim().is_empty()).then(|| text.to_owned());
    NameFilter {
        include: s.key("include", include).texts(&[], kind, glob),
        exclude: s.key("exclude", exclude).texts(&[], kind, glob),
    }
}

fn discovery(s: &mut Section<'_, '_>, inputs: &Inputs<'_>, profiles: &NameFilter) -> DiscoveryPlan {
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
    let names = |value: &Value| match value {
        Value::List(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Text(text) if !text.trim().is_empty() => Some(text.clone()),
                _ => None,
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

fn translators(s: &mut Section<'_, '_>, cwd: &Path) -> TranslatorsPlan {
    let mut s = s.section("anthropic");
    let default = 10 * MIB;
    let enabled = s
        .key(
            "enabled",
            "Serve the Anthropic Messages API below /olla/anthropic/.",
        )
        .env("OLLA_TRANSLATORS_ANTHROPIC_ENABLED")
        .bool(true);
    let passthrough_enabled = s
        .key(
            "passthrough_enabled",
            "Do not translate for backends that speak it themselves.",
        )
        .env("OLLA_TRANSLATORS_ANTHROPIC_PASSTHROUGH_ENABLED")
        .bool(true);
    let size = s
        .key(
            "max_message_size",
            "Bytes of a request's body, at most 100 MiB; 0 = the default.",
        )
        .env("OLLA_TRANSLATORS_ANTHROPIC_MAX_MESSAGE_SIZE")
        .size(default, Some(100 * MIB));
    let max_message_size = if size == 0 { default } else { size };
    let inspector = inspector(&mut s.section("inspector"), cwd);
    let anthropic = AnthropicPlan {
        enabled,
        passthrough_enabled,
        max_message_size,
        inspector,
    };
    TranslatorsPlan { anthropic }
}

fn inspector(s: &mut Section<'_, '_>, cwd: &Path) -> InspectorPlan {
    let enabled = s
        .key(
            "enabled",
            "Write requests and answers to files, to debug; never in production.",
        )
        .bool(false);
    if enabled {
        s.warn(
            "enabled",
            "writes whole conversations to files; not for production",
        );
    }
    let dir = s
        .key(
            "output_dir",
            "Folder of the files, outside the system's; \"\" = ./inspector-logs.",
        )
        .judged_if(enabled)
        .text("logs/inspector/anthropic");
    let header = s
        .key(
            "session_header",
            "Header that names the file; \"\" = X-Session-ID.",
        )
        .judged_if(enabled)
        .text_such("X-Session-ID", "a header name", |text| {
            text.is_empty() || is_token(text)
        });
    let or = |text: String, other: &str| {
        if text.is_empty() {
            other.to_owned()
        } else {
            text
        }
    };
    let plan = InspectorPlan {
        enabled,
        output_dir: or(dir, "./inspector-logs").into(),
        session_header: or(header, "X-Session-ID"),
    };
    if enabled && is_system_folder(&cwd.join(&plan.output_dir)) {
        s.refuse(
            "output_dir",
            "a folder that is not / and not in one of the system's folders",
        );
    }
    plan
}

/// Whether a path is the root or lies in a folder of the system, `..` and links resolved
/// (contract: translation 2).
fn is_system_folder(path: &Path) -> bool {
    const FOLDERS: [&str; 10] = [
        "/etc", "/var", "/usr", "/bin", "/sbin", "/boot", "/sys", "/proc", "/dev", "/root",
    ];
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    // The folder need not exist yet: its nearest parent that does tells where links lead.
    let real = plain.ancestors().find_map(|parent| {
        let real = parent.canonicalize().ok()?;
        Some(real.join(plain.strip_prefix(parent).ok()?))
    });
    let within = |path: &Path| {
        path == Path::new("/") || FOLDERS.iter().any(|folder| path.starts_with(folder))
    };
    within(&plain) || real.is_some_and(|real| within(&real))
}

fn logging(s: &mut Section<'_, '_>) -> LoggingPlan {
    let lower = |text: &str| text.to_ascii_lowercase();
    let level = s
        .key("level", "debug, info, warn or error.")
        .env("OLLA_LOGGING_LEVEL")
        .lenient()
        .word_by(LogLevel::Info, |text| match lower(text).as_str() {
            "warning" => "warn".to_owned(),
            other => other.to_owned(),
        });
    let format = s
        .key(
            "format",
            "json, or text; on a terminal text unless the variable says otherwise.",
        )
        .env("OLLA_LOGGING_FORMAT")
        .lenient()
        .word_by(LogFormat::Json, lower);
    let output = s
        .key("output", "stdout, or file for a rotated file besides.")
        .env("OLLA_LOGGING_OUTPUT")
        .lenient()
        .word_by(LogOutput::Stdout, lower);
    let to_file = s
        .variable("OLLA_FILE_OUTPUT", "Overrides logging.output.")
        .bool_optional();
    let age: u64 = s
        .variable(
            "OLLA_LOG_MAX_AGE_DAYS",
            "Days that rotated files are kept; 0 = for ever.",
        )
        .int(14, 0, 36_500);
    let size: u64 = s
        .variable("OLLA_LOG_SIZE_MB", "Megabytes at which the file rotates.")
        .int(1, 1, 1 << 20);
    let plan = LoggingPlan {
        level,
        format,
        format_from_env: s.env().get("OLLA_LOGGING_FORMAT").is_some(),
        output: match to_file {
            Some(true) => LogOutput::File,
            Some(false) => LogOutput::Stdout,
            None => output,
        },
        dir: s
            .variable("OLLA_LOG_DIR", "Folder of the log file.")
            .text("./logs")
            .into(),
        rotate_bytes: size * MIB,
        max_backups: s
            .variable(
                "OLLA_LOG_MAX_BACKUPS",
                "Rotated files that are kept; 0 = all.",
            )
            .int(7, 0, U32_MAX),
        max_age: Some(secs(age * 86_400)).filter(|age| !age.is_zero()),
        force_colors: s
            .variable(
                "OLLA_FORCE_COLORS",
                "Colour although standard output is no terminal.",
            )
            .bool(false),
    };
    s.variable("OLLA_LOG_LEVEL", "Level until the configuration is read.")
        .lenient()
        .word_by(LogLevel::Info, lower);
    s.variable("OLLA_PRETTY_LOGS", "Former variable.")
        .inert()
        .bool_optional();
    s.variable("OLLA_THEME", "Former variable: default, dark or light.")
        .inert()
        .lenient()
        .text_such("default", "one of default, dark, light", |text| {
            ["default", "dark", "light"].contains(&text)
        });
    plan
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
    if text.starts_with('[') {
        return text[1..].split(']').next().unwrap_or_default();
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => text,
    }
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
