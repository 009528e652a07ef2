//! One chunk of a streamed chat completion. It is validated as a whole: a chunk with a field of a
//! wrong type is ignored (docs/contract/translation.md#8.4).

use super::calls::CallPiece;
use super::completion::{JoinedText, filled};
use super::error::{self, BackendError};
use super::outcome::{Counts, Finish};
use crate::json::{JsonKind, JsonText, JsonValue};

/// The content of one event of the endpoint.
pub(crate) enum StreamEvent<'a> {
    Chunk(ChatChunk<'a>),
    /// An error in place of a chunk.
    Error(BackendError),
    /// Neither a chunk nor an error.
    Nothing,
}

/// A chunk, as far as it is translated. Empty strings are missing.
#[derive(Clone, Copy, Default)]
pub(crate) struct ChatChunk<'a> {
    pub(crate) counts: Option<Counts>,
    pub(crate) finish: Option<Finish>,
    /// The text at which the endpoint stopped, if it says so.
    pub(crate) matched: Option<JsonText<'a>>,
    pub(crate) reasoning: Option<JsonText<'a>>,
    pub(crate) content: Option<JoinedText<'a>>,
    pub(crate) refusal: Option<JoinedText<'a>>,
    /// The probabilities of the tokens, as a list.
    pub(crate) logprobs: Option<JsonValue<'a>>,
    calls: Option<JsonValue<'a>>,
}

impl<'a> ChatChunk<'a> {
    /// The pieces of tool calls.
    pub(crate) fn calls(&self) -> impl Iterator<Item = CallPiece<'a>> + use<'a> {
        self.calls
            .into_iter()
            .flat_map(JsonValue::elements)
            .filter_map(CallPiece::read)
    }

    /// `None` if a field has a wrong type.
    fn read(
        model: Option<JsonValue<'a>>,
        usage: Option<JsonValue<'a>>,
        choices: Option<JsonValue<'a>>,
    ) -> Option<Self> {
        typed(model, &[JsonKind::String])?;
        let mut chunk = Self {
            counts: typed(usage, &[JsonKind::Object])?.map(Counts::read),
            ..Self::default()
        };
        let choice =
            typed(choices, &[JsonKind::Array])?.and_then(|choices| choices.elements().next());
        let Some(choice) = typed(choice, &[JsonKind::Object])? else {
            return Some(chunk);
        };
        let [delta, text, finish, stop_reason, matched_stop, logprobs] = choice.given([
            "delta",
            "text",
            "finish_reason",
            "stop_reason",
            "matched_stop",
            "logprobs",
        ]);
        chunk.logprobs = logprobs
            .and_then(|logprobs| logprobs.field("content"))
            .filter(|content| content.is(JsonKind::Array));
        chunk.finish = filled(typed(finish, &[JsonKind::String])?).map(Finish::of);
        // Some servers name the id of a token here; only texts are compared.
        chunk.matched = filled(stop_reason).or(filled(matched_stop));
        // Completions of a prompt have a text in place of the delta.
        chunk.content = text.map(JoinedText).filter(|text| !text.is_empty());
        if let Some(delta) = typed(delta, &[JsonKind::Object])? {
            chunk.read_delta(delta)?;
        }
        Some(chunk)
    }

    fn read_delta(&mut self, delta: JsonValue<'a>) -> Option<()> {
        const PROSE: &[JsonKind] = &[JsonKind::String, JsonKind::Array];
        let [reasoning, reasoning_content, content, refusal, calls] = delta.given([
            "reasoning",
            "reasoning_content",
            "content",
            "refusal",
            "tool_calls",
        ]);
        let reasoning = filled(typed(reasoning, &[JsonKind::String])?);
        let reasoning_content = filled(typed(reasoning_content, &[JsonKind::String])?);
        let prose =
            |value: Option<JsonValue<'a>>| value.map(JoinedText).filter(|prose| !prose.is_empty());
        self.reasoning = reasoning.or(reasoning_content);
        self.content = prose(typed(content, PROSE)?);
        self.refusal = prose(typed(refusal, PROSE)?);
        self.calls = typed(calls, &[JsonKind::Array])?;
        let mut pieces = self.calls.into_iter().flat_map(JsonValue::elements);
        pieces
            .all(|piece| CallPiece::read(piece).is_some())
            .then_some(())
    }
}

impl<'a> StreamEvent<'a> {
    pub(crate) fn read(value: JsonValue<'a>) -> Self {
        // One call for all fields, because each lookup reads the whole event.
        let [error, object, choices, model, usage, detail] =
            value.given(["error", "object", "choices", "model", "usage", "detail"]);
        if error::is_error(error, object, detail, choices) {
            return Self::Error(BackendError::of(502, value));
        }
        match ChatChunk::read(model, usage, choices).filter(|_| value.is(JsonKind::Object)) {
            Some(chunk) => Self::Chunk(chunk),
            None => Self::Nothing,
        }
    }
}

/// The outer `None` means that the value is present and of none of these kinds.
fn typed<'a>(value: Option<JsonValue<'a>>, kinds: &[JsonKind]) -> Option<Option<JsonValue<'a>>> {
    match value {
        Some(value) if !kinds.contains(&value.kind()) => None,
        _ => Some(value),
    }
}
