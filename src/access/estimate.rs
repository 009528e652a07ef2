//! What a request may need, estimated before it is sent: E = P + O.
//!
//! Contract: docs/contract/access.md#7.1

/// Bytes of JSON that count as a token.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens of a file, and of a body that is not JSON.
const TOKENS_OF_FILE: u64 = 1_000;

/// The last parts of paths that generate no text.
const WITHOUT_TEXT: [&[u8]; 10] = [
    b"/embeddings",
    b"/embed",
    b"/rerank",
    b"/score",
    b"/pooling",
    b"/classify",
    b"/moderations",
    b"/tokenize",
    b"/detokenize",
    b"/count_tokens",
];

/// The body of a request, as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodySize {
    /// There is none.
    None,
    /// A JSON document.
    Json {
        /// All of it.
        bytes: u64,
        /// The files in it.
        files: u64,
        /// Their bytes.
        file_bytes: u64,
    },
    /// Anything else.
    Other,
}

/// The tokens that a request may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Estimate {
    /// P: those of the prompt.
    pub(crate) prompt: u64,
    /// O: those of the output.
    pub(crate) output: u64,
}

impl Estimate {
    /// E.
    pub(crate) const fn tokens(self) -> u64 {
        self.prompt.saturating_add(self.output)
    }
}

/// P.
pub(crate) fn prompt(body: BodySize) -> u64 {
    match body {
        BodySize::None => 0,
        BodySize::Other => TOKENS_OF_FILE,
        BodySize::Json {
            bytes,
            files,
            file_bytes,
        } => {
            let text = bytes.saturating_sub(file_bytes).div_ceil(BYTES_PER_TOKEN);
            text.saturating_add(files.saturating_mul(TOKENS_OF_FILE))
        }
    }
}

/// The output that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OutputAsked {
    /// The largest positive limit that it states.
    pub(crate) most: Option<u64>,
    /// The larger of `n` and `best_of`.
    pub(crate) choices: Option<u64>,
}

/// O of a request that generates text. `policy_max` is `max_output_tokens` of its policy, 0 = none.
pub(crate) fn output(asked: OutputAsked, policy_max: u64, default: u64) -> u64 {
    let each = match (asked.most, policy_max) {
        (Some(most), 0) => most,
        (Some(most), max) => most.min(max),
        (None, 0) => default,
        (None, max) => max,
    };
    each.saturating_mul(asked.choices.unwrap_or(1).max(1))
}

/// Whether requests of a method for a path generate text.
pub(crate) fn generates_text(method: &[u8], path: &[u8]) -> bool {
    let reads = matches!(method, b"GET" | b"HEAD");
    !reads && !WITHOUT_TEXT.iter().any(|end| path.ends_with(end))
}

/// The tokens of a whole response that reports none.
pub(crate) const fn of_whole_response(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts() {
        let json = |bytes, files, file_bytes| BodySize::Json {
            bytes,
            files,
            file_bytes,
        };
        let table = [
            (BodySize::None, 0),
            (BodySize::Other, 1_000),
            (json(120, 0, 0), 30),
            (json(121, 0, 0), 31),
            (json(5_000, 1, 4_000), 1_250),
            (json(10_000, 3, 9_999), 3_001),
            (json(u64::MAX, u64::MAX, 0), u64::MAX),
        ];
        for (body, tokens) in table {
            assert_eq!(prompt(body), tokens, "{body:?}");
        }
    }

    #[test]
    fn outputs() {
        let table = [
            // asked, choices, policy's maximum, tokens
            (Some(100), None, 0, 100),
            (Some(100), Some(3), 0, 300),
            (Some(5_000), None, 64, 64),
            (Some(5_000), Some(2), 64, 128),
            (Some(10), None, 64, 10),
            (None, None, 64, 64),
            (None, None, 0, 1_024),
            (None, Some(0), 0, 1_024),
            (Some(u64::MAX), Some(9), 0, u64::MAX),
        ];
        for (most, choices, max, tokens) in table {
            let asked = OutputAsked { most, choices };
            assert_eq!(output(asked, max, 1_024), tokens, "{asked:?} {max}");
        }
    }

    #[test]
    fn paths_that_generate_no_text() {
        let table: [(&[u8], &[u8], bool); 8] = [
            (b"POST", b"/olla/openai/v1/chat/completions", true),
            (b"POST", b"/olla/openai/v1/embeddings", false),
            (b"POST", b"/api/embed", false),
            (b"POST", b"/olla/vllm/rerank", false),
            (b"POST", b"/v1/messages/count_tokens", false),
            (b"GET", b"/olla/vllm/v1/chat/completions", false),
            (b"POST", b"/score/x", true),
            (b"PUT", b"/api/generate", true),
        ];
        for (method, path, generates) in table {
            let shown = path.escape_ascii();
            assert_eq!(generates_text(method, path), generates, "{shown}");
        }
    }
}
