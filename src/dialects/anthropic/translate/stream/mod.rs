//! A streamed response, from OpenAI chunks to Anthropic events (docs/contract/translation.md#8.3,
//! docs/contract/translation.md#8.4).
//!
//! The input may be cut anywhere. Each event is written as soon as its input is complete, and
//! events are not merged. The output does not depend on how the input was cut. No clock is read:
//! the caller reports when nothing was sent for some time ([`StreamTransformer::idle`]).

use std::ops::ControlFlow;

use super::completion::write_id;
use super::error::error_kind;
use super::events::{self, ProseKind};
use super::ids::{message_id, tool_id};
use super::outcome::{Ending, Usage};
use crate::dialects::chat::calls::{CallPiece, Calls, Fate, TooMany};
use crate::dialects::chat::chunk::{ChatChunk, StreamEvent};
use crate::dialects::chat::completion::{Completion, ContentBlock};
use crate::dialects::chat::context::ResponseContext;
use crate::dialects::chat::error::{self, Refusal};
use crate::dialects::chat::outcome::Counts;
use crate::dialects::chat::sse::{Lines, SseLine, TooLong};
use crate::dialects::chat::stream::End;
use crate::dialects::chat::warning::{Warning, warn};
use crate::json::{self, JsonText, JsonValue};

/// The largest event of an endpoint, in bytes, and the largest whole response in place of a stream.
/// The contract allows data lines of 16 MiB; the rest is room for the field name.
/// With the tool calls that are held back ([`crate::dialects::chat::calls::HELD_BYTES_MAX`]) it bounds the memory
/// of a stream.
pub(crate) const EVENT_BYTES_MAX: usize = (16 << 20) + 1024;

const TOO_LONG: &str = "the endpoint sent an event that is too large";
const TOO_MANY: &str = "the endpoint sent more tool calls than can be held";
const BROKEN: &str = "the endpoint's response broke off";
const TIMED_OUT: &str = "the endpoint stopped sending";

/// Appends the error event of a response that ended like this.
pub(super) fn write_ending(how: End, out: &mut Vec<u8>) {
    match how {
        End::TimedOut => events::error(error_kind(504), TIMED_OUT, out),
        End::Clean | End::Broken => events::error(error_kind(502), BROKEN, out),
    }
}

/// The progress of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was written yet; the response's head can wait.
    Waiting,
    /// Events were written; the head with status 200 has to be sent.
    Streaming,
    /// The last event was written: end the response, the endpoint is no longer needed.
    Finished,
    /// An error event was written as the last one: end the response, close the endpoint's
    /// connection.
    Failed,
    /// Nothing was written, and nothing will be: this error is the response.
    Refused(Refusal),
}

/// Translates one stream.
#[derive(Debug)]
pub struct StreamTransformer {
    form: Form,
    lines: Lines,
    /// Lines of data that are not JSON by themselves, or a whole response in place of a stream.
    data: Vec<u8>,
    event: EventState,
    message: Message,
}

/// What is known of the event whose lines arrive.
#[derive(Debug, Clone, Copy, Default)]
struct EventState {
    /// It is named `error`, so its data are one, whatever they are.
    is_error: bool,
    /// Data of it were taken as a chunk before its name was known.
    was_taken: bool,
}

/// The form of the endpoint's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing has arrived yet.
    Unknown,
    Events,
    /// What should be a whole response as JSON.
    Whole,
}

impl StreamTransformer {
    /// A transformer for the response to one request.
    pub fn new(ctx: ResponseContext) -> Self {
        Self {
            form: Form::Unknown,
            lines: Lines::new(EVENT_BYTES_MAX),
            data: Vec::new(),
            event: EventState::default(),
            message: Message::new(ctx),
        }
    }

    /// Takes bytes of the response's body and appends the events that they complete. After the last
    /// event, further bytes are ignored.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let mut input = input;
        if self.form == Form::Unknown {
            // Blanks and the parts of a byte order mark: nothing that begins an event.
            let blank = |byte: &u8| byte.is_ascii_whitespace() || b"\xef\xbb\xbf".contains(byte);
            let start = input.iter().position(|byte| !blank(byte));
            input = &input[start.unwrap_or(input.len())..];
            match input.first() {
                None => {}
                // The first letters of the fields of an event stream, and a comment's colon.
                Some(b'd' | b'e' | b'i' | b'r' | b':') => self.form = Form::Events,
                Some(_) => self.form = Form::Whole,
            }
        }
        if self.message.over {
            return self.message.progress();
        }
        match self.form {
            Form::Unknown => {}
            Form::Whole if self.data.len() + input.len() > EVENT_BYTES_MAX => {
                self.data = Vec::new();
                self.message.fail(502, TOO_LONG, out);
            }
            Form::Whole => self.data.extend_from_slice(input),
            Form::Events => self.events(input, out),
        }
        self.message.progress()
    }

    /// Bytes that are held until more input comes.
    pub(crate) fn backlog(&self) -> usize {
        self.lines.held() + self.data.len() + self.message.calls.held_bytes()
    }

    /// Takes the end of the response's body.
    pub fn end(&mut self, how: End, out: &mut Vec<u8>) -> Progress {
        if self.message.over {
            return self.message.progress();
        }
        if how != End::Clean {
            self.message.break_off(how, out);
            return self.message.progress();
        }
        match self.form {
            Form::Whole => {
                let answer = std::mem::take(&mut self.data);
                match Completion::read(&answer) {
                    Ok(answer) => self.message.whole(&answer, out),
                    Err(refusal) => self.message.fail(refusal.status, &refusal.message, out),
                }
            }
            Form::Unknown | Form::Events => {
                // The last line may lack its end.
                let rest = self.lines.rest();
                for line in [rest.as_slice(), b""] {
                    if self.line(line, out).is_break() {
                        return self.message.progress();
                    }
                }
                self.message.finish(out);
            }
        }
        self.message.progress()
    }

    /// Nothing was sent for ten seconds since the endpoint's status of 2xx came: shows the client
    /// that its request is alive.
    pub fn idle(&mut self, out: &mut Vec<u8>) -> Progress {
        if !self.message.over {
            if self.message.started {
                events::ping(out);
            } else {
                self.message.start(out);
            }
        }
        self.message.progress()
    }

    /// Warnings for the log.
    pub fn warnings(&self) -> &[Warning] {
        &self.message.warnings
    }

    /// The tokens that were reported, or would be by now.
    pub fn usage(&self) -> Usage {
        self.message.usage()
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> ControlFlow<()> {
        let Self {
            data,
            event,
            message,
            ..
        } = self;
        line_of(message, event, data, line, out)
    }

    fn events(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let Self {
            lines,
            data,
            event,
            message,
            ..
        } = self;
        let fed = lines.feed(input, |line| line_of(message, event, data, line, out));
        if fed == Err(TooLong) {
            self.message.fail(502, TOO_LONG, out);
        }
    }
}

/// Takes one line of an event stream. A line of data that is JSON by itself counts at once;
/// others are joined up to the blank line, as event streams define it. So are the data of an event
/// named `error`.
fn line_of(
    message: &mut Message,
    event: &mut EventState,
    data: &mut Vec<u8>,
    line: &[u8],
    out: &mut Vec<u8>,
) -> ControlFlow<()> {
    match SseLine::read(line) {
        SseLine::Other => {}
        SseLine::Event(name) => {
            event.is_error = name.trim_ascii() == b"error";
            if event.is_error && event.was_taken {
                message.fail(502, &error::event_error(b"").message, out);
            }
        }
        SseLine::Blank if data.is_empty() => *event = EventState::default(),
        SseLine::Blank => {
            if std::mem::take(event).is_error {
                message.fail(502, &error::event_error(data).message, out);
            } else if let Some(value) = json::parse(data) {
                message.take(value, out);
            }
            data.clear();
            data.shrink_to(64 << 10);
        }
        SseLine::Data(line) if !data.is_empty() => {
            if data.len() + line.len() > EVENT_BYTES_MAX {
                message.fail(502, TOO_LONG, out);
            } else {
                data.push(b'\n');
                data.extend_from_slice(line);
            }
        }
        SseLine::Data(line) => match line.trim_ascii() {
            b"" => {}
            line if event.is_error => data.extend_from_slice(line),
            b"[DONE]" => message.finish(out),
            line => match json::parse(line) {
                Some(value) => {
                    event.was_taken = true;
                    message.take(value, out);
                }
                None => data.extend_from_slice(line),
            },
        },
    }
    if message.over {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

/// The message as the client has seen it.
#[derive(Debug)]
struct Message {
    ctx: ResponseContext,
    started: bool,
    over: bool,
    refusal: Option<Refusal>,
    failed: bool,
    /// The block that is open; a tool's call is open in `calls` too.
    open: Option<Open>,
    next_index: u64,
    calls: Calls,
    ids_made: u64,
    counts: Counts,
    ending: Ending,
    has_text: bool,
    /// Of text and thinking, and of the calls of a whole response; `calls` counts its own.
    output_bytes: u64,
    warnings: Vec<Warning>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Prose(ProseKind),
    Tool,
}

impl Message {
    fn new(ctx: ResponseContext) -> Self {
        Self {
            ctx,
            started: false,
            over: false,
            refusal: None,
            failed: false,
            open: None,
            next_index: 0,
            calls: Calls::default(),
            ids_made: 0,
            counts: Counts::default(),
            ending: Ending::default(),
            has_text: false,
            output_bytes: 0,
            warnings: Vec::new(),
        }
    }

    fn progress(&self) -> Progress {
        match &self.refusal {
            Some(refusal) => Progress::Refused(refusal.clone()),
            None if self.failed => Progress::Failed,
            None if self.over => Progress::Finished,
            None if self.started => Progress::Streaming,
            None => Progress::Waiting,
        }
    }

    fn usage(&self) -> Usage {
        let bytes = self.output_bytes + self.calls.bytes();
        Usage::of(self.counts, &self.ctx, bytes)
    }

    /// Takes what one event of the endpoint says.
    fn take(&mut self, value: JsonValue<'_>, out: &mut Vec<u8>) {
        match StreamEvent::read(value) {
            StreamEvent::Nothing => {}
            StreamEvent::Error(error) => self.fail(502, &error.message, out),
            StreamEvent::Chunk(chunk) => self.chunk(&chunk, out),
        }
    }

    /// In this order: model, usage, finish reason, reasoning, content, tool calls.
    fn chunk(&mut self, chunk: &ChatChunk<'_>, out: &mut Vec<u8>) {
        if let Some(counts) = chunk.counts {
            self.counts = counts;
        }
        if !self.started {
            self.start_as(chunk.model, out);
        }
        if let Some(finish) = chunk.finish {
            self.ending.finish = finish;
        }
        if let Some(matched) = chunk.matched {
            self.ending.matched = Some(matched.decode().into_owned());
        }
        if let Some(reasoning) = chunk.reasoning {
            self.prose(ProseKind::Thinking, reasoning.len(), out, |out| {
                reasoning.write(out);
            });
        }
        if let Some(content) = chunk.content {
            self.has_text = true;
            self.prose(ProseKind::Text, content.len(), out, |out| {
                content.write(out)
            });
        }
        if let Some(refusal) = chunk
            .refusal
            .filter(|_| !self.has_text || self.ending.refused)
        {
            self.has_text = true;
            self.ending.refused = true;
            self.prose(ProseKind::Text, refusal.len(), out, |out| {
                refusal.write(out)
            });
        }
        for piece in chunk.calls() {
            if self.call(&piece, out).is_err() {
                self.fail(502, TOO_MANY, out);
                return;
            }
        }
    }

    /// Starts with the name that the client asked for.
    fn start(&mut self, out: &mut Vec<u8>) {
        self.start_as(None, out);
    }

    fn start_as(&mut self, model: Option<JsonText<'_>>, out: &mut Vec<u8>) {
        self.started = true;
        let mut name = Vec::new();
        match model {
            Some(model) => model.write(&mut name),
            None => json::write_escaped(self.ctx.model.as_bytes(), &mut name),
        }
        let usage = Usage {
            output_tokens: 0,
            ..self.usage()
        };
        events::message_start(&message_id(self.ctx.seed), &name, usage, out);
    }

    /// A piece of text or thinking.
    fn prose(
        &mut self,
        prose: ProseKind,
        bytes: usize,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.output_bytes += bytes as u64;
        if self.open != Some(Open::Prose(prose)) {
            self.open_waiting_calls(true, out);
            self.close(out);
            events::prose_start(self.next_index, prose, out);
            self.open = Some(Open::Prose(prose));
        }
        events::prose_delta(self.next_index, prose, out, write);
    }

    /// A piece of a tool call.
    fn call(&mut self, piece: &CallPiece<'_>, out: &mut Vec<u8>) -> Result<(), TooMany> {
        let at = self.calls.find(piece)?;
        self.open_waiting_calls(false, out);
        match self.calls.take(at, piece)? {
            Fate::Empty | Fate::Held => {}
            Fate::Send => {
                events::arguments_delta(self.next_index, self.calls.piece(), out);
            }
            Fate::Late(at) => {
                let name = || Warning::ArgumentsTooLate {
                    name: self.calls.name(at),
                };
                warn(&mut self.warnings, name);
            }
        }
        self.open_waiting_calls(false, out);
        Ok(())
    }

    /// Opens the calls that may be, one after the other, each with what was held back of it.
    fn open_waiting_calls(&mut self, force: bool, out: &mut Vec<u8>) {
        while let Some(call) = self.calls.open_next(force) {
            if self.open.take().is_some() {
                events::block_stop(self.next_index, out);
                self.next_index += 1;
            }
            if call.id.is_empty() {
                let id = tool_id(self.ctx.seed, self.ids_made);
                self.ids_made += 1;
                events::tool_start(self.next_index, id.as_bytes(), &call.name, out);
            } else {
                events::tool_start(self.next_index, &call.id, &call.name, out);
            }
            self.open = Some(Open::Tool);
            if !call.held.is_empty() {
                events::arguments_delta(self.next_index, &call.held, out);
                call.held = Vec::new();
            }
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.calls.close();
        if self.open.take().is_some() {
            events::block_stop(self.next_index, out);
            self.next_index += 1;
        }
    }

    /// The response of the endpoint is complete.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.started {
            self.start(out);
        }
        self.open_waiting_calls(true, out);
        self.close(out);
        if self.calls.any_waiting() {
            warn(&mut self.warnings, || Warning::CallWithoutName);
        }
        self.ending.calls_tool |= self.calls.any_opened();
        events::message_end(self.usage(), out, |out| self.ending.write(&self.ctx, out));
        self.over = true;
    }

    /// Emits a whole response as events: each block as start, one delta, stop.
    fn whole(&mut self, answer: &Completion<'_>, out: &mut Vec<u8>) {
        self.counts = answer.counts;
        self.ending = Ending::of(answer);
        if !self.started {
            self.start_as(answer.model, out);
        }
        for block in answer.blocks() {
            match block {
                ContentBlock::Thinking(text) => {
                    self.prose(ProseKind::Thinking, block.len(), out, |out| text.write(out));
                }
                ContentBlock::Text(text) => {
                    self.prose(ProseKind::Text, block.len(), out, |out| text.write(out));
                }
                ContentBlock::Tool(call) => {
                    self.close(out);
                    self.output_bytes += block.len() as u64;
                    let (mut id, mut name, mut input) = (Vec::new(), Vec::new(), Vec::new());
                    write_id(call, self.ctx.seed, &mut self.ids_made, &mut id);
                    call.name.write(&mut name);
                    call.write_input(&mut input, &mut self.warnings);
                    events::tool_start(self.next_index, &id, &name, out);
                    self.open = Some(Open::Tool);
                    if input != b"{}" {
                        let mut piece = Vec::with_capacity(input.len() + 16);
                        json::write_escaped(&input, &mut piece);
                        events::arguments_delta(self.next_index, &piece, out);
                    }
                }
            }
        }
        self.finish(out);
    }

    /// The response ended before its end.
    fn break_off(&mut self, how: End, out: &mut Vec<u8>) {
        let message = match how {
            End::TimedOut => TIMED_OUT,
            End::Clean | End::Broken => BROKEN,
        };
        if self.started {
            write_ending(how, out);
            self.failed = true;
        } else {
            self.refusal = Some(Refusal::backend(message));
        }
        self.over = true;
    }

    /// Ends the response with an error event, or with an error response if nothing was written.
    fn fail(&mut self, status: u16, message: &str, out: &mut Vec<u8>) {
        if self.started {
            events::error(error_kind(status), message, out);
            self.failed = true;
        } else {
            self.refusal = Some(Refusal {
                status,
                message: message.to_owned(),
                details: None,
            });
        }
        self.over = true;
    }
}

#[cfg(test)]
mod call_tests;
#[cfg(test)]
pub(crate) mod tests;
