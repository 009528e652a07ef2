//! The request in OpenAI's API that a request of Ollama's becomes.
//!
//! Contract: docs/contract/dialects.md#4, docs/contract/dialects.md#10,
//! docs/contract/dialects.md#11

use super::fields::FieldWriter;
use super::messages;
use super::request::{OllamaOperation, Task};
use crate::dialects::chat::dropped::Dropped;
use crate::dialects::chat::messages::Messages;
use crate::dialects::chat::tokens::InputSize;
use crate::json::{JsonKind, JsonValue, write_number, write_string};

/// The endpoint that gets a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForEndpoint<'a> {
    /// The model as the endpoint knows it.
    pub(super) name: &'a str,
    /// Its type.
    pub(super) kind: &'a str,
    /// Whether the client wants a stream.
    pub(super) stream: bool,
}

/// A request as an endpoint gets it.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Compact JSON.
    pub(super) body: Vec<u8>,
    /// What has no effect.
    pub(super) dropped: Dropped,
    /// What the model reads.
    pub(super) size: InputSize,
}

/// Writes a chat completion.
pub(super) fn chat(
    operation: OllamaOperation,
    request: JsonValue<'_>,
    endpoint: ForEndpoint<'_>,
) -> Written {
    let messages = match operation {
        OllamaOperation::Generate => messages::of_prompt(request),
        _ => messages::of_chat(request),
    };
    let mut written = begun(endpoint);
    written.size = size_of(&messages, request);
    written.body.extend_from_slice(br#","messages":"#);
    messages.finish(&mut written.body);
    stream(endpoint, &mut written.body);
    let mut members = members(&mut written);
    if operation == OllamaOperation::Chat {
        members.tools(request);
    }
    members.format(request);
    members.think(request, endpoint.kind);
    members.logprobs(request);
    members.options(request, endpoint.kind);
    members.unused(request, operation, Task::Chat);
    written.body.push(b'}');
    written
}

/// Writes a completion of a prompt.
pub(super) fn completion(request: JsonValue<'_>, endpoint: ForEndpoint<'_>) -> Written {
    let mut written = begun(endpoint);
    let [prompt, suffix] = request.given(["prompt", "suffix"]);
    written.body.extend_from_slice(br#","prompt":"#);
    match prompt {
        Some(prompt) => prompt.write_compact(&mut written.body),
        None => written.body.extend_from_slice(br#""""#),
    }
    written.size.bytes = prompt.map_or(0, text_bytes);
    if let Some(suffix) = suffix.filter(|suffix| suffix.raw() != br#""""#) {
        written.size.bytes += text_bytes(suffix);
        written.body.extend_from_slice(br#","suffix":"#);
        suffix.write_compact(&mut written.body);
    }
    stream(endpoint, &mut written.body);
    let mut members = members(&mut written);
    members.options(request, endpoint.kind);
    members.unused(request, OllamaOperation::Generate, Task::Complete);
    written.body.push(b'}');
    written
}

/// Writes a request for embeddings.
pub(super) fn embeddings(
    operation: OllamaOperation,
    request: JsonValue<'_>,
    endpoint: ForEndpoint<'_>,
) -> Written {
    let mut written = begun(endpoint);
    let field = match operation {
        OllamaOperation::Embeddings => "prompt",
        _ => "input",
    };
    written.body.extend_from_slice(br#","input":["#);
    if let Some(input) = request.field(field) {
        let one = input.is(JsonKind::String).then_some(input);
        for (at, text) in one.into_iter().chain(input.elements()).enumerate() {
            if at > 0 {
                written.body.push(b',');
            }
            text.write_compact(&mut written.body);
            written.size.bytes += text_bytes(text);
        }
    }
    written
        .body
        .extend_from_slice(br#"],"encoding_format":"float""#);
    let dimensions = request.field("dimensions").and_then(JsonValue::unsigned);
    if let Some(dimensions) = dimensions.filter(|dimensions| *dimensions > 0) {
        written.body.extend_from_slice(br#","dimensions":"#);
        write_number(dimensions, &mut written.body);
    }
    members(&mut written).unused(request, operation, Task::Embed);
    written.body.push(b'}');
    written
}

fn begun(endpoint: ForEndpoint<'_>) -> Written {
    let mut written = Written::default();
    written.body.extend_from_slice(br#"{"model":"#);
    write_string(endpoint.name, &mut written.body);
    written
}

fn stream(endpoint: ForEndpoint<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(match endpoint.stream {
        true => br#","stream":true,"stream_options":{"include_usage":true}"#,
        false => br#","stream":false"#,
    });
}

fn members(written: &mut Written) -> FieldWriter<'_> {
    FieldWriter {
        out: &mut written.body,
        dropped: &mut written.dropped,
    }
}

/// What a model reads of a conversation with its tools.
fn size_of(messages: &Messages<'_>, request: JsonValue<'_>) -> InputSize {
    let mut size = messages.size();
    let tools = request
        .field("tools")
        .filter(|tools| tools.is(JsonKind::Array));
    size.bytes += tools.map_or(0, |tools| tools.raw().len() as u64);
    size
}

fn text_bytes(text: JsonValue<'_>) -> u64 {
    text.string().map_or(0, |text| text.len() as u64)
}
