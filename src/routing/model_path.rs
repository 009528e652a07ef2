//! Paths whose requests name a model.
//!
//! Contract: docs/contract/balancing.md#2.1

use percent_encoding::percent_decode;

const ENDINGS: [&[u8]; 19] = [
    b"/chat/completions",
    b"/completions",
    b"/responses",
    b"/embeddings",
    b"/rerank",
    b"/score",
    b"/classify",
    b"/moderations",
    b"/audio/transcriptions",
    b"/audio/translations",
    b"/audio/speech",
    b"/images/generations",
    b"/images/edits",
    b"/images/variations",
    b"/api/chat",
    b"/api/generate",
    b"/api/embed",
    b"/api/embeddings",
    b"/api/show",
];

/// Whether a `POST` of this path names a model. Escapes are seen through, as an endpoint does.
pub(crate) fn is_model_path(path: &[u8]) -> bool {
    if memchr::memchr(b'%', path).is_some() {
        let decoded: Vec<u8> = percent_decode(path).collect();
        return ends(&decoded);
    }
    ends(path)
}

/// Whether a request of this method and path keeps a slot of its endpoint busy
/// (docs/contract/scheduling.md#4).
pub(crate) fn takes_slot(method: &[u8], path: &[u8]) -> bool {
    method == b"POST"
        && (path.ends_with(b"/messages") || (is_model_path(path) && !path.ends_with(b"/api/show")))
}

fn ends(path: &[u8]) -> bool {
    // Servers take the same path with a slash at its end, with or without a redirect.
    let path = path.trim_ascii_end();
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |at| at + 1);
    let path = path.get(..end).unwrap_or_default();
    ENDINGS.iter().any(|ending| path.ends_with(ending))
}

/// Further endings of paths whose requests name the model in their bodies.
const FURTHER: [&[u8]; 10] = [
    b"/completion",
    b"/infill",
    b"/messages",
    b"/messages/count_tokens",
    b"/responses/input_tokens",
    b"/pooling",
    b"/tokenize",
    b"/detokenize",
    b"/apply-template",
    b"/embed",
];

/// What may stand before them: anything else may name another model.
const FRONTS: [&[u8]; 10] = [
    b"",
    b"/v1",
    b"/v2",
    b"/api",
    b"/api/v0",
    b"/api/v1",
    b"/openai/v1",
    b"/anthropic/v1",
    b"/engines/v1",
    b"/engines/llama.cpp/v1",
];

/// Whether the model of a `POST` stands in its body and nowhere else. `rest` is what follows the
/// route's prefix, as it was sent: one with escapes is not.
pub(crate) fn is_named_by_body(rest: &[u8]) -> bool {
    let end = rest.iter().rposition(|byte| *byte != b'/');
    let rest = rest.get(..end.map_or(0, |at| at + 1)).unwrap_or_default();
    // The endings of Ollama's paths have their front in them.
    let endings = ENDINGS.iter().chain(&FURTHER);
    endings.copied().any(|ending| {
        let front = rest.strip_suffix(ending);
        front.is_some_and(|front| FRONTS.contains(&front))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_by_their_ending() {
        for path in [
            "/olla/openai/v1/chat/completions",
            "/olla/proxy/v1/audio/transcriptions",
            "/olla/ollama/api/show",
            "/olla/proxy/v1/chat/complet%69ons",
            "/olla/proxy/v1/chat/completions/",
            "/olla/proxy/v1/chat/completions%2f%20",
        ] {
            assert!(is_model_path(path.as_bytes()), "{path}");
        }
        for path in [
            "/olla/llamacpp/completion",
            "/olla/proxy/infill",
            "/olla/proxy/v1/files",
            "/olla/proxy/v1/completionsx",
            "/olla/proxy/v1/completions/x",
            "/",
        ] {
            assert!(!is_model_path(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn what_may_name_a_model_elsewhere_is_told_apart() {
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/api/chat",
            "/api/v0/embeddings",
            "/engines/llama.cpp/v1/completions",
            "/completion",
            "/v1/audio/transcriptions",
            "/v1/chat/completions/",
        ] {
            assert!(is_named_by_body(path.as_bytes()), "{path}");
        }
        for path in [
            "/upstream/secret/v1/chat/completions",
            "/engines/secret/completions",
            "/openai/deployments/secret/chat/completions",
            "/v1/chat/complet%69ons",
            "/v1/models",
            "/slots",
            "",
        ] {
            assert!(!is_named_by_body(path.as_bytes()), "{path}");
        }
    }
}
