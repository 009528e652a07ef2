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
}
