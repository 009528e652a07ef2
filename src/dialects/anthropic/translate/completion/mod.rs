//! A whole response, from an OpenAI chat completion to an Anthropic message
//! (docs/contract/translation.md#8.1, docs/contract/translation.md#8.2).

use super::context::ResponseContext;
use super::error::{self, Refusal};
use super::ids::{IdSeed, message_id, tool_id};
use super::outcome::{Counts, Ending, Finish};
use super::warning::{Translated, Warning, warn};
use crate::json::{self, JsonKind, JsonText, JsonValue};

/// Translates a whole response of status below 400.
///
/// # Errors
///
/// Status 502 if it is not a chat completion.
pub fn from_openai(answer: &[u8], ctx: &ResponseContext) -> Result<Translated, Refusal> {
    let answer = Completion::read(answer)?;
    let mut warnings = Vec::new();
    let mut out = Vec::with_capacity(512 + answer.size_hint());
    out.extend_from_slice(br#"{"id":"#);
    json::write_string(&message_id(ctx.seed), &mut out);
    out.extend_from_slice(br#","type":"message","role":"assistant","model":"#);
    match answer.model {
        Some(model) => write_text(model, &mut out),
        None => json::write_string(&ctx.model, &mut out),
    }
    out.extend_from_slice(br#","content":["#);
    let mut output_bytes = 0;
    let first = out.len();
    let mut ids_made = 0;
    for block in answer.blocks() {
        if out.len() > first {
            out.push(b',');
        }
        output_bytes += block.len() as u64;
        match block {
            ContentBlock::Thinking(thinking) => {
                out.extend_from_slice(br#"{"type":"thinking","thinking":"#);
                write_text(thinking, &mut out);
                out.extend_from_slice(br#","signature":""}"#);
            }
            ContentBlock::Text(text) => {
                out.extend_from_slice(br#"{"type":"text","text":""#);
                text.write(&mut out);
                out.extend_from_slice(br#""}"#);
            }
            ContentBlock::Tool(call) => {
                out.extend_from_slice(br#"{"type":"tool_use","id":""#);
                call.write_id(ctx.seed, &mut ids_made, &mut out);
                out.extend_from_slice(br#"","name":""#);
                call.name.write(&mut out);
                out.extend_from_slice(br#"","input":"#);
                call.write_input(&mut out, &mut warnings);
                out.push(b'}');
            }
        }
    }
    if out.len() == first {
        out.extend_from_slice(br#"{"type":"text","text":""}"#);
    }
    out.extend_from_slice(b"],");
    answer.ending().write(ctx, &mut out);
    out.push(b',');
    answer.counts.usage(ctx, output_bytes).write(&mut out);
    out.push(b'}');
    Ok(Translated {
        body: out,
        warnings,
    })
}

/// Appends a quoted string.
fn write_text(text: JsonText<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    text.write(out);
    out.push(b'"');
}

/// A chat completion, as far as it is translated.
pub(super) struct Completion<'a> {
    /// Never empty.
    pub(super) model: Option<JsonText<'a>>,
    pub(super) counts: Counts,
    thinking: Option<JsonText<'a>>,
    prose: Option<JoinedText<'a>>,
    refused: bool,
    calls: Vec<CompleteCall<'a>>,
    finish: Finish,
    matched: Option<JsonText<'a>>,
}

impl<'a> Completion<'a> {
    /// Reads the first choice.
    pub(super) fn read(text: &'a [u8]) -> Result<Self, Refusal> {
        let unreadable = || Refusal::backend("the endpoint's response is not a chat completion");
        let answer = json::parse(text).ok_or_else(unreadable)?;
        let [model, usage, choices, error, object, detail] =
            answer.given(["model", "usage", "choices", "error", "object", "detail"]);
        let choice = choices.and_then(|choices| choices.elements().next());
        let Some(choice) = choice else {
            return Err(if error::is_error(error, object, detail, choices) {
                Refusal::backend(error::stream_message(answer))
            } else {
                unreadable()
            });
        };
        let [message, finish, stop_reason, matched_stop] =
            choice.fields(["message", "finish_reason", "stop_reason", "matched_stop"]);
        let message = message
            .filter(|message| message.is(JsonKind::Object))
            .ok_or_else(unreadable)?;
        let [reasoning, reasoning_content, content, refusal, calls] = message.fields([
            "reasoning",
            "reasoning_content",
            "content",
            "refusal",
            "tool_calls",
        ]);
        let prose = content.map(JoinedText).filter(|prose| !prose.is_empty());
        let refusal = refusal
            .map(JoinedText)
            .filter(|refusal| prose.is_none() && !refusal.is_empty());
        Ok(Self {
            model: filled(model),
            counts: usage.map_or_else(Counts::default, Counts::read),
            thinking: filled(reasoning).or(filled(reasoning_content)),
            prose: prose.or(refusal),
            refused: refusal.is_some(),
            calls: calls
                .into_iter()
                .flat_map(JsonValue::elements)
                .filter_map(CompleteCall::read)
                .collect(),
            finish: filled(finish).map_or(Finish::Other, Finish::of),
            matched: filled(stop_reason).or(filled(matched_stop)),
        })
    }

    /// The content's blocks in Anthropic's order.
    pub(super) fn blocks(&self) -> impl Iterator<Item = ContentBlock<'a>> {
        let thinking = self.thinking.map(ContentBlock::Thinking);
        let text = self.prose.map(ContentBlock::Text);
        let calls = self.calls.iter().copied().map(ContentBlock::Tool);
        thinking.into_iter().chain(text).chain(calls)
    }

    pub(super) fn ending(&self) -> Ending {
        Ending {
            finish: self.finish,
            calls_tool: !self.calls.is_empty(),
            refused: self.refused,
            matched: self.matched.map(|matched| matched.decode().into_owned()),
        }
    }

    fn size_hint(&self) -> usize {
        self.blocks().map(|block| block.len() + 64).sum()
    }
}

/// A string that is not empty.
pub(super) fn filled(value: Option<JsonValue<'_>>) -> Option<JsonText<'_>> {
    value
        .and_then(JsonValue::string)
        .filter(|text| !text.is_empty())
}

/// A block of a response's content.
#[derive(Clone, Copy)]
pub(super) enum ContentBlock<'a> {
    Thinking(JsonText<'a>),
    Text(JoinedText<'a>),
    Tool(CompleteCall<'a>),
}

impl ContentBlock<'_> {
    /// Bytes of what the model wrote.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Thinking(thinking) => thinking.len(),
            Self::Text(text) => text.len(),
            Self::Tool(call) => call.name.len() + call.arguments.map_or(0, Arguments::len),
        }
    }
}

/// A content: a string, or an array of parts with texts that are joined.
#[derive(Clone, Copy)]
pub(super) struct JoinedText<'a>(pub(super) JsonValue<'a>);

impl<'a> JoinedText<'a> {
    fn texts(self) -> impl Iterator<Item = JsonText<'a>> {
        let part_text = |part: JsonValue<'a>| part.string().or_else(|| part.string_field("text"));
        self.0
            .string()
            .into_iter()
            .chain(self.0.elements().filter_map(part_text))
    }

    pub(super) fn is_empty(self) -> bool {
        self.texts().all(JsonText::is_empty)
    }

    pub(super) fn len(self) -> usize {
        self.texts().map(JsonText::len).sum()
    }

    /// Appends it as the inside of a JSON string.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        self.texts().for_each(|text| text.write(out));
    }
}

/// A tool call.
#[derive(Clone, Copy)]
pub(super) struct CompleteCall<'a> {
    id: Option<JsonText<'a>>,
    pub(super) name: JsonText<'a>,
    arguments: Option<Arguments<'a>>,
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

    /// Appends the id, or a made one, as the inside of a JSON string.
    pub(super) fn write_id(&self, seed: IdSeed, ids_made: &mut u64, out: &mut Vec<u8>) {
        match self.id {
            Some(id) => id.write(out),
            None => {
                out.extend_from_slice(tool_id(seed, *ids_made).as_bytes());
                *ids_made += 1;
            }
        }
    }

    /// Appends the arguments as an object, an empty one if they are none.
    pub(super) fn write_input(&self, out: &mut Vec<u8>, warnings: &mut Vec<Warning>) {
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
pub(super) enum Arguments<'a> {
    Text(JsonText<'a>),
    Value(JsonValue<'a>),
}

impl<'a> Arguments<'a> {
    /// `None` for what cannot be arguments.
    pub(super) fn of(value: JsonValue<'a>) -> Option<Self> {
        match value.kind() {
            JsonKind::Object => Some(Self::Value(value)),
            _ => value.string().map(Self::Text),
        }
    }

    /// Bytes of JSON text.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Value(value) => value.raw().len(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
