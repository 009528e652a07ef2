//! All keys except those of endpoints: defaults, bounds and the meaning of 0.

use super::*;

#[test]
fn the_defaults_are_those_of_the_contract() {
    let plan = plan("");
    let server = &plan.server;
    assert_eq!((server.host.as_str(), server.port), ("localhost", 40114));
    assert_eq!(server.read_timeout, Some(secs(30)));
    assert_eq!(server.read_header_timeout, secs(10));
    assert_eq!(server.write_timeout, None);
    assert_eq!(server.min_body_rate, 500);
    assert_eq!(server.idle_timeout, Some(secs(120)));
    assert_eq!(server.stall_timeout, Some(secs(60)));
    assert_eq!(server.shutdown_timeout, secs(10));
    assert!(server.request_logging);
    assert_eq!((server.workers, server.pin_workers), (None, true));
    assert_eq!(server.io_driver, IoDriver::Auto);
    assert_eq!(server.request_limits.max_body_size, Some(104_857_600));
    assert_eq!(server.request_limits.max_header_size, 65_536);
    assert_eq!(server.request_limits.max_buffered_bytes, None);
    let rates = &server.rate_limits;
    assert_eq!(rates.global_requests_per_minute, 1000);
    assert_eq!(rates.per_ip_requests_per_minute, 100);
    assert_eq!(rates.health_requests_per_minute, 1000);
    assert_eq!(rates.pages_per_second, 50);
    assert_eq!(rates.burst_size, 50);
    assert_eq!(rates.cleanup_interval, Some(secs(300)));
    assert!(!rates.trust_proxy_headers);
    let networks: Vec<_> = rates
        .trusted_proxy_cidrs
        .iter()
        .map(ToString::to_string)
        .collect();
    let want = [
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
    ];
    assert_eq!(networks, want);
    assert_eq!(rates.per_endpoint.of("any"), None);
    let cors = &server.cors;
    assert!(cors.enabled && cors.any_origin() && !cors.allow_credentials);
    assert!(!cors.allow_private_network);
    assert_eq!(cors.allowed_methods, ["GET", "POST", "OPTIONS"]);
    assert_eq!(cors.allowed_headers, ["*"]);
    assert!(cors.exposed_headers.is_empty());
    assert_eq!(cors.max_age, Some(secs(300)));
}

#[test]
fn the_defaults_of_the_proxy_are_those_of_the_contract() {
    let plan = plan("");
    let proxy = &plan.proxy;
    assert_eq!(proxy.engine, Engine::Olla);
    assert_eq!(proxy.profile, StreamProfile::Auto);
    assert_eq!(proxy.load_balancer, Balancer::LeastTime);
    assert_eq!(proxy.model_load_timeout, secs(600));
    assert_eq!(proxy.connection_timeout, secs(60));
    assert_eq!(proxy.connection_keep_alive, secs(30));
    assert_eq!(proxy.idle_connection_timeout, secs(4));
    assert_eq!(proxy.response_timeout, None);
    assert_eq!(proxy.read_timeout, secs(600));
    assert_eq!(proxy.stream_keep_alive, Some(secs(15)));
    assert_eq!(proxy.response_header_timeout, secs(600));
    assert_eq!(proxy.tls_handshake_timeout, secs(10));
    assert_eq!(proxy.model_management, ModelManagement::Refuse);
    assert_eq!(proxy.retry.attempts_max(3), 3);
    let sticky = &proxy.sticky_sessions;
    assert!(!sticky.enabled);
    assert_eq!(sticky.idle_ttl, Some(secs(600)));
    assert_eq!(sticky.max_sessions.unwrap().get(), 10_000);
    let sources: Vec<_> = sticky
        .key_sources
        .iter()
        .map(|source| source.as_str())
        .collect();
    assert_eq!(sources, ["session_header", "prefix_hash", "auth_header"]);
    assert_eq!(proxy.profile_filter, NameFilter::default());
}

#[test]
fn the_other_defaults_are_those_of_the_contract() {
    let plan = plan("");
    let discovery = &plan.discovery.model_discovery;
    assert!(discovery.enabled);
    assert_eq!(
        (discovery.interval, discovery.timeout),
        (secs(300), secs(30))
    );
    assert_eq!(
        (discovery.concurrent_workers, discovery.retry_attempts),
        (5, 3)
    );
    assert_eq!(discovery.retry_backoff, secs(1));
    let registry = &plan.model_registry;
    assert!(registry.enable_unifier);
    assert_eq!(registry.routing_strategy.strategy, Strategy::Strict);
    assert_eq!(
        registry.routing_strategy.fallback_behavior,
        Fallback::CompatibleOnly
    );
    assert_eq!(registry.routing_strategy.discovery_timeout, secs(2));
    assert!(registry.routing_strategy.discovery_refresh_on_miss);
    assert_eq!(registry.unification.stale_threshold, secs(86_400));
    assert_eq!(registry.unification.cleanup_interval, secs(600));
    assert!(plan.model_aliases.is_empty());
    let anthropic = &plan.translators.anthropic;
    let rules = anthropic.rules;
    assert!(rules.enabled && rules.passthrough_enabled && rules.prefer_native);
    let (responses, ollama) = (plan.translators.responses, plan.translators.ollama.rules);
    assert!(responses.enabled && responses.passthrough_enabled && !responses.prefer_native);
    assert!(ollama.enabled && ollama.passthrough_enabled && ollama.prefer_native);
    assert_eq!(anthropic.max_message_size, None);
    assert!(!anthropic.inspector.enabled);
    assert_eq!(
        anthropic.inspector.output_dir,
        Path::new("logs/inspector/anthropic")
    );
    assert_eq!(anthropic.inspector.session_header, "X-Session-ID");
    let logging = &plan.logging;
    assert_eq!(logging.level, LogLevel::Info);
    assert_eq!(
        (logging.format, logging.format_from_env),
        (LogFormat::Json, false)
    );
    assert_eq!(
        (logging.output, logging.dir.as_path()),
        (LogOutput::Stdout, Path::new("./logs"))
    );
    assert_eq!((logging.rotate_bytes, logging.max_backups), (1 << 20, 7));
    assert_eq!(logging.max_age, Some(secs(14 * 86_400)));
    let dashboard = &plan.dashboard;
    assert!(dashboard.enabled && !dashboard.gate_internal_api);
    let access = &dashboard.access_policy;
    let networks: Vec<_> = access
        .allowed_cidrs
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["127.0.0.0/8", "::1/128"]);
    assert_eq!(access.allowed_hosts, ["localhost"]);
    assert!(!plan.engineering.show_nerdstats && !plan.process.enable_profiler);
}

/// A text, and a condition on its plan.
type Meaning = (&'static str, fn(&Plan) -> bool);

#[test]
fn zero_and_empty_have_their_meanings() {
    let table: &[Meaning] = &[
        ("server.host = \"\"", |p| p.server.host.is_empty()),
        ("server.host = \"[::1]\"", |p| p.server.host == "::1"),
        ("server.host = \"::\"", |p| p.server.host == "::"),
        ("server.read_timeout = \"0\"", |p| {
            p.server.read_timeout.is_none()
        }),
        ("server.read_timeout = \"0s\"", |p| {
            p.server.idle_timeout == Some(secs(120))
        }),
        ("server.min_body_rate = 0", |p| p.server.min_body_rate == 0),
        ("server.stall_timeout = \"0s\"", |p| {
            p.server.stall_timeout.is_none()
        }),
        ("server.idle_timeout = \"0s\"", |p| {
            p.server.idle_timeout.is_none()
        }),
        ("server.read_header_timeout = \"0s\"", |p| {
            p.server.read_header_timeout == secs(10)
        }),
        ("server.idle_timeout = \"2m\"", |p| {
            p.server.idle_timeout == Some(secs(120))
        }),
        ("server.shutdown_timeout = \"0s\"", |p| {
            p.server.shutdown_timeout.is_zero()
        }),
        ("server.workers = 3", |p| {
            p.server.workers.is_some_and(|n| n.get() == 3)
        }),
        ("server.request_limits.max_body_size = 0", |p| {
            p.server.request_limits.max_body_size.is_none()
        }),
        ("server.request_limits.max_body_size = \"10MB\"", |p| {
            p.server.request_limits.max_body_size == Some(10 << 20)
        }),
        ("server.request_limits.max_header_size = 0", |p| {
            p.server.request_limits.max_header_size == 64 << 10
        }),
        ("server.request_limits.max_header_size = 1", |p| {
            p.server.request_limits.max_header_size == 4096
        }),
        ("server.request_limits.max_buffered_bytes = \"1g\"", |p| {
            p.server.request_limits.max_buffered_bytes == Some(1 << 30)
        }),
        ("server.rate_limits.cleanup_interval = \"0s\"", |p| {
            p.server.rate_limits.cleanup_interval.is_none()
        }),
        ("server.rate_limits.trusted_proxy_cidrs = []", |p| {
            p.server.rate_limits.trusted_proxy_cidrs.is_empty()
        }),
        (
            "server.rate_limits.per_endpoint.default_requests_per_minute = 7",
            |p| {
                p.server
                    .rate_limits
                    .per_endpoint
                    .of("x")
                    .is_some_and(|n| n.get() == 7)
            },
        ),
        (
            "server.rate_limits.per_endpoint.overrides.localhost = 9",
            |p| {
                p.server
                    .rate_limits
                    .per_endpoint
                    .of("localhost")
                    .is_some_and(|n| n.get() == 9)
            },
        ),
        ("server.cors.max_age = 0", |p| {
            p.server.cors.max_age.is_none()
        }),
        (
            "server.cors = { enabled = false, allowed_origins = [], allow_credentials = true }",
            |p| !p.server.cors.enabled,
        ),
        (
            "server.cors.allowed_origins = [\"https://*.Apps.example\"]",
            |p| {
                let cors = &p.server.cors;
                let fits = |origin: &str| cors.allowed_origins[0].admits(origin);
                fits("https://a.apps.EXAMPLE")
                    && !fits("https://apps.example")
                    && !cors.any_origin()
            },
        ),
        ("proxy.connection_timeout = \"0s\"", |p| {
            p.proxy.connection_timeout == secs(60)
        }),
        ("proxy.connection_keep_alive = \"0s\"", |p| {
            p.proxy.connection_keep_alive == secs(30)
        }),
        ("proxy.idle_connection_timeout = \"0s\"", |p| {
            p.proxy.idle_connection_timeout.is_zero()
        }),
        ("proxy.response_timeout = \"0s\"", |p| {
            p.proxy.response_timeout.is_none()
        }),
        ("proxy.response_timeout = \"10m\"", |p| {
            p.proxy.response_timeout == Some(secs(600))
        }),
        ("server.min_body_rate = \"1KB\"", |p| {
            p.server.min_body_rate == 1024
        }),
        ("proxy.stream_keep_alive = \"0s\"", |p| {
            p.proxy.stream_keep_alive.is_none()
        }),
        ("proxy.stream_keep_alive = \"1s\"", |p| {
            p.proxy.stream_keep_alive == Some(secs(1))
        }),
        ("proxy.read_timeout = \"0s\"", |p| {
            p.proxy.read_timeout == secs(60)
        }),
        ("proxy.response_header_timeout = \"0\"", |p| {
            p.proxy.response_header_timeout == secs(600)
        }),
        ("proxy.tls_handshake_timeout = \"0\"", |p| {
            p.proxy.tls_handshake_timeout == secs(10)
        }),
        ("proxy.load_balancer = \"least_conn\"", |p| {
            p.proxy.load_balancer == Balancer::LeastConnections
        }),
        ("proxy.load_balancer = \"round_robin\"", |p| {
            p.proxy.load_balancer == Balancer::RoundRobin
        }),
        ("proxy.retry.enabled = false", |p| {
            p.proxy.retry.attempts_max(3) == 1
        }),
        ("proxy.retry.on_connection_failure = false", |p| {
            p.proxy.retry.attempts_max(3) == 1
        }),
        ("proxy.retry.max_attempts = 2", |p| {
            p.proxy.retry.attempts_max(3) == 2
        }),
        ("proxy.sticky_sessions.max_sessions = 0", |p| {
            p.proxy.sticky_sessions.max_sessions.is_none()
        }),
        ("proxy.sticky_sessions.key_sources = [\"ip\"]", |p| {
            p.proxy.sticky_sessions.key_sources == [StickySource::Ip]
        }),
        ("proxy.sticky_sessions.key_sources = []", |p| {
            p.proxy.sticky_sessions.key_sources.is_empty()
        }),
        ("proxy.model_management = \"forward\"", |p| {
            p.proxy.model_management == ModelManagement::Forward
        }),
        (
            "discovery.model_discovery = { enabled = false, interval = \"0s\", timeout = \"0s\", \
          concurrent_workers = 0 }",
            |p| !p.discovery.model_discovery.enabled,
        ),
        ("model_registry.type = \"\"", |p| {
            p.model_registry.enable_unifier
        }),
        (
            "model_registry.routing_strategy.options.fallback_behavior = \"\"",
            |p| p.model_registry.routing_strategy.fallback_behavior == Fallback::CompatibleOnly,
        ),
        (
            "model_registry.routing_strategy.options.discovery_timeout = \"0s\"",
            |p| p.model_registry.routing_strategy.discovery_timeout == secs(2),
        ),
        ("model_registry.unification.stale_threshold = \"0s\"", |p| {
            p.model_registry.unification.stale_threshold == secs(86_400)
        }),
        (
            "model_registry.unification.cleanup_interval = \"0s\"",
            |p| p.model_registry.unification.cleanup_interval == secs(300),
        ),
        (
            "responses = { store = \"off\", max_items = 0, ttl = \"x\" }",
            |p| !p.responses.enabled && p.responses.max_items == 10_000,
        ),
        ("responses.max_bytes = \"1MB\"", |p| {
            p.responses.max_bytes == 1 << 20
        }),
        ("translators.anthropic.max_message_size = 0", |p| {
            p.translators.anthropic.max_message_size.is_none()
        }),
        ("translators.anthropic.max_message_size = 104857600", |p| {
            p.translators.anthropic.max_message_size == Some(104_857_600)
        }),
        (
            "translators.anthropic.inspector = { output_dir = \"/etc\", session_header = \"a b\" }",
            |p| !p.translators.anthropic.inspector.enabled,
        ),
        ("dashboard.access_policy.allowed_hosts = []", |p| {
            p.dashboard.access_policy.allowed_hosts.is_empty()
        }),
        (
            "dashboard.access_policy.allowed_hosts = [\"GW.lan:8080\", \"[::1]:9\"]",
            |p| p.dashboard.access_policy.allowed_hosts == ["gw.lan", "::1"],
        ),
        (
            "dashboard = { enabled = false, access_policy = { allowed_cidrs = [\"x\"] } }",
            |p| !p.dashboard.enabled,
        ),
        (
            "logging = { level = \"WARNING\", format = \"Text\", output = \"FILE\" }",
            |p| {
                let logging = &p.logging;
                logging.level == LogLevel::Warn
                    && logging.format == LogFormat::Text
                    && logging.output == LogOutput::File
            },
        ),
    ];
    for (text, holds) in table {
        assert!(holds(&plan(text)), "{text}");
    }
}

#[test]
fn keys_without_effect_are_accepted_with_a_note() {
    let text = "[proxy]\nmax_retries = 5\nretry_backoff = \"1s\"\nstream_buffer_size = 8192\n\
         profile = \"auto\"\n[security.rate_limit]\nburst = 5\n[profiles.vllm]\nx = { y = 1 }\n\
         [discovery]\ntype = \"static\"\nrefresh_interval = \"10s\"\n\
         [discovery.health_check]\ninitial_delay = \"2s\"\n\
         [model_registry.unification]\nenabled = false\n";
    plan(text);
    let notes = toml(text).notes;
    let keys: Vec<_> = notes.iter().map(|note| note.key.as_str()).collect();
    let want = [
        "proxy.max_retries",
        "proxy.retry_backoff",
        "proxy.stream_buffer_size",
        "proxy.profile",
        "security.rate_limit.burst",
        "profiles",
        "discovery.refresh_interval",
        "discovery.health_check.initial_delay",
        "model_registry.unification.enabled",
    ];
    assert_eq!(keys, want);
    for note in &notes {
        assert_eq!(note.severity, Severity::Note);
        let line = note.to_string();
        assert!(
            line.starts_with("o.toml:") && line.contains(": note: "),
            "{line}"
        );
        assert!(line.contains("effect"), "{line}");
    }
    for key in [
        "proxy.stream_buffer_size",
        "proxy.max_retries",
        "proxy.retry_backoff",
        "discovery.refresh_interval",
    ] {
        let doc = reference().iter().find(|doc| doc.path == key).unwrap();
        assert!(doc.inert, "{key}");
    }
}

#[test]
fn aliases_keep_their_order_and_lose_duplicates() {
    let loaded = toml("[model_aliases]\nz = [\"b\", \"a\", \"b\"]\nA = [\"x\"]\n");
    let aliases = loaded.plan.unwrap().model_aliases;
    let shown: Vec<_> = aliases
        .iter()
        .map(|a| (a.name.as_str(), a.targets.join(" ")))
        .collect();
    assert_eq!(shown, [("A", "x".to_owned()), ("z", "b a".to_owned())]);
}
