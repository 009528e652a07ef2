//! A stream of lines, out of the chunks of a chat completion.
//!
//! Contract: docs/contract/dialects.md#11

use std::time::Duration;

use super::reply::{
    Answering, ReplyTotals, Texts, WholeCall, unreadable, write_call, write_error_line,
};
use crate::dialects::chat::calls::{
    CallWriter, Calls, HELD_BYTES_MAX, OpenedCall, TooMany, open_rest, take_piece,
};
use crate::dialects::chat::chunk::ChatChunk;
use crate::dialects::chat::completion::{Completion, ContentBlock};
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::outcome::{Counts, Finish};
use crate::dialects::chat::warning::{Warning, warn};
use crate::dialects::chat::writer::{ChatWriter, Moment};
use crate::json::{self, JsonKind, JsonValue};

/// The stream as the client has seen it.
#[derive(Debug)]
pub(super) struct LineWriter {
    answering: Answering,
    calls: Calls,
    /// The call whose arguments arrive.
    open: Option<OpenCall>,
    /// Calls that were written.
    written: u64,
    counts: Counts,
    finish: Finish,
    /// The time of the current chunk, or of the end.
    at: Moment,
    has_text: bool,
    is_refused: bool,
    /// Of text, reasoning and the calls of a whole response; `calls` counts its own.
    output_bytes: u64,
    /// When the first piece came, since the request arrived.
    first: Option<Duration>,
    warnings: Vec<Warning>,
}

/// The call whose arguments are still arriving.
#[derive(Debug)]
struct OpenCall {
    call: OpenedCall,
    /// Those that have arrived, as the inside of a JSON string.
    arguments: Vec<u8>,
}

impl LineWriter {
    pub(super) fn new(answering: Answering) -> Self {
        Self {
            answering,
            calls: Calls::default(),
            open: None,
            written: 0,
            counts: Counts::default(),
            finish: Finish::default(),
            at: Moment::default(),
            has_text: false,
            is_refused: false,
            output_bytes: 0,
            first: None,
            warnings: Vec::new(),
        }
    }

    /// A line that is not the last.
    fn line(&mut self, texts: Texts<'_>, at: Moment, out: &mut Vec<u8>) {
        self.answering.begin(texts, at, out);
        out.extend_from_slice(b",\"done\":false}\n");
    }

    fn thinking(
        &mut self,
        bytes: usize,
        at: Moment,
        out: &mut Vec<u8>,
        write: &dyn Fn(&mut Vec<u8>),
    ) {
        self.output_bytes += bytes as u64;
        if !self.answering.hides_thinking {
            let texts = Texts {
                thinking: Some(write),
                ..Texts::default()
            };
            self.line(texts, at, out);
        }
    }

    fn text(
        &mut self,
        bytes: usize,
        logprobs: Option<JsonValue<'_>>,
        at: Moment,
        out: &mut Vec<u8>,
        write: &dyn Fn(&mut Vec<u8>),
    ) {
        self.has_text = true;
        self.output_bytes += bytes as u64;
        let texts = Texts {
            text: Some(write),
            logprobs,
            ..Texts::default()
        };
        self.line(texts, at, out);
    }

    /// Writes the open call.
    fn write_open(&mut self, at: Moment, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        let mut arguments = Vec::new();
        if !open.write_arguments(&mut arguments) {
            warn(&mut self.warnings, || unreadable(&open.call.name));
        }
        let id = |out: &mut Vec<u8>| {
            out.extend_from_slice(&open.call.id);
            !open.call.id.is_empty()
        };
        let name = |out: &mut Vec<u8>| out.extend_from_slice(&open.call.name);
        self.write_call(&id, &name, &arguments, at, out);
    }

    fn write_call(
        &mut self,
        id: &dyn Fn(&mut Vec<u8>) -> bool,
        name: &dyn Fn(&mut Vec<u8>),
        arguments: &[u8],
        at: Moment,
        out: &mut Vec<u8>,
    ) {
        let mut written = Vec::with_capacity(arguments.len() + 96);
        let call = WholeCall {
            id,
            name,
            arguments,
            number: self.written,
        };
        write_call(&call, self.answering.seed, &mut written);
        self.written += 1;
        let texts = Texts {
            calls: Some(&written),
            ..Texts::default()
        };
        self.line(texts, at, out);
    }
}

impl OpenCall {
    fn take(&mut self, more: &[u8]) -> Result<(), TooMany> {
        self.arguments.extend_from_slice(more);
        if self.arguments.len() > HELD_BYTES_MAX {
            return Err(TooMany);
        }
        Ok(())
    }

    /// Writes the arguments as an object; returns false, and writes an empty one, if they are none.
    fn write_arguments(&self, out: &mut Vec<u8>) -> bool {
        if self.arguments.is_empty() {
            out.extend_from_slice(b"{}");
            return true;
        }
        let quoted = [b"\"", self.arguments.as_slice(), b"\""].concat();
        let text = json::parse(&quoted).and_then(JsonValue::string);
        let text = text.map(|text| text.decode()).unwrap_or_default();
        let object = json::parse(text.as_bytes()).filter(|object| object.is(JsonKind::Object));
        match object {
            Some(object) => object.write_compact(out),
            None => out.extend_from_slice(b"{}"),
        }
        object.is_some()
    }
}

impl CallWriter for LineWriter {
    fn calls(&mut self) -> (&mut Calls, &mut Vec<Warning>) {
        (&mut self.calls, &mut self.warnings)
    }

    fn open_call(&mut self, call: OpenedCall, _: &mut Vec<u8>) {
        self.open = Some(OpenCall {
            call,
            arguments: Vec::new(),
        });
    }

    fn arguments(&mut self, piece: &[u8], _: &mut Vec<u8>) -> Result<(), TooMany> {
        match &mut self.open {
            Some(open) => open.take(piece),
            None => Ok(()),
        }
    }

    /// A call is one line.
    fn complete(&mut self, out: &mut Vec<u8>) -> bool {
        let is_open = self.open.is_some();
        self.write_open(self.at, out);
        is_open
    }
}

impl ChatWriter for LineWriter {
    /// Nothing is written: the first line is that of the first piece.
    fn start(&mut self, counts: Option<Counts>, _: Moment, _: &mut Vec<u8>) {
        self.counts = counts.unwrap_or(self.counts);
    }

    /// In this order: reasoning, text, calls.
    fn chunk(
        &mut self,
        chunk: &ChatChunk<'_>,
        at: Moment,
        out: &mut Vec<u8>,
    ) -> Result<(), TooMany> {
        self.at = at;
        self.counts = chunk.counts.unwrap_or(self.counts);
        self.finish = chunk.finish.unwrap_or(self.finish);
        let has_piece = chunk.reasoning.is_some()
            || chunk.content.is_some()
            || chunk.refusal.is_some()
            || chunk.calls().next().is_some();
        if has_piece {
            self.first.get_or_insert(at.elapsed);
        }
        if let Some(reasoning) = chunk.reasoning {
            self.thinking(reasoning.len(), at, out, &|out| reasoning.write(out));
        }
        let wants_logprobs = self.answering.has_logprobs;
        if let Some(content) = chunk.content {
            let logprobs = chunk.logprobs.filter(|_| wants_logprobs);
            self.text(content.len(), logprobs, at, out, &|out| content.write(out));
        }
        if let Some(refusal) = chunk.refusal.filter(|_| !self.has_text || self.is_refused) {
            self.is_refused = true;
            self.text(refusal.len(), None, at, out, &|out| refusal.write(out));
        }
        for piece in chunk.calls() {
            take_piece(self, &piece, out)?;
        }
        Ok(())
    }

    fn whole(&mut self, completion: &Completion<'_>, at: Moment, out: &mut Vec<u8>) {
        self.counts = completion.counts;
        self.finish = completion.finish;
        self.first.get_or_insert(at.elapsed);
        for block in completion.blocks() {
            match block {
                ContentBlock::Thinking(text) => {
                    self.thinking(block.len(), at, out, &|out| text.write(out));
                }
                ContentBlock::Text(text) => {
                    self.text(block.len(), None, at, out, &|out| text.write(out));
                }
                ContentBlock::Tool(call) => {
                    self.output_bytes += block.len() as u64;
                    let mut arguments = Vec::new();
                    call.write_input(&mut arguments, &mut self.warnings);
                    let id = |out: &mut Vec<u8>| call.id.map(|id| id.write(out)).is_some();
                    let name = |out: &mut Vec<u8>| call.name.write(out);
                    self.write_call(&id, &name, &arguments, at, out);
                }
            }
        }
    }

    fn finish(&mut self, at: Moment, out: &mut Vec<u8>) {
        self.at = at;
        // What is left comes before the last line.
        open_rest(self, out);
        let totals = ReplyTotals {
            counts: self.counts,
            output_bytes: self.output_bytes(),
            finish: self.finish,
            first: self.first.unwrap_or(at.elapsed),
        };
        self.answering.begin(Texts::default(), at, out);
        self.answering.end(&totals, at, out);
        out.push(b'\n');
    }

    fn fail(&mut self, error: &Refusal, _: Moment, out: &mut Vec<u8>) {
        write_error_line(&error.message, out);
    }

    fn keep_alive(&mut self, at: Moment, out: &mut Vec<u8>) {
        self.line(Texts::default(), at, out);
    }

    fn held(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| open.arguments.len());
        self.calls.held_bytes() + open
    }

    fn output_bytes(&self) -> u64 {
        self.output_bytes + self.calls.bytes()
    }

    fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}
