//! Token counts and finish reason of a chat completion.

use super::tokens;
use crate::json::{self, JsonText, JsonValue};

/// The `usage` of an endpoint. A count that is not an unsigned integer is missing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    prompt: Option<u64>,
    completion: Option<u64>,
    cached: u64,
    /// Tokens of the response that are reasoning.
    pub(crate) reasoning: u64,
}

impl Counts {
    pub(crate) fn read(usage: JsonValue<'_>) -> Self {
        let [prompt, completion, prompt_details, completion_details] = usage.fields([
            "prompt_tokens",
            "completion_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
        ]);
        let detail = |details: Option<JsonValue<'_>>, key| {
            let count = details.and_then(|details| details.field(key));
            count.and_then(JsonValue::unsigned).unwrap_or(0)
        };
        Self {
            prompt: prompt.and_then(JsonValue::unsigned),
            completion: completion.and_then(JsonValue::unsigned),
            cached: detail(prompt_details, "cached_tokens"),
            reasoning: detail(completion_details, "reasoning_tokens"),
        }
    }

    /// Appends it as the object that it was read from.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (key, count) in [
            (&br#""prompt_tokens":"#[..], self.prompt),
            (br#""completion_tokens":"#, self.completion),
        ] {
            if let Some(count) = count {
                out.extend_from_slice(key);
                json::write_number(count, out);
                out.push(b',');
            }
        }
        out.extend_from_slice(br#""prompt_tokens_details":{"cached_tokens":"#);
        json::write_number(self.cached, out);
        out.extend_from_slice(br#"},"completion_tokens_details":{"reasoning_tokens":"#);
        json::write_number(self.reasoning, out);
        out.extend_from_slice(b"}}");
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
    /// The name in a response; `None` if there was none that counts.
    pub(crate) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Stop => Some("stop"),
            Self::Length => Some("length"),
            Self::ContentFilter => Some("content_filter"),
            Self::Other => None,
        }
    }

    pub(crate) fn of(reason: JsonText<'_>) -> Self {
        match reason.decode().as_ref() {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            _ => Self::Other,
        }
    }
}
