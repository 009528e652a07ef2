//! The members of a request that validation, translation and counting share, and the blocks of a
//! content.

use std::ops::Range;

use crate::json::{JsonKind, JsonValue};

/// The members of a request that are read here or translated.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields<T> {
    pub(super) messages: T,
    pub(super) system: T,
    pub(super) max_tokens: T,
    pub(super) temperature: T,
    pub(super) top_p: T,
    pub(super) top_k: T,
    pub(super) stop_sequences: T,
    pub(super) tools: T,
    pub(super) tool_choice: T,
    pub(super) output_config: T,
    pub(super) output_format: T,
}

impl Fields<Option<JsonValue<'_>>> {
    pub(super) fn spans(self) -> Fields<Option<Range<usize>>> {
        Fields {
            messages: self.messages.map(JsonValue::span),
            system: self.system.map(JsonValue::span),
            max_tokens: self.max_tokens.map(JsonValue::span),
            temperature: self.temperature.map(JsonValue::span),
            top_p: self.top_p.map(JsonValue::span),
            top_k: self.top_k.map(JsonValue::span),
            stop_sequences: self.stop_sequences.map(JsonValue::span),
            tools: self.tools.map(JsonValue::span),
            tool_choice: self.tool_choice.map(JsonValue::span),
            output_config: self.output_config.map(JsonValue::span),
            output_format: self.output_format.map(JsonValue::span),
        }
    }
}

/// Whether one of the blocks of a content is an image.
pub(super) fn holds_image(content: JsonValue<'_>) -> bool {
    blocks(content).any(|block| {
        block
            .string_field("type")
            .is_some_and(|kind| kind.is("image"))
    })
}

/// The format of structured output that the request asks for, in the form of today or of before.
pub(super) fn output_format<'a>(fields: &Fields<Option<JsonValue<'a>>>) -> Option<JsonValue<'a>> {
    let format = fields
        .output_config
        .and_then(|output| output.field("format"));
    format
        .or(fields.output_format)
        .filter(|format| format.is(JsonKind::Object))
}

/// The blocks of a content: an array's elements, or the only one; items that are not objects are
/// left out (docs/contract/translation.md#7.2).
pub(super) fn blocks(content: JsonValue<'_>) -> impl Iterator<Item = JsonValue<'_>> + Clone {
    let single = content.is(JsonKind::Object).then_some(content);
    content
        .elements()
        .filter(|element| element.is(JsonKind::Object))
        .chain(single)
}
