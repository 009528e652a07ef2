//! The items of a response's output (docs/contract/dialects.md#8.2).

use std::sync::Arc;

use super::custom::CustomInput;
use super::names::{ToolKind, ToolNames};
use super::reasoning;
use crate::json::{self, JsonKind, JsonText, JsonValue};

/// The kinds of items.
#[derive(Debug)]
pub(super) enum ItemKind {
    /// A message with text.
    Text,
    /// A message that refuses.
    Refusal,
    Reasoning,
    Call(Box<ItemCall>),
}

/// What is known of a call before its arguments.
#[derive(Debug)]
pub(super) struct ItemCall {
    pub(super) kind: ToolKind,
    /// Decodes the input of a custom call.
    pub(super) input: CustomInput,
    /// Inside of a JSON string.
    call_id: Vec<u8>,
    pub(super) name: String,
    namespace: Option<Arc<str>>,
}

impl ItemCall {
    /// A call by the endpoint's name of the tool.
    pub(super) fn new(name: &str, call_id: Vec<u8>, tools: &ToolNames) -> Self {
        let tool = tools.called(name);
        Self {
            kind: tool.map_or(ToolKind::Function, |tool| tool.kind),
            input: CustomInput::default(),
            call_id,
            name: tool.map_or(name, |tool| tool.name.as_str()).to_owned(),
            namespace: tool.and_then(|tool| tool.namespace.clone()),
        }
    }
}

/// An item.
#[derive(Debug)]
pub(super) struct OutputItem {
    pub(super) kind: ItemKind,
    pub(super) id: String,
    /// Its text, input or arguments so far, as the inside of a JSON string.
    pub(super) text: Vec<u8>,
}

/// The state of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemStatus {
    InProgress,
    Completed,
    Incomplete,
}

impl ItemKind {
    /// What its ids begin with.
    pub(super) fn prefix(&self) -> &'static str {
        match self {
            Self::Text | Self::Refusal => "msg_",
            Self::Reasoning => "rs_",
            Self::Call(call) => match call.kind {
                ToolKind::Function => "fc_",
                ToolKind::Custom => "ctc_",
                ToolKind::LocalShell => "lsh_",
            },
        }
    }
}

impl OutputItem {
    /// Appends it in this state. As long as it is in progress, it shows nothing of its text.
    pub(super) fn write(&self, status: ItemStatus, form: ItemForm, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"id":""#);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(br#"","status":""#);
        out.extend_from_slice(match status {
            ItemStatus::InProgress => b"in_progress".as_slice(),
            ItemStatus::Completed => b"completed",
            ItemStatus::Incomplete => b"incomplete",
        });
        out.extend_from_slice(br#"","type":""#);
        let is_open = status == ItemStatus::InProgress;
        match &self.kind {
            ItemKind::Text | ItemKind::Refusal => {
                out.extend_from_slice(br#"message","role":"assistant","content":["#);
                if !is_open {
                    self.write_part(&self.text, form, out);
                }
                out.extend_from_slice(b"]}");
            }
            ItemKind::Reasoning => self.write_reasoning(is_open, form, out),
            ItemKind::Call(call) => self.write_call(call, is_open, out),
        }
    }

    /// Appends the part that holds the text of a message or of reasoning.
    pub(super) fn write_part(&self, text: &[u8], form: ItemForm, out: &mut Vec<u8>) {
        let (opening, closing): (&[u8], &[u8]) = match &self.kind {
            ItemKind::Refusal => (br#"{"type":"refusal","refusal":""#, br#""}"#),
            ItemKind::Reasoning if form.summary => {
                (br#"{"type":"summary_text","text":""#, br#""}"#)
            }
            ItemKind::Reasoning => (br#"{"type":"reasoning_text","text":""#, br#""}"#),
            _ => (
                br#"{"type":"output_text","text":""#,
                br#"","annotations":[],"logprobs":[]}"#,
            ),
        };
        out.extend_from_slice(opening);
        out.extend_from_slice(text);
        out.extend_from_slice(closing);
    }

    fn write_reasoning(&self, is_open: bool, form: ItemForm, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"reasoning","summary":["#);
        if form.summary && !is_open {
            self.write_part(&self.text, form, out);
        }
        out.extend_from_slice(br#"],"content":["#);
        if !form.summary && !is_open {
            self.write_part(&self.text, form, out);
        }
        out.extend_from_slice(br#"],"encrypted_content":"#);
        if form.encrypted && !is_open {
            out.push(b'"');
            reasoning::write_wrapped(&JsonText::of_written(&self.text).decode(), out);
            out.extend_from_slice(b"\"}");
        } else {
            out.extend_from_slice(b"null}");
        }
    }

    fn write_call(&self, call: &ItemCall, is_open: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(match call.kind {
            ToolKind::Function => b"function_call".as_slice(),
            ToolKind::Custom => b"custom_tool_call",
            ToolKind::LocalShell => b"local_shell_call",
        });
        out.extend_from_slice(br#"","call_id":""#);
        out.extend_from_slice(&call.call_id);
        out.push(b'"');
        if call.kind == ToolKind::LocalShell {
            out.extend_from_slice(br#","action":"#);
            write_action(if is_open { b"" } else { &self.text }, out);
            out.push(b'}');
            return;
        }
        out.extend_from_slice(br#","name":"#);
        json::write_string(&call.name, out);
        if let Some(namespace) = &call.namespace {
            out.extend_from_slice(br#","namespace":"#);
            json::write_string(namespace, out);
        }
        out.extend_from_slice(match call.kind {
            ToolKind::Custom => br#","input":""#.as_slice(),
            _ => br#","arguments":""#,
        });
        if !is_open {
            out.extend_from_slice(&self.text);
        }
        out.extend_from_slice(b"\"}");
    }
}

/// How reasoning is shown.
pub(super) type ItemForm = super::object::ReasoningForm;

/// Appends the action of a shell call: what its arguments say, in the API's form.
fn write_action(arguments: &[u8], out: &mut Vec<u8>) {
    let arguments = JsonText::of_written(arguments).decode();
    let value = json::parse(arguments.as_bytes());
    let [command, folder, timeout, env] = match value {
        Some(value) => value.given(["command", "working_directory", "timeout_ms", "env"]),
        None => [None; 4],
    };
    out.extend_from_slice(br#"{"type":"exec","command":["#);
    let words = command.into_iter().flat_map(JsonValue::elements);
    // Some models write the only word without a list.
    let words = words.chain(command.filter(|command| command.is(JsonKind::String)));
    for (nth, word) in words.enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        word.write_compact(out);
    }
    out.push(b']');
    for (name, value, default) in [
        (
            br#","working_directory":"#.as_slice(),
            folder,
            b"null".as_slice(),
        ),
        (br#","timeout_ms":"#, timeout, b"null"),
        (br#","env":"#, env, b"{}"),
    ] {
        out.extend_from_slice(name);
        match value {
            Some(value) => value.write_compact(out),
            None => out.extend_from_slice(default),
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_a_shell_is_to_do() {
        for (arguments, action) in [
            (
                r#"{"command":["ls","-l"],"working_directory":"/tmp","timeout_ms":5,"env":{"A":"b"}}"#,
                json!({"type": "exec", "command": ["ls", "-l"], "working_directory": "/tmp",
                       "timeout_ms": 5, "env": {"A": "b"}}),
            ),
            (
                r#"{"command":"ls","timeout_ms":null}"#,
                json!({"type": "exec", "command": ["ls"], "working_directory": null,
                       "timeout_ms": null, "env": {}}),
            ),
            (
                "oops",
                json!({"type": "exec", "command": [], "working_directory": null,
                       "timeout_ms": null, "env": {}}),
            ),
        ] {
            let mut escaped = Vec::new();
            json::write_escaped(arguments.as_bytes(), &mut escaped);
            let mut out = Vec::new();
            write_action(&escaped, &mut out);
            assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), action);
        }
    }
}
