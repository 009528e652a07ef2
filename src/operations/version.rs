//! `/version`: this build.
//!
//! Contract: docs/contract/operations.md#4

use serde::Serialize;

use super::conditional::{Caching, JSON, Page, json};
use crate::providers::Profiles;

/// The capabilities of the binary; all are stable.
pub(crate) const CAPABILITIES: [&str; 12] = [
    "load_balancing",
    "health_checking",
    "rate_limiting",
    "model_unification",
    "endpoint_discovery",
    "message_translation",
    "translation_anthropic",
    "passthrough_anthropic",
    "sticky_sessions",
    "prometheus_metrics",
    "dashboard",
    "configuration_reload",
];

/// The kinds of server with a built-in profile, by their names in the contract.
fn backends() -> impl Iterator<Item = &'static str> {
    Profiles::builtin_names().map(|name| match name {
        "lm-studio" => "lm_studio",
        "openai-compatible" => "openai_compatible",
        name => name,
    })
}

/// The identity of this binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Build {
    /// The name in `Via`.
    pub name: String,
    /// Such as `0.1.0`.
    pub version: String,
    /// Name of the edition, for display.
    pub edition: String,
    /// Description, for display.
    pub description: String,
    /// Short hash, `unknown` without a repository.
    pub commit: String,
    /// Date of the commit or build.
    pub date: String,
    /// The compiler's version string.
    pub compiler: String,
    /// Operating system, such as `linux`.
    pub os: String,
    /// Processor, such as `x86_64`.
    pub arch: String,
    /// The project's page, and where its documentation and releases are.
    pub links: Links,
}

/// Where to read more; empty ones are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Links {
    /// The project's page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub homepage: String,
    /// Its documentation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub documentation: String,
    /// Its releases.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub releases: String,
}

#[derive(Serialize)]
struct Version<'a> {
    name: &'a str,
    version: &'a str,
    edition: &'a str,
    description: &'a str,
    build: BuildItem<'a>,
    capabilities: [&'static str; CAPABILITIES.len()],
    capabilities_experimental: [&'static str; 0],
    supported_backends: Vec<&'static str>,
    api: Api,
    links: &'a Links,
}

#[derive(Serialize)]
struct BuildItem<'a> {
    commit: &'a str,
    date: &'a str,
    go_version: &'a str,
    platform: String,
}

#[derive(Serialize)]
struct Api {
    version: &'static str,
    endpoints: Paths,
}

#[derive(Serialize)]
struct Paths {
    health: &'static str,
    metrics: &'static str,
    status: &'static str,
    process: &'static str,
    version: &'static str,
}

pub(super) fn page(build: &Build) -> Page {
    let version = Version {
        name: &build.name,
        version: &build.version,
        edition: &build.edition,
        description: &build.description,
        build: BuildItem {
            commit: &build.commit,
            date: &build.date,
            go_version: &build.compiler,
            platform: format!("{}/{}", build.os, build.arch),
        },
        capabilities: CAPABILITIES,
        capabilities_experimental: [],
        supported_backends: backends().collect(),
        api: Api {
            version: "v1",
            endpoints: Paths {
                health: "/internal/health",
                metrics: "/internal/metrics",
                status: "/internal/status",
                process: "/internal/process",
                version: "/version",
            },
        },
        links: &build.links,
    };
    Page {
        status: 200,
        content_type: JSON,
        caching: Caching::Plain,
        body: json(&version),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operations::testing::{World, value};

    #[test]
    fn every_field() {
        let world = World::new();
        assert_eq!(
            value(&page(&world.build)),
            json!({
                "name": "olla", "version": "1.2.3", "edition": "edge", "description": "gateway",
                "build": {"commit": "abc", "date": "2026-04-01", "go_version": "rustc 1.95.0",
                          "platform": "linux/x86_64"},
                "capabilities": CAPABILITIES,
                "capabilities_experimental": [],
                "supported_backends": [
                    "docker-model-runner", "koboldcpp", "lemonade", "litellm", "llama-swap",
                    "llamacpp", "lm_studio", "lmdeploy", "localai", "mlx-lm", "ollama", "omlx",
                    "openai_compatible", "sglang", "tabbyapi", "tgi", "vllm", "vllm-mlx",
                ],
                "api": {"version": "v1", "endpoints": {
                    "health": "/internal/health", "metrics": "/internal/metrics",
                    "status": "/internal/status", "process": "/internal/process",
                    "version": "/version",
                }},
                "links": {"homepage": "h", "documentation": "d", "releases": "r"},
            })
        );
    }
}
