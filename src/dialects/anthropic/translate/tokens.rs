//! Estimates the tokens of a request as a quarter of the bytes that a model reads and a fixed number
//! for each image, without a request to an endpoint (docs/contract/translation.md#11).

use super::fields::{Fields, blocks};
use crate::dialects::chat::tokens::InputSize;
use crate::json::{JsonKind, JsonValue};

/// How many levels of blocks inside blocks are counted: a document in a tool's result is the
/// deepest that the API knows of.
const LEVELS_MAX: u32 = 4;

/// What a model reads of a request with these fields.
pub(super) fn measure(fields: &Fields<Option<JsonValue<'_>>>) -> InputSize {
    let mut counter = Counter::default();
    if let Some(system) = fields.system {
        counter.system(system);
    }
    for message in fields.messages.into_iter().flat_map(JsonValue::elements) {
        if let Some(content) = message.field("content") {
            counter.content(content, LEVELS_MAX);
        }
    }
    for tool in fields.tools.into_iter().flat_map(JsonValue::elements) {
        let [name, description, schema] = tool.given(["name", "description", "input_schema"]);
        counter.text(name);
        counter.text(description);
        counter.json(schema);
    }
    counter.size
}

#[derive(Default)]
struct Counter {
    size: InputSize,
    /// Reused for the compact form of values.
    scratch: Vec<u8>,
}

impl Counter {
    fn text(&mut self, value: Option<JsonValue<'_>>) {
        if let Some(text) = value.and_then(JsonValue::string) {
            self.size.bytes += text.len() as u64;
        }
    }

    fn json(&mut self, value: Option<JsonValue<'_>>) {
        if let Some(value) = value {
            self.scratch.clear();
            value.write_compact(&mut self.scratch);
            self.size.bytes += self.scratch.len() as u64;
        }
    }

    fn system(&mut self, system: JsonValue<'_>) {
        self.text(Some(system));
        for block in blocks(system) {
            let [kind, text] = block.fields(["type", "text"]);
            if kind
                .and_then(JsonValue::string)
                .is_some_and(|kind| kind.is("text"))
            {
                self.text(text);
            }
        }
    }

    fn content(&mut self, content: JsonValue<'_>, levels: u32) {
        self.text(Some(content));
        if levels > 0 {
            blocks(content).for_each(|block| self.block(block, levels - 1));
        }
    }

    fn block(&mut self, block: JsonValue<'_>, levels: u32) {
        let [kind, text, name, input, content, source, title] = block.given([
            "type", "text", "name", "input", "content", "source", "title",
        ]);
        let Some(kind) = kind.and_then(JsonValue::string) else {
            return;
        };
        match kind.decode().as_ref() {
            "text" => self.text(text),
            "image" => self.size.images += 1,
            "tool_use" => {
                self.text(name);
                self.json(input);
            }
            "tool_result" => content
                .into_iter()
                .for_each(|content| self.content(content, levels)),
            "document" => {
                self.text(title);
                if let Some(source) = source {
                    self.document(source, levels);
                }
            }
            "search_result" => {
                self.text(title);
                content
                    .into_iter()
                    .for_each(|content| self.content(content, levels));
            }
            _ => {}
        }
    }

    fn document(&mut self, source: JsonValue<'_>, levels: u32) {
        let [kind, data, content] = source.given(["type", "data", "content"]);
        let kind = kind.and_then(JsonValue::string);
        let is = |name| kind.is_some_and(|kind| kind.is(name));
        if is("text") {
            self.text(data);
        } else if is("content")
            && let Some(content) = content.filter(|content| !content.is(JsonKind::Null))
        {
            self.content(content, levels);
        }
    }
}
