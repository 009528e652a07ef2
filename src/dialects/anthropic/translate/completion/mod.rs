//! A whole response, from an OpenAI chat completion to an Anthropic message
//! (docs/contract/translation.md#8.1, docs/contract/translation.md#8.2).

use super::ids::{message_id, tool_id};
use super::outcome::{Ending, Usage};
use crate::dialects::chat::completion::{CompleteCall, Completion, ContentBlock};
use crate::dialects::chat::context::ResponseContext;
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::warning::Translated;
use crate::json::{self, JsonText};

/// Translates a whole response of status below 400.
///
/// # Errors
///
/// Status 502 if it is not a chat completion.
pub fn from_openai(answer: &[u8], ctx: &ResponseContext) -> Result<Translated, Refusal> {
    let answer = Completion::read(answer)?;
    let mut warnings = Vec::new();
    let mut out = Vec::with_capacity(512 + answer.size_hint());
    out.extend_from_slice(br#"{"id":"#);
    json::write_string(&message_id(ctx.seed), &mut out);
    out.extend_from_slice(br#","type":"message","role":"assistant","model":"#);
    json::write_string(&ctx.model, &mut out);
    out.extend_from_slice(br#","content":["#);
    let mut output_bytes = 0;
    let first = out.len();
    let mut ids_made = 0;
    for block in answer.blocks() {
        if out.len() > first {
            out.push(b',');
        }
        output_bytes += block.len() as u64;
        match block {
            ContentBlock::Thinking(thinking) => {
                out.extend_from_slice(br#"{"type":"thinking","thinking":"#);
                write_text(thinking, &mut out);
                out.extend_from_slice(br#","signature":""}"#);
            }
            ContentBlock::Text(text) => {
                out.extend_from_slice(br#"{"type":"text","text":""#);
                text.write(&mut out);
                out.extend_from_slice(br#""}"#);
            }
            ContentBlock::Tool(call) => {
                out.extend_from_slice(br#"{"type":"tool_use","id":""#);
                write_id(call, ctx.seed, &mut ids_made, &mut out);
                out.extend_from_slice(br#"","name":""#);
                call.name.write(&mut out);
                out.extend_from_slice(br#"","input":"#);
                call.write_input(&mut out, &mut warnings);
                out.push(b'}');
            }
        }
    }
    if out.len() == first {
        out.extend_from_slice(br#"{"type":"text","text":""}"#);
    }
    out.extend_from_slice(b"],");
    Ending::of(&answer).write(ctx, &mut out);
    out.push(b',');
    Usage::of(answer.counts, ctx, output_bytes).write(&mut out);
    out.push(b'}');
    Ok(Translated {
        body: out,
        warnings,
        output_bytes,
    })
}

/// Appends the id of a call, or a made one, as the inside of a JSON string.
pub(super) fn write_id(
    call: CompleteCall<'_>,
    seed: IdSeed,
    ids_made: &mut u64,
    out: &mut Vec<u8>,
) {
    match call.id {
        Some(id) => id.write(out),
        None => {
            out.extend_from_slice(tool_id(seed, *ids_made).as_bytes());
            *ids_made += 1;
        }
    }
}

/// Appends a quoted string.
fn write_text(text: JsonText<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    text.write(out);
    out.push(b'"');
}

#[cfg(test)]
pub(crate) mod tests;
