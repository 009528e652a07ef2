//! The `messages` of a chat completion request, made of a conversation in another API's form.
//!
//! The parts of the conversation are pushed in the client's order; [`Messages::finish`] puts them in
//! the order that servers take. Texts are copied only then, from where they lie in the request.
//!
//! - System messages: those in front become one, later ones become text of the user
//!   (`system.rs`).
//! - Results directly follow the message with their calls, whatever stood between (`order.rs`).
//! - Reasoning is sent for the current turn only.
//!
//! Contract: docs/contract/dialects.md#4

mod content;
mod order;
mod prose;
mod system;
#[cfg(test)]
mod tests;

use super::tokens::InputSize;

pub(crate) use content::{UserContent, UserPart};
pub(crate) use prose::Prose;

/// A conversation, in the client's order.
#[derive(Debug, Default)]
pub(crate) struct Messages<'a> {
    items: Vec<Item<'a>>,
    /// Reasoning of the assistant message that follows.
    reasoning: Prose<'a>,
    /// Results without a call stay results.
    keeps_orphans: bool,
}

/// A part of the conversation.
#[derive(Debug)]
enum Item<'a> {
    System(Prose<'a>),
    User(UserContent<'a>),
    Assistant(AssistantMessage<'a>),
    Result(ToolResult<'a>),
}

#[derive(Debug, Default)]
struct AssistantMessage<'a> {
    text: Prose<'a>,
    reasoning: Prose<'a>,
    calls: Vec<ToolCall<'a>>,
    said: Said,
}

/// How an API delimits what the assistant says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Said {
    /// As a message of its own.
    #[default]
    AsMessage,
    /// As an item: between a call and its result it is a part of the message with the call.
    AsItem,
}

/// A tool call of the assistant.
#[derive(Debug)]
pub(crate) struct ToolCall<'a> {
    /// By which its result names it.
    pub id: Prose<'a>,
    /// The function's name.
    pub name: Prose<'a>,
    /// JSON text.
    pub arguments: Prose<'a>,
}

/// The result of a tool call.
#[derive(Debug)]
pub(crate) struct ToolResult<'a> {
    /// The id of the call.
    pub call_id: Prose<'a>,
    /// What the tool returned.
    pub text: Prose<'a>,
    /// Pictures, which follow the results in a user message.
    pub images: Vec<UserPart<'a>>,
}

impl<'a> Messages<'a> {
    /// An empty conversation of an API whose results stay results even if their call is nowhere.
    pub(crate) fn keeping_orphans() -> Self {
        Self {
            keeps_orphans: true,
            ..Self::default()
        }
    }

    /// Adds a system message, or what an API calls instructions; nothing if it is empty.
    pub(crate) fn system(&mut self, text: impl Into<Prose<'a>>) {
        let text = text.into();
        if !text.is_empty() {
            self.items.push(Item::System(text));
        }
    }

    /// Adds a message of the user, with which a new turn begins.
    pub(crate) fn user(&mut self, content: UserContent<'a>) {
        self.reasoning = Prose::EMPTY;
        self.items.push(Item::User(content));
    }

    /// Adds a message of the assistant, to which the calls that follow belong. A message without
    /// text and calls is not sent.
    pub(crate) fn assistant(&mut self, text: impl Into<Prose<'a>>, said: Said) {
        self.items.push(Item::Assistant(AssistantMessage {
            text: text.into(),
            reasoning: std::mem::take(&mut self.reasoning),
            calls: Vec::new(),
            said,
        }));
    }

    /// Adds a call to the assistant message before it; else it is a message of its own.
    pub(crate) fn call(&mut self, call: ToolCall<'a>) {
        if !matches!(self.items.last(), Some(Item::Assistant(_))) {
            self.assistant(Prose::EMPTY, Said::AsItem);
        }
        if let Some(Item::Assistant(message)) = self.items.last_mut() {
            let reasoning = std::mem::take(&mut self.reasoning);
            message.reasoning.join("\n\n", reasoning);
            message.calls.push(call);
        }
    }

    /// Adds the result of a call.
    pub(crate) fn result(&mut self, result: ToolResult<'a>) {
        self.items.push(Item::Result(result));
    }

    /// Adds reasoning of the assistant message or call that follows.
    pub(crate) fn reasoning(&mut self, text: impl Into<Prose<'a>>) {
        self.reasoning.join("\n\n", text.into());
    }

    /// Whether nothing of it is sent: there are only messages of the assistant that say nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        let says_nothing =
            |message: &AssistantMessage<'_>| message.text.is_empty() && message.calls.is_empty();
        self.items
            .iter()
            .all(|item| matches!(item, Item::Assistant(message) if says_nothing(message)))
    }

    /// What a model reads of it, but for reasoning.
    pub(crate) fn size(&self) -> InputSize {
        let mut size = InputSize::default();
        for item in &self.items {
            match item {
                Item::System(text) => size.bytes += text.len(),
                Item::User(content) => content.measure(&mut size),
                Item::Assistant(message) => {
                    size.bytes += message.text.len();
                    let calls = message.calls.iter();
                    size.bytes += calls
                        .map(|call| call.name.len() + call.arguments.len())
                        .sum::<u64>();
                }
                Item::Result(result) => {
                    size.bytes += result.text.len();
                    result
                        .images
                        .iter()
                        .for_each(|part| part.measure(&mut size));
                }
            }
        }
        size
    }

    /// Appends the messages as a JSON array. Returns their number.
    pub(crate) fn finish(self, out: &mut Vec<u8>) -> usize {
        let messages = system::folded(order::ordered(self.items, self.keeps_orphans));
        out.push(b'[');
        for (at, message) in messages.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            message.write(out);
        }
        out.push(b']');
        messages.len()
    }
}

/// A message as it is sent.
#[derive(Debug)]
enum Message<'a> {
    System(Prose<'a>),
    User(UserContent<'a>),
    Assistant(AssistantMessage<'a>),
    Tool(ToolResult<'a>),
}

impl Message<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::System(text) => {
                out.extend_from_slice(br#"{"role":"system","content":"#);
                text.write(out);
            }
            Self::User(content) => {
                out.extend_from_slice(br#"{"role":"user","content":"#);
                content.write(out);
            }
            Self::Assistant(message) => message.write(out),
            Self::Tool(result) => {
                out.extend_from_slice(br#"{"role":"tool","content":"#);
                result.text.write(out);
                out.extend_from_slice(br#","tool_call_id":"#);
                result.call_id.write(out);
            }
        }
        out.push(b'}');
    }
}

impl AssistantMessage<'_> {
    /// Appends it without its closing brace.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"role":"assistant","content":"#);
        if self.text.is_empty() {
            out.extend_from_slice(b"null");
        } else {
            self.text.write(out);
        }
        if !self.reasoning.is_empty() {
            out.extend_from_slice(br#","reasoning_content":"#);
            self.reasoning.write(out);
        }
        for (at, call) in self.calls.iter().enumerate() {
            out.extend_from_slice(if at == 0 {
                br#","tool_calls":[{"id":"#
            } else {
                br#",{"id":"#
            });
            call.id.write(out);
            out.extend_from_slice(br#","type":"function","function":{"name":"#);
            call.name.write(out);
            out.extend_from_slice(br#","arguments":"#);
            call.arguments.write(out);
            out.extend_from_slice(b"}}");
        }
        if !self.calls.is_empty() {
            out.push(b']');
        }
    }
}
