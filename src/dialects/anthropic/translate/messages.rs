//! System prompt and messages (docs/contract/translation.md#7.1, docs/contract/translation.md#7.2,
//! docs/contract/dialects.md#15).

use super::fields::{blocks, holds_image};
use crate::dialects::chat::completion::filled;
use crate::dialects::chat::error::{Refusal, invalid};
use crate::dialects::chat::messages::{
    Messages, Prose, Said, ToolCall, ToolResult, UserContent, UserPart,
};
use crate::json::{JsonKind, JsonText, JsonValue};

/// What Claude Code begins a text with that changes with every request, so that no server can reuse
/// what it has computed for the text after it.
const BILLING_HEADER: &str = "x-anthropic-billing-header:";

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

/// The conversation of a request, its system prompt first.
pub(super) fn read<'a>(
    system: Option<JsonValue<'a>>,
    list: impl Iterator<Item = JsonValue<'a>>,
) -> Result<Messages<'a>, Refusal> {
    let mut messages = Messages::keeping_orphans();
    if let Some(system) = system {
        messages.system(system_prompt(system));
    }
    let mut leading = true;
    for (at, message) in list.enumerate() {
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
        if is("system") {
            let text = texts(content);
            if !(leading && text.starts_with(BILLING_HEADER)) {
                messages.system(text);
            }
            continue;
        }
        leading = false;
        if is("user") {
            user(&mut messages, at, content)?;
        } else if is("assistant") {
            assistant(&mut messages, content);
        } else {
            return Err(invalid(
                &format!("messages.{at}.role"),
                "expected user, assistant or system",
            ));
        }
    }
    Ok(messages)
}

/// The system prompt without what is there for accounting.
fn system_prompt(system: JsonValue<'_>) -> Prose<'_> {
    let mut prose = Prose::EMPTY;
    if let Some(text) = system.string() {
        if memchr::memmem::find(system.raw(), BILLING_HEADER.as_bytes()).is_none() {
            prose.json(text);
        } else {
            let text = text.decode();
            let lines = text.split_inclusive('\n');
            let kept = lines.filter(|line| !line.starts_with(BILLING_HEADER));
            prose.plain(kept.collect::<String>());
        }
    }
    for text in blocks(system).filter_map(text_of) {
        if !Prose::from(text).starts_with(BILLING_HEADER) {
            prose.json(text);
        }
    }
    prose
}

/// The texts of a content, joined.
fn texts(content: JsonValue<'_>) -> Prose<'_> {
    let mut prose = Prose::EMPTY;
    content
        .string()
        .into_iter()
        .for_each(|text| prose.json(text));
    let texts = blocks(content).filter_map(text_of);
    texts.for_each(|text| prose.json(text));
    prose
}

/// Tool results first, each its own message, then one message of all the rest: servers refuse
/// anything between tool calls and their results.
fn user<'a>(
    messages: &mut Messages<'a>,
    message: usize,
    content: JsonValue<'a>,
) -> Result<(), Refusal> {
    let mut in_parts = false;
    for (block, value) in blocks(content).enumerate() {
        let [kind, inner] = value.fields(["type", "content"]);
        let Some(kind) = kind.and_then(JsonValue::string) else {
            continue;
        };
        if kind.is("tool_result") {
            messages.result(tool_result(Place { message, block }, value)?);
            in_parts |= inner.is_some_and(holds_image);
        } else {
            in_parts |= kind.is("image") || kind.is("document") || kind.is("search_result");
        }
    }
    let mut user = UserContent::default();
    if in_parts {
        user.keep_parts();
        parts(&mut user, message, content)?;
    } else {
        user.text(texts(content));
    }
    if !user.is_empty() {
        messages.user(user);
    }
    Ok(())
}

fn tool_result(place: Place, block: JsonValue<'_>) -> Result<ToolResult<'_>, Refusal> {
    let [id, content, is_error] = block.given(["tool_use_id", "content", "is_error"]);
    let said = match content {
        Some(content) => tool_content(place, content)?,
        None => Prose::EMPTY,
    };
    let mut text = Prose::EMPTY;
    if is_error.is_some_and(JsonValue::is_true) && !said.starts_with("error") {
        text.plain("Error: ");
    }
    text.join("", said);
    Ok(ToolResult {
        call_id: id
            .and_then(JsonValue::string)
            .map_or(Prose::EMPTY, Prose::from),
        text,
        images: Vec::new(),
    })
}

/// The text that a tool's result becomes: its texts, one a line.
fn tool_content(place: Place, content: JsonValue<'_>) -> Result<Prose<'_>, Refusal> {
    let mut lines = Prose::EMPTY;
    if let Some(text) = content.string() {
        lines.json(text);
    } else if !matches!(content.kind(), JsonKind::Array | JsonKind::Object) {
        // Numbers and booleans are sent as their JSON text.
        lines.value(content);
    }
    for block in blocks(content) {
        let kind = block.string_field("type");
        let is = |name| kind.is_some_and(|kind| kind.is(name));
        if let Some(text) = text_of(block) {
            lines.join("\n", text.into());
        } else if is("document") {
            lines.join("\n", document_texts(place, block)?);
        } else if is("search_result") {
            lines.join("\n", search_texts(block));
        }
    }
    Ok(lines)
}

/// The parts of a user message, in the order of the blocks.
fn parts<'a>(
    user: &mut UserContent<'a>,
    message: usize,
    content: JsonValue<'a>,
) -> Result<(), Refusal> {
    for (block, value) in blocks(content).enumerate() {
        let place = Place { message, block };
        if let Some(text) = text_of(value) {
            user.text(text);
            continue;
        }
        let [kind, inner] = value.fields(["type", "content"]);
        let Some(kind) = kind.and_then(JsonValue::string) else {
            continue;
        };
        match kind.decode().as_ref() {
            "image" => user.push(image(place, value)?),
            "document" => document(user, place, value)?,
            "search_result" => user.text(search_texts(value)),
            "tool_result" => {
                for value in inner.into_iter().flat_map(blocks) {
                    let kind = value.string_field("type");
                    if kind.is_some_and(|kind| kind.is("image")) {
                        user.push(image(place, value)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn image(place: Place, block: JsonValue<'_>) -> Result<UserPart<'_>, Refusal> {
    let source = block.field("source");
    let [kind, media_type, data, address] = source.map_or([None; 4], |source| {
        source
            .fields(["type", "media_type", "data", "url"])
            .map(|field| field.and_then(JsonValue::string))
    });
    let is = |name| kind.is_some_and(|kind| kind.is(name));
    let mut url = Prose::EMPTY;
    match (media_type, data, address) {
        (Some(media_type), Some(data), _) if is("base64") => {
            url.plain("data:");
            url.json(media_type);
            url.plain(";base64,");
            url.json(data);
        }
        (_, _, Some(address)) if is("url") => url.json(address),
        _ => {
            return Err(place.invalid(
                ".source",
                "an image can be sent to this model as base64 data or as a url only",
            ));
        }
    }
    Ok(UserPart::Image { url, detail: None })
}

fn document<'a>(
    user: &mut UserContent<'a>,
    place: Place,
    block: JsonValue<'a>,
) -> Result<(), Refusal> {
    let Some(content) = document_content(block) else {
        user.text(document_texts(place, block)?);
        return Ok(());
    };
    let title = block.string_field("title").into_iter();
    title
        .chain(content.string())
        .for_each(|text| user.text(text));
    for inner in blocks(content) {
        let kind = inner.string_field("type");
        if let Some(text) = text_of(inner) {
            user.text(text);
        } else if kind.is_some_and(|kind| kind.is("image")) {
            user.push(image(place, inner)?);
        }
    }
    Ok(())
}

fn assistant<'a>(messages: &mut Messages<'a>, content: JsonValue<'a>) {
    messages.assistant(texts(content), Said::AsMessage);
    blocks(content)
        .filter_map(tool_call)
        .for_each(|call| messages.call(call));
}

fn tool_call(block: JsonValue<'_>) -> Option<ToolCall<'_>> {
    let [kind, id, name, input] = block.given(["type", "id", "name", "input"]);
    kind?.string().filter(|kind| kind.is("tool_use"))?;
    Some(ToolCall {
        id: filled(id)?.into(),
        name: filled(name)?.into(),
        arguments: input.map_or_else(|| Prose::from("{}"), Prose::from),
    })
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

/// Title and texts of a document, one a line, for where only text can go.
fn document_texts(place: Place, block: JsonValue<'_>) -> Result<Prose<'_>, Refusal> {
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
    let mut lines = Prose::EMPTY;
    let title = block.string_field("title").into_iter();
    let inner = content.and_then(JsonValue::string).into_iter();
    let texts = content.into_iter().flat_map(blocks).filter_map(text_of);
    title
        .chain(data)
        .chain(inner)
        .chain(texts)
        .for_each(|text| lines.join("\n", text.into()));
    Ok(lines)
}

/// Title and texts of a search result, one a line.
fn search_texts(block: JsonValue<'_>) -> Prose<'_> {
    let [title, content] = block.fields(["title", "content"]);
    let mut lines = Prose::EMPTY;
    let title = title.and_then(JsonValue::string).into_iter();
    let content = content.into_iter();
    title
        .chain(content.flat_map(blocks).filter_map(text_of))
        .for_each(|text| lines.join("\n", text.into()));
    lines
}
