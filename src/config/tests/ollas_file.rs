//! Files that come from Olla: its old defaults, and its key that has no effect in YAML.
//!
//! Contract: docs/contract/operations.md#10, docs/contract/balancing.md#13

use super::*;

fn yaml(text: &str, env: &[(&str, &str)]) -> Loaded {
    let loaded = with_env(text, FileFormat::Yaml, env);
    assert_eq!(loaded.findings, [], "{text}");
    loaded
}

fn notes(loaded: &Loaded) -> Vec<String> {
    loaded.notes.iter().map(ToString::to_string).collect()
}

#[test]
fn old_defaults_hold_and_are_noted() {
    let text = "\
server:
  idle_timeout: 0s
proxy:
  load_balancer: least-connections
  response_header_timeout: 30s
model_registry:
  routing_strategy:
    options:
      discovery_refresh_on_miss: false
translators:
  anthropic:
    max_message_size: 10485760
";
    let loaded = yaml(text, &[]);
    let note = |line: usize, key: &str, ours: &str| {
        format!("o.yaml:{line}: note: {key}: Olla's default; without this line it is {ours}")
    };
    let strategy = "model_registry.routing_strategy.options";
    let want = [
        note(2, "server.idle_timeout", "2m"),
        note(4, "proxy.load_balancer", "least-time"),
        note(5, "proxy.response_header_timeout", "10m"),
        note(9, &format!("{strategy}.discovery_refresh_on_miss"), "true"),
        note(
            12,
            "translators.anthropic.max_message_size",
            "server.request_limits.max_body_size",
        ),
    ];
    assert_eq!(notes(&loaded), want);
    let plan = loaded.plan.unwrap();
    assert_eq!(plan.server.idle_timeout, None);
    assert_eq!(plan.proxy.load_balancer, Balancer::LeastConnections);
    assert_eq!(plan.proxy.response_header_timeout, secs(30));
    assert!(
        !plan
            .model_registry
            .routing_strategy
            .discovery_refresh_on_miss
    );
    let most = plan.translators.anthropic.max_message_size;
    assert_eq!(most, Some(10 << 20));
}

#[test]
fn other_values_and_variables_are_no_old_defaults() {
    let other = "\
server:
  idle_timeout: 90s
proxy:
  load_balancer: round-robin
  response_header_timeout: 31s
translators:
  anthropic:
    max_message_size: 0
";
    assert_eq!(yaml(other, &[]).notes, []);
    let env = [
        ("OLLA_SERVER_IDLE_TIMEOUT", "0s"),
        ("OLLA_PROXY_RESPONSE_HEADER_TIMEOUT", "30s"),
        ("OLLA_PROXY_LOAD_BALANCER", "least-connections"),
        ("OLLA_TRANSLATORS_ANTHROPIC_MAX_MESSAGE_SIZE", "10MB"),
    ];
    assert_eq!(yaml(other, &env).notes, []);
    // A file in TOML may be an import.
    let toml = toml("[server]\nidle_timeout = \"0\"\n");
    assert_eq!(toml.notes.len(), 1);
}

#[test]
fn the_response_timeout_has_no_effect_in_yaml() {
    let text = "proxy:\n  response_timeout: 10m\n";
    let loaded = yaml(text, &[]);
    assert_eq!(
        notes(&loaded),
        [
            "o.yaml:2: note: proxy.response_timeout: has no effect in a YAML file, as in Olla; \
          set it in TOML"
        ]
    );
    assert_eq!(loaded.plan.unwrap().proxy.response_timeout, None);
    // A variable is no copy of Olla's file.
    let env = [("OLLA_PROXY_RESPONSE_TIMEOUT", "1m")];
    let loaded = yaml(text, &env);
    assert_eq!(loaded.notes, []);
    let limit = loaded.plan.unwrap().proxy.response_timeout;
    assert_eq!(limit, Some(secs(60)));
    let wrong = with_env("proxy:\n  response_timeout: soon\n", FileFormat::Yaml, &[]);
    assert_eq!(wrong.errors().count(), 1);
}
