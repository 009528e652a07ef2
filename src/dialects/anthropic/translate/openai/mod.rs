//! Translates a request from Anthropic Messages to an OpenAI chat completion
//! (docs/contract/translation.md#7).
//!
//! The body is written once, front to back, by copying spans of the request; nothing is parsed into
//! values. Fields that have no counterpart are left out; `docs/translation.md` lists them.

use super::fields::{Fields, output_format};
use super::messages;
use super::request::Checked;
use super::tools;
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::warning::Translated;
use crate::json::{self, JsonKind, JsonValue};

/// What an endpoint does with an assistant message at the end of a conversation, the beginning of
/// its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefill {
    /// It continues the message.
    Continued,
    /// It continues the message when the request says so.
    OnRequest,
    /// It would take the message for a finished turn, or nothing is known of it.
    Refused,
}

impl Prefill {
    /// What servers of a type do.
    pub(crate) fn of(kind: &str) -> Self {
        match kind {
            "llamacpp" | "ollama" => Self::Continued,
            "vllm" | "sglang" => Self::OnRequest,
            _ => Self::Refused,
        }
    }

    /// Adds the members that a conversation with such an end needs.
    pub(crate) fn write(self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match self {
            Self::Continued => {}
            Self::OnRequest => {
                // The object's end is written after all members.
                let closed = out.pop();
                out.extend_from_slice(
                    br#","continue_final_message":true,"add_generation_prompt":false"#,
                );
                out.extend(closed);
            }
            Self::Refused => {
                return Err(Refusal::invalid(
                    "messages: expected a user message at the end, got an assistant message, \
                     which this model's endpoint cannot continue",
                ));
            }
        }
        Ok(())
    }
}

/// Translates a request. `model` is the name that the endpoint knows, `body` the bytes that
/// `checked` was made from; other bytes give a refusal or a body without meaning. With
/// `output_room` the endpoint is asked for at most this many tokens.
///
/// # Errors
///
/// Status 400 for what only translation has to refuse (docs/contract/translation.md#4,
/// docs/contract/translation.md#7.2).
pub fn to_openai(
    body: &[u8],
    checked: &Checked,
    model: &str,
    output_room: Option<u64>,
) -> Result<Translated, Refusal> {
    let fields = checked.values(body);
    let mut out = Vec::with_capacity(body.len() + 256);
    let mut warnings = Vec::new();
    out.extend_from_slice(br#"{"model":"#);
    json::write_string(model, &mut out);
    out.extend_from_slice(br#","messages":"#);
    let list = fields.messages.into_iter().flat_map(JsonValue::elements);
    if messages::read(fields.system, list)?.finish(&mut out) == 0 {
        return Err(Refusal::invalid(
            "messages: nothing is left to send; every message is empty",
        ));
    }
    max_tokens(fields.max_tokens, output_room, &mut out);
    sampling(&fields, checked.stream, &mut out);
    if let Some(tools) = fields.tools {
        tools::write(tools, fields.tool_choice, &mut out, &mut warnings)?;
    }
    response_format(&fields, &mut out);
    out.push(b'}');
    Ok(Translated {
        body: out,
        warnings,
        output_bytes: 0,
    })
}

/// `max_tokens`, at most what fits (docs/contract/translation.md#7).
fn max_tokens(given: Option<JsonValue<'_>>, output_room: Option<u64>, out: &mut Vec<u8>) {
    let Some(given) = given else {
        return;
    };
    out.extend_from_slice(br#","max_tokens":"#);
    match (given.unsigned(), output_room) {
        (Some(tokens), Some(room)) if tokens > room => json::write_number(room, out),
        _ => given.write_compact(out),
    }
}

/// The fields that only change their name, numbers as they are spelled.
fn sampling(fields: &Fields<Option<JsonValue<'_>>>, stream: bool, out: &mut Vec<u8>) {
    let stop = fields
        .stop_sequences
        .filter(|stop| stop.elements().next().is_some());
    for (name, value) in [
        (&br#","temperature":"#[..], fields.temperature),
        (br#","top_p":"#, fields.top_p),
        (br#","top_k":"#, fields.top_k),
        (br#","stop":"#, stop),
    ] {
        if let Some(value) = value {
            out.extend_from_slice(name);
            value.write_compact(out);
        }
    }
    // A stream contains token counts only on request.
    out.extend_from_slice(if stream {
        br#","stream":true,"stream_options":{"include_usage":true}"#
    } else {
        br#","stream":false"#
    });
}

/// Structured output of type `json_schema`.
fn response_format(fields: &Fields<Option<JsonValue<'_>>>, out: &mut Vec<u8>) {
    let Some(format) = output_format(fields) else {
        return;
    };
    let [kind, schema] = format.given(["type", "schema"]);
    let is_schema = kind
        .and_then(JsonValue::string)
        .is_some_and(|kind| kind.is("json_schema"));
    if let Some(schema) = schema.filter(|schema| is_schema && schema.is(JsonKind::Object)) {
        out.extend_from_slice(
            br#","response_format":{"type":"json_schema","json_schema":{"name":"output","schema":"#,
        );
        schema.write_compact(out);
        out.extend_from_slice(br#","strict":true}}"#);
    }
}

#[cfg(test)]
mod tests;
