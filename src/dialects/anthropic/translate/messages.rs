//! System prompt and messages (docs/contract/translation.md#7.1, docs/contract/translation.md#7.2).
//!
//! A message is written before it is known whether it has any content, and removed if not. So the
//! content is read once.

use super::fields::{blocks, holds_image};
use crate::dialects::chat::error::{Refusal, invalid};
use crate::json::{self, JsonKind, JsonText, JsonValue};

/// Writes the elements of OpenAI's `messages`.
pub(super) struct Messages<'o> {
    out: &'o mut Vec<u8>,
    /// The length of `out` before the first message.
    first: usize,
    /// Reused for the JSON text of tool inputs.
    scratch: Vec<u8>,
}

/// Where a block stands, for refusals.
#[derive(Clone, Copy)]
struct Place {
    message: usize,
    block: usize,
}

impl Place {
    fn invalid(self, field: &str, problem: &str) -> Refusal {
        let Self { message, block } = self;
        invalid(
            &format!("messages.{message}.content.{block}{field}"),
            problem,
        )
    }
}

impl<'o> Messages<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        Self {
            first: out.len(),
            out,
            scratch: Vec::new(),
        }
    }

    /// Whether none was written.
    pub(super) fn is_empty(&self) -> bool {
        self.out.len() == self.first
    }

    /// The system prompt becomes the first message, unless it is empty.
    pub(super) fn system(&mut self, system: Option<JsonValue<'_>>) {
        if let Some(system) = system {
            self.plain("system", system);
        }
    }

    /// One message of the request, which may become several or none.
    pub(super) fn message(&mut self, at: usize, message: JsonValue<'_>) -> Result<(), Refusal> {
        let [role, content] = message.fields(["role", "content"]);
        let content = content
            .filter(|content| {
                matches!(
                    content.kind(),
                    JsonKind::String | JsonKind::Array | JsonKind::Object
                )
            })
            .ok_or_else(|| {
                invalid(
                    &format!("messages.{at}.content"),
                    "expected a string or an array of blocks",
                )
            })?;
        let role = role.and_then(JsonValue::string);
        let is = |name| role.is_some_and(|role: JsonText<'_>| role.is(name));
        if is("user") {
            return self.user(at, content);
        }
        if is("assistant") {
            self.assistant(content);
            return Ok(());
        }
        if is("system") {
            self.plain("system", content);
            return Ok(());
        }
        Err(invalid(
            &format!("messages.{at}.role"),
            "expected user, assistant or system",
        ))
    }

    /// Begins a message, up to and with the key of its content. Returns what to truncate to if
    /// nothing comes of it.
    fn begin(&mut self, role: &str) -> usize {
        let start = self.out.len();
        if start > self.first {
            self.out.push(b',');
        }
        self.out.extend_from_slice(br#"{"role":""#);
        self.out.extend_from_slice(role.as_bytes());
        self.out.extend_from_slice(br#"","content":"#);
        start
    }

    /// Writes a message that holds only the texts.
    fn plain(&mut self, role: &str, content: JsonValue<'_>) {
        let start = self.begin(role);
        if self.texts(content) {
            self.out.push(b'}');
        } else {
            self.out.truncate(start);
        }
    }

    /// Writes the texts of a content as one string; nothing, and false, if there are none.
    fn texts(&mut self, content: JsonValue<'_>) -> bool {
        self.out.push(b'"');
        let start = self.out.len();
        if let Some(text) = content.string() {
            text.write(self.out);
        }
        for text in blocks(content).filter_map(text_of) {
            text.write(self.out);
        }
        if self.out.len() == start {
            self.out.truncate(start - 1);
            return false;
        }
        self.out.push(b'"');
        true
    }

    /// Tool results first, each its own message, then one message of all the rest: servers refuse
    /// anything between tool calls and their results.
    fn user(&mut self, message: usize, content: JsonValue<'_>) -> Result<(), Refusal> {
        let mut in_parts = false;
        for (block, value) in blocks(content).enumerate() {
            let [kind, inner] = value.fields(["type", "content"]);
            let Some(kind) = kind.and_then(JsonValue::string) else {
                continue;
            };
            if kind.is("tool_result") {
                self.tool_result(Place { message, block }, value)?;
                in_parts |= inner.is_some_and(holds_image);
            } else {
                in_parts |= kind.is("image") || kind.is("document") || kind.is("search_result");
            }
        }
        if in_parts {
            self.parts(message, content)
        } else {
            self.plain("user", content);
            Ok(())
        }
    }

    fn tool_result(&mut self, place: Place, block: JsonValue<'_>) -> Result<(), Refusal> {
        let [id, content, is_error] = block.given(["tool_use_id", "content", "is_error"]);
        self.begin("tool");
        self.out.push(b'"');
        let start = self.out.len();
        self.tool_content(place, content)?;
        if is_error.is_some_and(JsonValue::is_true) {
            const PREFIX: &[u8] = b"Error: ";
            let said = &self.out[start..];
            let says_so = said
                .get(..5)
                .is_some_and(|word| word.eq_ignore_ascii_case(b"error"));
            if !says_so {
                self.out.splice(start..start, PREFIX.iter().copied());
            }
        }
        self.out.extend_from_slice(br#"","tool_call_id":""#);
        if let Some(id) = id.and_then(JsonValue::string) {
            id.write(self.out);
        }
        self.out.extend_from_slice(br#""}"#);
        Ok(())
    }

    /// The inside of the string that a tool's result becomes: its texts, one a line.
    fn tool_content(
        &mut self,
        place: Place,
        content: Option<JsonValue<'_>>,
    ) -> Result<(), Refusal> {
        let Some(content) = content else {
            return Ok(());
        };
        if let Some(text) = content.string() {
            text.write(self.out);
        } else if !matches!(content.kind(), JsonKind::Array | JsonKind::Object) {
            // Numbers and booleans are sent as their JSON text.
            content.write_compact(self.out);
        }
        let mut lines = Lines::default();
        for block in blocks(content) {
            let kind = block.string_field("type");
            let is = |name| kind.is_some_and(|kind| kind.is(name));
            if let Some(text) = text_of(block) {
                lines.add(text, self.out);
            } else if is("document") {
                document_texts(place, block, &mut |text| lines.add(text, self.out))?;
            } else if is("search_result") {
                search_texts(block, &mut |text| lines.add(text, self.out));
            }
        }
        Ok(())
    }

    /// A user message of parts, in the order of the blocks.
    fn parts(&mut self, message: usize, content: JsonValue<'_>) -> Result<(), Refusal> {
        let start = self.begin("user");
        self.out.push(b'[');
        let first = self.out.len();
        for (block, value) in blocks(content).enumerate() {
            let place = Place { message, block };
            if let Some(text) = text_of(value) {
                self.text_part(first, text);
                continue;
            }
            let [kind, inner] = value.fields(["type", "content"]);
            let Some(kind) = kind.and_then(JsonValue::string) else {
                continue;
            };
            match kind.decode().as_ref() {
                "image" => self.image_part(first, place, value)?,
                "document" => self.document_parts(first, place, value)?,
                "search_result" => {
                    self.lines_part(first, |add| {
                        search_texts(value, add);
                        Ok(())
                    })?;
                }
                "tool_result" => {
                    for image in inner.into_iter().flat_map(blocks) {
                        let kind = image.string_field("type");
                        if kind.is_some_and(|kind| kind.is("image")) {
                            self.image_part(first, place, image)?;
                        }
                    }
                }
                _ => {}
            }
        }
        if self.out.len() == first {
            self.out.truncate(start);
        } else {
            self.out.extend_from_slice(b"]}");
        }
        Ok(())
    }

    fn text_part(&mut self, first: usize, text: JsonText<'_>) {
        if text.is_empty() {
            return;
        }
        self.begin_part(first, br#"{"type":"text","text":""#);
        text.write(self.out);
        self.out.extend_from_slice(br#""}"#);
    }

    /// One text part of several texts, one a line; nothing if all are empty.
    fn lines_part(
        &mut self,
        first: usize,
        texts: impl FnOnce(&mut dyn FnMut(JsonText<'_>)) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let start = self.out.len();
        self.begin_part(first, br#"{"type":"text","text":""#);
        let mut lines = Lines::default();
        texts(&mut |text| lines.add(text, self.out))?;
        if lines.any {
            self.out.extend_from_slice(br#""}"#);
        } else {
            self.out.truncate(start);
        }
        Ok(())
    }

    fn begin_part(&mut self, first: usize, opening: &[u8]) {
        if self.out.len() > first {
            self.out.push(b',');
        }
        self.out.extend_from_slice(opening);
    }

    fn image_part(
        &mut self,
        first: usize,
        place: Place,
        block: JsonValue<'_>,
    ) -> Result<(), Refusal> {
        let source = block.field("source");
        let [kind, media_type, data, url] = source.map_or([None; 4], |source| {
            source
                .fields(["type", "media_type", "data", "url"])
                .map(|field| field.and_then(JsonValue::string))
        });
        let is = |name| kind.is_some_and(|kind| kind.is(name));
        self.begin_part(first, br#"{"type":"image_url","image_url":{"url":""#);
        match (media_type, data, url) {
            (Some(media_type), Some(data), _) if is("base64") => {
                self.out.extend_from_slice(b"data:");
                media_type.write(self.out);
                self.out.extend_from_slice(b";base64,");
                data.write(self.out);
            }
            (_, _, Some(url)) if is("url") => url.write(self.out),
            _ => {
                return Err(place.invalid(
                    ".source",
                    "an image can be sent to this model as base64 data or as a url only",
                ));
            }
        }
        self.out.extend_from_slice(br#""}}"#);
        Ok(())
    }

    fn document_parts(
        &mut self,
        first: usize,
        place: Place,
        block: JsonValue<'_>,
    ) -> Result<(), Refusal> {
        let Some(content) = document_content(block) else {
            return self.lines_part(first, |add| document_texts(place, block, add));
        };
        if let Some(title) = block.string_field("title") {
            self.text_part(first, title);
        }
        if let Some(text) = content.string() {
            self.text_part(first, text);
        }
        for inner in blocks(content) {
            let kind = inner.string_field("type");
            if let Some(text) = text_of(inner) {
                self.text_part(first, text);
            } else if kind.is_some_and(|kind| kind.is("image")) {
                self.image_part(first, place, inner)?;
            }
        }
        Ok(())
    }

    fn assistant(&mut self, content: JsonValue<'_>) {
        let start = self.begin("assistant");
        let has_text = self.texts(content);
        if !has_text {
            self.out.extend_from_slice(b"null");
        }
        let before_calls = self.out.len();
        self.out.extend_from_slice(br#","tool_calls":["#);
        let first_call = self.out.len();
        for block in blocks(content) {
            self.tool_call(first_call, block);
        }
        if self.out.len() > first_call {
            self.out.extend_from_slice(b"]}");
        } else if has_text {
            self.out.truncate(before_calls);
            self.out.push(b'}');
        } else {
            self.out.truncate(start);
        }
    }

    fn tool_call(&mut self, first: usize, block: JsonValue<'_>) {
        let [kind, id, name, input] = block.given(["type", "id", "name", "input"]);
        let filled = |value: Option<JsonValue<'_>>| {
            value.is_some_and(|value| value.string().is_some_and(|text| !text.is_empty()))
        };
        let is_call = kind
            .and_then(JsonValue::string)
            .is_some_and(|kind| kind.is("tool_use"));
        let (true, Some(id), Some(name)) = (is_call && filled(id) && filled(name), id, name) else {
            return;
        };
        self.begin_part(first, br#"{"id":"#);
        id.write_compact(self.out);
        self.out
            .extend_from_slice(br#","type":"function","function":{"name":"#);
        name.write_compact(self.out);
        self.out.extend_from_slice(br#","arguments":""#);
        match input {
            Some(input) => {
                self.scratch.clear();
                input.write_compact(&mut self.scratch);
                json::write_escaped(&self.scratch, self.out);
            }
            None => self.out.extend_from_slice(b"{}"),
        }
        self.out.extend_from_slice(br#""}}"#);
    }
}

/// Joins texts with line feeds, inside of a JSON string.
#[derive(Default)]
struct Lines {
    any: bool,
}

impl Lines {
    fn add(&mut self, text: JsonText<'_>, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        if self.any {
            out.extend_from_slice(b"\\n");
        }
        self.any = true;
        text.write(out);
    }
}

/// The text of a text block.
fn text_of(block: JsonValue<'_>) -> Option<JsonText<'_>> {
    let [kind, text] = block.fields(["type", "text"]);
    let is_text = kind
        .and_then(JsonValue::string)
        .is_some_and(|kind| kind.is("text"));
    text.and_then(JsonValue::string).filter(|_| is_text)
}

/// The content of a document with a source of blocks.
fn document_content(block: JsonValue<'_>) -> Option<JsonValue<'_>> {
    let [kind, content] = block.field("source")?.fields(["type", "content"]);
    content.filter(|_| {
        kind.and_then(JsonValue::string)
            .is_some_and(|kind| kind.is("content"))
    })
}

/// Title and texts of a document, for where only text can go.
fn document_texts(
    place: Place,
    block: JsonValue<'_>,
    add: &mut dyn FnMut(JsonText<'_>),
) -> Result<(), Refusal> {
    let content = document_content(block);
    let [kind, data] = block.field("source").map_or([None; 2], |source| {
        source
            .fields(["type", "data"])
            .map(|field| field.and_then(JsonValue::string))
    });
    let data = data.filter(|_| kind.is_some_and(|kind| kind.is("text")));
    if content.is_none() && data.is_none() {
        return Err(place.invalid(
            ".source",
            "a document can be sent to this model as plain text or as content blocks only",
        ));
    }
    if let Some(title) = block.string_field("title") {
        add(title);
    }
    data.into_iter().for_each(&mut *add);
    if let Some(content) = content {
        content.string().into_iter().for_each(&mut *add);
        blocks(content).filter_map(text_of).for_each(add);
    }
    Ok(())
}

/// Title and texts of a search result.
fn search_texts(block: JsonValue<'_>, add: &mut dyn FnMut(JsonText<'_>)) {
    let [title, content] = block.fields(["title", "content"]);
    title
        .and_then(JsonValue::string)
        .into_iter()
        .for_each(&mut *add);
    let content = content.into_iter();
    content.flat_map(blocks).filter_map(text_of).for_each(add);
}
