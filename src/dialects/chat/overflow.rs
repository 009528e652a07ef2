//! How servers say that a conversation does not fit into the context of their model
//! (docs/contract/dialects.md#17).

use crate::json::JsonValue;

/// A conversation that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Overflow {
    /// Its tokens, if the endpoint says so.
    pub tokens: Option<u64>,
    /// The tokens of the context, if the endpoint says so.
    pub max: Option<u64>,
}

/// Words for the context that a number follows.
const CONTEXTS: [&str; 5] = [
    "context length",
    "context size",
    "context window",
    "context limit",
    "n_ctx",
];

/// Words that say that it is too small.
const EXCESSES: [&str; 7] = [
    "exceed",
    "maximum context length",
    "longer than",
    "greater than",
    "larger than",
    "too long",
    "overflow",
];

impl Overflow {
    /// What an error says, by the members of its object and by its message.
    pub(super) fn of(status: u16, message: &str, object: JsonValue<'_>) -> Option<Self> {
        let names = object.given(["type", "code"]);
        let is_named = names.into_iter().flatten().any(|name| {
            let is = |known| name.string().is_some_and(|name| name.is(known));
            is("exceed_context_size_error") || is("context_length_exceeded")
        });
        let said = Self::in_message(status, message);
        if !(is_named && is_possible(status)) {
            return said;
        }
        let said = said.unwrap_or_default();
        let [tokens, max] = object
            .given(["n_prompt_tokens", "n_ctx"])
            .map(|number| number.and_then(JsonValue::unsigned));
        Some(Self {
            tokens: tokens.or(said.tokens),
            max: max.or(said.max),
        })
    }

    /// What a message says.
    pub(super) fn in_message(status: u16, message: &str) -> Option<Self> {
        if !is_possible(status) {
            return None;
        }
        let message = message.to_ascii_lowercase();
        let context = CONTEXTS
            .iter()
            .filter_map(|words| Some(message.find(words)? + words.len()))
            .min()?;
        if !EXCESSES.iter().any(|words| message.contains(words)) {
            return None;
        }
        let numbers = numbers(&message);
        let max = numbers.iter().find(|(at, _)| *at >= context);
        let (max_at, max) = max.copied().unzip();
        let others = numbers.iter().filter(|(at, _)| Some(*at) != max_at);
        let tokens = others
            .map(|(_, number)| *number)
            .filter(|tokens| max.is_none_or(|max| *tokens > max))
            .min();
        Some(Self { tokens, max })
    }
}

/// Whether an error of this status may be about the context.
fn is_possible(status: u16) -> bool {
    matches!(status, 400 | 413 | 500 | 502)
}

/// The whole numbers of a text with their positions.
fn numbers(text: &str) -> Vec<(usize, u64)> {
    let mut found = Vec::new();
    let mut at = 0;
    for part in text.split(|c: char| !c.is_ascii_digit()) {
        if let Ok(number) = part.parse() {
            found.push((at, number));
        }
        // The character between two parts may be longer than a byte.
        at += part.len();
        at += text
            .get(at..)
            .and_then(|rest| rest.chars().next())
            .map_or(0, char::len_utf8);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::chat::error::BackendError;

    #[test]
    fn what_servers_say() {
        let known = |tokens, max| Some(Overflow { tokens, max });
        for (status, body, expected) in [
            (
                400,
                r#"{"error":{"code":400,"message":"the request exceeds the available context size. try increasing it","type":"exceed_context_size_error","n_prompt_tokens":9001,"n_ctx":4096}}"#,
                known(Some(9001), Some(4096)),
            ),
            (
                400,
                r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5096 tokens (5000 in the messages, 96 in the completion).","type":"BadRequestError","code":400}"#,
                known(Some(5000), Some(4096)),
            ),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens. Please reduce the length of the input messages.","code":400}}"#,
                known(Some(40000), Some(32768)),
            ),
            (
                400,
                r#"{"message":"The input (40000 tokens) is longer than the model's context length (32768 tokens)."}"#,
                known(Some(40000), Some(32768)),
            ),
            (
                400,
                r#"{"error":"Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough."}"#,
                known(Some(5000), Some(4096)),
            ),
            (
                500,
                r#"{"error":"the input length exceeds the context length"}"#,
                known(None, None),
            ),
            (
                400,
                r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#,
                known(None, None),
            ),
            (
                400,
                r#"{"error":{"message":"max_tokens exceeds 4096"}}"#,
                None,
            ),
            (
                400,
                r#"{"error":{"message":"unknown context length"}}"#,
                None,
            ),
            (
                404,
                r#"{"error":"the input length exceeds the context length"}"#,
                None,
            ),
            (400, "", None),
        ] {
            assert_eq!(
                BackendError::read(status, body.as_bytes()).details.overflow,
                expected,
                "{body}"
            );
        }
        let plain = BackendError::read(413, "é 7: exceeds the context size of 5 é".as_bytes());
        assert_eq!(plain.details.overflow, known(Some(7), Some(5)));
    }
}
