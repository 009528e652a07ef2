//! Variables of the contract: each overrides the file, and a wrong value is refused.

use super::*;
use crate::config::finding::Origin;

/// A variable, its value, and a condition on the plan.
type Effect = (&'static str, &'static str, fn(&Plan) -> bool);

#[test]
fn every_variable_sets_its_key() {
    let table: &[Effect] = &[
        ("OLLA_SERVER_HOST", "0.0.0.0", |p| {
            p.server.host == "0.0.0.0"
        }),
        ("OLLA_SERVER_PORT", "8080", |p| p.server.port == 8080),
        ("OLLA_SERVER_READ_TIMEOUT", "1m", |p| {
            p.server.read_timeout == Some(secs(60))
        }),
        ("OLLA_SERVER_READ_HEADER_TIMEOUT", "1s", |p| {
            p.server.read_header_timeout == secs(1)
        }),
        ("OLLA_SERVER_WRITE_TIMEOUT", "1h", |p| {
            p.server.write_timeout == Some(secs(3600))
        }),
        ("OLLA_SERVER_MIN_BODY_RATE", "1KB", |p| {
            p.server.min_body_rate == 1024
        }),
        ("OLLA_SERVER_IDLE_TIMEOUT", "3m", |p| {
            p.server.idle_timeout == Some(secs(180))
        }),
        ("OLLA_SERVER_STALL_TIMEOUT", "3s", |p| {
            p.server.stall_timeout == Some(secs(3))
        }),
        ("OLLA_SERVER_WORKERS", "2", |p| {
            p.server.workers.is_some_and(|n| n.get() == 2)
        }),
        ("OLLA_SERVER_PIN_WORKERS", "false", |p| {
            !p.server.pin_workers
        }),
        ("OLLA_SERVER_IO_DRIVER", "epoll", |p| {
            p.server.io_driver == IoDriver::Epoll
        }),
        ("OLLA_SERVER_MAX_BODY_SIZE", "1.5g", |p| {
            p.server.request_limits.max_body_size == Some(3 << 29)
        }),
        ("OLLA_SERVER_MAX_HEADER_SIZE", "8KB", |p| {
            p.server.request_limits.max_header_size == 8192
        }),
        ("OLLA_SERVER_MAX_BUFFERED_BYTES", "1MB", |p| {
            p.server.request_limits.max_buffered_bytes == Some(1 << 20)
        }),
        ("OLLA_SERVER_GLOBAL_RATE_LIMIT", "7", |p| {
            p.server.rate_limits.global_requests_per_minute == 7
        }),
        ("OLLA_SERVER_PER_IP_RATE_LIMIT", "7", |p| {
            p.server.rate_limits.per_ip_requests_per_minute == 7
        }),
        ("OLLA_SERVER_HEALTH_RATE_LIMIT", "7", |p| {
            p.server.rate_limits.health_requests_per_minute == 7
        }),
        ("OLLA_SERVER_RATE_BURST_SIZE", "7", |p| {
            p.server.rate_limits.burst_size == 7
        }),
        ("OLLA_SERVER_RATE_CLEANUP_INTERVAL", "7s", |p| {
            p.server.rate_limits.cleanup_interval == Some(secs(7))
        }),
        ("OLLA_SERVER_TRUST_PROXY_HEADERS", "T", |p| {
            p.server.rate_limits.trust_proxy_headers
        }),
        (
            "OLLA_SERVER_TRUSTED_PROXY_CIDRS",
            "10.0.0.0/8, ::1/128",
            |p| p.server.rate_limits.trusted_proxy_cidrs.len() == 2,
        ),
        ("OLLA_SERVER_CORS_ENABLED", "0", |p| !p.server.cors.enabled),
        (
            "OLLA_SERVER_CORS_ALLOWED_ORIGINS",
            "https://a,https://b",
            |p| p.server.cors.allowed_origins.len() == 2,
        ),
        ("OLLA_SERVER_CORS_ALLOWED_METHODS", "get, put", |p| {
            p.server.cors.allowed_methods == ["GET", "PUT"]
        }),
        ("OLLA_SERVER_CORS_ALLOWED_HEADERS", "X-A", |p| {
            p.server.cors.allowed_headers == ["X-A"]
        }),
        ("OLLA_SERVER_CORS_EXPOSED_HEADERS", "X-B", |p| {
            p.server.cors.exposed_headers == ["X-B"]
        }),
        ("OLLA_SERVER_CORS_MAX_AGE", "0", |p| {
            p.server.cors.max_age.is_none()
        }),
        ("OLLA_PROXY_ENGINE", "sherpa", |p| {
            p.proxy.engine == Engine::Sherpa
        }),
        ("OLLA_PROXY_PROFILE", "standard", |p| {
            p.proxy.profile == StreamProfile::Standard
        }),
        ("OLLA_PROXY_LOAD_BALANCER", "priority", |p| {
            p.proxy.load_balancer == Balancer::Priority
        }),
        ("OLLA_PROXY_RESPONSE_TIMEOUT", "1s", |p| {
            p.proxy.response_timeout == Some(secs(1))
        }),
        ("OLLA_PROXY_READ_TIMEOUT", "1s", |p| {
            p.proxy.read_timeout == secs(1)
        }),
        ("OLLA_PROXY_RESPONSE_HEADER_TIMEOUT", "1s", |p| {
            p.proxy.response_header_timeout == secs(1)
        }),
        ("OLLA_PROXY_TLS_HANDSHAKE_TIMEOUT", "1s", |p| {
            p.proxy.tls_handshake_timeout == secs(1)
        }),
        ("OLLA_PROXY_CONNECTION_KEEP_ALIVE", "1s", |p| {
            p.proxy.connection_keep_alive == secs(1)
        }),
        ("OLLA_PROXY_IDLE_CONNECTION_TIMEOUT", "1s", |p| {
            p.proxy.idle_connection_timeout == secs(1)
        }),
        ("OLLA_PROXY_MODEL_MANAGEMENT", "forward", |p| {
            p.proxy.model_management == ModelManagement::Forward
        }),
        ("OLLA_PROXY_STREAM_KEEP_ALIVE", "3s", |p| {
            p.proxy.stream_keep_alive == Some(secs(3))
        }),
        ("OLLA_PROXY_STICKY_SESSIONS_ENABLED", "1", |p| {
            p.proxy.sticky_sessions.enabled
        }),
        ("OLLA_LOGGING_LEVEL", "DEBUG", |p| {
            p.logging.level == LogLevel::Debug
        }),
        ("OLLA_LOGGING_FORMAT", "text", |p| {
            p.logging.format == LogFormat::Text && p.logging.format_from_env
        }),
        ("OLLA_LOGGING_OUTPUT", "file", |p| {
            p.logging.output == LogOutput::File
        }),
        ("OLLA_FILE_OUTPUT", "true", |p| {
            p.logging.output == LogOutput::File
        }),
        ("OLLA_LOG_DIR", "/tmp/l", |p| {
            p.logging.dir == Path::new("/tmp/l")
        }),
        ("OLLA_LOG_SIZE_MB", "3", |p| {
            p.logging.rotate_bytes == 3 << 20
        }),
        ("OLLA_LOG_MAX_BACKUPS", "0", |p| p.logging.max_backups == 0),
        ("OLLA_LOG_MAX_AGE_DAYS", "0", |p| {
            p.logging.max_age.is_none()
        }),
        ("OLLA_LOG_LEVEL", "warning", |p| {
            p.logging.level == LogLevel::Info
        }),
        ("OLLA_FORCE_COLORS", "true", |p| p.logging.force_colors),
        ("OLLA_PRETTY_LOGS", "false", |p| !p.logging.force_colors),
        ("OLLA_THEME", "dark", |p| !p.logging.force_colors),
        ("OLLA_SHOW_NERD_STATS", "true", |p| {
            p.engineering.show_nerdstats
        }),
        ("OLLA_MODEL_REGISTRY_TYPE", "memory", |p| {
            p.model_registry.enable_unifier
        }),
        ("OLLA_ROUTING_NO_MODEL", "refuse", |p| {
            p.routing.no_model == NoModel::Refuse
        }),
        ("OLLA_QUEUE_ENABLED", "false", |p| !p.queue.enabled),
        ("OLLA_QUEUE_MAX_WAIT", "3s", |p| {
            p.queue.max_wait == Some(secs(3))
        }),
        ("OLLA_RESPONSES_STORE", "off", |p| !p.responses.enabled),
        ("OLLA_MODEL_UNIFIER_ENABLED", "false", |p| {
            !p.model_registry.enable_unifier
        }),
        ("OLLA_TRANSLATORS_ANTHROPIC_ENABLED", "false", |p| {
            !p.translators.anthropic.rules.enabled
        }),
        ("OLLA_TRANSLATORS_ANTHROPIC_PASSTHROUGH_ENABLED", "F", |p| {
            !p.translators.anthropic.rules.passthrough_enabled
        }),
        ("OLLA_TRANSLATORS_ANTHROPIC_PREFER_NATIVE", "false", |p| {
            !p.translators.anthropic.rules.prefer_native
        }),
        ("OLLA_TRANSLATORS_RESPONSES_ENABLED", "false", |p| {
            !p.translators.responses.enabled
        }),
        ("OLLA_TRANSLATORS_RESPONSES_PASSTHROUGH_ENABLED", "0", |p| {
            !p.translators.responses.passthrough_enabled
        }),
        ("OLLA_TRANSLATORS_RESPONSES_PREFER_NATIVE", "true", |p| {
            p.translators.responses.prefer_native
        }),
        ("OLLA_TRANSLATORS_OLLAMA_ENABLED", "false", |p| {
            !p.translators.ollama.rules.enabled
        }),
        ("OLLA_TRANSLATORS_OLLAMA_PASSTHROUGH_ENABLED", "0", |p| {
            !p.translators.ollama.rules.passthrough_enabled
        }),
        ("OLLA_TRANSLATORS_OLLAMA_PREFER_NATIVE", "false", |p| {
            !p.translators.ollama.rules.prefer_native
        }),
        ("OLLA_TRANSLATORS_ANTHROPIC_MAX_MESSAGE_SIZE", "1000", |p| {
            p.translators.anthropic.max_message_size == Some(1000)
        }),
        ("OLLA_TRANSLATORS_OLLAMA_ENABLED", "false", |p| {
            !p.translators.ollama.rules.enabled
        }),
        ("OLLA_TRANSLATORS_OLLAMA_VERSION", "1.2", |p| {
            p.translators.ollama.version == "1.2"
        }),
        ("OLLA_SERVER_ROOT_ROUTES", "false", |p| {
            !p.server.root_routes
        }),
        ("OLLA_STATE_PATH", "s.db", |p| p.state.path.is_some()),
        ("OLLA_ACCESS_ANONYMOUS", "default", |p| {
            p.access.anonymous.as_deref() == Some("default")
        }),
        ("OLLA_CONFIG_DIR", "/c", |p| !p.process.enable_profiler),
        ("OLLA_CONFIG_FILE", "/c/x", |p| !p.process.enable_profiler),
        ("OLLA_SHOW_VERSION", "false", |p| !p.process.enable_profiler),
        ("OLLA_ENABLE_PROFILER", "true", |p| {
            p.process.enable_profiler
        }),
    ];
    for (name, value, holds) in table {
        assert!(holds(&plan_of_env(&[(name, value)])), "{name}={value}");
    }
    let credentials = [
        ("OLLA_SERVER_CORS_ALLOW_CREDENTIALS", "true"),
        ("OLLA_SERVER_CORS_ALLOWED_ORIGINS", "https://a"),
    ];
    assert!(plan_of_env(&credentials).server.cors.allow_credentials);
    let network = [
        ("OLLA_SERVER_CORS_ALLOW_PRIVATE_NETWORK", "true"),
        credentials[1],
    ];
    assert!(plan_of_env(&network).server.cors.allow_private_network);
    let access = [
        ("OLLA_ACCESS_ENABLED", "true"),
        ("OLLA_ADMIN_KEY", "0123456789abcdef"),
        ("OLLA_ACCESS_JWT_ISSUER", "i"),
        ("OLLA_ACCESS_JWT_AUDIENCE", "a,b"),
        ("OLLA_ACCESS_JWT_JWKS_URL", "https://i/k"),
        ("OLLA_ACCESS_JWT_JWKS_FILE", "k.json"),
        ("OLLA_ACCESS_KEYS_FILE", "missing.toml"),
    ];
    let plan = plan_of_env(&access[..5]).access;
    assert!(plan.enabled && plan.keys.len() == 1, "{plan:?}");
    let jwt = plan.jwt.as_ref().unwrap();
    assert_eq!((jwt.issuer.as_str(), jwt.audience.len()), ("i", 2));
    assert_eq!(jwt.jwks, JwksSource::Url("https://i/k".into()));
    let from_file = [&access[..4], &access[5..6]].concat();
    let from_file = with_env("", FileFormat::Toml, &from_file);
    let finding = from_file.errors().next().unwrap().to_string();
    assert!(
        finding.contains("access.jwt.jwks_file: k.json: cannot read it"),
        "{finding}"
    );
    let missing = with_env("", FileFormat::Toml, &[access[0], access[6]]);
    assert_eq!(missing.errors().next().unwrap().key, "access.keys_file");
    let with_origins = [credentials[0].0, network[0].0];
    let with_access = access.map(|(name, _)| name);
    for doc in reference() {
        let Some(name) = doc.env else { continue };
        let tested = table.iter().any(|row| row.0 == name)
            || with_origins.contains(&name)
            || with_access.contains(&name);
        assert!(tested, "{name} is not in the table");
    }
}

#[test]
fn a_variable_beats_the_file_and_an_empty_one_does_not() {
    let text = "[server]\nport = 1\n[logging]\noutput = \"file\"\n";
    let port = |env: &[(&str, &str)]| {
        with_env(text, FileFormat::Toml, env)
            .plan
            .unwrap()
            .server
            .port
    };
    assert_eq!(port(&[]), 1);
    assert_eq!(port(&[("OLLA_SERVER_PORT", "2")]), 2);
    assert_eq!(port(&[("OLLA_SERVER_PORT", "")]), 1);
    let output = |env: &[(&str, &str)]| {
        with_env(text, FileFormat::Toml, env)
            .plan
            .unwrap()
            .logging
            .output
    };
    assert_eq!(output(&[]), LogOutput::File);
    assert_eq!(output(&[("OLLA_FILE_OUTPUT", "false")]), LogOutput::Stdout);
}

#[test]
fn a_wrong_variable_is_refused_by_name() {
    let table = [
        ("OLLA_SERVER_PORT", "http", "server.port"),
        ("OLLA_SERVER_PORT", "70000", "server.port"),
        ("OLLA_SERVER_READ_TIMEOUT", "30", "server.read_timeout"),
        (
            "OLLA_SERVER_MAX_BODY_SIZE",
            "big",
            "server.request_limits.max_body_size",
        ),
        ("OLLA_SERVER_CORS_ENABLED", "yes", "server.cors.enabled"),
        (
            "OLLA_SERVER_TRUSTED_PROXY_CIDRS",
            "x",
            "server.rate_limits.trusted_proxy_cidrs[0]",
        ),
        ("OLLA_PROXY_ENGINE", "turbo", "proxy.engine"),
        ("OLLA_PROXY_LOAD_BALANCER", "best", "proxy.load_balancer"),
        (
            "OLLA_PROXY_STREAM_KEEP_ALIVE",
            "1ms",
            "proxy.stream_keep_alive",
        ),
        ("OLLA_SERVER_MIN_BODY_RATE", "5GB", "server.min_body_rate"),
        ("OLLA_MODEL_REGISTRY_TYPE", "redis", "model_registry.type"),
        ("OLLA_LOG_SIZE_MB", "0", ""),
        ("OLLA_SHOW_VERSION", "perhaps", ""),
    ];
    for (name, value, key) in table {
        let loaded = with_env(
            "[server]\nhost = \"h\"\n",
            FileFormat::Toml,
            &[(name, value)],
        );
        let errors: Vec<_> = loaded.errors().collect();
        assert_eq!(errors.len(), 1, "{name}={value}: {errors:?}");
        assert_eq!(errors[0].source, Origin::Env(name.to_owned()));
        assert_eq!(errors[0].key, key, "{name}");
        let line = errors[0].to_string();
        assert!(line.starts_with(&format!("{name}: error: ")), "{line}");
        assert!(line.contains(&format!("\"{value}\"")), "{line}");
        assert!(errors[0].sentence().contains(name));
    }
}

#[test]
fn a_wrong_variable_of_the_log_is_a_warning() {
    for name in [
        "OLLA_LOGGING_LEVEL",
        "OLLA_LOGGING_FORMAT",
        "OLLA_LOGGING_OUTPUT",
        "OLLA_LOG_LEVEL",
    ] {
        let loaded = with_env("", FileFormat::Toml, &[(name, "loud")]);
        assert_eq!(loaded.errors().count(), 0, "{name}");
        assert_eq!(loaded.findings.len(), 1, "{name}");
        assert!(!loaded.plan.unwrap().logging.format_from_env);
    }
}

#[test]
fn an_unknown_variable_is_a_warning_with_the_nearest_one() {
    let env = [
        ("OLLA_SERVER_PROT", "1"),
        ("OLLAMA_HOST", "x"),
        ("OLLA_EMPTY", ""),
    ];
    let loaded = with_env("", FileFormat::Toml, &env);
    let [finding] = &loaded.findings[..] else {
        panic!("{:?}", loaded.findings);
    };
    assert!(!finding.unknown_key && finding.severity == Severity::Warning);
    assert!(
        finding
            .to_string()
            .contains("did you mean \"OLLA_SERVER_PORT\"?"),
        "{finding}"
    );
    assert!(loaded.plan.is_some());
}

#[test]
fn the_variables_of_a_kubernetes_service_are_ignored_with_one_line() {
    let env = [
        ("OLLA_PORT", "tcp://10.0.0.1:40114"),
        ("OLLA_PORT_40114_TCP_ADDR", "10.0.0.1"),
        ("OLLA_SERVER_PORT", "tcp://10.0.0.2:40114"),
        ("OLLA_SERVER_SERVICE_HOST", "10.0.0.2"),
    ];
    let loaded = with_env("", FileFormat::Toml, &env);
    let [finding] = &loaded.findings[..] else {
        panic!("{:?}", loaded.findings);
    };
    assert_eq!(finding.severity, Severity::Warning);
    for (name, _) in env {
        assert!(finding.message.contains(name), "{finding}");
    }
    assert_eq!(loaded.plan.unwrap().server.port, 40114);
}

#[test]
fn the_early_log_follows_its_own_variable() {
    let early = |env: &[(&str, &str)]| early_logging(&Env::of(env.iter().copied()));
    assert_eq!(early(&[]).level, LogLevel::Info);
    let env = [
        ("OLLA_LOG_LEVEL", "Debug"),
        ("OLLA_LOGGING_LEVEL", "error"),
        ("OLLA_FILE_OUTPUT", "1"),
    ];
    assert_eq!(early(&env).level, LogLevel::Debug);
    assert_eq!(early(&env).output, LogOutput::Stdout);
}
