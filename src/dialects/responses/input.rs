//! The items of a request's input, as messages (docs/contract/dialects.md#6).

use std::collections::HashMap;

use super::file;
use super::names::sent_name;
use super::objection::unknown_item;
use super::reasoning;
use super::tools::LOCAL_SHELL;
use crate::dialects::chat::error::{Refusal, invalid};
use crate::dialects::chat::messages::{
    Messages, Prose, Said, ToolCall, ToolResult, UserContent, UserPart,
};
use crate::json::{self, JsonKind, JsonText, JsonValue};

/// Items that hold nothing that a model must read.
const SILENT: [&str; 8] = [
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_list_tools",
    "compaction_trigger",
    "tool_search_call",
    "additional_tools",
];

/// The JSON texts of stored items, by their ids.
pub(crate) type ReferencedItems = HashMap<String, Vec<u8>>;

/// The ids of stored items that an input refers to.
pub(super) fn references<'a>(
    items: impl Iterator<Item = JsonValue<'a>>,
) -> impl Iterator<Item = String> {
    let of_item = |item: JsonValue<'a>| {
        let [kind, id] = item.fields(["type", "id"]);
        let is_reference = kind.and_then(JsonValue::string)?.is("item_reference");
        let id = id.and_then(JsonValue::string)?.decode().into_owned();
        is_reference.then_some(id)
    };
    items.filter_map(of_item)
}

/// Makes messages of items.
pub(super) struct ItemReader<'m, 'a> {
    pub(super) messages: &'m mut Messages<'a>,
    /// `None` = references are passed over.
    pub(super) referenced: Option<&'a ReferencedItems>,
    /// Names of what is left out.
    pub(super) dropped: &'m mut Vec<String>,
}

impl<'a> ItemReader<'_, 'a> {
    /// One item.
    pub(super) fn item(&mut self, item: JsonValue<'a>) -> Result<(), Refusal> {
        let [kind, role] = item.given(["type", "role"]);
        let kind = match kind.and_then(JsonValue::string) {
            Some(kind) => kind.decode(),
            None if kind.is_none() && role.is_some() => "message".into(),
            None => return Err(invalid("input", "expected a type for each item")),
        };
        match kind.as_ref() {
            "message" => self.message(item)?,
            "function_call" => self.function_call(item),
            "custom_tool_call" => self.custom_call(item),
            "local_shell_call" => self.shell_call(item),
            "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
                self.output(item)?;
            }
            "reasoning" => self.messages.reasoning(reasoning_of(item)),
            "item_reference" => self.reference(item)?,
            other if SILENT.contains(&other) => {}
            other => self.dropped.push(format!("input.{other}")),
        }
        Ok(())
    }

    fn message(&mut self, item: JsonValue<'a>) -> Result<(), Refusal> {
        let [role, content] = item.given(["role", "content"]);
        let role = role.and_then(JsonValue::string);
        let role = role.map_or("".into(), JsonText::decode);
        match role.as_ref() {
            "user" => self.messages.user(user_content(content)?),
            "assistant" => {
                let text = texts(content, "an assistant message")?;
                self.messages.assistant(text, Said::AsItem);
            }
            "system" | "developer" => {
                let text = texts(content, "a system message")?;
                self.messages.system(text);
            }
            _ => {
                let problem = "expected the role user, assistant, system or developer";
                return Err(invalid("input", problem));
            }
        }
        Ok(())
    }

    fn function_call(&mut self, item: JsonValue<'a>) {
        let [arguments] = item.given(["arguments"]);
        let mut text = match arguments.map(|value| (value, value.string())) {
            Some((_, Some(text))) => Prose::from(text),
            Some((value, None)) => Prose::from(value),
            None => Prose::EMPTY,
        };
        if text.is_empty() {
            text = Prose::from("{}");
        }
        self.call(item, called_name(item), text);
    }

    fn custom_call(&mut self, item: JsonValue<'a>) {
        let [input] = item.given(["input"]);
        let mut arguments = br#"{"input":"#.to_vec();
        match input {
            Some(input) => input.write_compact(&mut arguments),
            None => arguments.extend_from_slice(b"\"\""),
        }
        arguments.push(b'}');
        self.call(item, called_name(item), text_of(&arguments).into());
    }

    fn shell_call(&mut self, item: JsonValue<'a>) {
        let mut arguments = b"{".to_vec();
        let [action] = item.given(["action"]);
        for (key, value) in action.into_iter().flat_map(JsonValue::members) {
            if key.is("type") || value.is(JsonKind::Null) {
                continue;
            }
            if arguments.len() > 1 {
                arguments.push(b',');
            }
            arguments.push(b'"');
            key.write(&mut arguments);
            arguments.extend_from_slice(b"\":");
            value.write_compact(&mut arguments);
        }
        arguments.push(b'}');
        self.call(item, LOCAL_SHELL.into(), text_of(&arguments).into());
    }

    fn call(&mut self, item: JsonValue<'a>, name: Prose<'a>, arguments: Prose<'a>) {
        self.messages.call(ToolCall {
            id: call_id(item),
            name,
            arguments,
        });
    }

    fn output(&mut self, item: JsonValue<'a>) -> Result<(), Refusal> {
        let mut result = ToolResult {
            call_id: call_id(item),
            text: Prose::EMPTY,
            images: Vec::new(),
        };
        let [output] = item.given(["output"]);
        if let Some(output) = output {
            let is_part = |part: JsonValue<'_>| part.string_field("type").is_some();
            match output.string() {
                Some(text) => result.text = text.into(),
                None if output.is(JsonKind::Array) && output.elements().all(is_part) => {
                    for part in output.elements() {
                        match part_of(part)? {
                            UserPart::Text(text) => result.text.join("\n", text),
                            part => result.images.push(part),
                        }
                    }
                }
                None => result.text = output.into(),
            }
        }
        self.messages.result(result);
        Ok(())
    }

    fn reference(&mut self, item: JsonValue<'a>) -> Result<(), Refusal> {
        let id = item.string_field("id").map_or("".into(), JsonText::decode);
        let Some(referenced) = self.referenced else {
            return Ok(());
        };
        let stored = referenced.get(id.as_ref());
        let Some(stored) = stored.and_then(|text| json::parse(text)) else {
            return Err(unknown_item(&id));
        };
        // A stored item refers to no other: references are resolved before items are stored.
        match stored.string_field("type") {
            Some(kind) if kind.is("item_reference") => Ok(()),
            _ => self.item(stored),
        }
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn call_id(item: JsonValue<'_>) -> Prose<'_> {
    let [call_id, id] = item
        .given(["call_id", "id"])
        .map(|field| field.and_then(JsonValue::string));
    call_id.or(id).map_or(Prose::EMPTY, Prose::from)
}

/// The name by which the endpoint knows the tool of a call.
fn called_name(item: JsonValue<'_>) -> Prose<'_> {
    let [name, namespace] = item
        .given(["name", "namespace"])
        .map(|field| Some(field?.string()?.decode()));
    sent_name(namespace.as_deref(), &name.unwrap_or("".into())).into()
}

/// What the model thought: the text that the gateway wrapped, else what can be read.
fn reasoning_of(item: JsonValue<'_>) -> Prose<'_> {
    let [wrapped, content, summary] = item.given(["encrypted_content", "content", "summary"]);
    let wrapped = wrapped.and_then(JsonValue::string);
    if let Some(text) = wrapped.and_then(|text| reasoning::unwrapped(&text.decode())) {
        return text.into();
    }
    let text = joined_texts(content);
    if text.is_empty() {
        joined_texts(summary)
    } else {
        text
    }
}

/// The texts of parts, with blank lines between them.
fn joined_texts(parts: Option<JsonValue<'_>>) -> Prose<'_> {
    let mut joined = Prose::EMPTY;
    for part in parts.into_iter().flat_map(JsonValue::elements) {
        if let Some(text) = part.string_field("text") {
            joined.join("\n\n", text.into());
        }
    }
    joined
}

/// A content that can only be text.
fn texts<'a>(content: Option<JsonValue<'a>>, of: &str) -> Result<Prose<'a>, Refusal> {
    let mut joined = Prose::EMPTY;
    each_part(content, &mut |part| match part {
        UserPart::Text(text) => {
            joined.join("", text);
            Ok(())
        }
        _ => Err(invalid("input", &format!("expected text only in {of}"))),
    })?;
    Ok(joined)
}

fn user_content(content: Option<JsonValue<'_>>) -> Result<UserContent<'_>, Refusal> {
    let mut whole = UserContent::default();
    each_part(content, &mut |part| {
        whole.push(part);
        Ok(())
    })?;
    Ok(whole)
}

/// The parts of a content, which may be a string.
fn each_part<'a>(
    content: Option<JsonValue<'a>>,
    each: &mut dyn FnMut(UserPart<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Some(content) = content else {
        return Ok(());
    };
    if let Some(text) = content.string() {
        return each(UserPart::Text(text.into()));
    }
    if !content.is(JsonKind::Array) {
        return Err(invalid(
            "input",
            "expected a string or parts as the content of a message",
        ));
    }
    content.elements().try_for_each(|part| each(part_of(part)?))
}

/// A part of a content.
fn part_of(part: JsonValue<'_>) -> Result<UserPart<'_>, Refusal> {
    let [kind, text, refusal] = part
        .given(["type", "text", "refusal"])
        .map(|field| field.and_then(JsonValue::string));
    let kind = kind.map_or("".into(), JsonText::decode);
    match kind.as_ref() {
        "input_text" | "output_text" | "text" => {
            Ok(UserPart::Text(text.map_or(Prose::EMPTY, Prose::from)))
        }
        "refusal" => Ok(UserPart::Text(refusal.map_or(Prose::EMPTY, Prose::from))),
        "input_image" => image(part),
        "input_file" => file::text(part).map(|text| UserPart::Text(text.into())),
        "input_audio" => Ok(UserPart::Same(part)),
        other => Err(invalid(
            "input",
            &format!("a part of type '{other}' cannot be sent to this model"),
        )),
    }
}

fn image(part: JsonValue<'_>) -> Result<UserPart<'_>, Refusal> {
    let [url, detail] = part.given(["image_url", "detail"]);
    let inner = url.map(|url| url.given(["url", "detail"]));
    let [inner_url, inner_detail] = inner.unwrap_or([None; 2]);
    let url = url.and_then(JsonValue::string);
    let url = url.or_else(|| inner_url.and_then(JsonValue::string));
    let url = url.filter(|url| !url.is_empty());
    let Some(url) = url else {
        let problem = "an image can be sent to this model by its image_url only";
        return Err(invalid("input", problem));
    };
    let detail = detail.or(inner_detail).and_then(JsonValue::string);
    let known = ["low", "high", "auto"].into_iter();
    Ok(UserPart::Image {
        url: url.into(),
        detail: detail.and_then(|detail| known.clone().find(|name| detail.is(name))),
    })
}

#[cfg(test)]
mod tests;
