//! Validates a request and remembers where its fields stand (docs/contract/translation.md#4).
//!
//! What holds in both modes is checked here, before an endpoint is chosen; what only translation
//! cares about is refused while translating (`openai.rs`).

use std::ops::Range;

use super::fields::{Fields, blocks, holds_image, output_format};
use super::{messages, tokens, tools};
use crate::dialects::chat::context::ResponseContext;
use crate::dialects::chat::error::{Refusal, invalid};
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::tokens::InputSize;
use crate::json::SpanIndex;
use crate::json::{self, JsonKind, JsonText, JsonValue};

/// A request that passed validation, and what routing has to know of it.
///
/// It holds no part of the body but positions, so it can be kept while the body moves; methods
/// that take the body want the same bytes again.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The model's name, without blanks around it; never empty.
    pub model: String,
    /// The client requests a stream of events.
    pub stream: bool,
    /// What native support may lack for it.
    pub uses: Uses,
    /// What else routing has to know of its messages and tools.
    pub(crate) survey: Survey,
    pub(super) fields: Fields<Option<Range<usize>>>,
    index: SpanIndex,
}

/// The features of a request that the limitations of a native endpoint are about
/// (docs/contract/translation.md#5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uses {
    /// `tools` is not empty.
    pub tools: bool,
    /// `thinking` is present and not disabled.
    pub thinking: bool,
    /// A message holds an image, at its top level or in the result of a tool.
    pub vision: bool,
    /// The response has to be of a format.
    pub structure: bool,
}

impl Uses {
    /// None of them.
    pub const NONE: Self = Self {
        tools: false,
        thinking: false,
        vision: false,
        structure: false,
    };

    /// Whether a limitation, by its name in a profile, excludes the request. Names that are not
    /// known are information only.
    pub fn are_excluded_by(self, limitation: &str) -> bool {
        match limitation {
            "no_tool_use" => self.tools,
            "no_extended_thinking" => self.thinking,
            "no_vision" => self.vision,
            "no_structured_output" => self.structure,
            _ => false,
        }
    }
}

impl Checked {
    /// What the translation of the response needs to know of the request. `seed` makes the ids.
    pub fn context(&self, body: &[u8], seed: IdSeed) -> ResponseContext {
        self.measured(body, seed).0
    }

    /// The same, with the size of what the model reads.
    pub(crate) fn measured(&self, body: &[u8], seed: IdSeed) -> (ResponseContext, InputSize) {
        let fields = self.values(body);
        let size = tokens::measure(&fields);
        let stop_sequences = fields
            .stop_sequences
            .into_iter()
            .flat_map(JsonValue::elements);
        let context = ResponseContext {
            model: self.model.clone(),
            stop_sequences: stop_sequences
                .filter_map(|sequence| Some(sequence.string()?.decode().into_owned()))
                .collect(),
            input_tokens: size.tokens(),
            served_context: None,
            seed,
        };
        (context, size)
    }

    /// Whether the conversation ends with the beginning of the answer: an assistant message without
    /// a tool call.
    pub(crate) fn is_prefilled(&self, body: &[u8]) -> bool {
        let messages = self.values(body).messages.into_iter();
        let Some(last) = messages.flat_map(JsonValue::elements).last() else {
            return false;
        };
        let [role, content] = last.fields(["role", "content"]);
        let is_of = |block: JsonValue<'_>, kind| {
            let own = block.string_field("type");
            own.is_some_and(|own| own.is(kind))
        };
        role.and_then(JsonValue::string)
            .is_some_and(|role| role.is("assistant"))
            && content.is_some_and(|content| {
                content.string().is_some_and(|text| !text.is_empty())
                    || blocks(content).any(|block| is_of(block, "text"))
                        && !blocks(content).any(|block| is_of(block, "tool_use"))
            })
    }

    /// Whether the request can be translated at all.
    ///
    /// # Errors
    /// Status 400, as [`super::to_openai`] gives it.
    pub(crate) fn translates(&self, body: &[u8]) -> Result<(), Refusal> {
        let fields = self.values(body);
        let list = fields.messages.into_iter().flat_map(JsonValue::elements);
        messages::read(fields.system, list)?;
        let mut choice = Vec::new();
        match (fields.tools, fields.tool_choice) {
            (Some(tools), Some(given)) => {
                tools::write(tools, Some(given), &mut choice, &mut Vec::new())
            }
            _ => Ok(()),
        }
    }

    /// The fields' values in the body that was checked.
    pub(super) fn values<'a>(&'a self, body: &'a [u8]) -> Fields<Option<JsonValue<'a>>> {
        let value = |span: &Option<Range<usize>>| {
            let span = span.as_ref()?;
            Some(JsonValue::at(body, &self.index, span))
        };
        let fields = &self.fields;
        Fields {
            messages: value(&fields.messages),
            system: value(&fields.system),
            max_tokens: value(&fields.max_tokens),
            temperature: value(&fields.temperature),
            top_p: value(&fields.top_p),
            top_k: value(&fields.top_k),
            stop_sequences: value(&fields.stop_sequences),
            tools: value(&fields.tools),
            tool_choice: value(&fields.tool_choice),
            output_config: value(&fields.output_config),
            output_format: value(&fields.output_format),
        }
    }
}

/// Checks what holds in both modes (docs/contract/translation.md#4).
///
/// # Errors
///
/// Status 400; the message names the field and its bound.
pub fn check(body: &[u8]) -> Result<Checked, Refusal> {
    let mut index = SpanIndex::default();
    let read = Read::of(body, &mut index)?;
    let model = model_in(&read).ok_or_else(|| invalid("model", "expected a non-empty string"))?;
    let Read {
        stream,
        thinking,
        metadata,
        fields,
        ..
    } = read;
    check_types(&fields, stream, metadata)?;
    if fields
        .messages
        .is_none_or(|messages| messages.elements().next().is_none())
    {
        return Err(invalid("messages", "at least one message is required"));
    }
    let max_tokens = fields.max_tokens.and_then(JsonValue::unsigned);
    if max_tokens.is_none_or(|tokens| tokens == 0) {
        return Err(invalid("max_tokens", "expected an integer of at least 1"));
    }
    check_range("temperature", fields.temperature, 2.0)?;
    check_range("top_p", fields.top_p, 1.0)?;
    if fields.top_k.is_some_and(|top_k| top_k.unsigned().is_none()) {
        return Err(invalid("top_k", "expected an integer of at least 0"));
    }
    let tools = fields.tools;
    let survey = Survey::of(&fields);
    Ok(Checked {
        model,
        stream: stream.is_some_and(JsonValue::is_true),
        uses: Uses {
            tools: tools.is_some_and(|tools| tools.elements().next().is_some()),
            thinking: thinking.is_some_and(asks_for_thinking),
            vision: survey.has_images,
            structure: output_format(&fields).is_some(),
        },
        survey,
        fields: fields.spans(),
        index,
    })
}

/// What one walk over messages and tools finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Survey {
    /// A message has an image block, at its top level or in a tool's result.
    has_images: bool,
    /// There is something that translation may refuse.
    pub(crate) is_doubtful: bool,
    /// There is a tool that translation leaves out.
    pub(crate) loses_tool: bool,
    /// A system message follows another one.
    pub(crate) has_late_system: bool,
}

impl Survey {
    fn of(fields: &Fields<Option<JsonValue<'_>>>) -> Self {
        let mut survey = Self::default();
        let mut leading = true;
        for message in fields.messages.into_iter().flat_map(JsonValue::elements) {
            let [role, content] = message.fields(["role", "content"]);
            let role = role.and_then(JsonValue::string);
            let is = |name| role.is_some_and(|role| role.is(name));
            let is_system = is("system");
            survey.has_late_system |= is_system && !leading;
            leading &= is_system;
            let has_text = content
                .is_some_and(|content| content.is(JsonKind::String) || content.is(JsonKind::Array));
            survey.is_doubtful |= !(is_system || is("user") || is("assistant")) || !has_text;
            content
                .into_iter()
                .flat_map(blocks)
                .for_each(|block| survey.block(block));
        }
        let tools = fields.tools.into_iter().flat_map(JsonValue::elements);
        survey.loses_tool = tools
            .filter(|tool| tool.is(JsonKind::Object))
            .any(|tool| tools::kept_name(tool).is_none());
        let choice = fields
            .tool_choice
            .filter(|choice| choice.is(JsonKind::Object));
        let [kind, name] = choice.map_or([None; 2], |choice| choice.fields(["type", "name"]));
        let is_tool = kind.is_some_and(|kind| kind.string().is_some_and(|kind| kind.is("tool")));
        let name = name.and_then(JsonValue::string);
        survey.is_doubtful |= is_tool && name.is_none_or(JsonText::is_empty);
        survey
    }

    fn block(&mut self, block: JsonValue<'_>) {
        let [kind, content] = block.fields(["type", "content"]);
        let kind = kind.and_then(JsonValue::string);
        let is = |name| kind.is_some_and(|kind| kind.is(name));
        if is("tool_result") {
            let Some(content) = content.filter(|content| !content.is(JsonKind::String)) else {
                return;
            };
            self.has_images |= holds_image(content);
            self.is_doubtful = true;
        } else {
            self.has_images |= is("image");
            self.is_doubtful |= is("image") || is("document");
        }
    }
}

/// The model that an invalid request names. It decides which endpoints the statistics count the
/// request for.
pub(crate) fn model_of(body: &[u8]) -> Option<String> {
    let mut index = SpanIndex::default();
    model_in(&Read::of(body, &mut index).ok()?)
}

fn model_in(read: &Read<'_>) -> Option<String> {
    let model = read.model.and_then(JsonValue::string)?;
    Some(model.decode().trim().to_owned()).filter(|model| !model.is_empty())
}

/// Like [`check`], for `count_tokens`: `model`, `messages` and `max_tokens` may
/// be missing, numbers out of range, but nothing has another type
/// (docs/contract/translation.md#11).
pub(super) fn check_countable<'a>(
    body: &'a [u8],
    index: &'a mut SpanIndex,
) -> Result<Fields<Option<JsonValue<'a>>>, Refusal> {
    let read = Read::of(body, index)?;
    if read.model.is_some_and(|model| !model.is(JsonKind::String)) {
        return Err(invalid("model", "expected a string"));
    }
    let is_text = |system: JsonValue<'_>| system.is(JsonKind::String) || system.is(JsonKind::Array);
    if read.fields.system.is_some_and(|system| !is_text(system)) {
        return Err(invalid("system", "expected a string or an array"));
    }
    check_types(&read.fields, read.stream, read.metadata)?;
    Ok(read.fields)
}

/// The members of a body that have a meaning here, `null` left out.
struct Read<'a> {
    model: Option<JsonValue<'a>>,
    stream: Option<JsonValue<'a>>,
    thinking: Option<JsonValue<'a>>,
    metadata: Option<JsonValue<'a>>,
    fields: Fields<Option<JsonValue<'a>>>,
}

impl<'a> Read<'a> {
    fn of(body: &'a [u8], index: &'a mut SpanIndex) -> Result<Self, Refusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Refusal::invalid("the request has no body"));
        }
        let request = json::parse_indexed(body, index)
            .ok_or_else(|| Refusal::invalid("the body is not valid JSON"))?;
        if !request.is(JsonKind::Object) {
            return Err(Refusal::invalid("the body must be a JSON object"));
        }
        let [model, stream, thinking, metadata] =
            request.given(["model", "stream", "thinking", "metadata"]);
        let [
            messages,
            system,
            max_tokens,
            temperature,
            top_p,
            top_k,
            stop_sequences,
            tools,
            tool_choice,
            output_config,
            output_format,
        ] = request.given([
            "messages",
            "system",
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "stop_sequences",
            "tools",
            "tool_choice",
            "output_config",
            "output_format",
        ]);
        Ok(Self {
            model,
            stream,
            thinking,
            metadata,
            fields: Fields {
                messages,
                system,
                max_tokens,
                temperature,
                top_p,
                top_k,
                stop_sequences,
                tools,
                tool_choice,
                output_config,
                output_format,
            },
        })
    }
}

fn check_types(
    fields: &Fields<Option<JsonValue<'_>>>,
    stream: Option<JsonValue<'_>>,
    metadata: Option<JsonValue<'_>>,
) -> Result<(), Refusal> {
    for (name, value, kind, expected) in [
        ("messages", fields.messages, JsonKind::Array, "an array"),
        (
            "max_tokens",
            fields.max_tokens,
            JsonKind::Number,
            "an integer",
        ),
        (
            "temperature",
            fields.temperature,
            JsonKind::Number,
            "a number",
        ),
        ("top_p", fields.top_p, JsonKind::Number, "a number"),
        ("top_k", fields.top_k, JsonKind::Number, "an integer"),
        (
            "stop_sequences",
            fields.stop_sequences,
            JsonKind::Array,
            "an array",
        ),
        ("tools", fields.tools, JsonKind::Array, "an array"),
        ("stream", stream, JsonKind::Bool, "a boolean"),
        ("metadata", metadata, JsonKind::Object, "an object"),
    ] {
        if value.is_some_and(|value| !value.is(kind)) {
            return Err(invalid(name, &format!("expected {expected}")));
        }
    }
    for (name, list, kind, expected) in [
        ("messages", fields.messages, JsonKind::Object, "an object"),
        (
            "stop_sequences",
            fields.stop_sequences,
            JsonKind::String,
            "a string",
        ),
    ] {
        let mut elements = list.into_iter().flat_map(JsonValue::elements);
        if let Some(at) = elements.position(|element| !element.is(kind)) {
            return Err(invalid(
                &format!("{name}.{at}"),
                &format!("expected {expected}"),
            ));
        }
    }
    Ok(())
}

fn check_range(name: &str, value: Option<JsonValue<'_>>, max: f64) -> Result<(), Refusal> {
    match value.map(JsonValue::number) {
        None => Ok(()),
        Some(Some(number)) if (0.0..=max).contains(&number) => Ok(()),
        Some(_) => Err(invalid(
            name,
            &format!("expected a number from 0 to {max:.0}"),
        )),
    }
}

fn asks_for_thinking(thinking: JsonValue<'_>) -> bool {
    !thinking
        .string_field("type")
        .is_some_and(|kind| kind.is("disabled"))
}

#[cfg(test)]
mod tests;
