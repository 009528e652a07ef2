//! The Messages API on its way: passed through where the backend speaks it, translated where it
//! does not. What a message is, and how it is translated, `crate::dialects::anthropic::translate` knows.
//!
//! [`ask`] is the way to the backend, [`reply`] the way back, [`local`] what needs no backend.
//!
//! contract: translation 1, 3, 5, 6, 8, 10, 12

mod ask;
mod local;
mod record;
mod reply;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::answers::Error;
use super::exchange::{Exchange, Kind};
use crate::dialects::anthropic::split::{Mode, Split};
use crate::dialects::anthropic::translate::{
    self, AnswerContext, Checked, EVENT_BYTES_MAX, Inflater, NativeTail, Refusal, StreamTransformer,
};
use crate::endpoint_set::EndpointSet;
use crate::operations::stats::TranslatorFallback;
pub(super) use record::Recording;

/// When nothing has come for so long, a stream shows that it lives (contract: translation 8.3).
const IDLE: Duration = Duration::from_secs(10);

/// Bytes of an error answer that are read to understand it.
const ERROR_BYTES_MAX: usize = 1 << 20;

/// How long an endpoint that does not speak the API after all is remembered, unless its models are
/// listed again before (contract: translation 5).
const REFUSED_FOR: Duration = Duration::from_secs(300);

/// What a request of the Messages API is about, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// The body has been looked at.
    read: bool,
    checked: Option<Box<Checked>>,
    /// What is wrong with the request; said once its mode is known.
    invalid: Option<Refusal>,
    split: Split,
    /// Of the last attempt.
    mode: Option<Mode>,
    /// The endpoint to ask once more, by translation.
    again: Option<usize>,
    /// The translated request.
    body: Vec<u8>,
    translated: bool,
    context: Option<Box<AnswerContext>>,
    stream: Option<Box<StreamTransformer>>,
    native: Option<Box<NativeTail>>,
    /// Undoes the compression of the answer, if it has to be read.
    inflater: Option<Box<Inflater>>,
    /// The head of an answer that was held back until its body is known.
    held: Vec<u8>,
    collecting: Collecting,
    refusal: Option<Refusal>,
    failed: bool,
    /// For the inspector, if it is on.
    pub(super) recording: Option<Box<Recording>>,
}

/// Where a message goes.
#[derive(Debug)]
pub(super) struct MessageTarget<'s> {
    /// Below the endpoint's URL.
    pub(super) path: &'s str,
    /// As an OpenAI chat completion.
    pub(super) translated: bool,
}

/// Why a whole answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Collecting {
    #[default]
    Nothing,
    /// To translate it.
    Answer,
    /// To translate it into a stream that the client asked for.
    Stream,
    /// To translate an error of this status.
    Error(u16),
    /// To see whether a native endpoint speaks the API at all.
    Native(u16),
}

impl Message {
    pub(super) fn begin(&mut self) {
        if self.read {
            *self = Self::default();
        }
    }

    /// The value of `X-Olla-Mode`.
    pub(super) fn mode_shown(&self) -> Option<&'static str> {
        (self.mode == Some(Mode::Passthrough)).then_some("passthrough")
    }

    /// The mode in words, for the log.
    pub(super) fn mode(&self) -> Option<&'static str> {
        self.mode.map(word)
    }

    /// The mode that the first attempt will have, in words.
    pub(super) fn first_mode(&self) -> &'static str {
        word(self.split.next(&EndpointSet::EMPTY).1)
    }

    /// The body for the backend, when it is another than the client's.
    pub(super) fn payload(&self) -> Option<&[u8]> {
        self.translated.then_some(self.body.as_slice())
    }

    /// No attempt follows: the body for the backend is not needed any more.
    pub(super) fn is_sent(&mut self) {
        self.body = Vec::new();
    }

    /// Whether bytes that pass are of interest.
    pub(super) fn watches(&self) -> bool {
        self.recording.is_some()
    }

    /// Takes note of bytes that passed.
    pub(super) fn saw(&mut self, payload: &[u8]) {
        if let Some(recording) = &mut self.recording {
            recording.push(payload);
        }
    }

    /// Who may be picked now, and who counts as tried.
    pub(super) fn choice(
        &mut self,
        candidates: &EndpointSet,
        tried: &EndpointSet,
    ) -> (EndpointSet, EndpointSet) {
        if self.checked.is_none() {
            return (*candidates, *tried);
        }
        if let Some(index) = self.again.take() {
            self.mode = Some(Mode::Translation);
            return ([index].into_iter().collect(), EndpointSet::EMPTY);
        }
        let (set, mode) = self.split.next(tried);
        // With nobody left, the mode stays that of the attempts that failed.
        if self.mode.is_none() || !set.minus(tried).is_empty() {
            self.mode = Some(mode);
        }
        (set, *tried)
    }

    /// None of the native endpoints that are left can be picked: whether there are others to
    /// choose from.
    pub(super) fn leave_native(&mut self) -> bool {
        let leaves = self.mode == Some(Mode::Passthrough) && !self.split.others.is_empty();
        if leaves {
            self.split.native = EndpointSet::EMPTY;
        }
        leaves
    }

    /// A whole answer without the compression that nobody asked for.
    fn plain<'b>(&mut self, body: &'b [u8]) -> Result<Cow<'b, [u8]>, Refusal> {
        let Some(mut inflater) = self.inflater.take() else {
            return Ok(Cow::Borrowed(body));
        };
        let mut plain = Vec::new();
        let mut too_long = false;
        inflater.push(body, |piece| {
            if plain.len() + piece.len() > EVENT_BYTES_MAX {
                too_long = true;
            } else {
                plain.extend_from_slice(piece);
            }
        })?;
        if too_long {
            return Err(Refusal {
                status: 502,
                message: "the backend's answer is too long".to_owned(),
            });
        }
        Ok(Cow::Owned(plain))
    }
}

/// Why a request was translated instead of passed through (contract: translation 14).
pub(super) fn fallback(x: &Exchange) -> Option<TranslatorFallback> {
    match x.message.mode {
        _ if x.kind != Kind::Messages => None,
        Some(Mode::Passthrough) => None,
        Some(Mode::Translation) => Some(TranslatorFallback::CannotPassthrough),
        // Candidates were looked for, and there were none.
        None => x
            .routed
            .then_some(TranslatorFallback::NoCompatibleEndpoints),
    }
}

/// An error in Anthropic's shape.
pub(super) fn error_body(error: &Error<'_>, request_id: &str) -> Bytes {
    Bytes::from(translate::error_body(
        error.status,
        &error.message,
        request_id,
    ))
}

const fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Passthrough => "passthrough",
        Mode::Translation => "translation",
    }
}
