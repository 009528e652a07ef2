//! The response object (docs/contract/dialects.md#8.1).

use super::names::ToolNames;
use super::request::{RequestField, RequestValues};
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::outcome::Counts;
use crate::json::{self, JsonValue};

/// What the response has to know of its request.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReplyContext {
    /// The model as the client wrote it.
    pub(super) model: String,
    /// The bytes of the id seed.
    pub(super) seed: [u8; 16],
    /// When the request arrived, in Unix seconds.
    pub(super) created: u64,
    /// The members that repeat the request.
    pub(super) echo: Vec<u8>,
    pub(super) tools: ToolNames,
    pub(super) reasoning: ReasoningForm,
    /// Estimate of the request's tokens, for endpoints that do not count.
    pub(super) input_tokens: u64,
    /// The response is kept if its items have at most this many bytes.
    pub(super) store_room: Option<usize>,
}

/// What the gateway adds to a request for its response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplySeed {
    /// What ids are made from.
    pub(crate) seed: IdSeed,
    /// The time, in Unix seconds.
    pub(crate) now: u64,
}

impl ReplyContext {
    /// For a request with these fields.
    pub(super) fn new(
        fields: &RequestValues<'_>,
        tools: ToolNames,
        input_tokens: u64,
        seed: ReplySeed,
    ) -> Self {
        Self {
            model: fields.model().to_owned(),
            seed: seed.seed.0,
            created: seed.now,
            echo: echo(fields),
            tools,
            reasoning: ReasoningForm::of(fields),
            input_tokens,
            store_room: None,
        }
    }

    /// The response's id.
    pub(super) fn response_id(&self) -> String {
        format!("resp_{:032x}", u128::from_be_bytes(self.seed))
    }

    /// The id of the `nth` item.
    pub(super) fn item_id(&self, prefix: &str, nth: u64) -> String {
        let seed = u128::from_be_bytes(self.seed);
        made_id(prefix, (seed >> 64) as u64 ^ seed as u64, nth)
    }
}

/// An id with a prefix and 32 hexadecimal digits, another one for each `nth`.
pub(super) fn made_id(prefix: &str, seed: u64, nth: u64) -> String {
    let state = seed ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = fastrand::Rng::with_seed(state);
    format!("{prefix}{:032x}", random.u128(..))
}

/// How the client wants the model's reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReasoningForm {
    /// As a summary instead of content.
    pub(super) summary: bool,
    /// Wrapped as well, to be sent back.
    pub(super) encrypted: bool,
}

impl ReasoningForm {
    pub(super) fn of(fields: &RequestValues<'_>) -> Self {
        let reasoning = fields.get(RequestField::Reasoning);
        let summary = reasoning.and_then(|reasoning| {
            let [summary] = reasoning.given(["summary"]);
            summary
        });
        Self {
            summary: summary.is_some(),
            encrypted: fields.includes("reasoning.encrypted_content"),
        }
    }
}

/// The members that repeat the request, joined by commas.
fn echo(fields: &RequestValues<'_>) -> Vec<u8> {
    use RequestField as F;
    let mut out = br#""background":false,"service_tier":"default","top_logprobs":0,"presence_penalty":0,"frequency_penalty":0"#.to_vec();
    for (field, default) in [
        (F::Instructions, "null"),
        (F::MaxOutputTokens, "null"),
        (F::MaxToolCalls, "null"),
        (F::PreviousResponseId, "null"),
        (F::PromptCacheKey, "null"),
        (F::SafetyIdentifier, "null"),
        (F::User, "null"),
        (F::ParallelToolCalls, "true"),
        (F::ToolChoice, r#""auto""#),
        (F::Truncation, r#""disabled""#),
        (F::Temperature, "1"),
        (F::TopP, "1"),
        (F::Tools, "[]"),
        (F::Text, r#"{"format":{"type":"text"}}"#),
        (F::Metadata, "{}"),
    ] {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(field.name().as_bytes());
        out.extend_from_slice(b"\":");
        value_or(fields.get(field), default, &mut out);
    }
    let [effort, summary] = match fields.get(F::Reasoning) {
        Some(reasoning) => reasoning.given(["effort", "summary"]),
        None => [None; 2],
    };
    out.extend_from_slice(br#","reasoning":{"effort":"#);
    value_or(effort, "null", &mut out);
    out.extend_from_slice(br#","summary":"#);
    value_or(summary, "null", &mut out);
    out.push(b'}');
    out
}

fn value_or(value: Option<JsonValue<'_>>, default: &str, out: &mut Vec<u8>) {
    match value {
        Some(value) => value.write_compact(out),
        None => out.extend_from_slice(default.as_bytes()),
    }
}

/// What becomes of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReplyStatus {
    InProgress,
    Completed,
    /// For this reason.
    Incomplete(&'static str),
    Failed {
        code: String,
        message: String,
    },
}

impl ReplyStatus {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Tokens as the API counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplyUsage {
    input: u64,
    cached: u64,
    output: u64,
    reasoning: u64,
}

impl ReplyUsage {
    /// Those of an endpoint, with estimates for what it did not count.
    pub(super) fn of(counts: Counts, input_estimate: u64, output_bytes: u64) -> Self {
        let input = counts.prompt(input_estimate);
        Self {
            input,
            cached: counts.cached().min(input),
            output: counts.completion(output_bytes),
            reasoning: counts.reasoning,
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"input_tokens":"#);
        json::write_number(self.input, out);
        out.extend_from_slice(br#","input_tokens_details":{"cached_tokens":"#);
        json::write_number(self.cached, out);
        out.extend_from_slice(br#","cache_write_tokens":0},"output_tokens":"#);
        json::write_number(self.output, out);
        out.extend_from_slice(br#","output_tokens_details":{"reasoning_tokens":"#);
        json::write_number(self.reasoning, out);
        out.extend_from_slice(br#"},"total_tokens":"#);
        json::write_number(self.input.saturating_add(self.output), out);
        out.push(b'}');
    }
}

/// One state of a response.
pub(super) struct ResponseObject<'a> {
    pub(super) context: &'a ReplyContext,
    pub(super) status: &'a ReplyStatus,
    /// When it was complete, in Unix seconds.
    pub(super) completed: Option<u64>,
    /// The items, joined by commas.
    pub(super) output: &'a [u8],
    pub(super) usage: Option<ReplyUsage>,
    /// It is kept, or will be.
    pub(super) store: bool,
}

impl ResponseObject<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let context = self.context;
        out.extend_from_slice(br#"{"id":"#);
        json::write_string(&context.response_id(), out);
        out.extend_from_slice(br#","object":"response","created_at":"#);
        json::write_number(context.created, out);
        out.extend_from_slice(br#","completed_at":"#);
        match self.completed {
            Some(completed) => json::write_number(completed, out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","status":""#);
        out.extend_from_slice(self.status.name().as_bytes());
        out.extend_from_slice(br#"","error":"#);
        match self.status {
            ReplyStatus::Failed { code, message } => {
                out.extend_from_slice(br#"{"code":"#);
                json::write_string(code, out);
                out.extend_from_slice(br#","message":"#);
                json::write_string(message, out);
                out.push(b'}');
            }
            _ => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","incomplete_details":"#);
        match self.status {
            ReplyStatus::Incomplete(reason) => {
                out.extend_from_slice(br#"{"reason":"#);
                json::write_string(reason, out);
                out.push(b'}');
            }
            _ => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","model":"#);
        json::write_string(&context.model, out);
        out.push(b',');
        out.extend_from_slice(&context.echo);
        out.extend_from_slice(br#","store":"#);
        out.extend_from_slice(if self.store { b"true" } else { b"false" });
        out.extend_from_slice(br#","usage":"#);
        match self.usage {
            Some(usage) => usage.write(out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","output":["#);
        out.extend_from_slice(self.output);
        out.extend_from_slice(b"]}");
    }
}
