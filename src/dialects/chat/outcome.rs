//! Token counts and finish reason of a chat completion.

use super::tokens;
use crate::json::{JsonText, JsonValue};

/// The `usage` of an endpoint. A count that is not an unsigned integer is missing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    prompt: Option<u64>,
    completion: Option<u64>,
    cached: u64,
}

impl Counts {
    pub(crate) fn read(usage: JsonValue<'_>) -> Self {
        let [prompt, completion, details] = usage.fields([
            "prompt_tokens",
            "completion_tokens",
            "prompt_tokens_details",
        ]);
        let cached = details.and_then(|details| details.field("cached_tokens"));
        Self {
            prompt: prompt.and_then(JsonValue::unsigned),
            completion: completion.and_then(JsonValue::unsigned),
            cached: cached.and_then(JsonValue::unsigned).unwrap_or(0),
        }
    }

    /// The tokens of the prompt, `estimate` if the endpoint did not count them.
    pub(crate) fn prompt(self, estimate: u64) -> u64 {
        self.prompt.unwrap_or(estimate)
    }

    /// The tokens of the prompt that came from the endpoint's cache.
    pub(crate) fn cached(self) -> u64 {
        self.cached
    }

    /// The tokens of the response. If the endpoint did not count them, they are estimated from the
    /// bytes of its content so far.
    pub(crate) fn completion(self, output_bytes: u64) -> u64 {
        let counted = self.completion.filter(|tokens| *tokens > 0);
        counted.unwrap_or(match output_bytes {
            0 => 0,
            bytes => tokens::from_bytes(bytes),
        })
    }
}

/// An endpoint's `finish_reason`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Length,
    ContentFilter,
    /// Missing or unknown, or implied by the content.
    #[default]
    Other,
}

impl Finish {
    pub(crate) fn of(reason: JsonText<'_>) -> Self {
        match reason.decode().as_ref() {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            _ => Self::Other,
        }
    }
}
