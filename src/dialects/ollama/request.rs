//! What a request of Ollama's API asks for, checked.
//!
//! Contract: docs/contract/dialects.md#3, docs/contract/dialects.md#10,
//! docs/contract/dialects.md#11

use super::images;
use crate::dialects::chat::error::{Refusal, invalid};
use crate::json::{self, JsonKind, JsonText, JsonValue, SpanIndex};

/// The operations that a model runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OllamaOperation {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
    /// `/api/embed`.
    Embed,
    /// `/api/embeddings`, its older form.
    Embeddings,
}

/// What is to be done for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// A chat completion.
    Chat,
    /// A completion of a prompt, without the template of the model.
    Complete,
    /// Embeddings.
    Embed,
    /// Nothing: there is no text to embed.
    EmbedNothing,
    /// The model is to be loaded.
    Load,
    /// The model is to be unloaded.
    Unload,
}

/// A body, or why it is no request at all, whatever endpoint gets it. The index leads the searches
/// for its fields past long values, such as the messages.
pub(super) fn parsed<'a>(
    body: &'a [u8],
    index: &'a mut SpanIndex,
) -> Result<JsonValue<'a>, Refusal> {
    if body.trim_ascii().is_empty() {
        return Err(Refusal::invalid("missing request body"));
    }
    let request = json::parse_indexed(body, index);
    let request = request.filter(|request| request.is(JsonKind::Object));
    request.ok_or_else(|| Refusal::invalid("the request body: expected a JSON object"))
}

/// The name of the model; empty if there is none.
pub(super) fn model_of(request: JsonValue<'_>) -> String {
    let model = request.string_field("model");
    model.map_or_else(String::new, |model| model.decode().into_owned())
}

impl OllamaOperation {
    /// What a request asks for.
    pub(super) fn task(self, request: JsonValue<'_>) -> Task {
        match self {
            Self::Chat => {
                let messages = request.field("messages");
                match messages.is_none_or(|messages| messages.elements().next().is_none()) {
                    true => load_or_unload(request),
                    false => Task::Chat,
                }
            }
            Self::Generate => {
                let [prompt, suffix, raw] = request.fields(["prompt", "suffix", "raw"]);
                match (is_text(prompt), is_text(suffix)) {
                    (false, false) => load_or_unload(request),
                    (_, true) => Task::Complete,
                    _ if raw.is_some_and(JsonValue::is_true) => Task::Complete,
                    _ => Task::Chat,
                }
            }
            Self::Embed => {
                let input = request.field("input");
                match is_text(input) || input.is_some_and(|it| it.elements().next().is_some()) {
                    true => Task::Embed,
                    false => Task::EmbedNothing,
                }
            }
            Self::Embeddings => match is_text(request.field("prompt")) {
                true => Task::Embed,
                false => Task::EmbedNothing,
            },
        }
    }

    /// Whether the client gets a stream: it does unless it says otherwise.
    pub(super) fn streams(self, request: JsonValue<'_>) -> bool {
        let runs = matches!(self.task(request), Task::Chat | Task::Complete);
        let stream = request.field("stream");
        runs && stream.is_none_or(|stream| stream.raw() != b"false")
    }

    /// Checks the fields that a translation reads.
    ///
    /// # Errors
    /// Status 400, about the first field that is wrong.
    pub(super) fn check(self, request: JsonValue<'_>) -> Result<(), Refusal> {
        match self {
            Self::Chat => {
                check_common(request)?;
                check_messages(request)
            }
            Self::Generate => {
                check_common(request)?;
                check_generate(request)
            }
            Self::Embed => match request.field("input") {
                Some(input) if !is_input(input) => Err(Refusal::invalid("invalid input type")),
                _ => Ok(()),
            },
            Self::Embeddings => match request.field("prompt") {
                Some(prompt) if !is_null_or(prompt, JsonKind::String) => {
                    Err(invalid("prompt", "expected a string"))
                }
                _ => Ok(()),
            },
        }
    }
}

/// Whether a field is a string that is not empty.
fn is_text(field: Option<JsonValue<'_>>) -> bool {
    let text = field.and_then(JsonValue::string);
    text.is_some_and(|text| !text.is_empty())
}

fn is_null_or(value: JsonValue<'_>, kind: JsonKind) -> bool {
    value.is(JsonKind::Null) || value.is(kind)
}

fn is_input(input: JsonValue<'_>) -> bool {
    match input.kind() {
        JsonKind::String | JsonKind::Null => true,
        JsonKind::Array => input.elements().all(|text| text.is(JsonKind::String)),
        _ => false,
    }
}

/// By `keep_alive`: a model that is kept for no time is unloaded.
fn load_or_unload(request: JsonValue<'_>) -> Task {
    let Some(keep_alive) = request.field("keep_alive") else {
        return Task::Load;
    };
    let is_zero = match keep_alive.string() {
        Some(text) => is_zero_duration(&text.decode()),
        None => keep_alive.number() == Some(0.0),
    };
    if is_zero { Task::Unload } else { Task::Load }
}

/// Whether a text is a duration of nothing, such as `0`, `0s` or `0h0m`.
fn is_zero_duration(text: &str) -> bool {
    let text = text.trim();
    let is_unit = |c: char| c.is_alphabetic();
    text.starts_with('0') && text.chars().all(|c| c == '0' || c == '.' || is_unit(c))
}

fn check_common(request: JsonValue<'_>) -> Result<(), Refusal> {
    let [stream, options, format, think, debug] =
        request.given(["stream", "options", "format", "think", "_debug_render_only"]);
    let is_wrong = |value: Option<JsonValue<'_>>, kind| value.is_some_and(|value| !value.is(kind));
    if is_wrong(stream, JsonKind::Bool) {
        return Err(invalid("stream", "expected true or false"));
    }
    if is_wrong(options, JsonKind::Object) {
        return Err(invalid("options", "expected an object"));
    }
    if let Some(format) = format
        && !format.is(JsonKind::Object)
        && !format
            .string()
            .is_some_and(|text| text.is_empty() || text.is("json"))
    {
        return Err(invalid("format", "expected \"json\" or a JSON schema"));
    }
    if let Some(think) = think
        && !think.is(JsonKind::Bool)
        && !think.string().is_some_and(is_effort)
    {
        let expected = "expected true, false, \"low\", \"medium\", \"high\" or \"max\"";
        return Err(invalid("think", expected));
    }
    if debug.is_some_and(JsonValue::is_true) {
        let problem = "only an Ollama endpoint can render a prompt without running the model";
        return Err(invalid("_debug_render_only", problem));
    }
    Ok(())
}

fn is_effort(text: JsonText<'_>) -> bool {
    let efforts = ["low", "medium", "high", "max"];
    efforts.iter().any(|effort| text.is(effort))
}

fn check_messages(request: JsonValue<'_>) -> Result<(), Refusal> {
    let Some(messages) = request.field("messages") else {
        return Ok(());
    };
    if !is_null_or(messages, JsonKind::Array) {
        return Err(invalid("messages", "expected an array of messages"));
    }
    for (at, message) in messages.elements().enumerate() {
        if !message.is(JsonKind::Object) {
            return Err(invalid("messages", "expected an array of objects"));
        }
        let Some(role) = Role::of(message) else {
            let field = format!("messages[{at}].role");
            let expected = "expected \"system\", \"user\", \"assistant\" or \"tool\"";
            return Err(invalid(&field, expected));
        };
        let field = || format!("messages[{at}].images");
        check_images(message, &field)?;
        let has_images = message
            .field("images")
            .is_some_and(|images| images.elements().next().is_some());
        if role == Role::System && has_images {
            let problem = "a system message cannot have pictures";
            return Err(invalid(&field(), problem));
        }
    }
    Ok(())
}

fn check_generate(request: JsonValue<'_>) -> Result<(), Refusal> {
    for field in ["prompt", "suffix", "system"] {
        let value = request.field(field);
        if value.is_some_and(|value| !is_null_or(value, JsonKind::String)) {
            return Err(invalid(field, "expected a string"));
        }
    }
    check_images(request, &|| "images".to_owned())?;
    let images = request.field("images");
    let has_images = images.is_some_and(|images| images.elements().next().is_some());
    if has_images && OllamaOperation::Generate.task(request) == Task::Complete {
        let problem = "a prompt without a template cannot have pictures";
        return Err(invalid("images", problem));
    }
    Ok(())
}

/// Checks the pictures of a message or request.
fn check_images(of: JsonValue<'_>, field: &dyn Fn() -> String) -> Result<(), Refusal> {
    let Some(images) = of.field("images") else {
        return Ok(());
    };
    if !is_null_or(images, JsonKind::Array) {
        return Err(invalid(&field(), "expected an array of pictures"));
    }
    let are_pictures = images
        .elements()
        .all(|image| image.string().is_some_and(images::is_picture));
    match are_pictures {
        true => Ok(()),
        false => Err(invalid(&field(), "expected pictures in base64")),
    }
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    /// The role of a message, in any letter case; `None` if it has no known one.
    pub(super) fn of(message: JsonValue<'_>) -> Option<Self> {
        let role = message.string_field("role")?.decode();
        let all = [
            ("system", Self::System),
            ("developer", Self::System),
            ("user", Self::User),
            ("assistant", Self::Assistant),
            ("tool", Self::Tool),
        ];
        let mut all = all.into_iter();
        let (_, found) = all.find(|(name, _)| role.eq_ignore_ascii_case(name))?;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OllamaOperation::{Chat, Embed, Embeddings, Generate};

    #[test]
    fn what_requests_ask_for() {
        for (operation, body, task) in [
            (Chat, r#"{"messages":[{}]}"#, Task::Chat),
            (Chat, r#"{"messages":[]}"#, Task::Load),
            (Chat, r#"{"messages":null,"keep_alive":"5m"}"#, Task::Load),
            (Chat, r#"{"keep_alive":0}"#, Task::Unload),
            (Chat, r#"{"keep_alive":0.0}"#, Task::Unload),
            (Chat, r#"{"keep_alive":"0"}"#, Task::Unload),
            (Chat, r#"{"keep_alive":"0s"}"#, Task::Unload),
            (Chat, r#"{"keep_alive":"0h0m"}"#, Task::Unload),
            (Chat, r#"{"keep_alive":-1}"#, Task::Load),
            (Chat, r#"{"keep_alive":"10s"}"#, Task::Load),
            (Chat, r#"{"keep_alive":"0.5s"}"#, Task::Load),
            (Chat, r#"{"keep_alive":null}"#, Task::Load),
            (Generate, r#"{"prompt":"x"}"#, Task::Chat),
            (Generate, r#"{"prompt":"x","raw":false}"#, Task::Chat),
            (Generate, r#"{"prompt":"x","raw":true}"#, Task::Complete),
            (Generate, r#"{"prompt":"x","suffix":"y"}"#, Task::Complete),
            (Generate, r#"{"prompt":"x","suffix":""}"#, Task::Chat),
            (Generate, r#"{"suffix":"y"}"#, Task::Complete),
            (Generate, r#"{"prompt":""}"#, Task::Load),
            (Generate, r#"{"raw":true,"keep_alive":"0"}"#, Task::Unload),
            (Embed, r#"{"input":"x"}"#, Task::Embed),
            (Embed, r#"{"input":["x"]}"#, Task::Embed),
            (Embed, r#"{"input":[]}"#, Task::EmbedNothing),
            (Embed, r#"{"input":""}"#, Task::EmbedNothing),
            (Embed, r#"{}"#, Task::EmbedNothing),
            (Embeddings, r#"{"prompt":"x"}"#, Task::Embed),
            (Embeddings, r#"{"prompt":""}"#, Task::EmbedNothing),
        ] {
            let request = json::parse(body.as_bytes()).unwrap();
            assert_eq!(operation.task(request), task, "{body}");
        }
    }

    #[test]
    fn a_stream_is_the_default() {
        for (operation, body, streams) in [
            (Chat, r#"{"messages":[{}]}"#, true),
            (Chat, r#"{"messages":[{}],"stream":null}"#, true),
            (Chat, r#"{"messages":[{}],"stream":true}"#, true),
            (Chat, r#"{"messages":[{}],"stream":false}"#, false),
            (Chat, r#"{"messages":[],"stream":true}"#, false),
            (Generate, r#"{"prompt":"x"}"#, true),
            (Embed, r#"{"input":"x","stream":true}"#, false),
        ] {
            let request = json::parse(body.as_bytes()).unwrap();
            assert_eq!(operation.streams(request), streams, "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rows = [
            (Chat, r#"{"messages":7}"#, "messages: "),
            (Chat, r#"{"messages":["x"]}"#, "messages: "),
            (
                Chat,
                r#"{"messages":[{"role":"wizard"}]}"#,
                "messages[0].role: ",
            ),
            (Chat, r#"{"messages":[{}]}"#, "messages[0].role: "),
            (Chat, r#"{"stream":"no"}"#, "stream: "),
            (Chat, r#"{"options":[]}"#, "options: "),
            (Chat, r#"{"format":"xml"}"#, "format: "),
            (Chat, r#"{"format":[]}"#, "format: "),
            (Chat, r#"{"think":"hard"}"#, "think: "),
            (Chat, r#"{"think":1}"#, "think: "),
            (
                Chat,
                r#"{"_debug_render_only":true}"#,
                "_debug_render_only: ",
            ),
            (
                Chat,
                r#"{"messages":[{"role":"user","images":["no!"]}]}"#,
                "messages[0].images: ",
            ),
            (
                Chat,
                r#"{"messages":[{"role":"user"},{"role":"system","images":["aGk="]}]}"#,
                "messages[1].images: ",
            ),
            (Generate, r#"{"prompt":7}"#, "prompt: "),
            (Generate, r#"{"prompt":"x","images":[7]}"#, "images: "),
            (
                Generate,
                r#"{"prompt":"x","raw":true,"images":["aGk="]}"#,
                "images: ",
            ),
            (Embed, r#"{"input":7}"#, "invalid input type"),
            (Embed, r#"{"input":["x",7]}"#, "invalid input type"),
            (Embeddings, r#"{"prompt":[]}"#, "prompt: "),
        ];
        for (operation, body, message) in rows {
            let request = json::parse(body.as_bytes()).unwrap();
            let refusal = operation.check(request).unwrap_err();
            assert_eq!(refusal.status, 400, "{body}");
            assert!(refusal.message.starts_with(message), "{body}: {refusal}");
        }
        let fine = [
            (Chat, r#"{"messages":null}"#),
            (
                Chat,
                r#"{"messages":[{"role":"System"},{"role":"DEVELOPER","images":[]},
                {"role":"tool","images":null},{"role":"user","images":["http://h/x.png"]}]}"#,
            ),
            (Chat, r#"{"format":"","think":"max","options":null}"#),
            (
                Chat,
                r#"{"format":{},"think":false,"_debug_render_only":false}"#,
            ),
            (Generate, r#"{"prompt":null,"images":["aGk="],"suffix":""}"#),
            (Embed, r#"{"input":["x","y"],"dimensions":"x"}"#),
            (Embeddings, r#"{"prompt":null}"#),
        ];
        for (operation, body) in fine {
            let request = json::parse(body.as_bytes()).unwrap();
            assert_eq!(operation.check(request), Ok(()), "{body}");
        }
        for (body, message) in [
            ("", "missing request body"),
            (" \n", "missing request body"),
            ("[]", "the request body: expected a JSON object"),
            ("{", "the request body: expected a JSON object"),
        ] {
            assert_eq!(
                parsed(body.as_bytes(), &mut SpanIndex::default())
                    .err()
                    .unwrap()
                    .message,
                message
            );
        }
    }
}
