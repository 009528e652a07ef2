//! Profiles and endpoints for the tests of this area.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{AUTO, BaseUrl, EndpointPlan, EndpointTlsPlan, NameFilter};
use crate::fleet::{Endpoint, Health, Live, Status};
use crate::providers::{AnthropicSupport, MetricsExtraction, Parser, Profile};

/// The built-in profiles as far as routing sees them: name, prefixes, own listing, native
/// messages, paths (`OA` = the four of OpenAI).
const PROFILES: [(&str, &str, &str, &str, &str); 12] = [
    (
        "ollama",
        "ollama",
        "api/tags",
        "/v1/messages",
        "/ /api/generate /api/chat /api/embeddings /api/tags /api/show OA",
    ),
    (
        "lm-studio",
        "lmstudio lm-studio lm_studio",
        "api/v0/models",
        "/v1/messages",
        "OA /api/v0/models",
    ),
    (
        "openai-compatible",
        "openai openai-compatible",
        "",
        "",
        "OA",
    ),
    (
        "vllm",
        "vllm",
        "",
        "/v1/messages",
        "OA /health /metrics /version /tokenize /detokenize /rerank /v1/rerank /v2/rerank",
    ),
    (
        "llamacpp",
        "llamacpp",
        "",
        "/v1/messages",
        "OA /completion /embedding /tokenize /detokenize /infill",
    ),
    (
        "sglang",
        "sglang",
        "",
        "",
        "OA /health /metrics /version /generate /batch /extend",
    ),
    (
        "lemonade",
        "lemonade",
        "api/v1/models",
        "",
        "/api/v1/health /api/v1/models /api/v1/chat/completions",
    ),
    (
        "litellm",
        "litellm",
        "",
        "",
        "OA / /health /chat/completions /completions /embeddings /models",
    ),
    (
        "lmdeploy",
        "lmdeploy",
        "",
        "",
        "/health /v1/models /v1/chat/completions /v1/completions /generate",
    ),
    ("vllm-mlx", "vllm-mlx", "", "/v1/messages", "OA /health"),
    (
        "omlx",
        "omlx",
        "",
        "/v1/messages",
        "OA /health /v1/messages /v1/rerank",
    ),
    (
        "docker-model-runner",
        "dmr",
        "engines/v1/models",
        "/anthropic/v1/messages",
        "/engines/v1/models /engines/v1/chat/completions /engines/v1/completions",
    ),
];

const OA: [&str; 4] = [
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
];

pub(super) fn profiles() -> Vec<Arc<Profile>> {
    PROFILES.iter().map(|row| Arc::new(profile(row))).collect()
}

fn profile(row: &(&str, &str, &str, &str, &str)) -> Profile {
    let (name, prefixes, listing, messages, paths) = *row;
    let paths = paths.split(' ').flat_map(|path| match path {
        "OA" => OA.to_vec(),
        path => vec![path],
    });
    Profile {
        name: name.to_owned(),
        display_name: name.to_owned(),
        description: String::new(),
        version: "1.0".to_owned(),
        prefixes: prefixes.split(' ').map(str::to_owned).collect(),
        type_aliases: Vec::new(),
        openai_compatible: true,
        paths: paths.map(str::to_owned).collect(),
        health_path: "/health".to_owned(),
        discovery_path: "/v1/models".to_owned(),
        native_listing_path: Some(listing.to_owned()).filter(|path| !path.is_empty()),
        chat_path: "/v1/chat/completions".to_owned(),
        anthropic: (!messages.is_empty()).then(|| AnthropicSupport {
            enabled: true,
            messages_path: messages.to_owned(),
            token_count: false,
            min_version: None,
            limitations: Vec::new(),
        }),
        parser: Parser::OpenAi,
        embedding_patterns: Vec::new(),
        vision_patterns: Vec::new(),
        metrics: MetricsExtraction::default(),
    }
}

/// A healthy endpoint of a type (`auto` included).
pub(super) fn endpoint(id: usize, name: &str, kind: &str) -> Endpoint {
    let shown = if kind == AUTO {
        "openai-compatible"
    } else {
        kind
    };
    let profile = profiles()
        .into_iter()
        .find(|profile| profile.name == shown)
        .unwrap();
    Endpoint {
        id: u32::try_from(id).unwrap(),
        plan: Arc::new(EndpointPlan {
            name: name.to_owned(),
            url: BaseUrl::parse("http://h:1").unwrap(),
            kind: kind.to_owned(),
            kind_as_written: kind.to_owned(),
            priority: 100,
            health_check_url: None,
            model_url: None,
            check_interval: Duration::from_secs(5),
            check_timeout: Duration::from_secs(2),
            preserve_path: false,
            model_filter: NameFilter::default(),
            headers: Vec::new(),
            auth: None,
            tls: EndpointTlsPlan::default(),
        }),
        profile,
        is_auto: kind == AUTO,
        status: Status::Healthy,
        health: Health::default(),
        addresses: Arc::from([]),
        last_model_sync: None,
        model_count: 0,
        live: Arc::new(Live::default()),
    }
}

/// Healthy endpoints of one type with these priorities.
pub(super) fn endpoints(priorities: &[u32]) -> Vec<Endpoint> {
    let numbered = priorities.iter().enumerate();
    numbered
        .map(|(id, priority)| {
            let mut endpoint = endpoint(id, &format!("e{id}"), "vllm");
            let mut plan = EndpointPlan::clone(&endpoint.plan);
            plan.priority = *priority;
            endpoint.plan = Arc::new(plan);
            endpoint
        })
        .collect()
}
