//! LiteLLM's `config.yaml`.
//!
//! Contract: docs/contract/operations.md#9

use std::path::Path;

use super::super::access::{KeyDigest, is_secret};
use super::super::finding::Severity;
use super::super::import::Imported;
use super::super::tree::{ConfigNode, ConfigTable, ConfigValue};
use super::super::values::quoted;
use super::draft::{Draft, ImportPlace, bearer, list, name_of, seconds_of, takes, text_of};

const ENDPOINTS: &str = "discovery.static.endpoints";
const ALIASES: &str = "model_aliases";
const RATES: &str = "server.rate_limits.per_endpoint.overrides";

/// The name of the admin key that the master key becomes.
const MASTER: &str = "litellm-master";

/// How LiteLLM refers to an environment variable.
const VARIABLE: &str = "os.environ/";

/// Prefixes of `model`, and the type of the endpoint.
const TYPES: [(&str, &str); 9] = [
    ("hosted_vllm", "vllm"),
    ("vllm", "vllm"),
    ("ollama", "ollama"),
    ("ollama_chat", "ollama"),
    ("lm_studio", "lm-studio"),
    ("llamafile", "llamacpp"),
    ("litellm_proxy", "litellm"),
    ("openai", GENERIC),
    ("text-completion-openai", GENERIC),
];

const GENERIC: &str = "openai-compatible";

/// Words in the names of keys, and why these have no counterpart.
const REASONS: [(&str, &str); 14] = [
    (
        "fallback",
        "olla tries every endpoint that serves a name; to fall back to another model, add it to the \
         list of an alias in [model_aliases]",
    ),
    (
        "callback",
        "olla reports requests in its log and at /internal/metrics",
    ),
    ("redis", "olla needs no Redis"),
    ("cache", "olla keeps no responses for later requests"),
    (
        "database",
        "olla keeps keys and usage in the file that state.path names",
    ),
    (
        "store_model_in_db",
        "olla reads the models from its endpoints",
    ),
    ("budget", "olla counts tokens, not money: access.policies"),
    ("cost", "olla counts tokens, not money: access.policies"),
    ("tpm", "olla limits tokens by key: access.policies"),
    (
        "parallel_requests",
        "olla limits requests in progress by key, access.policies, and by endpoint, max_concurrent",
    ),
    (
        "allowed_fails",
        "health checks and refused connections take an endpoint out",
    ),
    ("param", "olla passes parameters on as they are"),
    ("verbose", "see logging.level"),
    ("alert", "see the alert rules for olla's metrics"),
];

/// A server: the entries of the list with one address. olla sends one credential to an address, the
/// first that the file has.
struct Server {
    base: String,
    key: Option<String>,
    kind: &'static str,
    name: String,
    requests_per_minute: i128,
    /// The entry that comes first.
    entry: usize,
}

/// A `model_name`, and the names that its servers know the model by.
struct Group {
    name: String,
    served: Vec<String>,
}

struct Import {
    draft: Draft,
    servers: Vec<Server>,
    groups: Vec<Group>,
}

/// Converts the file.
pub(super) fn import(table: &ConfigTable, path: &Path) -> Imported {
    let mut import = Import {
        draft: Draft::new(path, "LiteLLM"),
        servers: Vec::new(),
        groups: Vec::new(),
    };
    let entries = match table.get("model_list").map(|node| &node.value) {
        Some(ConfigValue::List(entries)) => &entries[..],
        _ => &[],
    };
    for (at, entry) in entries.iter().enumerate() {
        import.survey(at, entry);
    }
    for (name, node) in &table.0 {
        let ConfigValue::Table(section) = &node.value else {
            if name == "model_list" {
                import.models(entries);
            } else if !node.is_null() {
                import.unknown(&ImportPlace::new("", name, node), name);
            }
            continue;
        };
        for (key, node) in section.0.iter().filter(|(_, node)| !node.is_null()) {
            let place = ImportPlace::new(name, key, node);
            match name.as_str() {
                "router_settings" | "litellm_settings" => import.setting(&place, key, node),
                "general_settings" if key == "master_key" => import.master_key(&place, node),
                "environment_variables" => {
                    let why = "set the variable in the environment of olla";
                    import.draft.remark(&place, why);
                }
                _ => import.unknown(&place, key),
            }
        }
    }
    import.draft.finish()
}

/// The parts of an entry that say where a model is.
struct Entry<'t> {
    params: &'t ConfigTable,
    /// `model` without its prefix.
    served: String,
    /// The prefix, or the provider that is named apart from it.
    provider: Option<String>,
    base: Option<String>,
    key: Option<String>,
}

impl<'t> Entry<'t> {
    fn of(node: &'t ConfigNode) -> Option<Self> {
        let ConfigValue::Table(entry) = &node.value else {
            return None;
        };
        let ConfigValue::Table(params) = &entry.get("litellm_params")?.value else {
            return None;
        };
        let text = |key: &str| params.get(key).and_then(text_of);
        let model = text("model")?;
        let (provider, served) = match (text("custom_llm_provider"), model.split_once('/')) {
            (Some(provider), _) => (Some(provider), model),
            (None, Some((prefix, rest))) => (Some(prefix.to_owned()), rest.to_owned()),
            (None, None) => (None, model),
        };
        let base = text("api_base").or_else(|| text("base_url"));
        Some(Self {
            params,
            served,
            provider,
            base: base
                .filter(|base| !base.is_empty())
                .map(|base| variable(&base)),
            key: text("api_key")
                .filter(|key| !key.is_empty())
                .map(|key| variable(&key)),
        })
    }

    fn kind(&self) -> Option<&'static str> {
        let Some(provider) = &self.provider else {
            return Some(GENERIC);
        };
        let found = TYPES.iter().find(|(prefix, _)| prefix == provider);
        found.map(|(_, kind)| *kind)
    }
}

/// A value, or the reference to the variable that it names.
fn variable(text: &str) -> String {
    text.strip_prefix(VARIABLE)
        .map_or_else(|| text.to_owned(), |name| format!("${{{name}}}"))
}

impl Import {
    /// Notes the server and the names of an entry; nothing is written yet.
    fn survey(&mut self, at: usize, node: &ConfigNode) {
        let Some(entry) = Entry::of(node) else { return };
        let Some(base) = entry.base.clone() else {
            return;
        };
        let kind = entry.kind().unwrap_or(GENERIC);
        let rate = match entry.params.get("rpm").map(|node| &node.value) {
            Some(ConfigValue::Int(rate)) if *rate > 0 => *rate,
            _ => 0,
        };
        let mut servers = self.servers.iter_mut();
        match servers.find(|server| address(&server.base) == address(&base)) {
            Some(server) => {
                server.key = server.key.take().or(entry.key);
                server.requests_per_minute += rate;
                if server.kind == GENERIC {
                    server.kind = kind;
                }
            }
            None => {
                let taken: Vec<String> = self.servers.iter().map(|s| s.name.clone()).collect();
                self.servers.push(Server {
                    name: name_of(&base, &taken),
                    base,
                    key: entry.key,
                    kind,
                    requests_per_minute: rate,
                    entry: at,
                });
            }
        }
        let name = model_name(node);
        if entry.served.contains('*') || name.is_empty() {
            return;
        }
        match self.groups.iter_mut().find(|group| group.name == name) {
            Some(group) if group.served.contains(&entry.served) => {}
            Some(group) => group.served.push(entry.served),
            None => self.groups.push(Group {
                name,
                served: vec![entry.served],
            }),
        }
    }

    /// Writes endpoints, aliases and rates.
    fn models(&mut self, entries: &[ConfigNode]) {
        for (at, node) in entries.iter().enumerate() {
            self.entry(at, node);
        }
        let groups = std::mem::take(&mut self.groups);
        for group in &groups {
            if group.served.len() > 1 || group.served[0] != group.name {
                self.alias(&group.name, &group.served);
            }
        }
        self.groups = groups;
        for server in &self.servers {
            if server.requests_per_minute > 0 {
                let rate = server.requests_per_minute.to_string();
                let _ = self.draft.set(RATES, &server.name, &rate);
            }
        }
    }

    fn entry(&mut self, at: usize, node: &ConfigNode) {
        let path = format!("model_list[{at}]");
        let place = ImportPlace {
            key: path.clone(),
            line: node.line,
        };
        let Some(entry) = Entry::of(node) else {
            let why = "expected litellm_params with a model; left out";
            return self.draft.remark(&place, why);
        };
        if entry.base.is_none() {
            let model = text_of_model(&entry);
            let why =
                format!("{model} has no api_base: a cloud's own API, which olla does not call");
            return self.draft.remark(&place, &why);
        }
        if let Some(server) = self.servers.iter().find(|server| server.entry == at) {
            let url = quoted(&server.base);
            let mut fields = vec![
                ("name", quoted(&server.name)),
                ("url", url),
                ("type", quoted(server.kind)),
            ];
            if has_base_path(&server.base) {
                fields.push(("preserve_path", "true".to_owned()));
            }
            if let Some(key) = &server.key {
                fields.push(("auth", bearer(key)));
            }
            self.draft.item(ENDPOINTS, &fields);
        }
        let base = entry.base.as_deref().unwrap_or_default();
        let mut servers = self.servers.iter();
        let server = servers.find(|server| address(&server.base) == address(base));
        if entry.key.is_some() && server.is_some_and(|server| server.key != entry.key) {
            let why =
                "an entry with the same api_base has another key, which is the one that olla sends";
            let key = format!("{path}.litellm_params.api_key");
            self.draft.remark(
                &ImportPlace {
                    key,
                    ..place.clone()
                },
                why,
            );
        }
        if entry.kind().is_none() {
            let provider = entry.provider.clone().unwrap_or_default();
            let why = format!("the provider {provider} is taken for OpenAI-compatible");
            let key = format!("{path}.litellm_params.model");
            self.draft.remark(
                &ImportPlace {
                    key,
                    ..place.clone()
                },
                &why,
            );
        }
        if entry.served.contains('*') {
            let why =
                "olla lists the models of an endpoint itself; a * in the served name is not needed";
            let key = format!("{path}.litellm_params.model");
            self.draft.remark(&ImportPlace { key, ..place }, why);
        }
        self.rest_of_entry(&path, node, &entry);
    }

    /// The keys of an entry that have no counterpart.
    fn rest_of_entry(&mut self, path: &str, node: &ConfigNode, entry: &Entry<'_>) {
        const USED: [&str; 6] = [
            "model",
            "api_base",
            "base_url",
            "api_key",
            "rpm",
            "custom_llm_provider",
        ];
        let params = format!("{path}.litellm_params");
        for (name, node) in entry.params.0.iter().filter(|(_, node)| !node.is_null()) {
            if !USED.contains(&name.as_str()) {
                self.unknown(&ImportPlace::new(&params, name, node), name);
            }
        }
        let ConfigValue::Table(all) = &node.value else {
            return;
        };
        for (name, node) in all.0.iter().filter(|(_, node)| !node.is_null()) {
            match name.as_str() {
                "model_name" | "litellm_params" => {}
                "model_info" => {
                    let place = ImportPlace::new(path, name, node);
                    self.draft
                        .remark(&place, "olla reads what a model can do from its endpoint");
                }
                _ => self.unknown(&ImportPlace::new(path, name, node), name),
            }
        }
    }

    fn alias(&mut self, name: &str, served: &[String]) {
        if name.trim() != name {
            self.draft.comment(&format!(
                "{ALIASES}: the name {} has blanks around it",
                quoted(name)
            ));
            return;
        }
        let _ = self.draft.set(ALIASES, name, &list(served));
    }

    /// A key of `router_settings` or `litellm_settings`.
    fn setting(&mut self, place: &ImportPlace, key: &str, node: &ConfigNode) {
        let (table, option, value) = match key {
            "routing_strategy" => ("proxy", "load_balancer", balancer(node)),
            "num_retries" => ("proxy.retry", "max_attempts", attempts(node)),
            "cooldown_time" => ("proxy.retry", "cooldown", seconds_of(node)),
            "timeout" | "request_timeout" => ("proxy", "response_timeout", seconds_of(node)),
            "stream_timeout" => ("proxy", "response_header_timeout", seconds_of(node)),
            "model_group_alias" => return self.group_aliases(place, node),
            _ => return self.unknown(place, key),
        };
        match value {
            None => {
                let why = format!("its value has no counterpart in {table}.{option}");
                self.draft.remark(place, &why);
            }
            Some(value) => {
                if self.draft.set(table, option, &value).is_err() {
                    let why = format!("another key has set {table}.{option}");
                    self.draft.remark(place, &why);
                }
            }
        }
    }

    /// `model_group_alias`: another name for a `model_name`.
    fn group_aliases(&mut self, place: &ImportPlace, node: &ConfigNode) {
        let ConfigValue::Table(aliases) = &node.value else {
            return self
                .draft
                .remark(place, "expected a table of names; left out");
        };
        for (name, node) in &aliases.0 {
            let target = match &node.value {
                ConfigValue::Table(target) => target.get("model").and_then(text_of),
                _ => text_of(node),
            };
            let place = ImportPlace::new(&place.key, name, node);
            let Some(target) = target else {
                self.draft
                    .remark(&place, "expected the name of a model; left out");
                continue;
            };
            let group = self.groups.iter().find(|group| group.name == target);
            let served = group.map_or_else(|| vec![target.clone()], |group| group.served.clone());
            if self.draft.set(ALIASES, name, &list(&served)).is_err() {
                self.draft
                    .remark(&place, "model_list has a model of this name, which counts");
            }
        }
    }

    /// The key that LiteLLM requires of its admin. It is written as its hash only.
    fn master_key(&mut self, place: &ImportPlace, node: &ConfigNode) {
        let Some(secret) = text_of(node) else {
            return self.draft.remark(place, "expected a text; left out");
        };
        if let Some(name) = secret.strip_prefix(VARIABLE) {
            let why = "read from a variable, so that access stays off; to require keys, add these \
                       lines";
            self.draft.remark(place, why);
            for line in [
                "[access]",
                "enabled = true",
                "[[access.keys]]",
                &format!("name = {}", quoted(MASTER)),
                &format!("key = {}", quoted(&format!("${{{name}}}"))),
                "admin = true",
            ] {
                self.draft.comment(line);
            }
            return;
        }
        if !is_secret(secret.as_bytes()) || secret == "sk-no-key-required" {
            let why = "expected 16 to 256 visible ASCII characters, got another secret, which is too \
                       easy to guess; access stays off. Make a key with: olla key new admin --admin";
            self.draft.comment(&format!("{}: {why}", place.key));
            return self.draft.find(Severity::Error, place, why);
        }
        let hash = KeyDigest::of(secret.as_bytes()).stored();
        let _ = self.draft.set("access", "enabled", "true");
        let fields = [
            ("name", quoted(MASTER)),
            ("hash", quoted(&hash)),
            ("admin", "true".to_owned()),
        ];
        self.draft.item("access.keys", &fields);
        self.draft
            .comment("The keys that LiteLLM keeps in its database are not imported.");
        let why = format!(
            "kept as the hash of the admin key \"{MASTER}\"; requests need a key from now on, and \
             LiteLLM's other keys are not imported"
        );
        self.draft.find(Severity::Note, place, &why);
    }

    fn unknown(&mut self, place: &ImportPlace, key: &str) {
        let found = REASONS.iter().find(|(word, _)| key.contains(word));
        let why = found.map_or("olla has no such option", |(_, why)| why);
        self.draft.remark(place, why);
    }
}

fn model_name(node: &ConfigNode) -> String {
    let ConfigValue::Table(entry) = &node.value else {
        return String::new();
    };
    let name = entry.get("model_name").and_then(text_of);
    name.unwrap_or_default()
}

fn text_of_model(entry: &Entry<'_>) -> String {
    let model = entry.params.get("model").and_then(text_of);
    quoted(&model.unwrap_or_default())
}

/// An `api_base` without what makes no difference between two servers.
fn address(base: &str) -> &str {
    let base = base.trim_end_matches('/');
    base.strip_suffix("/v1").unwrap_or(base)
}

/// Whether an address has a path besides the version prefix that its type's own paths have.
fn has_base_path(base: &str) -> bool {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let path = path.trim_end_matches('/');
    !matches!(path, "" | "v1" | "api" | "api/v0" | "api/v1") && !base.starts_with("${")
}

fn balancer(node: &ConfigNode) -> Option<String> {
    let name = match node.value.text()? {
        "simple-shuffle" => "round-robin",
        "least-busy" => "least-connections",
        "latency-based-routing" => "least-time",
        usage if usage.starts_with("usage-based-routing") => "least-time",
        _ => return None,
    };
    takes("proxy.load_balancer", Some(name)).then(|| quoted(name))
}

/// Retries as attempts.
fn attempts(node: &ConfigNode) -> Option<String> {
    match node.value {
        ConfigValue::Int(retries) if (0..1000).contains(&retries) => {
            Some((retries + 1).to_string())
        }
        _ => None,
    }
}
