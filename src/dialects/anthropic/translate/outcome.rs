//! The stop reason and token usage of a response, in both dialects
//! (docs/contract/translation.md#8.2, docs/contract/translation.md#8.5).

use crate::dialects::chat::completion::Completion;
use crate::dialects::chat::context::ResponseContext;
use crate::dialects::chat::outcome::{Counts, Finish};
use crate::json;

/// Tokens as Anthropic counts them: input without what came from a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Read by the model for this request.
    pub(super) input_tokens: u64,
    /// Written by it.
    pub(super) output_tokens: u64,
    /// Taken from the endpoint's cache.
    pub(super) cache_read_input_tokens: u64,
}

impl Usage {
    /// The usage to report, with estimates for what the endpoint did not count. `output_bytes` are
    /// those of the response's content so far.
    pub(super) fn of(counts: Counts, ctx: &ResponseContext, output_bytes: u64) -> Self {
        let prompt = counts.prompt(ctx.input_tokens);
        let cached = counts.cached().min(prompt);
        Self {
            input_tokens: prompt - cached,
            output_tokens: counts.completion(output_bytes),
            cache_read_input_tokens: cached,
        }
    }

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
    /// The ending of a whole response.
    pub(super) fn of(answer: &Completion<'_>) -> Self {
        Self {
            finish: answer.finish,
            calls_tool: !answer.calls.is_empty(),
            refused: answer.refused,
            matched: answer.matched.map(|matched| matched.decode().into_owned()),
        }
    }

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
