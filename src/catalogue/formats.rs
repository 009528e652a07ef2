//! The formats of listings and the items they consist of.
//!
//! Contract: docs/contract/catalogue.md#6.3, docs/contract/dialects.md#11.1

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::providers::{Profile, Scalar};

/// A format of `/olla/models`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Format {
    /// One item for each entry, with all facts.
    Unified,
    /// The four keys of OpenAI's.
    OpenAi,
    /// Ollama's `/api/tags`.
    Ollama,
    /// Ollama's `/api/tags` on its own routes, where items are as an Ollama reports them.
    OllamaTags,
    /// LM Studio's `/api/v0/models`.
    LmStudio,
    /// OpenAI's list with that of LM Studio's `/api/v1/models` beside it. It is no value of the query
    /// `format`.
    LmStudioV1,
    /// vLLM's `/v1/models`.
    Vllm,
    /// SGLang's `/v1/models`.
    Sglang,
    /// llama.cpp's `/v1/models`.
    LlamaCpp,
    /// Lemonade's `/api/v1/models`.
    Lemonade,
    /// LMDeploy's `/v1/models`.
    Lmdeploy,
    /// vLLM-MLX's `/v1/models`.
    VllmMlx,
    /// Docker Model Runner's `/engines/v1/models`.
    DockerModelRunner,
}

impl Format {
    /// Every value of the query `format`, in the order of the documentation.
    pub(super) const ALL: [Self; 11] = [
        Self::Unified,
        Self::OpenAi,
        Self::Ollama,
        Self::LmStudio,
        Self::Vllm,
        Self::Sglang,
        Self::LlamaCpp,
        Self::Lemonade,
        Self::Lmdeploy,
        Self::VllmMlx,
        Self::DockerModelRunner,
    ];

    /// Its name, for most formats the value of the query `format`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unified => "unified",
            Self::OpenAi => "openai",
            Self::Ollama => "ollama",
            Self::LmStudio => "lmstudio",
            Self::OllamaTags => "ollama-tags",
            Self::LmStudioV1 => "lmstudio-v1",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llamacpp",
            Self::Lemonade => "lemonade",
            Self::Lmdeploy => "lmdeploy",
            Self::VllmMlx => "vllm-mlx",
            Self::DockerModelRunner => "docker-model-runner",
        }
    }

    /// Parses the value, in lower case only.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == word)
    }

    /// The format of a built-in type's native listing; OpenAI's for a type of the user.
    pub(super) fn native(profile: &Profile) -> Self {
        let mut natives = Self::ALL.into_iter().skip(2);
        natives
            .find(|format| format.provider() == Some(profile.name.as_str()))
            .unwrap_or(Self::OpenAi)
    }

    /// The type of the endpoints with preferred names and facts.
    pub(super) const fn provider(self) -> Option<&'static str> {
        match self {
            Self::Unified | Self::OpenAi => None,
            Self::OllamaTags => Some("ollama"),
            Self::LmStudio | Self::LmStudioV1 => Some("lm-studio"),
            other => Some(other.as_str()),
        }
    }

    /// Whether only models of that type are listed.
    pub(super) const fn is_exclusive(self) -> bool {
        matches!(self, Self::Ollama | Self::LmStudio)
    }
}

/// A list that is written from an iterator.
#[derive(Debug, Clone)]
pub(super) struct Seq<I>(pub(super) I);

impl<I: Iterator<Item: Serialize> + Clone> Serialize for Seq<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

/// An item of the unified format.
#[derive(Serialize)]
pub(super) struct Unified<'a, A, V, C> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) owned_by: &'static str,
    pub(super) olla: OllaBlock<'a, A, V, C>,
}

#[derive(Serialize)]
pub(super) struct OllaBlock<'a, A, V, C> {
    pub(super) family: &'a str,
    pub(super) variant: &'a str,
    pub(super) parameter_size: &'a str,
    pub(super) quantization: &'a str,
    pub(super) aliases: A,
    pub(super) availability: V,
    pub(super) capabilities: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_context_length: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Availability<'a> {
    pub(super) endpoint: &'a str,
    pub(super) state: &'a str,
}

/// An item of a format that has OpenAI's form, with what some of them add.
#[derive(Serialize)]
pub(super) struct OpenAi<'a, P> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) owned_by: &'a str,
    #[serde(flatten)]
    pub(super) more: P,
}

#[derive(Serialize)]
pub(super) struct Nothing {}

/// What clients of OpenAI's API read from other servers, where it is known: vLLM's and OpenRouter's
/// names for the context length, and llama.cpp's object as reported.
#[derive(Serialize)]
pub(super) struct OpenAiMore<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_model_len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) meta: Option<&'a Scalar>,
}

#[derive(Serialize)]
pub(super) struct VllmMore<'a> {
    pub(super) root: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_model_len: Option<u64>,
    pub(super) permission: [Permission; 1],
}

#[derive(Serialize)]
pub(super) struct LmdeployMore {
    pub(super) permission: [Permission; 1],
}

#[derive(Serialize)]
pub(super) struct SglangMore<'a> {
    pub(super) root: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_model_len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) supports_vision: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) radix_cache_size: Option<&'a Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spec_decoding: Option<&'a Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) frontend_enabled: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct LemonadeMore<'a> {
    pub(super) checkpoint: &'a str,
    pub(super) recipe: &'a str,
    pub(super) downloaded: bool,
}

/// An object that OpenAI once sent with every model; some clients still read it.
#[derive(Serialize)]
pub(super) struct Permission {
    id: String,
    object: &'static str,
    created: u64,
    allow_create_engine: bool,
    allow_sampling: bool,
    allow_logprobs: bool,
    allow_search_indices: bool,
    allow_view: bool,
    allow_fine_tuning: bool,
    organization: &'static str,
    group: Option<&'static str>,
    is_blocking: bool,
}

impl Permission {
    pub(super) fn of(id: &str, created: u64) -> Self {
        Self {
            id: format!("modelperm-olla-{}", id.replace('/', "-")),
            object: "model_permission",
            created,
            allow_create_engine: false,
            allow_sampling: true,
            allow_logprobs: true,
            allow_search_indices: false,
            allow_view: true,
            allow_fine_tuning: false,
            organization: "*",
            group: None,
            is_blocking: false,
        }
    }
}

/// An item of Ollama's format, with what its lists add.
#[derive(Serialize)]
pub(super) struct Ollama<'a, P> {
    pub(super) name: &'a str,
    pub(super) model: &'a str,
    pub(super) modified_at: Cow<'a, str>,
    pub(super) size: u64,
    pub(super) digest: Cow<'a, str>,
    pub(super) details: OllamaDetails<'a>,
    pub(super) capabilities: Vec<&'a str>,
    #[serde(flatten)]
    pub(super) more: P,
}

/// What Ollama's list of loaded models adds.
#[derive(Serialize)]
pub(super) struct LoadedMore {
    pub(super) size_vram: u64,
    pub(super) expires_at: &'static str,
    pub(super) context_length: u64,
}

/// Ollama's description of one model.
#[derive(Serialize)]
pub(super) struct Description<'a> {
    pub(super) license: &'static str,
    pub(super) modelfile: &'static str,
    pub(super) parameters: String,
    pub(super) template: &'static str,
    pub(super) system: &'static str,
    pub(super) details: OllamaDetails<'a>,
    pub(super) model_info: serde_json::Map<String, serde_json::Value>,
    pub(super) capabilities: Vec<&'a str>,
    pub(super) modified_at: Cow<'a, str>,
}

#[derive(Serialize)]
pub(super) struct OllamaDetails<'a> {
    pub(super) parent_model: &'a str,
    pub(super) format: &'a str,
    pub(super) family: &'a str,
    pub(super) families: &'a [Box<str>],
    pub(super) parameter_size: &'a str,
    pub(super) quantization_level: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context_length: Option<u64>,
}

/// The words at the start of an id, before its first `-`, that are an owner.
const OWNERS: [&str; 37] = [
    "openai",
    "anthropic",
    "google",
    "meta",
    "microsoft",
    "amazon",
    "xai",
    "apple",
    "cohere",
    "ai21",
    "databricks",
    "snowflake",
    "ibm",
    "salesforce",
    "nvidia",
    "mistral",
    "qwen",
    "alibaba",
    "deepseek",
    "zhipuai",
    "tii",
    "01ai",
    "baichuan",
    "stability",
    "eleutherai",
    "mosaicml",
    "bigcode",
    "servicenow",
    "cerebras",
    "nomic",
    "huggingface",
    "openrouter",
    "together",
    "replicate",
    "fireworks",
    "perplexity",
    "groq",
];

/// The owner of a model, by its id.
pub(super) fn owner<'a>(id: &'a str, default: &'a str) -> &'a str {
    if let Some((owner, _)) = id.split_once('/') {
        return if owner.is_empty() { default } else { owner };
    }
    let Some((first, _)) = id.split_once('-') else {
        return default;
    };
    let lower = first.to_lowercase();
    let is_owner =
        (3..=20).contains(&first.chars().count()) && OWNERS.iter().any(|word| lower.contains(word));
    if is_owner { first } else { default }
}
