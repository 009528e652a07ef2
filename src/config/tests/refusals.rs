//! Values that are refused, and values that cause a warning, for all keys except those of endpoints.

use super::*;

#[test]
fn wrong_values_are_refused_with_key_value_and_what_is_allowed() {
    let table: &[(&str, &str, &[&str])] = &[
        (
            "server.port = 0",
            "server.port",
            &["expected an integer from 1 to 65535, got 0"],
        ),
        ("server.port = 65536", "server.port", &["65536"]),
        (
            "server.port = \"80\"",
            "server.port",
            &["got the string \"80\""],
        ),
        (
            "server.port = 80.5",
            "server.port",
            &["got the number 80.5"],
        ),
        ("server.host = \"a b\"", "server.host", &["\"a b\""]),
        ("server.host = \"h:80\"", "server.host", &["without a port"]),
        (
            "server.read_timeout = 30",
            "server.read_timeout",
            &["expected a duration", "got the integer 30"],
        ),
        (
            "server.read_timeout = 0",
            "server.read_timeout",
            &["duration"],
        ),
        (
            "server.read_timeout = \"1d\"",
            "server.read_timeout",
            &["\"1d\""],
        ),
        (
            "server.read_timeout = \"\"",
            "server.read_timeout",
            &["\"\""],
        ),
        (
            "server.write_timeout = \"-1s\"",
            "server.write_timeout",
            &["got \"-1s\""],
        ),
        (
            "server.request_logging = \"true\"",
            "server.request_logging",
            &["expected true or false, got the string \"true\""],
        ),
        ("server.workers = -1", "server.workers", &["-1"]),
        (
            "server.io_driver = \"kqueue\"",
            "server.io_driver",
            &["\"auto\", \"io_uring\" or \"epoll\""],
        ),
        (
            "server.tls.cert_file = \"c\"",
            "server.tls.key_file",
            &["cert_file"],
        ),
        (
            "server.tls.key_file = \"k\"",
            "server.tls.cert_file",
            &["key_file"],
        ),
        (
            "server.request_limits.max_body_size = -1",
            "server.request_limits.max_body_size",
            &["-1"],
        ),
        (
            "server.request_limits.max_body_size = 1.5",
            "server.request_limits.max_body_size",
            &["1.5"],
        ),
        (
            "server.request_limits.max_header_size = \"big\"",
            "server.request_limits.max_header_size",
            &["\"big\"", "10MB"],
        ),
        (
            "server.rate_limits.burst_size = -1",
            "server.rate_limits.burst_size",
            &["-1"],
        ),
        (
            "server.rate_limits.global_requests_per_minute = -1",
            "server.rate_limits.global_requests_per_minute",
            &["-1"],
        ),
        (
            "server.rate_limits.trusted_proxy_cidrs = [\"10.0.0.0/8\", \"10.0.0.1\"]",
            "server.rate_limits.trusted_proxy_cidrs[1]",
            &["\"10.0.0.1\"", "prefix length"],
        ),
        (
            "server.rate_limits.trusted_proxy_cidrs = \"10.0.0.0/8\"",
            "server.rate_limits.trusted_proxy_cidrs",
            &["a list"],
        ),
        (
            "server.rate_limits.per_endpoint.overrides.localhost = -1",
            "server.rate_limits.per_endpoint.overrides.localhost",
            &["-1"],
        ),
        (
            "server.cors.allowed_origins = []",
            "server.cors.allowed_origins",
            &["cors"],
        ),
        (
            "server.cors.allow_credentials = true",
            "server.cors.allow_credentials",
            &["\"*\""],
        ),
        (
            "server.cors.allow_private_network = true",
            "server.cors.allow_private_network",
            &["cors", "allowed_origins"],
        ),
        ("server.cors.max_age = -1", "server.cors.max_age", &["-1"]),
        (
            "server.cors.allowed_origins = [\"*.*\"]",
            "server.cors.allowed_origins[0]",
            &["at most one *"],
        ),
        (
            "server.cors.allowed_methods = [\"A B\"]",
            "server.cors.allowed_methods[0]",
            &["a method"],
        ),
        (
            "proxy.engine = \"turbo\"",
            "proxy.engine",
            &["expected \"olla\" or \"sherpa\", got \"turbo\""],
        ),
        ("proxy.engine = \"\"", "proxy.engine", &["\"\""]),
        (
            "proxy.profile = \"fast\"",
            "proxy.profile",
            &["\"streaming\""],
        ),
        (
            "proxy.load_balancer = \"random\"",
            "proxy.load_balancer",
            &["round-robin"],
        ),
        (
            "proxy.load_balancer = \"\"",
            "proxy.load_balancer",
            &["\"\""],
        ),
        (
            "proxy.connection_timeout = \"soon\"",
            "proxy.connection_timeout",
            &["\"soon\"", "o.toml:1"],
        ),
        (
            "proxy.idle_connection_timeout = \"-4s\"",
            "proxy.idle_connection_timeout",
            &["-4s"],
        ),
        (
            "proxy.stream_buffer_size = -1",
            "proxy.stream_buffer_size",
            &["-1"],
        ),
        (
            "proxy.model_management = true",
            "proxy.model_management",
            &["\"refuse\" or \"forward\", got the boolean true"],
        ),
        (
            "proxy.retry.max_attempts = -1",
            "proxy.retry.max_attempts",
            &["-1"],
        ),
        (
            "proxy.sticky_sessions.key_sources = [\"cookie\"]",
            "proxy.sticky_sessions.key_sources[0]",
            &["\"cookie\"", "prefix_hash"],
        ),
        (
            "proxy.sticky_sessions.max_sessions = -1",
            "proxy.sticky_sessions.max_sessions",
            &["-1"],
        ),
        (
            "proxy.sticky_sessions.idle_ttl_seconds = -1",
            "proxy.sticky_sessions.idle_ttl_seconds",
            &["-1"],
        ),
        (
            "proxy.profile_filter.include = [\" \"]",
            "proxy.profile_filter.include[0]",
            &["glob"],
        ),
        (
            "discovery.type = \"docker\"",
            "discovery.type",
            &["\"docker\"", "static"],
        ),
        ("discovery.type = \"\"", "discovery.type", &["static"]),
        (
            "discovery.model_discovery.interval = \"0s\"",
            "discovery.model_discovery.interval",
            &["0s"],
        ),
        (
            "discovery.model_discovery.timeout = \"0s\"",
            "discovery.model_discovery.timeout",
            &["0s"],
        ),
        (
            "discovery.model_discovery.concurrent_workers = 0",
            "discovery.model_discovery.concurrent_workers",
            &["got 0"],
        ),
        (
            "model_registry.type = \"redis\"",
            "model_registry.type",
            &["memory"],
        ),
        (
            "model_registry.routing_strategy.type = \"lax\"",
            "model_registry.routing_strategy.type",
            &["strict"],
        ),
        (
            "model_registry.routing_strategy.options.fallback_behavior = \"some\"",
            "model_registry.routing_strategy.options.fallback_behavior",
            &["\"compatible_only\", \"none\" or \"all\""],
        ),
        (
            "model_aliases.a = []",
            "model_aliases.a",
            &["list of non-empty model names, got an empty list"],
        ),
        (
            "model_aliases.a = \"b\"",
            "model_aliases.a",
            &["a list", "got the string \"b\""],
        ),
        (
            "model_aliases.a = [\"b\", \" \"]",
            "model_aliases.a",
            &["a list of non-empty model names"],
        ),
        ("model_aliases.a = [1]", "model_aliases.a", &["a list"]),
        (
            "model_aliases.\"**\" = [\"b\"]",
            "model_aliases.\"**\"",
            &["a pattern with other characters"],
        ),
        (
            "model_aliases.\"\" = [\"b\"]",
            "model_aliases.\"\"",
            &["expected a name"],
        ),
        (
            "model_aliases.\" a\" = [\"b\"]",
            "model_aliases.\" a\"",
            &["leading"],
        ),
        (
            "translators.anthropic.max_message_size = -1",
            "translators.anthropic.max_message_size",
            &["-1"],
        ),
        (
            "translators.anthropic.max_message_size = 104857601",
            "translators.anthropic.max_message_size",
            &["104857601"],
        ),
        ("responses.store = \"disk\"", "responses.store", &["disk"]),
        ("responses.max_items = 0", "responses.max_items", &["0"]),
        (
            "responses.max_bytes = \"1x\"",
            "responses.max_bytes",
            &["1x"],
        ),
        ("responses.ttl = \"0s\"", "responses.ttl", &["0s"]),
        (
            "dashboard.access_policy.allowed_cidrs = []",
            "dashboard.access_policy.allowed_cidrs",
            &["one network"],
        ),
        (
            "dashboard.access_policy.allowed_cidrs = [\"127.0.0.1\"]",
            "dashboard.access_policy.allowed_cidrs[0]",
            &["prefix length"],
        ),
        ("server = 1", "server", &["a table"]),
        ("proxy.retry = []", "proxy.retry", &["a table"]),
    ];
    for (text, key, words) in table {
        refused(text, key, words);
    }
}

#[test]
fn the_inspector_writes_to_no_folder_of_the_system() {
    let text = |dir: &str| {
        format!("[translators.anthropic.inspector]\nenabled = true\noutput_dir = \"{dir}\"\n")
    };
    let key = "translators.anthropic.inspector.output_dir";
    let dirs = [
        "/",
        "/etc",
        "/etc/x",
        "/var/log",
        "/usr",
        "/bin/x",
        "/sbin",
        "/boot",
        "/sys",
        "/proc/1",
        "/dev/shm",
        "/root",
        "/tmp/../etc",
        "/tmp/../..",
    ];
    for dir in dirs {
        let loaded = toml(&text(dir));
        let errors: Vec<_> = loaded.errors().collect();
        assert_eq!(errors.len(), 1, "{dir}: {errors:?}");
        assert_eq!(errors[0].key, key, "{dir}");
    }
    let up = "../".repeat(40);
    assert_eq!(toml(&text(&format!("{up}etc"))).errors().count(), 1);
    let header = "[translators.anthropic.inspector]\nenabled = true\noutput_dir = \"/tmp/x\"\n\
                  session_header = \"a b\"\n";
    let loaded = toml(header);
    assert_eq!(
        loaded.errors().next().unwrap().key,
        "translators.anthropic.inspector.session_header"
    );
    warned(
        &text("/tmp/x"),
        "translators.anthropic.inspector.enabled",
        "not for production",
    );
    let loaded =
        toml("[translators.anthropic.inspector]\noutput_dir = \"\"\nsession_header = \"\"\n");
    let inspector = loaded.plan.unwrap().translators.anthropic.inspector;
    assert_eq!(inspector.output_dir, Path::new("./inspector-logs"));
    assert_eq!(inspector.session_header, "X-Session-ID");
}

#[test]
fn what_is_odd_is_warned_about() {
    let table = [
        (
            "server.rate_limits.burst_size = 0",
            "server.rate_limits.burst_size",
            "429",
        ),
        (
            "proxy.sticky_sessions = { enabled = true, idle_ttl_seconds = 0 }",
            "proxy.sticky_sessions.idle_ttl_seconds",
            "never expire",
        ),
        (
            "model_aliases.a = [\"b\", \"b\"]",
            "model_aliases.a",
            "twice",
        ),
        (
            "logging.level = \"loud\"",
            "logging.level",
            "using the default \"info\"",
        ),
        (
            "logging.format = 1",
            "logging.format",
            "using the default \"json\"",
        ),
        (
            "logging.output = \"syslog\"",
            "logging.output",
            "using the default \"stdout\"",
        ),
        (
            "server.rate_limits.per_endpoint.overrides.unknown = 1",
            "server.rate_limits.per_endpoint.overrides.unknown",
            "no endpoint",
        ),
    ];
    for (text, key, word) in table {
        warned(text, key, word);
    }
    let quiet = "[server.rate_limits]\nburst_size = 0\nglobal_requests_per_minute = 0\n\
                 per_ip_requests_per_minute = 0\nhealth_requests_per_minute = 0\n";
    plan(quiet);
}
