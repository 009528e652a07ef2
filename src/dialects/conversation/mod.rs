//! One request of a dialect that an endpoint either speaks or gets as a chat completion: its state,
//! and the rules that are the same for all dialects. What differs is a [`Translator`].
//!
//! `request.rs` has the methods for the request to the endpoint, `response.rs` those for the
//! response, `early.rs` those for a stream that begins before it. [`split`] separates candidates that
//! speak the dialect from the others, [`native`] has the rule by which an endpoint turns out not to
//! speak it.
//!
//! Contract: docs/contract/dialects.md#3, docs/contract/dialects.md#4,
//! docs/contract/translation.md#14

mod early;
mod hooks;
mod native;
mod request;
mod response;
mod split;
#[cfg(test)]
mod tests;
mod translator;

use std::cell::Cell;
use std::time::Duration;

use crate::dialects::chat::dropped::Dropped;
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::inflate::Inflater;
use crate::dialects::chat::outcome::Counts;
use crate::dialects::chat::warning::Warning;
use crate::dialects::{EstimatedUsage, Fallback, Note, Summary};
use crate::providers::CommonOperation;
use response::Replying;
use split::{Mode, Split};

pub(crate) use hooks::{BodyRecorder, NativeStream};
pub(crate) use translator::{
    ChatMaking, ChatRequest, CheckedRequest, Demand, NativeHead, NativeStart, NativeSupport,
    NativeVerdict, Outgoing, Translator, TranslatorFacts,
};

/// The value of `X-Olla-Mode` of what passes.
pub(crate) const PASSTHROUGH: &str = Mode::Passthrough.as_str();

/// Bytes of an error response that are read to understand it.
const ERROR_BYTES_MAX: usize = 1 << 20;

/// An endpoint that turned out not to speak a dialect gets translated requests for this time, or
/// until its models are listed again (docs/contract/dialects.md#1.2).
const REFUSED_FOR: Duration = Duration::from_secs(300);

/// One request of a dialect.
#[derive(Debug)]
pub(crate) struct Conversation {
    translator: Box<dyn Translator>,
    subject: Subject,
    split: Split,
    /// No native candidate could be picked: the others may be picked too.
    widened: bool,
    /// The mode of the last attempt.
    mode: Option<Mode>,
    /// The endpoint that gets the request once more, translated.
    again: Option<usize>,
    /// The translated request; empty unless the picked endpoint gets one.
    outgoing: Vec<u8>,
    operation: CommonOperation,
    /// The tokens of the translated request, as estimated.
    input_tokens: u64,
    /// The bytes of the content of a whole response that was translated.
    output_bytes: u64,
    /// What of the request had no effect in the last attempt.
    dropped: Dropped,
    /// The model as the last endpoint knows it.
    name: String,
    /// What the ids of the response are made of; the same in all attempts.
    seed: Option<IdSeed>,
    /// The client has the first events of the stream that the translation writes.
    has_begun: Cell<bool>,
    replying: Replying,
    /// The translator sees the native response that passes.
    watches: bool,
    /// Undoes the compression of a response that has to be read.
    inflater: Option<Box<Inflater>>,
    failed: bool,
    /// Records the request for debugging, if the configuration asks for it.
    recorder: Option<Box<dyn BodyRecorder>>,
    notes: Vec<Note>,
}

/// The checked body of the request.
#[derive(Debug, Default)]
enum Subject {
    /// It has not been read.
    #[default]
    Unread,
    /// It does not name a model, as the dialect demands.
    Unusable,
    /// It was read.
    Read(CheckedRequest),
}

impl Conversation {
    /// A request that has not been read.
    pub(crate) fn new(translator: Box<dyn Translator>) -> Self {
        Self {
            translator,
            subject: Subject::Unread,
            split: Split::default(),
            widened: false,
            mode: None,
            again: None,
            outgoing: Vec::new(),
            operation: CommonOperation::Chat,
            input_tokens: 0,
            output_bytes: 0,
            dropped: Dropped::default(),
            name: String::new(),
            seed: None,
            has_begun: Cell::new(false),
            replying: Replying::Passed,
            watches: false,
            inflater: None,
            failed: false,
            recorder: None,
            notes: Vec::new(),
        }
    }

    fn checked(&self) -> Option<&CheckedRequest> {
        match &self.subject {
            Subject::Read(checked) if checked.invalid.is_none() => Some(checked),
            _ => None,
        }
    }

    /// See [`super::Dialect::mode_shown`].
    pub(super) fn mode_shown(&self) -> Option<&'static str> {
        (self.mode == Some(Mode::Passthrough)).then_some(PASSTHROUGH)
    }

    /// See [`super::Dialect::mode`].
    pub(super) fn mode(&self) -> Option<&'static str> {
        self.mode.map(Mode::as_str)
    }

    /// See [`super::Dialect::first_mode`].
    pub(super) fn first_mode(&self) -> &'static str {
        self.split.first_mode().as_str()
    }

    /// See [`super::Dialect::is_translated`].
    pub(super) fn is_translated(&self) -> bool {
        self.mode == Some(Mode::Translation)
    }

    /// See [`super::Dialect::estimated_usage`].
    pub(super) fn estimated_usage(&self) -> Option<EstimatedUsage> {
        if !self.is_translated() {
            return None;
        }
        let output_bytes = match &self.replying {
            Replying::Events(stream) | Replying::DocumentAsEvents(stream) => stream.output_bytes(),
            _ => self.output_bytes,
        };
        Some(EstimatedUsage {
            prompt: self.input_tokens,
            completion: Counts::default().completion(output_bytes),
        })
    }

    /// See [`super::Dialect::writes_stream`].
    pub(super) fn writes_stream(&self) -> bool {
        let mode = self.mode.unwrap_or(self.split.first_mode());
        let streams = self.checked().is_some_and(|checked| checked.stream);
        mode == Mode::Translation && streams
    }

    /// See [`super::Dialect::dropped`].
    pub(super) fn dropped(&self) -> Option<&Dropped> {
        Some(&self.dropped).filter(|_| self.is_translated())
    }

    /// See [`super::Dialect::stream_type`].
    pub(super) fn stream_type(&self) -> &'static str {
        self.translator.facts().stream_type
    }

    /// See [`super::Dialect::fallback`] (docs/contract/translation.md#14).
    pub(super) fn fallback(&self) -> Option<Fallback> {
        match (self.mode, &self.subject) {
            (Some(Mode::Passthrough), _) => None,
            (Some(Mode::Translation), _) => Some(Fallback::CannotPassthrough),
            (None, Subject::Unread | Subject::Unusable) => None,
            // Routing found no candidates.
            (None, Subject::Read(_)) => Some(Fallback::NoCompatibleEndpoints),
        }
    }

    /// See [`super::Dialect::notes`].
    pub(super) fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn warn<'w>(&mut self, warnings: impl IntoIterator<Item = &'w Warning>) {
        let notes = warnings.into_iter().map(ToString::to_string);
        self.notes.extend(notes.map(Note::NotTranslated));
    }

    /// See [`super::Dialect::has_failed`].
    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// See [`super::Dialect::refused`].
    pub(super) fn refused(&mut self, body: &[u8]) {
        // What ends a stream has been recorded as a part of it.
        if let Some(recorder) = self.recorder.as_mut().filter(|_| !self.has_begun.get()) {
            recorder.whole(body);
        }
    }

    /// See [`super::Dialect::end`].
    pub(super) fn end(&mut self, status: u16, complete: bool) -> Summary {
        self.outgoing = Vec::new();
        if let Replying::Events(stream) = std::mem::take(&mut self.replying) {
            self.warn(stream.warnings());
        }
        let facts = self.translator.facts();
        if self.is_translated() {
            let names = self.dropped.names().map(str::to_owned);
            let note = |name| Note::Dropped(facts.name, name);
            self.notes.extend(names.map(note));
        }
        let complete = complete && status < 400 && !self.failed;
        self.translator.end(complete, &mut self.notes);
        if let Some(recorder) = self.recorder.take()
            && let Some(record) = recorder.response(status)
        {
            self.notes.push(Note::Record(Box::new(record)));
        }
        Summary {
            translator: facts.name,
            passthrough: self.mode == Some(Mode::Passthrough),
            streaming: self.checked().is_some_and(|checked| checked.stream),
            failed: self.failed,
            fallback: self.fallback(),
        }
    }
}
