//! The stop reason and token usage of a response, in both dialects
//! (docs/contract/translation.md#8.2, docs/contract/translation.md#8.5).

use super::context::ResponseContext;
use super::tokens;
use crate::json::{self, JsonText, JsonValue};

/// Tokens as Anthropic counts them: input without what came from a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Read by the model for this request.
    pub input_tokens: u64,
    /// Written by it.
    pub output_tokens: u64,
    /// Taken from the endpoint's cache.
    pub cache_read_input_tokens: u64,
}

impl Usage {
    /// Appends `"usage":{…}`.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""usage":{"input_tokens":"#);
        json::write_number(self.input_tokens, out);
        out.extend_from_slice(br#","output_tokens":"#);
        json::write_number(self.output_tokens, out);
        out.extend_from_slice(br#","cache_creation_input_tokens":0,"cache_read_input_tokens":"#);
        json::write_number(self.cache_read_input_tokens, out);
        out.push(b'}');
    }
}

/// The `usage` of an endpoint. A count that is not an unsigned integer is missing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    prompt: Option<u64>,
    completion: Option<u64>,
    cached: u64,
}

impl Counts {
    pub(super) fn read(usage: JsonValue<'_>) -> Self {
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

    /// The usage to report, with estimates for what the endpoint did not count. `output_bytes` are
    /// those of the response's content so far.
    pub(super) fn usage(self, ctx: &ResponseContext, output_bytes: u64) -> Usage {
        let prompt = self.prompt.unwrap_or(ctx.input_tokens);
        let cached = self.cached.min(prompt);
        let counted = self.completion.filter(|tokens| *tokens > 0);
        Usage {
            input_tokens: prompt - cached,
            output_tokens: counted.unwrap_or(match output_bytes {
                0 => 0,
                bytes => tokens::from_bytes(bytes),
            }),
            cache_read_input_tokens: cached,
        }
    }
}

/// An endpoint's `finish_reason`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
    ContentFilter,
    /// Missing or unknown, or implied by the content.
    #[default]
    Other,
}

impl Finish {
    pub(super) fn of(reason: JsonText<'_>) -> Self {
        match reason.decode().as_ref() {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            _ => Self::Other,
        }
    }
}

/// The inputs of the stop reason.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub(super) finish: Finish,
    /// The response has a tool call.
    pub(super) calls_tool: bool,
    /// The response has a `refusal`.
    pub(super) refused: bool,
    /// The text at which the endpoint says that it stopped.
    pub(super) matched: Option<String>,
}

impl Ending {
    /// Appends `"stop_reason":…,"stop_sequence":…`. The first rule that fits decides.
    pub(super) fn write(&self, ctx: &ResponseContext, out: &mut Vec<u8>) {
        let sequence = self.matched.as_ref().filter(|matched| {
            self.finish == Finish::Stop && ctx.stop_sequences.iter().any(|stop| stop == *matched)
        });
        let (reason, sequence) = if self.finish == Finish::Length {
            ("max_tokens", None)
        } else if self.calls_tool {
            ("tool_use", None)
        } else if self.refused || self.finish == Finish::ContentFilter {
            ("refusal", None)
        } else if sequence.is_some() {
            ("stop_sequence", sequence)
        } else {
            ("end_turn", None)
        };
        out.extend_from_slice(br#""stop_reason":""#);
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(br#"","stop_sequence":"#);
        match sequence {
            Some(sequence) => json::write_string(sequence, out),
            None => out.extend_from_slice(b"null"),
        }
    }
}
