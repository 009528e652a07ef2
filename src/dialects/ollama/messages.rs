//! The messages of a conversation in Ollama's form.
//!
//! Contract: docs/contract/dialects.md#4, docs/contract/dialects.md#10

use std::collections::{HashMap, VecDeque};

use super::images;
use super::request::Role;
use crate::dialects::chat::error::{Refusal, invalid};
use crate::dialects::chat::messages::{Messages, Prose, Said, ToolCall, ToolResult, UserContent};
use crate::json::{JsonKind, JsonText, JsonValue};

/// The messages of a chat.
pub(super) fn of_chat(request: JsonValue<'_>) -> Messages<'_> {
    let listed = request.field("messages");
    let mut calls = KnownCalls::of(listed);
    let mut messages = Messages::default();
    for message in listed.into_iter().flat_map(JsonValue::elements) {
        let [content, thinking, tool_calls] = message.given(["content", "thinking", "tool_calls"]);
        let text = content.map(text_of).unwrap_or_default();
        match Role::of(message) {
            Some(Role::System) => messages.system(text),
            Some(Role::User) => {
                let mut content = UserContent::default();
                content.text(text);
                for image in images_of(message) {
                    content.push(images::part(image));
                }
                messages.user(content);
            }
            Some(Role::Assistant) => {
                if let Some(thinking) = thinking.and_then(JsonValue::string) {
                    messages.reasoning(thinking);
                }
                messages.assistant(text, Said::AsMessage);
                for call in tool_calls.into_iter().flat_map(JsonValue::elements) {
                    if let Some(call) = calls.next(call) {
                        messages.call(call);
                    }
                }
            }
            Some(Role::Tool) => messages.result(ToolResult {
                call_id: calls.answered_by(message),
                text,
                images: images_of(message).map(images::part).collect(),
            }),
            // Such a message was refused.
            None => {}
        }
    }
    messages
}

/// Checks that a chat with messages has one with content. Without messages the model would only be
/// loaded.
///
/// # Errors
/// Status 400, if every message is empty.
pub(super) fn check_content(request: JsonValue<'_>) -> Result<(), Refusal> {
    let listed = || {
        request
            .field("messages")
            .into_iter()
            .flat_map(JsonValue::elements)
    };
    // The first message with a text ends the search, so a whole chat is seldom read here.
    let has_text = |message: JsonValue<'_>| {
        let content = message.string_field("content");
        content.is_some_and(|content| !content.is_empty())
    };
    if listed().next().is_none() || listed().any(has_text) || !of_chat(request).is_nothing() {
        return Ok(());
    }
    let problem = "nothing is left to send; every message is empty";
    Err(invalid("messages", problem))
}

/// The one message of a prompt, and the system message before it.
pub(super) fn of_prompt(request: JsonValue<'_>) -> Messages<'_> {
    let [system, prompt] = request.given(["system", "prompt"]);
    let mut messages = Messages::default();
    if let Some(system) = system {
        messages.system(text_of(system));
    }
    let mut content = UserContent::default();
    content.text(prompt.map(text_of).unwrap_or_default());
    for image in images_of(request) {
        content.push(images::part(image));
    }
    messages.user(content);
    messages
}

/// A content: a string, or, from some clients, parts with texts, or any other value as JSON.
fn text_of(content: JsonValue<'_>) -> Prose<'_> {
    if let Some(text) = content.string() {
        return text.into();
    }
    if !content.is(JsonKind::Array) {
        return content.into();
    }
    let mut text = Prose::EMPTY;
    for part in content.elements() {
        let part = part.string().or_else(|| part.string_field("text"));
        if let Some(part) = part {
            text.json(part);
        }
    }
    text
}

fn images_of(of: JsonValue<'_>) -> impl Iterator<Item = JsonText<'_>> {
    let images = of.field("images").into_iter();
    images
        .flat_map(JsonValue::elements)
        .filter_map(JsonValue::string)
}

/// The calls of a conversation, which results name by id, by the tool's name, or not at all.
#[derive(Default)]
struct KnownCalls<'a> {
    /// The id of each call, in the order of the conversation.
    ids: Vec<CallId<'a>>,
    /// Whether a call has a result.
    answered: Vec<bool>,
    by_id: HashMap<Vec<u8>, VecDeque<usize>>,
    by_name: HashMap<Vec<u8>, VecDeque<usize>>,
    /// The number of calls that were taken.
    taken: usize,
    /// No call before this one is without a result.
    first_unanswered: usize,
}

#[derive(Clone, Copy)]
enum CallId<'a> {
    /// The client's.
    Own(JsonText<'a>),
    /// Made from the number of the call, so that the same conversation is always the same text.
    Numbered(usize),
}

impl<'a> CallId<'a> {
    fn prose(self) -> Prose<'a> {
        match self {
            Self::Own(id) => id.into(),
            Self::Numbered(number) => format!("call{number:05}").into(),
        }
    }
}

impl<'a> KnownCalls<'a> {
    fn of(messages: Option<JsonValue<'a>>) -> Self {
        let mut known = Self::default();
        for message in messages.into_iter().flat_map(JsonValue::elements) {
            if Role::of(message) != Some(Role::Assistant) {
                continue;
            }
            let calls = message.field("tool_calls").into_iter();
            for call in calls.flat_map(JsonValue::elements) {
                if name_of(call).is_some() {
                    let id = call.string_field("id").filter(|id| !id.is_empty());
                    known.add(id);
                }
            }
        }
        known
    }

    fn add(&mut self, id: Option<JsonText<'a>>) {
        let at = self.ids.len();
        let id = id.map_or(CallId::Numbered(at + 1), CallId::Own);
        let key = match id {
            CallId::Own(id) => id.decode().into_owned().into_bytes(),
            CallId::Numbered(number) => format!("call{number:05}").into_bytes(),
        };
        self.by_id.entry(key).or_default().push_back(at);
        self.ids.push(id);
        self.answered.push(false);
    }

    /// The next call of the conversation; `None` if it is none.
    fn next(&mut self, call: JsonValue<'a>) -> Option<ToolCall<'a>> {
        let name = name_of(call)?;
        let id = self.ids.get(self.taken)?.prose();
        let key = name.decode().into_owned().into_bytes();
        self.by_name.entry(key).or_default().push_back(self.taken);
        self.taken += 1;
        let arguments = call
            .field("function")
            .and_then(|function| function.field("arguments"))
            .filter(|arguments| !arguments.is(JsonKind::Null));
        Some(ToolCall {
            id,
            name: name.into(),
            arguments: match arguments {
                Some(arguments) => match arguments.string() {
                    Some(text) if !text.is_empty() => text.into(),
                    Some(_) => "{}".into(),
                    None => arguments.into(),
                },
                None => "{}".into(),
            },
        })
    }

    /// The id of the call that a result belongs to: the one that it names, else the first without a
    /// result of the tool that it names, else the first without a result. Empty if there is none.
    fn answered_by(&mut self, result: JsonValue<'_>) -> Prose<'a> {
        let [id, tool_name, name] = result.given(["tool_call_id", "tool_name", "name"]);
        let text = |value: Option<JsonValue<'_>>| {
            let text = value?.string().filter(|text| !text.is_empty())?;
            Some(text.decode().into_owned().into_bytes())
        };
        let by_id = text(id).and_then(|id| {
            let same = self.by_id.get_mut(&id)?;
            // Ids that are used twice have their results in the order of the calls.
            match same.len() {
                1 => same.front().copied(),
                _ => same.pop_front(),
            }
        });
        let answered = &self.answered;
        let is_open = |at: usize| answered.get(at) == Some(&false);
        let by_name = || {
            let same = self.by_name.get_mut(&text(tool_name).or(text(name))?)?;
            while let Some(at) = same.pop_front() {
                if is_open(at) {
                    return Some(at);
                }
            }
            None
        };
        let found = by_id.or_else(by_name).or_else(|| {
            while self.first_unanswered < self.taken && !is_open(self.first_unanswered) {
                self.first_unanswered += 1;
            }
            (self.first_unanswered < self.taken).then_some(self.first_unanswered)
        });
        let Some(at) = found else {
            return Prose::EMPTY;
        };
        if let Some(answered) = self.answered.get_mut(at) {
            *answered = true;
        }
        self.ids.get(at).map_or(Prose::EMPTY, |id| id.prose())
    }
}

/// The name of the function of a call.
fn name_of(call: JsonValue<'_>) -> Option<JsonText<'_>> {
    let name = call.field("function")?.string_field("name")?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn chat(messages: &str) -> String {
        let request = format!(r#"{{"messages":[{messages}]}}"#);
        let request = json::parse(request.as_bytes()).unwrap();
        let mut out = Vec::new();
        of_chat(request).finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_pictures_and_thoughts() {
        let rows = [
            (
                r#"{"role":"SYSTEM","content":"s"},{"role":"user","content":"a\u00e9"}"#,
                r#"[{"role":"system","content":"s"},{"role":"user","content":"aé"}]"#,
            ),
            (
                r#"{"role":"user","content":"look","images":["R0lGODlhAQAB","http://h/x"]}"#,
                concat!(
                    r#"[{"role":"user","content":[{"type":"text","text":"look"},"#,
                    r#"{"type":"image_url","image_url":{"url":"data:image/gif;base64,R0lGODlhAQAB"}},"#,
                    r#"{"type":"image_url","image_url":{"url":"http://h/x"}}]}]"#
                ),
            ),
            (
                r#"{"role":"user","content":"u"},{"role":"assistant","thinking":"t","content":"a"}"#,
                concat!(
                    r#"[{"role":"user","content":"u"},"#,
                    r#"{"role":"assistant","content":"a","reasoning_content":"t"}]"#
                ),
            ),
            (
                r#"{"role":"assistant","thinking":"t","content":"a"},{"role":"user","content":"u"}"#,
                r#"[{"role":"assistant","content":"a"},{"role":"user","content":"u"}]"#,
            ),
            (
                r#"{"role":"user","content":[{"type":"text","text":"a"},{"text":"b"}]}"#,
                r#"[{"role":"user","content":"ab"}]"#,
            ),
        ];
        for (messages, expected) in rows {
            assert_eq!(chat(messages), expected);
        }
    }

    #[test]
    fn a_chat_of_empty_messages_is_refused() {
        for messages in [
            r#"{"role":"system"}"#,
            r#"{"role":"system","content":""},{"role":"assistant","content":""}"#,
            r#"{"role":"assistant","content":[{"type":"text"}]}"#,
        ] {
            let request = format!(r#"{{"messages":[{messages}]}}"#);
            let request = json::parse(request.as_bytes()).unwrap();
            let refusal = check_content(request).unwrap_err();
            assert_eq!(refusal.status, 400, "{messages}");
            assert!(refusal.message.starts_with("messages: "), "{refusal}");
        }
        for request in [
            r#"{"messages":[]}"#,
            r#"{"messages":null}"#,
            r#"{"messages":[{"role":"system"},{"role":"user","content":"u"}]}"#,
            r#"{"messages":[{"role":"user","images":["aGk="]}]}"#,
            r#"{"messages":[{"role":"assistant","content":[{"type":"text","text":"a"}]}]}"#,
            r#"{"messages":[{"role":"tool"}]}"#,
        ] {
            let parsed = json::parse(request.as_bytes()).unwrap();
            assert_eq!(check_content(parsed), Ok(()), "{request}");
        }
    }

    /// A call, and a result that says this of it.
    fn call(id: &str, name: &str) -> String {
        format!(r#"{{{id}"function":{{"name":"{name}","arguments":{{"n": 1.50}}}}}}"#)
    }

    fn result(of: &str) -> String {
        format!(r#"{{"role":"tool",{of}"content":"r"}}"#)
    }

    /// The ids that calls and results have.
    fn ids(messages: &str) -> String {
        let sent: serde_json::Value = serde_json::from_str(&chat(messages)).unwrap();
        let mut ids = Vec::new();
        for message in sent.as_array().unwrap() {
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                assert_eq!(call["function"]["arguments"], r#"{"n":1.50}"#);
                ids.push(call["id"].as_str().unwrap().to_owned());
            }
            match message["role"].as_str().unwrap() {
                "tool" => ids.push(format!("={}", message["tool_call_id"].as_str().unwrap())),
                "user" => ids.push(message["content"].as_str().unwrap().to_owned()),
                _ => {}
            }
        }
        ids.join(" ")
    }

    #[test]
    fn results_find_their_calls() {
        let assistant = |calls: &[String]| {
            format!(
                r#"{{"role":"assistant","tool_calls":[{}]}}"#,
                calls.join(",")
            )
        };
        let two = assistant(&[call("", "a"), call("", "b")]);
        let own = assistant(&[call(r#""id":"x","#, "a"), call(r#""id":"y","#, "a")]);
        let rows = [
            (
                vec![two.clone(), result(""), result("")],
                "call00001 call00002 =call00001 =call00002",
            ),
            (
                vec![
                    two.clone(),
                    result(r#""tool_name":"b","#),
                    result(r#""name":"a","#),
                ],
                "call00001 call00002 =call00002 =call00001",
            ),
            (
                vec![two.clone(), result(r#""tool_name":"z","#)],
                "call00001 call00002 =call00001",
            ),
            (
                vec![
                    two.clone(),
                    result(r#""tool_call_id":"call00002","#),
                    result(""),
                ],
                "call00001 call00002 =call00002 =call00001",
            ),
            (
                vec![
                    own.clone(),
                    result(r#""tool_call_id":"y","tool_name":"a","#),
                    result(""),
                ],
                "x y =y =x",
            ),
            (
                vec![
                    own.clone(),
                    result(r#""tool_call_id":"nobody's","tool_name":"a","#),
                ],
                "x y =x",
            ),
            (vec![result("")], "Tool result: r"),
            (
                vec![two, result(""), result(""), own, result(""), result("")],
                "call00001 call00002 =call00001 =call00002 x y =x =y",
            ),
        ];
        for (messages, expected) in rows {
            assert_eq!(ids(&messages.join(",")), expected);
        }
    }

    #[test]
    fn arguments_are_text() {
        let arguments = |written: &str| {
            let call = format!(
                r#"{{"role":"assistant","tool_calls":[{{"function":{{"name":"f"{written}}}}}]}}"#
            );
            let sent: serde_json::Value = serde_json::from_str(&chat(&call)).unwrap();
            let text = &sent[0]["tool_calls"][0]["function"]["arguments"];
            text.as_str().unwrap().to_owned()
        };
        assert_eq!(
            arguments(r#","arguments":{"a": [1, 2.0]}"#),
            r#"{"a":[1,2.0]}"#
        );
        assert_eq!(arguments(r#","arguments":"{\"a\":1}""#), r#"{"a":1}"#);
        assert_eq!(arguments(r#","arguments":"""#), "{}");
        assert_eq!(arguments(r#","arguments":null"#), "{}");
        assert_eq!(arguments(""), "{}");
    }

    #[test]
    fn a_prompt_is_one_message() {
        let request = br#"{"system":"s","prompt":"p","images":["aGk="]}"#;
        let mut out = Vec::new();
        of_prompt(json::parse(request).unwrap()).finish(&mut out);
        let expected = concat!(
            r#"[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"p"},"#,
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk="}}]}]"#
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
