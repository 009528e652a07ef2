use super::super::env::Env;
use super::super::load::{FileFormat, plan_from_str};
use super::super::{Balancer, NameFilter, Plan, TypeName};
use super::*;

/// Types that the imports write.
const TYPES: [&str; 6] = [
    "vllm",
    "ollama",
    "lm-studio",
    "llamacpp",
    "litellm",
    "openai-compatible",
];

fn with_inputs<T>(run: impl Fn(&ConfigInputs<'_>) -> T) -> T {
    let env = Env::of([
        ("GPU_KEY", "g"),
        ("PEER_KEY", "p"),
        ("SWAP_KEY", "s"),
        ("BASE", "http://v:1"),
    ]);
    let types = TYPES.map(|name| TypeName {
        written: name.into(),
        canonical: name.into(),
    });
    let admits = |_: &NameFilter, _: &str| true;
    run(&ConfigInputs {
        env: &env,
        cwd: Path::new("."),
        types: &types,
        admits: &admits,
    })
}

fn converted(text: &str) -> Imported {
    let path = Path::new("x/config.yaml");
    with_inputs(|inputs| convert(text, path, None, inputs)).unwrap()
}

/// The plan of an imported file, which has no finding.
fn plan_of(toml: &str) -> Plan {
    let loaded = with_inputs(|inputs| plan_from_str(toml, FileFormat::Toml, None, inputs));
    assert_eq!(loaded.findings, [], "{toml}");
    loaded.plan.unwrap()
}

#[track_caller]
fn assert_lines(toml: &str, lines: &[&str]) {
    for line in lines {
        assert!(toml.lines().any(|l| l == *line), "{line}\n---\n{toml}");
    }
}

const LITELLM: &str = "\
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: hosted_vllm/meta-llama/Llama-3.3-70B
      api_base: http://gpu1:8000/v1
      api_key: os.environ/GPU_KEY
      rpm: 60
      tpm: 1000
  - model_name: gpt-4o
    litellm_params:
      model: ollama_chat/llama3.3:70b
      api_base: http://gpu2:11434
      rpm: 30
  - model_name: embed
    litellm_params:
      model: openai/embed
      api_base: http://gpu1:8000/v1
      api_key: os.environ/GPU_KEY
      rpm: 40
    model_info:
      mode: embedding
  - model_name: claude-*
    litellm_params:
      model: lm_studio/qwen
      api_base: http://10.0.0.7:1234/team/v1
      api_key: sk-in-clear
  - model_name: '*'
    litellm_params:
      model: openai/*
      api_base: os.environ/BASE
  - model_name: cloud
    litellm_params:
      model: azure/gpt-4
      api_key: os.environ/AZURE
  - model_name: odd
    litellm_params:
      model: strange/odd
      api_base: http://gpu1:8000/
      api_key: hunter2
router_settings:
  routing_strategy: simple-shuffle
  num_retries: 2
  cooldown_time: 1.5
  timeout: 600
  stream_timeout: 30
  model_group_alias:
    best: gpt-4o
    gpt-4o: embed
  redis_password: hunter2-hunter2-hunter2
litellm_settings:
  request_timeout: 30
  fallbacks: [{gpt-4o: [embed]}]
  drop_params: true
general_settings:
  database_url: postgresql://u:hunter2@db/x
environment_variables:
  AZURE: hunter2
";

#[test]
fn litellm_moves_over() {
    let imported = converted(LITELLM);
    let toml = &imported.toml;
    assert_lines(
        toml,
        &[
            "# Imported from config.yaml of LiteLLM.",
            "name = \"gpu1-8000\"",
            "url = \"http://gpu1:8000/v1\"",
            "type = \"vllm\"",
            "auth = { type = \"bearer\", token = \"${GPU_KEY}\" }",
            "type = \"ollama\"",
            "preserve_path = true",
            "auth = { type = \"bearer\", token = \"sk-in-clear\" }",
            "url = \"${BASE}\"",
            "gpt-4o = [\"meta-llama/Llama-3.3-70B\", \"llama3.3:70b\"]",
            "\"claude-*\" = [\"qwen\"]",
            "best = [\"meta-llama/Llama-3.3-70B\", \"llama3.3:70b\"]",
            "gpu1-8000 = 100",
            "gpu2-11434 = 30",
            "load_balancer = \"round-robin\"",
            "max_attempts = 3",
            "cooldown = \"1500ms\"",
            "response_timeout = \"600s\"",
            "response_header_timeout = \"30s\"",
            "# router_settings.model_group_alias.gpt-4o: model_list has a model of this name, which counts",
            "# litellm_settings.request_timeout: another key has set proxy.response_timeout",
            "# router_settings.redis_password: olla needs no Redis",
            "# environment_variables.AZURE: set the variable in the environment of olla",
            "# model_list[6].litellm_params.api_key: an entry with the same api_base has another key, \
             which is the one that olla sends",
            "# model_list[6].litellm_params.model: the provider strange is taken for OpenAI-compatible",
        ],
    );
    assert!(
        toml.contains("# model_list[5]: \"azure/gpt-4\" has no api_base"),
        "{toml}"
    );
    assert!(
        toml.contains("# model_list[4].litellm_params.model: olla lists"),
        "{toml}"
    );
    assert!(
        !toml.contains("hunter2") && !toml.contains("[access]"),
        "{toml}"
    );
    let plan = plan_of(toml);
    let names: Vec<&str> = plan
        .discovery
        .endpoints
        .iter()
        .map(|endpoint| endpoint.name.as_str())
        .collect();
    assert_eq!(names, ["gpu1-8000", "gpu2-11434", "10.0.0.7-1234", "base"]);
    let notes: Vec<String> = imported.findings.iter().map(ToString::to_string).collect();
    assert!(
        notes.contains(&"x/config.yaml:8: note: model_list[0].litellm_params.tpm: olla limits tokens by key: access.policies".to_owned()),
        "{notes:?}"
    );
    assert!(
        notes.iter().all(|note| !note.contains("hunter2")),
        "{notes:?}"
    );
}

#[test]
fn a_master_key_becomes_a_hash() {
    let file = |key: &str| format!("model_list: []\ngeneral_settings:\n  master_key: {key}\n");
    let imported = converted(&file("sk-0123456789abcdef"));
    assert_lines(
        &imported.toml,
        &[
            "[access]",
            "enabled = true",
            "[[access.keys]]",
            "name = \"litellm-master\"",
            "hash = \"sha256:221df437bc4f8c4d9718bd7a9ec4c1021c72fd69dfb2a5f568ecf4607c824bee\"",
            "admin = true",
        ],
    );
    let access = &plan_of(&imported.toml).access;
    assert!(access.enabled && access.keys.len() == 1);
    let said = format!("{}{:?}", imported.toml, imported.findings);
    assert!(!said.contains("sk-0123456789abcdef"), "{said}");

    let imported = converted(&file("os.environ/MASTER"));
    assert_lines(&imported.toml, &["# [access]", "# key = \"${MASTER}\""]);
    plan_of(&imported.toml);

    for weak in ["sk-1234", "sk-no-key-required", "\"sk-with a blank in it\""] {
        let imported = converted(&file(weak));
        plan_of(&imported.toml);
        let [finding] = &imported.findings[..] else {
            panic!("{:?}", imported.findings);
        };
        assert_eq!(finding.severity, super::super::Severity::Error);
        let said = format!("{}{finding}", imported.toml);
        assert!(!said.contains(weak.trim_matches('"')), "{said}");
    }
}

#[test]
fn litellms_strategies_have_a_balancer() {
    let table = [
        ("simple-shuffle", Balancer::RoundRobin),
        ("least-busy", Balancer::LeastConnections),
        ("latency-based-routing", Balancer::LeastTime),
        ("usage-based-routing", Balancer::LeastTime),
        ("usage-based-routing-v2", Balancer::LeastTime),
    ];
    for (strategy, balancer) in table {
        let file = format!("model_list: []\nrouter_settings: {{routing_strategy: {strategy}}}\n");
        let imported = converted(&file);
        let line = format!("load_balancer = \"{balancer}\"");
        assert_lines(&imported.toml, &[&line]);
        let plan = plan_of(&imported.toml);
        assert_eq!(plan.proxy.load_balancer, balancer, "{strategy}");
    }
}

const LLAMA_SWAP: &str = "\
healthCheckTimeout: 500
macros:
  host: 10.0.0.9
  peer_url: http://${host}:9000
apiKeys: ['${env.SWAP_KEY}', sk-hunter2]
models:
  qwen:
    cmd: llama-server --port ${PORT} -m q.gguf
    aliases: [gpt-4o-mini, coder]
    ttl: 60
  llama:
    cmd: x
    aliases: coder
peers:
  cloud:
    proxy: ${peer_url}
    apiKey: ${env.PEER_KEY}
    models: [big, 'bigger/one']
    filters: {}
  lost:
    proxy: ${nowhere}
groups: {}
";

#[test]
fn llama_swap_moves_over() {
    let imported = converted(LLAMA_SWAP);
    let toml = &imported.toml;
    assert_lines(
        toml,
        &[
            "model_load_timeout = \"500s\"",
            "name = \"llama-swap\"",
            "url = \"http://localhost:8080\"",
            "type = \"openai-compatible\"",
            "auth = { type = \"bearer\", token = \"${SWAP_KEY}\" }",
            "gpt-4o-mini = [\"qwen\"]",
            "coder = [\"qwen\"]",
            "# models.llama.aliases: another model has one of these aliases",
            "# models.qwen.ttl: llama-swap goes on doing this",
            "name = \"cloud\"",
            "url = \"http://10.0.0.9:9000\"",
            "auth = { type = \"bearer\", token = \"${PEER_KEY}\" }",
            "model_filter = { include = [\"big\", \"bigger/one\"] }",
            "# peers.lost: expected proxy with a URL; left out",
            "# groups: llama-swap goes on doing this",
        ],
    );
    assert!(!toml.contains("hunter2"), "{toml}");
    let plan = plan_of(toml);
    assert_eq!(plan.discovery.endpoints.len(), 2);
    assert_eq!(plan.proxy.model_load_timeout.as_secs(), 500);
}

#[test]
fn kinds_are_told_apart_and_refused_at_start() {
    let table = [
        ("model_list: []\n", Some(ConfigKind::LiteLlm)),
        ("models: {a: {cmd: x}}\n", Some(ConfigKind::LlamaSwap)),
        ("models: {a: {proxy: x}}\n", Some(ConfigKind::LlamaSwap)),
        ("peers: {a: {proxy: x}}\n", Some(ConfigKind::LlamaSwap)),
        ("models: {a: {x: 1}}\n", None),
        ("server: {port: 1}\n", Some(ConfigKind::Olla)),
        (
            "discovery:\n  static: {}\nmodels: []\n",
            Some(ConfigKind::Olla),
        ),
        ("services: {}\n", None),
        ("", None),
    ];
    for (text, kind) in table {
        let tree = yaml::from_yaml(text).unwrap();
        assert_eq!(ConfigKind::of(&tree, reference()), kind, "{text}");
        let path = Path::new("c/config.yaml");
        let loaded =
            with_inputs(|inputs| plan_from_str(text, FileFormat::Yaml, Some(path), inputs));
        let is_foreign = matches!(kind, Some(ConfigKind::LiteLlm | ConfigKind::LlamaSwap));
        assert_eq!(loaded.plan.is_none(), is_foreign, "{text}");
        if is_foreign {
            let [finding] = &loaded.findings[..] else {
                panic!("{:?}", loaded.findings);
            };
            let said = finding.to_string();
            assert!(
                said.ends_with("olla import c/config.yaml > config.toml"),
                "{said}"
            );
        }
    }
    let named =
        |kind| with_inputs(|inputs| convert("a: 1\n", Path::new("c.yaml"), kind, inputs)).is_ok();
    assert!(!named(None));
    for (_, kind) in ConfigKind::NAMES {
        assert!(named(Some(kind)), "{kind:?}");
    }
}

#[test]
fn names_of_endpoints_come_from_their_addresses() {
    let table = [
        ("http://gpu1:8000/v1", "gpu1-8000"),
        ("https://GPU.example.com", "gpu.example.com"),
        ("http://u:p@h:1/x", "h-1"),
        ("http://[::1]:80", "1--80"),
        ("${OLLAMA_BASE}", "ollama-base"),
        ("", "endpoint"),
        ("http://taken", "taken-2"),
    ];
    for (url, name) in table {
        assert_eq!(draft::name_of(url, &["taken".to_owned()]), name, "{url}");
    }
}
