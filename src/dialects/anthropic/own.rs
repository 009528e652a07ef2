//! Token counts and model lists of the Messages API, for which no endpoint is needed.
//!
//! Contract: docs/contract/translation.md#11, docs/contract/translation.md#12

use std::time::Duration;

use percent_encoding::percent_decode;

use super::translate::{self, Refusal};
use crate::dialects::conversation::PASSTHROUGH;
use crate::dialects::{Authority, Computation, ComputeAsk, Error, OwnAsk};
use crate::fleet::Endpoint;
use crate::json;

/// `GET` of the prefix: Claude Code checks by it that its base URL works
/// (docs/contract/translation.md#1).
pub(super) fn alive(_: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    Ok(br#"{"status":"ok"}"#.to_vec())
}

/// `GET api/hello`, as Anthropic's own API answers it.
pub(super) fn hello(_: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    Ok(br#"{"message":"hello"}"#.to_vec())
}

/// `POST v1/messages/count_tokens`: an estimate, unless an endpoint can count.
pub(super) static COUNT_TOKENS: Computation = Computation {
    make: count_tokens,
    authority: Authority {
        is_enabled: |plan| plan.translators.anthropic.rules.passthrough_enabled,
        path: counting_path,
        accepts: is_count,
        within: Duration::from_secs(2),
        mode: PASSTHROUGH,
    },
};

fn counting_path(endpoint: &Endpoint) -> Option<String> {
    let support = endpoint.profile.anthropic.as_ref()?;
    let counts = support.enabled && support.token_count;
    counts.then(|| format!("{}/count_tokens", support.messages_path))
}

/// Whether a body is the response of an endpoint that has counted.
fn is_count(body: &[u8]) -> bool {
    let count = json::parse(body).and_then(|object| object.field("input_tokens"));
    count.is_some_and(|count| count.unsigned().is_some())
}

fn count_tokens(body: &[u8], _: &ComputeAsk) -> Result<Vec<u8>, Error> {
    Ok(translate::count_tokens(body)?)
}

/// `GET v1/models`.
pub(super) fn models(ask: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    let ids = ask.catalogue.served_ids();
    Ok(translate::models(ids.iter().copied(), ask.started))
}

/// `GET v1/models/{id}`.
pub(super) fn model(ask: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    let name = percent_decode(ask.rest).decode_utf8_lossy();
    let ids = ask.catalogue.served_ids();
    let listed = ids.iter().find(|id| id.eq_ignore_ascii_case(&name));
    let id = listed
        .copied()
        .or_else(|| (ask.is_served)(&name).then_some(&*name))
        .or_else(|| ask.catalogue.served_alias(&name));
    match id {
        Some(id) => Ok(translate::model(id, ask.started)),
        None => Err(Error::from(Refusal {
            status: 404,
            message: format!("model not found: {name}"),
            details: None,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::testing::endpoint;

    #[test]
    fn which_types_count() {
        let rows = [
            ("llamacpp", Some("/v1/messages/count_tokens")),
            ("vllm-mlx", Some("/v1/messages/count_tokens")),
            (
                "docker-model-runner",
                Some("/anthropic/v1/messages/count_tokens"),
            ),
            ("vllm", None),
            ("ollama", None),
            ("lm-studio", None),
            ("openai-compatible", None),
        ];
        for (kind, path) in rows {
            let found = counting_path(&endpoint(0, "e", kind));
            assert_eq!(found.as_deref(), path, "{kind}");
        }
    }

    #[test]
    fn what_a_count_is() {
        for (body, is_one) in [
            (r#"{"input_tokens":77}"#, true),
            (r#" {"input_tokens": 0, "more": [] } "#, true),
            (r#"{"input_tokens":7.5}"#, false),
            (r#"{"input_tokens":-1}"#, false),
            (r#"{"input_tokens":"7"}"#, false),
            (r#"{"input_tokens":null}"#, false),
            (r#"{"tokens":7}"#, false),
            (r#"{"input_tokens":7"#, false),
            ("[7]", false),
            ("7", false),
            ("", false),
        ] {
            assert_eq!(is_count(body.as_bytes()), is_one, "{body}");
        }
    }
}
