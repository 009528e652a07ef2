//! Detection of the kind of server for endpoints of type `auto`: the requests to send and the type
//! that their responses reveal. The caller sends the requests.
//!
//! The caller sends the [`probes`] in their order until [`judge`] finds a type. If it finds none,
//! the endpoint is treated as OpenAI-compatible and probed again in the next round.
//!
//! Contract: docs/contract/catalogue.md#3.6

use super::fields::{RawFields, with_object};
use super::listing::MAX_LISTING_BYTES;
use super::set::OPENAI_COMPATIBLE;
use crate::config::EndpointPlan;

/// One request to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DetectionProbe<'a> {
    /// The value for [`super::target()`]: a path below the endpoint's URL, or an absolute URL.
    pub target: &'a str,
    shape: Shape,
}

/// The response that reveals the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A list `models` and no `data`.
    Ollama,
    /// A list `data` at a path that only this type has.
    Data(&'static str),
    /// A list `data`; `owned_by` reveals the type.
    Owners,
    /// Any of these, at the configured URL.
    Any,
}

const PROBES: [DetectionProbe<'static>; 5] = [
    probe("/api/tags", Shape::Ollama),
    probe("/api/v0/models", Shape::Data("lm-studio")),
    probe("/engines/v1/models", Shape::Data("docker-model-runner")),
    probe("/api/v1/models", Shape::Data("lemonade")),
    probe("/v1/models", Shape::Owners),
];

/// Types that put their own name into `owned_by`.
const OWNERS: [&str; 8] = [
    "vllm",
    "llamacpp",
    "sglang",
    "lmdeploy",
    "vllm-mlx",
    "omlx",
    "llama-swap",
    "koboldcpp",
];

const fn probe(target: &'static str, shape: Shape) -> DetectionProbe<'static> {
    DetectionProbe { target, shape }
}

/// The probes of an endpoint in their order; with `model_url`, only that URL.
pub(crate) fn probes(plan: &EndpointPlan) -> Vec<DetectionProbe<'_>> {
    match &plan.model_url {
        Some(target) => vec![DetectionProbe {
            target,
            shape: Shape::Any,
        }],
        None => PROBES.to_vec(),
    }
}

/// The canonical type that a response reveals; `None`: continue with the next probe.
pub(crate) fn judge(probe: &DetectionProbe<'_>, status: u16, body: &[u8]) -> Option<&'static str> {
    if status != 200 || body.len() > MAX_LISTING_BYTES {
        return None;
    }
    let body = String::from_utf8_lossy(body);
    with_object(body.trim_start_matches('\u{feff}'), |document| {
        by_shape(probe.shape, document)
    })?
}

fn by_shape(shape: Shape, document: &RawFields<'_>) -> Option<&'static str> {
    let is_ollama = || document.list("models").is_some() && document.get("data").is_none();
    match shape {
        Shape::Ollama if is_ollama() => Some(emulated(document).unwrap_or("ollama")),
        Shape::Ollama => None,
        Shape::Data(kind) => document.list("data").map(|_| kind),
        Shape::Owners => by_owner(document),
        Shape::Any => by_owner(document).or_else(|| {
            let models = document.list("models")?;
            let has_name =
                |item| RawFields::of(item).is_some_and(|item| item.text("name").is_some());
            models.into_iter().any(has_name).then_some("ollama")
        }),
    }
}

/// The type of a server that emulates Ollama's listing and names itself as the family of its model,
/// in the first item.
fn emulated(document: &RawFields<'_>) -> Option<&'static str> {
    let first = RawFields::of(document.list("models")?.into_iter().next()?)?;
    let family = first.object("details")?.text("family")?;
    (family == "koboldcpp").then_some("koboldcpp")
}

fn by_owner(document: &RawFields<'_>) -> Option<&'static str> {
    let items = document.list("data")?;
    let mut owners = items
        .into_iter()
        .filter_map(|item| RawFields::of(item)?.text("owned_by"));
    let known = owners.find_map(|owner| OWNERS.into_iter().find(|known| owner == *known));
    Some(known.unwrap_or(OPENAI_COMPATIBLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(probe: &DetectionProbe<'_>, body: &str) -> Option<&'static str> {
        judge(probe, 200, body.as_bytes())
    }

    #[test]
    fn answers_tell_the_type() {
        let [tags, v0, engines, api_v1, v1] = PROBES;
        let any = probe("/x", Shape::Any);
        let table = [
            (tags, r#"{"models":[]}"#, Some("ollama")),
            (tags, "\u{feff}{\"models\":[{}]}", Some("ollama")),
            (tags, r#"{"models":[],"data":null}"#, Some("ollama")),
            (
                tags,
                r#"{"models":[{"name":"koboldcpp","details":{"family":"koboldcpp"}}]}"#,
                Some("koboldcpp"),
            ),
            (
                tags,
                r#"{"models":[{"name":"m","details":{"family":"gemma3"}},
                    {"details":{"family":"koboldcpp"}}]}"#,
                Some("ollama"),
            ),
            (tags, r#"{"models":[],"data":[]}"#, None),
            (tags, r#"{"models":null}"#, None),
            (tags, r#"{"models":{}}"#, None),
            (tags, r#"{"data":[]}"#, None),
            (tags, "Ollama is running", None),
            (tags, "[]", None),
            (tags, "", None),
            (v0, r#"{"data":[]}"#, Some("lm-studio")),
            (v0, r#"{"error":"Unexpected endpoint"}"#, None),
            (
                engines,
                r#"{"object":"list","data":[]}"#,
                Some("docker-model-runner"),
            ),
            (engines, "[]", None),
            (api_v1, r#"{"data":[{"id":"x"}]}"#, Some("lemonade")),
            (api_v1, r#"{"models":[]}"#, None),
            (v1, r#"{"data":[]}"#, Some("openai-compatible")),
            (
                v1,
                r#"{"data":[{"id":"x","owned_by":"vllm"}]}"#,
                Some("vllm"),
            ),
            (
                v1,
                r#"{"data":[3,{},{"owned_by":5},{"owned_by":"me"},{"owned_by":"omlx"},
                    {"owned_by":"vllm"}]}"#,
                Some("omlx"),
            ),
            (
                v1,
                r#"{"data":[{"owned_by":"VLLM"}]}"#,
                Some("openai-compatible"),
            ),
            (
                v1,
                r#"{"models":[{"name":"x"}],"data":[{"owned_by":"llamacpp"}]}"#,
                Some("llamacpp"),
            ),
            (
                v1,
                r#"{"data":[{"id":"x","owned_by":"llama-swap"}]}"#,
                Some("llama-swap"),
            ),
            (
                v1,
                r#"{"data":[{"id":"koboldcpp/x","owned_by":"koboldcpp"}]}"#,
                Some("koboldcpp"),
            ),
            (v1, r#"{"data":{}}"#, None),
            (v1, r#"{"models":[{"name":"x"}]}"#, None),
            (any, r#"{"models":[{"name":"x"}]}"#, Some("ollama")),
            (any, r#"{"models":[{"id":"x"}]}"#, None),
            (any, r#"{"models":[]}"#, None),
            (any, r#"{"data":[{"owned_by":"sglang"}]}"#, Some("sglang")),
            (any, r#"{"data":[]}"#, Some("openai-compatible")),
            (any, "{}", None),
        ];
        for (probe, body, expected) in table {
            assert_eq!(found(&probe, body), expected, "{} {body}", probe.target);
        }
        assert_eq!(
            judge(&v1, 404, br#"{"data":[]}"#),
            None,
            "only a 200 counts"
        );
    }

    #[test]
    fn probes_name_types_that_exist() {
        let profiles = super::super::Profiles::builtin();
        for kind in OWNERS {
            assert!(profiles.get(kind).is_some(), "{kind}");
        }
        for probe in PROBES {
            let kind = match probe.shape {
                Shape::Ollama => "ollama",
                Shape::Data(kind) => kind,
                Shape::Owners | Shape::Any => OPENAI_COMPATIBLE,
            };
            let profile = profiles.get(kind).unwrap();
            assert_eq!(
                profile.discovery_path, probe.target,
                "the answer is its listing"
            );
        }
    }
}
