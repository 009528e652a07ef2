//! Reads the stream of a chat completion for a [`ChatWriter`]: what is a chunk, what an error, and
//! when the response is over is the same for every dialect (docs/contract/dialects.md#4,
//! docs/contract/translation.md#8.4).
//!
//! The input may be cut anywhere; the output does not depend on how. Output is written as soon as
//! its input is complete, and pieces are not merged. No clock is read.

use std::ops::ControlFlow;

use super::calls::TooMany;
use super::chunk::StreamEvent;
use super::completion::{Completion, TOO_MANY};
use super::error::{self, Refusal};
use super::sse::{Lines, SseLine, TooLong};
use super::warning::Warning;
use super::writer::{ChatWriter, Moment};
use crate::json::{self, JsonValue};

/// The largest event of an endpoint, in bytes, and the largest whole response in place of a stream.
/// The contract allows data lines of 16 MiB; the rest is room for the field name.
/// With the tool calls that are held back ([`super::calls::HELD_BYTES_MAX`]) it bounds the memory
/// of a stream.
pub(crate) const EVENT_BYTES_MAX: usize = (16 << 20) + 1024;

const TOO_LONG: &str = "the endpoint sent an event that is too large";
const EMPTY: &str = "the endpoint's response is empty";
const BROKEN: &str = "the endpoint's response broke off";
const TIMED_OUT: &str = "the endpoint stopped sending";

/// How an endpoint's response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The response is complete: by its last chunk, its length, or a close where that is a valid
    /// end.
    Clean,
    /// The response broke off before its end.
    Broken,
    /// The time limit for the next bytes has passed.
    TimedOut,
}

impl End {
    /// The error of a response that ended like this.
    pub(crate) fn error(self) -> Refusal {
        match self {
            Self::TimedOut => Refusal {
                status: 504,
                ..Refusal::backend(TIMED_OUT)
            },
            Self::Clean | Self::Broken => Refusal::backend(BROKEN),
        }
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
pub struct ChatStream {
    form: Form,
    lines: Lines,
    /// Lines of data that are not JSON by themselves, or a whole response in place of a stream.
    data: Vec<u8>,
    event: EventState,
    written: Written,
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

/// The client's stream, and how far it has come.
#[derive(Debug)]
struct Written {
    writer: Box<dyn ChatWriter>,
    started: bool,
    /// The endpoint has sent a chunk or a whole response.
    has_content: bool,
    over: bool,
    failed: bool,
    refusal: Option<Refusal>,
}

/// Where and when output is written.
struct Sink<'o> {
    at: Moment,
    out: &'o mut Vec<u8>,
}

impl ChatStream {
    /// A reader for the response to one request.
    pub(crate) fn new(writer: Box<dyn ChatWriter>) -> Self {
        Self {
            form: Form::Unknown,
            lines: Lines::new(EVENT_BYTES_MAX),
            data: Vec::new(),
            event: EventState::default(),
            written: Written {
                writer,
                started: false,
                has_content: false,
                over: false,
                failed: false,
                refusal: None,
            },
        }
    }

    /// Takes bytes of the response's body and appends what they complete. After the last event,
    /// further bytes are ignored.
    pub fn push(&mut self, input: &[u8], at: Moment, out: &mut Vec<u8>) -> Progress {
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
        if self.written.over {
            return self.written.progress();
        }
        let mut sink = Sink { at, out };
        match self.form {
            Form::Unknown => {}
            Form::Whole if self.data.len() + input.len() > EVENT_BYTES_MAX => {
                self.data = Vec::new();
                self.written.fail(Refusal::backend(TOO_LONG), &mut sink);
            }
            Form::Whole => self.data.extend_from_slice(input),
            Form::Events => self.events(input, &mut sink),
        }
        self.written.progress()
    }

    /// Bytes that are held until more input comes.
    pub(crate) fn backlog(&self) -> usize {
        self.lines.held() + self.data.len() + self.written.writer.held()
    }

    /// Bytes of the response's content so far.
    pub(crate) fn output_bytes(&self) -> u64 {
        self.written.writer.output_bytes()
    }

    /// Takes the end of the response's body.
    pub fn end(&mut self, how: End, at: Moment, out: &mut Vec<u8>) -> Progress {
        if self.written.over {
            return self.written.progress();
        }
        let mut sink = Sink { at, out };
        if how != End::Clean {
            self.written.break_off(how, &mut sink);
            return self.written.progress();
        }
        match self.form {
            Form::Whole => {
                let answer = std::mem::take(&mut self.data);
                match Completion::read(&answer) {
                    Ok(answer) => self.written.whole(&answer, &mut sink),
                    Err(refusal) => self.written.fail(refusal, &mut sink),
                }
            }
            Form::Unknown | Form::Events => {
                // The last line may lack its end.
                let rest = self.lines.rest();
                for line in [rest.as_slice(), b""] {
                    if self.line(line, &mut sink).is_break() {
                        return self.written.progress();
                    }
                }
                self.written.finish(&mut sink);
            }
        }
        self.written.progress()
    }

    /// The client has got nothing for a while: appends the first events, or what keeps a stream
    /// alive.
    pub fn idle(&mut self, at: Moment, out: &mut Vec<u8>) -> Progress {
        if !self.written.over {
            let begun = out.len();
            if !self.begin(at, out) || out.len() == begun {
                self.written.writer.keep_alive(at, out);
            }
        }
        self.written.progress()
    }

    /// Appends the first events, before any input; false, and nothing, if the stream has begun.
    pub(crate) fn begin(&mut self, at: Moment, out: &mut Vec<u8>) -> bool {
        if std::mem::replace(&mut self.written.started, true) {
            return false;
        }
        self.written.writer.start(None, at, out);
        true
    }

    /// An error that is not the endpoint's ends a stream that has begun.
    pub(crate) fn fail(&mut self, error: Refusal, at: Moment, out: &mut Vec<u8>) {
        if !self.written.over {
            self.written.fail(error, &mut Sink { at, out });
        }
    }

    /// Warnings for the log.
    pub fn warnings(&self) -> &[Warning] {
        self.written.writer.warnings()
    }

    fn line(&mut self, line: &[u8], sink: &mut Sink<'_>) -> ControlFlow<()> {
        let Self {
            data,
            event,
            written,
            ..
        } = self;
        line_of(written, event, data, line, sink)
    }

    fn events(&mut self, input: &[u8], sink: &mut Sink<'_>) {
        let Self {
            lines,
            data,
            event,
            written,
            ..
        } = self;
        let fed = lines.feed(input, |line| line_of(written, event, data, line, sink));
        if fed == Err(TooLong) {
            self.written.fail(Refusal::backend(TOO_LONG), sink);
        }
    }
}

/// Takes one line of an event stream. A line of data that is JSON by itself counts at once;
/// others are joined up to the blank line, as event streams define it. So are the data of an event
/// named `error`.
fn line_of(
    written: &mut Written,
    event: &mut EventState,
    data: &mut Vec<u8>,
    line: &[u8],
    sink: &mut Sink<'_>,
) -> ControlFlow<()> {
    match SseLine::read(line) {
        SseLine::Other => {}
        SseLine::Event(name) => {
            event.is_error = name.trim_ascii() == b"error";
            if event.is_error && event.was_taken {
                written.fail(error::event_error(b"").into(), sink);
            }
        }
        SseLine::Blank if data.is_empty() => *event = EventState::default(),
        SseLine::Blank => {
            if std::mem::take(event).is_error {
                written.fail(error::event_error(data).into(), sink);
            } else if let Some(value) = json::parse(data) {
                written.take(value, sink);
            }
            data.clear();
            data.shrink_to(64 << 10);
        }
        SseLine::Data(line) if !data.is_empty() => {
            if data.len() + line.len() > EVENT_BYTES_MAX {
                written.fail(Refusal::backend(TOO_LONG), sink);
            } else {
                data.push(b'\n');
                data.extend_from_slice(line);
            }
        }
        SseLine::Data(line) => match line.trim_ascii() {
            b"" => {}
            line if event.is_error => data.extend_from_slice(line),
            b"[DONE]" => written.finish(sink),
            line => match json::parse(line) {
                Some(value) => {
                    event.was_taken = true;
                    written.take(value, sink);
                }
                None => data.extend_from_slice(line),
            },
        },
    }
    if written.over {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

impl Written {
    fn progress(&self) -> Progress {
        match &self.refusal {
            Some(refusal) => Progress::Refused(refusal.clone()),
            None if self.failed => Progress::Failed,
            None if self.over => Progress::Finished,
            None if self.started => Progress::Streaming,
            None => Progress::Waiting,
        }
    }

    /// Takes what one event of the endpoint says.
    fn take(&mut self, value: JsonValue<'_>, sink: &mut Sink<'_>) {
        match StreamEvent::read(value) {
            StreamEvent::Nothing => {}
            StreamEvent::Error(error) => self.fail(error.into(), sink),
            StreamEvent::Chunk(chunk) => {
                self.has_content = true;
                if !std::mem::replace(&mut self.started, true) {
                    self.writer.start(chunk.counts, sink.at, sink.out);
                }
                if self.writer.chunk(&chunk, sink.at, sink.out) == Err(TooMany) {
                    self.fail(Refusal::backend(TOO_MANY), sink);
                }
            }
        }
    }

    fn whole(&mut self, answer: &Completion<'_>, sink: &mut Sink<'_>) {
        self.has_content = true;
        if !std::mem::replace(&mut self.started, true) {
            self.writer.start(Some(answer.counts), sink.at, sink.out);
        }
        self.writer.whole(answer, sink.at, sink.out);
        self.finish(sink);
    }

    fn finish(&mut self, sink: &mut Sink<'_>) {
        if !self.has_content && !self.writer.takes_nothing() {
            self.fail(Refusal::backend(EMPTY), sink);
            return;
        }
        if !std::mem::replace(&mut self.started, true) {
            self.writer.start(None, sink.at, sink.out);
        }
        self.writer.finish(sink.at, sink.out);
        self.over = true;
    }

    /// The response ended before its end.
    fn break_off(&mut self, how: End, sink: &mut Sink<'_>) {
        let error = how.error();
        if self.started {
            self.fail(error, sink);
        } else {
            self.refusal = Some(Refusal::backend(error.message));
            self.over = true;
        }
    }

    /// Ends the response with an error event, or with an error response if nothing was written.
    fn fail(&mut self, error: Refusal, sink: &mut Sink<'_>) {
        let error = self.writer.understood(error);
        if self.started {
            self.writer.fail(&error, sink.at, sink.out);
            self.failed = true;
        } else {
            self.refusal = Some(error);
        }
        self.over = true;
    }
}
