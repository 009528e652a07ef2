//! A whole chat completion.

use super::error::{self, BackendError, Refusal};
use super::outcome::{Counts, Finish};
use super::warning::{Warning, warn};
use crate::json::{self, JsonKind, JsonText, JsonValue};

/// Maximum number of tool calls in one response (docs/contract/dialects.md#4).
pub(crate) const CALLS_MAX: usize = 1024;

/// The error of a response with more calls, or with more of them than can be held back.
pub(crate) const TOO_MANY: &str = "the endpoint sent more tool calls than can be held";

/// A chat completion, as far as it is translated.
pub(crate) struct Completion<'a> {
    pub(crate) counts: Counts,
    thinking: Option<JsonText<'a>>,
    prose: Option<JoinedText<'a>>,
    pub(crate) refused: bool,
    pub(crate) calls: Vec<CompleteCall<'a>>,
    pub(crate) finish: Finish,
    pub(crate) matched: Option<JsonText<'a>>,
}

impl<'a> Completion<'a> {
    /// Reads the first choice.
    pub(crate) fn read(text: &'a [u8]) -> Result<Self, Refusal> {
        let unreadable = || Refusal::backend("the endpoint's response is not a chat completion");
        let answer = json::parse(text).ok_or_else(unreadable)?;
        let [usage, choices, error, object, detail] =
            answer.given(["usage", "choices", "error", "object", "detail"]);
        let choice = choices.and_then(|choices| choices.elements().next());
        let Some(choice) = choice else {
            return Err(if error::is_error(error, object, detail, choices) {
                BackendError::of(502, answer).into()
            } else {
                unreadable()
            });
        };
        let [message, text, finish, stop_reason, matched_stop] = choice.fields([
            "message",
            "text",
            "finish_reason",
            "stop_reason",
            "matched_stop",
        ]);
        // Completions of a prompt have a text in place of the message.
        let text = text.filter(|text| text.is(JsonKind::String));
        let message = message
            .filter(|message| message.is(JsonKind::Object))
            .or(text)
            .ok_or_else(unreadable)?;
        let [reasoning, reasoning_content, content, refusal, calls] = message.fields([
            "reasoning",
            "reasoning_content",
            "content",
            "refusal",
            "tool_calls",
        ]);
        let prose = content
            .or(text)
            .map(JoinedText)
            .filter(|prose| !prose.is_empty());
        let refusal = refusal
            .map(JoinedText)
            .filter(|refusal| prose.is_none() && !refusal.is_empty());
        let calls: Vec<_> = calls
            .into_iter()
            .flat_map(JsonValue::elements)
            .filter_map(CompleteCall::read)
            .take(CALLS_MAX + 1)
            .collect();
        if calls.len() > CALLS_MAX {
            return Err(Refusal::backend(TOO_MANY));
        }
        Ok(Self {
            counts: usage.map_or_else(Counts::default, Counts::read),
            thinking: filled(reasoning).or(filled(reasoning_content)),
            prose: prose.or(refusal),
            refused: refusal.is_some(),
            calls,
            finish: filled(finish).map_or(Finish::Other, Finish::of),
            matched: filled(stop_reason).or(filled(matched_stop)),
        })
    }

    /// The content's blocks: reasoning, text, tool calls.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = ContentBlock<'a>> {
        let thinking = self.thinking.map(ContentBlock::Thinking);
        let text = self.prose.map(ContentBlock::Text);
        let calls = self.calls.iter().copied().map(ContentBlock::Tool);
        thinking.into_iter().chain(text).chain(calls)
    }

    /// Bytes of what the model wrote, with some room for each block.
    pub(crate) fn size_hint(&self) -> usize {
        self.blocks().map(|block| block.len() + 64).sum()
    }
}

/// A string that is not empty.
pub(crate) fn filled(value: Option<JsonValue<'_>>) -> Option<JsonText<'_>> {
    value
        .and_then(JsonValue::string)
        .filter(|text| !text.is_empty())
}

/// A block of a response's content.
#[derive(Clone, Copy)]
pub(crate) enum ContentBlock<'a> {
    Thinking(JsonText<'a>),
    Text(JoinedText<'a>),
    Tool(CompleteCall<'a>),
}

impl ContentBlock<'_> {
    /// Bytes of what the model wrote.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Thinking(thinking) => thinking.len(),
            Self::Text(text) => text.len(),
            Self::Tool(call) => call.name.len() + call.arguments.map_or(0, Arguments::len),
        }
    }
}

/// A content: a string, or an array of parts with texts that are joined.
#[derive(Clone, Copy)]
pub(crate) struct JoinedText<'a>(pub(crate) JsonValue<'a>);

impl<'a> JoinedText<'a> {
    fn texts(self) -> impl Iterator<Item = JsonText<'a>> {
        let part_text = |part: JsonValue<'a>| part.string().or_else(|| part.string_field("text"));
        self.0
            .string()
            .into_iter()
            .chain(self.0.elements().filter_map(part_text))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.texts().all(JsonText::is_empty)
    }

    pub(crate) fn len(self) -> usize {
        self.texts().map(JsonText::len).sum()
    }

    /// Appends it as the inside of a JSON string.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        self.texts().for_each(|text| text.write(out));
    }
}

/// A tool call.
#[derive(Clone, Copy)]
pub(crate) struct CompleteCall<'a> {
    pub(crate) id: Option<JsonText<'a>>,
    pub(crate) name: JsonText<'a>,
    pub(crate) arguments: Option<Arguments<'a>>,
}

impl<'a> CompleteCall<'a> {
    /// `None` without a function that has a name.
    fn read(call: JsonValue<'a>) -> Option<Self> {
        let [id, function] = call.fields(["id", "function"]);
        let [name, arguments] = function?.given(["name", "arguments"]);
        Some(Self {
            id: filled(id),
            name: filled(name)?,
            arguments: arguments.and_then(Arguments::of),
        })
    }

    /// Appends the arguments as an object, an empty one if they are none.
    pub(crate) fn write_input(&self, out: &mut Vec<u8>, warnings: &mut Vec<Warning>) {
        match self.arguments {
            Some(Arguments::Value(value)) if value.is(JsonKind::Object) => {
                value.write_compact(out);
                return;
            }
            Some(Arguments::Text(text)) => {
                let text = text.decode();
                if let Some(input) = json::parse(text.as_bytes())
                    && input.is(JsonKind::Object)
                {
                    input.write_compact(out);
                    return;
                }
            }
            _ => {}
        }
        warn(warnings, || Warning::ArgumentsUnreadable {
            name: self.name.decode().into_owned(),
        });
        out.extend_from_slice(b"{}");
    }
}

/// A call's arguments: JSON in a string, or, from some servers, the value itself.
#[derive(Clone, Copy)]
pub(crate) enum Arguments<'a> {
    Text(JsonText<'a>),
    Value(JsonValue<'a>),
}

impl<'a> Arguments<'a> {
    /// `None` for what cannot be arguments.
    pub(crate) fn of(value: JsonValue<'a>) -> Option<Self> {
        match value.kind() {
            JsonKind::Object => Some(Self::Value(value)),
            _ => value.string().map(Self::Text),
        }
    }

    /// Appends them as the inside of a JSON string.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => text.write(out),
            Self::Value(value) => {
                let mut compact = Vec::new();
                value.write_compact(&mut compact);
                json::write_escaped(&compact, out);
            }
        }
    }

    /// Bytes of JSON text.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Value(value) => value.raw().len(),
        }
    }
}
