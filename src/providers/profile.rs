//! The properties of one kind of server.

use super::readings::SchedulingSources;

/// A provider profile (docs/contract/catalogue.md#1).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// The canonical type, such as `lm-studio`.
    pub name: String,
    /// Name for display.
    pub display_name: String,
    /// Description for display.
    pub description: String,
    /// Version of the profile.
    pub version: String,
    /// Below `/olla/`, without slashes; each is also an accepted `type`.
    pub prefixes: Vec<String>,
    /// Other accepted values of `type` that are not prefixes. Built-in profiles have none, because
    /// all of their spellings are prefixes.
    pub type_aliases: Vec<String>,
    /// Whether it has `v1/models` and its models are listed under `/olla/openai/`.
    pub openai_compatible: bool,
    /// Request paths that it is listed for (docs/contract/catalogue.md#1.2,
    /// docs/contract/balancing.md#3.2).
    pub paths: Vec<String>,
    /// Default target of health checks.
    pub health_path: String,
    /// Default target of model discovery.
    pub discovery_path: String,
    /// Path of its own listing below the prefix (`/api/tags`), if it has one.
    pub native_listing_path: Option<String>,
    /// The path of OpenAI chat completions (docs/contract/translation.md#5).
    pub chat_path: String,
    /// The path of OpenAI completions (docs/contract/dialects.md#1).
    pub completions_path: String,
    /// The path of OpenAI embeddings (docs/contract/dialects.md#1).
    pub embeddings_path: String,
    /// Its native Anthropic support, when declared.
    pub anthropic: Option<AnthropicSupport>,
    /// Its own support of OpenAI's Responses API.
    pub responses: ResponsesSupport,
    /// Whether it speaks Ollama's own API (`api.ollama_support`).
    pub speaks_ollama: bool,
    /// The parser of its model listing.
    pub parser: Parser,
    /// Texts in the body of a 503 that say that the model is being loaded: all of one list
    /// (docs/contract/scheduling.md#3).
    pub loading_texts: Vec<Vec<String>>,
    /// Globs that match the names of embedding models.
    pub embedding_patterns: Vec<String>,
    /// Globs that match the names of vision models.
    pub vision_patterns: Vec<String>,
    /// Where its responses contain token counts and times (docs/contract/operations.md#6).
    pub metrics: MetricsExtraction,
    /// What its servers tell about models in memory and requests
    /// (docs/contract/scheduling.md#3, docs/contract/scheduling.md#4).
    pub scheduling: SchedulingSources,
}

/// The operations of OpenAI's API that every kind of server has, perhaps at another path
/// (docs/contract/dialects.md#1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CommonOperation {
    /// Chat completions.
    #[default]
    Chat,
    /// Completions.
    Completions,
    /// Embeddings.
    Embeddings,
}

impl CommonOperation {
    /// The operation of a path of OpenAI's own.
    pub(crate) fn of(path: &[u8]) -> Option<Self> {
        let all = [Self::Chat, Self::Completions, Self::Embeddings];
        all.into_iter()
            .find(|operation| operation.usual_path().as_bytes() == path)
    }

    /// The path at servers that have no other.
    pub(super) const fn usual_path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
        }
    }
}

impl Profile {
    /// The path of an operation at its servers.
    pub(crate) fn operation_path(&self, operation: CommonOperation) -> &str {
        match operation {
            CommonOperation::Chat => &self.chat_path,
            CommonOperation::Completions => &self.completions_path,
            CommonOperation::Embeddings => &self.embeddings_path,
        }
    }

    /// Whether a response says that the model is being loaded, which is no failure
    /// (docs/contract/scheduling.md#3). `body` may be the beginning of its body.
    pub fn says_loading(&self, status: u16, body: &[u8]) -> bool {
        let contains = |text: &String| {
            let text = text.as_bytes();
            let mut places = body.windows(text.len().max(1));
            !text.is_empty() && places.any(|place| place.eq_ignore_ascii_case(text))
        };
        let has_all = |texts: &Vec<String>| !texts.is_empty() && texts.iter().all(contains);
        status == 503 && self.loading_texts.iter().any(has_all)
    }

    /// Whether its servers take a name without a tag for the name with `:latest`
    /// (docs/contract/balancing.md#4.1).
    pub fn completes_tags(&self) -> bool {
        self.name == "ollama"
    }
}

/// `api.anthropic_support` of a profile (docs/contract/translation.md#5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnthropicSupport {
    /// Whether messages may be passed through.
    pub enabled: bool,
    /// The path for messages.
    pub messages_path: String,
    /// Whether it counts tokens below that path.
    pub token_count: bool,
    /// The least version; for information only, never checked.
    pub min_version: Option<String>,
    /// Limitations; only `no_tool_use`, `no_extended_thinking`, `no_vision` and
    /// `no_structured_output` have an effect.
    pub limitations: Vec<String>,
}

/// `api.responses_support` of a profile (docs/contract/dialects.md#1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponsesSupport {
    /// Whether responses may be passed through.
    pub enabled: bool,
    /// The path for responses.
    pub path: String,
    /// Limitations; only `function_tools_only` and `no_state` have an effect.
    pub limitations: Vec<String>,
}

/// The parsers of model listings (docs/contract/catalogue.md#3.7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Parser {
    /// `/api/tags`.
    Ollama,
    /// `/api/v0/models`.
    LmStudio,
    /// `/v1/models`.
    #[default]
    OpenAi,
    /// `/v1/models` with `max_model_len`.
    Vllm,
    /// `/v1/models` with `max_model_len`.
    Sglang,
    /// `/v1/models`.
    Lmdeploy,
    /// `/v1/models`.
    VllmMlx,
    /// `/engines/v1/models`.
    DockerModelRunner,
    /// `/v1/models` with `meta`.
    LlamaCpp,
    /// `/api/v1/models`.
    Lemonade,
}

/// `metrics.extraction` of a profile: paths into a response and formulas over their values, in the
/// order of the file. A field may stand in either list more than once: the first path or
/// formula that yields a value counts, paths before formulas (docs/contract/operations.md#6).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsExtraction {
    /// Field name and dotted path, such as `input_tokens` = `usage.prompt_tokens`.
    pub paths: Vec<(String, String)>,
    /// Field name and formula, such as `total_ms` = `total_duration / 1000000`.
    pub calculations: Vec<(String, String)>,
}
