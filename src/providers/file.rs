//! One profile file: TOML text to a [`Profile`].
//!
//! Keys without an effect are ignored, whatever their values. A wrong type of value for any other
//! key makes the file invalid.
//!
//! Contract: docs/contract/catalogue.md#1.5

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::profile::{
    AnthropicSupport, CommonOperation, MetricsExtraction, Parser, Profile, ResponsesSupport,
};
use super::readings::RawSources;
use crate::config::AUTO;

const DEFAULT_VERSION: &str = "1.0";
const DEFAULT_DISCOVERY_PATH: &str = "/v1/models";
const DEFAULT_HEALTH_PATH: &str = "/";
const DEFAULT_RESPONSES_PATH: &str = "/v1/responses";
const DEFAULT_MESSAGES_PATH: &str = "/v1/messages";

/// First segments of paths below `/olla/` that belong to the gateway and to no provider.
const RESERVED_PREFIXES: [&str; 3] = ["anthropic", "models", "proxy"];

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    name: String,
    version: String,
    display_name: String,
    description: String,
    routing: Routing,
    api: Api,
    request: Request,
    response: Response,
    models: Models,
    metrics: Metrics,
    scheduling: RawSources,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Routing {
    prefixes: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Api {
    openai_compatible: bool,
    paths: Vec<String>,
    model_discovery_path: String,
    health_check_path: String,
    anthropic_support: Option<Anthropic>,
    responses_support: Responses,
    ollama_support: Ollama,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Responses {
    enabled: bool,
    path: String,
    limitations: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ollama {
    enabled: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Anthropic {
    enabled: bool,
    messages_path: String,
    token_count: bool,
    min_version: String,
    limitations: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Request {
    response_format: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response {
    loading: Vec<OneOrMore>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Models {
    capability_patterns: Patterns,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Patterns {
    embeddings: Vec<String>,
    vision: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metrics {
    extraction: Extraction,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Extraction {
    paths: Ordered,
    calculations: Ordered,
}

/// A table that keeps its order.
type Ordered = BTreeMap<String, Spanned<OneOrMore>>;

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl From<OneOrMore> for Vec<String> {
    fn from(texts: OneOrMore) -> Self {
        match texts {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        }
    }
}

/// Parses a profile. The second value lists what was ignored.
///
/// # Errors
/// The error in one line.
pub(super) fn parse(text: &str) -> Result<(Profile, Vec<String>), String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let file: File = toml::from_str(text).map_err(|error| one_line(&error.to_string()))?;
    let name = file.name.trim();
    if name.is_empty() {
        return Err("name: expected the name of the profile, got none".to_owned());
    }
    if name == AUTO {
        return Err(format!("name: {AUTO:?} is reserved; choose another name"));
    }
    let mut ignored = Vec::new();
    let prefixes = prefixes(file.routing.prefixes, &mut ignored);
    let parser = parser(&file.request.response_format).unwrap_or_else(|| {
        let written = &file.request.response_format;
        if !written.is_empty() {
            ignored.push(format!(
                "request.response_format: unknown format {written:?}; the OpenAI format is used"
            ));
        }
        Parser::OpenAi
    });
    let discovery_path = or(file.api.model_discovery_path, DEFAULT_DISCOVERY_PATH);
    let profile = Profile {
        name: name.to_owned(),
        display_name: or(file.display_name, name),
        description: file.description,
        version: or(file.version, DEFAULT_VERSION),
        prefixes,
        type_aliases: Vec::new(),
        openai_compatible: file.api.openai_compatible,
        native_listing_path: native_listing_path(&discovery_path),
        chat_path: operation_path(&file.api.paths, CommonOperation::Chat),
        completions_path: operation_path(&file.api.paths, CommonOperation::Completions),
        embeddings_path: operation_path(&file.api.paths, CommonOperation::Embeddings),
        paths: file.api.paths,
        health_path: or(file.api.health_check_path, DEFAULT_HEALTH_PATH),
        discovery_path,
        anthropic: file.api.anthropic_support.map(anthropic),
        responses: ResponsesSupport {
            enabled: file.api.responses_support.enabled,
            path: or(file.api.responses_support.path, DEFAULT_RESPONSES_PATH),
            limitations: file.api.responses_support.limitations,
        },
        speaks_ollama: file.api.ollama_support.enabled,
        parser,
        loading_texts: file.response.loading.into_iter().map(Into::into).collect(),
        embedding_patterns: file.models.capability_patterns.embeddings,
        vision_patterns: file.models.capability_patterns.vision,
        metrics: MetricsExtraction {
            paths: in_file_order(file.metrics.extraction.paths),
            calculations: in_file_order(file.metrics.extraction.calculations),
        },
        scheduling: file.scheduling.checked(&mut ignored),
    };
    Ok((profile, ignored))
}

fn or(text: String, default: &str) -> String {
    if text.trim().is_empty() {
        default.to_owned()
    } else {
        text
    }
}

/// The first line of a syntax error, which has several lines; the log needs one.
fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let lines: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

fn prefixes(written: Vec<String>, ignored: &mut Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for text in written {
        let prefix = text.trim().trim_matches('/');
        let is_segment = !prefix.is_empty()
            && prefix
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
            && prefix.bytes().any(|b| b != b'.');
        if !is_segment {
            ignored.push(format!(
                "routing.prefixes: expected segments of a path, got {text:?}"
            ));
        } else if RESERVED_PREFIXES.contains(&prefix) {
            ignored.push(format!(
                "routing.prefixes: {text:?} is reserved for the gateway"
            ));
        } else if !kept.iter().any(|known| known == prefix) {
            kept.push(prefix.to_owned());
        }
    }
    kept
}

fn parser(response_format: &str) -> Option<Parser> {
    Some(match response_format {
        "ollama" => Parser::Ollama,
        "lmstudio" => Parser::LmStudio,
        "openai" => Parser::OpenAi,
        "vllm" => Parser::Vllm,
        "sglang" => Parser::Sglang,
        "lmdeploy" => Parser::Lmdeploy,
        "vllm-mlx" => Parser::VllmMlx,
        "docker-model-runner" => Parser::DockerModelRunner,
        "llamacpp" => Parser::LlamaCpp,
        "lemonade" => Parser::Lemonade,
        _ => return None,
    })
}

/// The path of the provider's own listing below its prefix, unless it is the one that all providers
/// have. A discovery target on another host has no such path.
fn native_listing_path(discovery_path: &str) -> Option<String> {
    let end = discovery_path.find(['?', '#']);
    let path = end.map_or(discovery_path, |end| &discovery_path[..end]);
    (path.starts_with('/') && path != DEFAULT_DISCOVERY_PATH).then(|| path.to_owned())
}

/// The usual path of an operation if the profile lists it, else the first that it lists for it.
fn operation_path(paths: &[String], operation: CommonOperation) -> String {
    let usual = operation.usual_path();
    let is_for_it = |path: &&String| match operation {
        CommonOperation::Chat => path.ends_with("/chat/completions"),
        CommonOperation::Completions => {
            path.ends_with("/completions") && !path.ends_with("/chat/completions")
        }
        // Ollama's own has another form.
        CommonOperation::Embeddings => {
            path.ends_with("/embeddings") && !path.ends_with("/api/embeddings")
        }
    };
    let listed = paths.iter().find(|path| *path == usual);
    listed
        .or_else(|| paths.iter().find(is_for_it))
        .map_or_else(|| usual.to_owned(), Clone::clone)
}

fn anthropic(written: Anthropic) -> AnthropicSupport {
    AnthropicSupport {
        enabled: written.enabled,
        messages_path: or(written.messages_path, DEFAULT_MESSAGES_PATH),
        token_count: written.token_count,
        min_version: Some(written.min_version).filter(|version| !version.is_empty()),
        limitations: written.limitations,
    }
}

/// One pair for each path or formula, in the order of the file; a list keeps its own.
fn in_file_order(table: Ordered) -> Vec<(String, String)> {
    let mut fields: Vec<_> = table.into_iter().collect();
    fields.sort_by_key(|(_, value)| value.span().start);
    let mut pairs = Vec::new();
    for (field, value) in fields {
        let texts = Vec::from(value.into_inner());
        pairs.extend(texts.into_iter().map(|text| (field.clone(), text)));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_enough() {
        let (profile, ignored) = parse("name = 'mine'\n[characteristics]\ntimeout = 3").unwrap();
        assert_eq!(ignored, [""; 0]);
        assert_eq!(profile.name, "mine");
        assert_eq!(profile.display_name, "mine");
        assert_eq!(profile.version, "1.0");
        assert_eq!(profile.prefixes, [""; 0]);
        assert!(!profile.openai_compatible);
        assert_eq!(profile.discovery_path, "/v1/models");
        assert_eq!(profile.health_path, "/");
        assert_eq!(profile.chat_path, "/v1/chat/completions");
        assert_eq!(profile.native_listing_path, None);
        assert_eq!(profile.parser, Parser::OpenAi);
        assert_eq!(profile.anthropic, None);
        assert_eq!(profile.metrics, MetricsExtraction::default());
    }

    #[test]
    fn every_key_has_its_effect() {
        let text = r#"
            name = "mine"
            version = "2.1"
            display_name = "Mine"
            description = "my own"
            [routing]
            prefixes = ["mine", "/my-own/", "mine"]
            [api]
            openai_compatible = true
            paths = ["/x/chat/completions", "/y/chat/completions"]
            model_discovery_path = "/list?all=1"
            health_check_path = "/up"
            [api.anthropic_support]
            enabled = true
            limitations = ["no_vision"]
            [request]
            response_format = "ollama"
            [models.capability_patterns]
            embeddings = ["e*"]
            vision = ["v*"]
            chat = ["*"]
            [metrics.extraction.paths]
            total_tokens = "t"
            input_tokens = ["b", "a"]
            [metrics.extraction.calculations]
            z_ms = "2"
            a_ms = "1"
            [response]
            loading = ["one", ["both", "of them"]]
            [scheduling.warmth]
            path = "/running"
            list = "models"
            name = ["name", "id"]
            state = "status.value"
            warm = "up"
            loading = ["starting", "waking"]
            expires_at = "until"
            context = "n_ctx"
            [scheduling.metrics]
            path = "/metrics"
            running = "x:running"
            waiting = ["x:waiting", "x:queued"]
            [scheduling.slots]
            path = "/props"
            slots = "slots"
        "#;
        let (profile, ignored) = parse(text).unwrap();
        assert_eq!(ignored, [""; 0]);
        assert_eq!(profile.version, "2.1");
        assert_eq!(profile.display_name, "Mine");
        assert_eq!(profile.description, "my own");
        assert_eq!(profile.prefixes, ["mine", "my-own"]);
        assert!(profile.openai_compatible);
        assert_eq!(profile.chat_path, "/x/chat/completions");
        assert_eq!(profile.discovery_path, "/list?all=1");
        assert_eq!(profile.native_listing_path.as_deref(), Some("/list"));
        assert_eq!(profile.health_path, "/up");
        assert_eq!(profile.parser, Parser::Ollama);
        assert_eq!(profile.embedding_patterns, ["e*"]);
        assert_eq!(profile.vision_patterns, ["v*"]);
        let anthropic = profile.anthropic.unwrap();
        assert!(anthropic.enabled && !anthropic.token_count);
        assert_eq!(anthropic.messages_path, "/v1/messages");
        assert_eq!(anthropic.min_version, None);
        assert_eq!(anthropic.limitations, ["no_vision"]);
        let pair = |field: &str, text: &str| (field.to_owned(), text.to_owned());
        assert_eq!(
            profile.metrics.paths,
            [
                pair("total_tokens", "t"),
                pair("input_tokens", "b"),
                pair("input_tokens", "a")
            ],
            "in the order of the file"
        );
        assert_eq!(
            profile.metrics.calculations,
            [pair("z_ms", "2"), pair("a_ms", "1")]
        );
        assert_eq!(
            profile.loading_texts,
            [vec!["one"], vec!["both", "of them"]]
        );
        let memory = profile.scheduling.memory.unwrap();
        assert_eq!(
            (memory.path.as_str(), &*memory.list),
            ("/running", "models")
        );
        assert_eq!(memory.names, ["name", "id"]);
        assert_eq!(memory.state.as_deref(), Some("status.value"));
        assert_eq!(memory.warm, ["up"]);
        assert_eq!(memory.loading, ["starting", "waking"]);
        assert_eq!(memory.expires.as_deref(), Some("until"));
        assert_eq!(memory.context.as_deref(), Some("n_ctx"));
        let page = profile.scheduling.page.unwrap();
        assert_eq!(
            (&*page.path, page.running),
            ("/metrics", vec!["x:running".to_owned()])
        );
        assert_eq!(page.waiting, ["x:waiting", "x:queued"]);
        let slots = profile.scheduling.slots.unwrap();
        assert_eq!((&*slots.path, &*slots.slots), ("/props", "slots"));
        assert_eq!(slots.context, None);
    }

    #[test]
    fn a_source_that_cannot_be_read_is_ignored() {
        let table = [
            ("warmth", "list = 'l'\nname = 'n'", "path: expected"),
            ("warmth", "path = '/p'\nname = 'n'", "list: expected"),
            ("warmth", "path = '/p'\nlist = 'l'", "name: expected"),
            (
                "warmth",
                "path = '/p'\nlist = 'l'\nname = 'n'\nstate = 's'",
                "warm: expected",
            ),
            (
                "warmth",
                "path = '/p'\nlist = 'l'\nname = 'n'\nstate = 'a..b'\nwarm = 'w'",
                "a path",
            ),
            ("metrics", "path = '/p'\nrunning = 'r'", "running, waiting"),
            ("slots", "path = '/p'", "slots, context"),
            ("slots", "slots = 's'", "path: expected"),
        ];
        for (name, keys, reason) in table {
            let text = format!("name = 'x'\n[scheduling.{name}]\n{keys}");
            let (profile, ignored) = parse(&text).unwrap();
            assert_eq!(profile.scheduling, Default::default(), "{text}");
            assert!(ignored[0].contains(reason), "{text}: {ignored:?}");
            assert!(ignored[0].starts_with(&format!("scheduling.{name}: ")));
        }
    }

    #[test]
    fn files_that_are_no_profile_are_refused() {
        let table = [
            ("", "expected the name"),
            ("name = ''", "expected the name"),
            ("name = '  '", "expected the name"),
            ("version = '1'", "expected the name"),
            ("name = 'auto'", "reserved"),
            ("name = 5", "string"),
            ("name = 'x'\n[api]\npaths = 'y'", "paths"),
            ("name = 'x'\nname = 'y'", "duplicate"),
            ("name: x", "line 1"),
        ];
        for (text, reason) in table {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_ignored_is_told() {
        let text = "name = 'x'\nrouting.prefixes = ['a/b', '', 'proxy', '..', 'ok']\n\
                    request.response_format = 'xml'";
        let (profile, ignored) = parse(text).unwrap();
        assert_eq!(profile.prefixes, ["ok"]);
        assert_eq!(ignored.len(), 5, "{ignored:?}");
    }
}
