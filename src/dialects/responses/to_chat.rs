//! A request as a chat completion request (docs/contract/dialects.md#5).

use super::input::{ItemReader, ReferencedItems, references};
use super::names::ToolNames;
use super::object::{ReplyContext, ReplySeed};
use super::request::{RequestField, RequestValues};
use super::store::KeptResponse;
use super::tools::OfferedTools;
use crate::dialects::chat::error::{Refusal, invalid};
use crate::dialects::chat::messages::{Messages, UserContent};
use crate::dialects::chat::thinking::Thinking;
use crate::dialects::chat::tokens::InputSize;
use crate::json::{self, JsonText, JsonValue};

/// What a request continues.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before<'a> {
    /// The response that it names.
    pub(super) response: Option<&'a KeptResponse>,
    /// The stored items that it refers to; `None` = they are not looked at.
    pub(super) items: Option<&'a ReferencedItems>,
}

/// A request for an endpoint.
#[derive(Debug)]
pub(super) struct TranslatedRequest {
    pub(super) body: Vec<u8>,
    /// Names of what had no effect.
    pub(super) dropped: Vec<String>,
    pub(super) names: ToolNames,
    /// What the model reads.
    pub(super) size: InputSize,
}

impl TranslatedRequest {
    /// What the response has to know.
    pub(super) fn context(&self, fields: &RequestValues<'_>, seed: ReplySeed) -> ReplyContext {
        ReplyContext::new(fields, self.names.clone(), self.size.tokens(), seed)
    }
}

/// Translates a request for an endpoint of type `kind` that knows the model as `name`.
///
/// # Errors
/// Status 400 for what chat completions do not have, 404 for items that are not stored.
pub(super) fn to_chat(
    fields: &RequestValues<'_>,
    before: Before<'_>,
    name: &str,
    kind: &str,
) -> Result<TranslatedRequest, Refusal> {
    fields.check()?;
    let mut dropped = Vec::new();
    let mut body = br#"{"model":"#.to_vec();
    json::write_string(name, &mut body);
    body.extend_from_slice(br#","messages":"#);
    let messages = messages(fields, before, &mut dropped)?;
    if messages.is_nothing() {
        return Err(nothing_is_left());
    }
    let mut size = messages.size();
    messages.finish(&mut body);
    let tools = OfferedTools::read(fields.get(RequestField::Tools))?;
    size.bytes += tools.bytes();
    tools.write(
        fields.get(RequestField::ToolChoice),
        fields.get(RequestField::ParallelToolCalls),
        &mut body,
    )?;
    dropped.extend(tools.dropped);
    sampling(fields, &mut body);
    logprobs(fields, &mut dropped, &mut body);
    effort(fields, kind, &mut dropped, &mut body);
    text_format(fields, &mut dropped, &mut body)?;
    without_counterpart(fields, &mut dropped);
    body.push(b'}');
    Ok(TranslatedRequest {
        body,
        dropped,
        names: tools.names,
        size,
    })
}

/// What the model reads of a request.
///
/// # Errors
/// As [`to_chat`].
pub(super) fn size_of(
    fields: &RequestValues<'_>,
    before: Before<'_>,
) -> Result<InputSize, Refusal> {
    let mut size = messages(fields, before, &mut Vec::new())?.size();
    size.bytes += OfferedTools::read(fields.get(RequestField::Tools))?.bytes();
    Ok(size)
}

/// Finds out whether a request can be translated. Returns whether a tool would be left out.
///
/// # Errors
/// Status 400 for what chat completions do not have.
pub(super) fn examine(fields: &RequestValues<'_>) -> Result<bool, Refusal> {
    fields.check()?;
    let before = Before {
        response: None,
        items: None,
    };
    let mut unread = Vec::new();
    let messages = messages(fields, before, &mut unread)?;
    // What the request continues and refers to is not known yet.
    let is_all = fields.get(RequestField::PreviousResponseId).is_none()
        && references(fields.elements(RequestField::Input))
            .next()
            .is_none();
    if is_all && messages.is_nothing() {
        return Err(nothing_is_left());
    }
    let tools = OfferedTools::read(fields.get(RequestField::Tools))?;
    let mut scratch = Vec::new();
    tools.write(fields.get(RequestField::ToolChoice), None, &mut scratch)?;
    text_format(fields, &mut unread, &mut scratch)?;
    Ok(!tools.dropped.is_empty())
}

fn nothing_is_left() -> Refusal {
    let problem = "nothing is left to send; every message is empty";
    invalid("input", problem)
}

/// The conversation: what it continues, then the new input.
fn messages<'a>(
    fields: &RequestValues<'a>,
    before: Before<'a>,
    dropped: &mut Vec<String>,
) -> Result<Messages<'a>, Refusal> {
    let mut messages = Messages::default();
    if let Some(instructions) = fields.text(RequestField::Instructions) {
        messages.system(instructions);
    }
    let mut reader = ItemReader {
        messages: &mut messages,
        referenced: before.items,
        dropped,
    };
    let arrays = before
        .response
        .map_or_else(Vec::new, KeptResponse::conversation);
    for array in arrays {
        let items = json::parse(array).into_iter().flat_map(JsonValue::elements);
        for item in items {
            reader.item(item)?;
        }
    }
    for item in fields.elements(RequestField::Input) {
        reader.item(item)?;
    }
    if let Some(text) = fields.text(RequestField::Input) {
        let mut content = UserContent::default();
        content.text(text);
        messages.user(content);
    }
    Ok(messages)
}

/// Fields that only change their name, numbers as they are spelled.
fn sampling(fields: &RequestValues<'_>, out: &mut Vec<u8>) {
    use RequestField as F;
    for (name, field) in [
        ("max_tokens", F::MaxOutputTokens),
        ("temperature", F::Temperature),
        ("top_p", F::TopP),
        ("frequency_penalty", F::FrequencyPenalty),
        ("presence_penalty", F::PresencePenalty),
        ("seed", F::Seed),
        ("stop", F::Stop),
        ("top_k", F::TopK),
        ("min_p", F::MinP),
        ("logit_bias", F::LogitBias),
        ("stream", F::Stream),
    ] {
        if let Some(value) = fields.get(field) {
            member(name, value, out);
        }
    }
    if fields.is_true(F::Stream) {
        // A stream contains token counts only on request.
        out.extend_from_slice(br#","stream_options":{"include_usage":true}"#);
    }
}

fn member(name: &str, value: JsonValue<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    value.write_compact(out);
}

fn logprobs(fields: &RequestValues<'_>, dropped: &mut Vec<String>, out: &mut Vec<u8>) {
    let top = fields.get(RequestField::TopLogprobs);
    if fields.includes("message.output_text.logprobs") {
        out.extend_from_slice(br#","logprobs":true"#);
        if let Some(top) = top {
            member("top_logprobs", top, out);
        }
    } else if top.is_some() {
        dropped.push(RequestField::TopLogprobs.name().to_owned());
    }
}

fn effort(fields: &RequestValues<'_>, kind: &str, dropped: &mut Vec<String>, out: &mut Vec<u8>) {
    let reasoning = fields.get(RequestField::Reasoning);
    let [effort] = reasoning.map_or([None], |reasoning| reasoning.given(["effort"]));
    let Some(effort) = effort else {
        return;
    };
    let effort = effort.string().map(JsonText::decode);
    match effort.and_then(|effort| Thinking::of_effort(&effort)) {
        Some(thinking) => thinking.write(kind, out),
        None => dropped.push("reasoning.effort".to_owned()),
    }
}

/// `text`: the form of the response.
fn text_format(
    fields: &RequestValues<'_>,
    dropped: &mut Vec<String>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let Some(text) = fields.get(RequestField::Text) else {
        return Ok(());
    };
    let [format, verbosity] = text.given(["format", "verbosity"]);
    if verbosity.is_some() {
        dropped.push("text.verbosity".to_owned());
    }
    let Some(format) = format else {
        return Ok(());
    };
    let kind = format.string_field("type").map(JsonText::decode);
    match kind.as_deref() {
        Some("text") => {}
        Some("json_object") => {
            out.extend_from_slice(br#","response_format":{"type":"json_object"}"#);
        }
        Some("json_schema") => {
            out.extend_from_slice(br#","response_format":{"type":"json_schema","json_schema":"#);
            let names = ["name", "schema", "strict", "description"];
            let start = out.len();
            for (name, value) in names.into_iter().zip(format.given(names)) {
                if let Some(value) = value {
                    member(name, value, out);
                }
            }
            match out.get_mut(start) {
                Some(comma) => *comma = b'{',
                None => out.push(b'{'),
            }
            out.extend_from_slice(b"}}");
        }
        _ => {
            let problem = "expected the type text, json_object or json_schema";
            return Err(invalid("text.format", problem));
        }
    }
    Ok(())
}

fn without_counterpart(fields: &RequestValues<'_>, dropped: &mut Vec<String>) {
    let truncation = fields.get(RequestField::Truncation);
    let is_disabled = |value: JsonValue<'_>| value.string().is_some_and(|it| it.is("disabled"));
    if truncation.is_some_and(|value| !is_disabled(value)) {
        dropped.push(RequestField::Truncation.name().to_owned());
    }
    if fields.get(RequestField::MaxToolCalls).is_some() {
        dropped.push(RequestField::MaxToolCalls.name().to_owned());
    }
    dropped.extend(fields.unknown().iter().cloned());
}

/// The ids of stored items that a request refers to.
pub(super) fn referenced_ids(fields: &RequestValues<'_>) -> Vec<String> {
    references(fields.elements(RequestField::Input)).collect()
}

#[cfg(test)]
mod tests;
