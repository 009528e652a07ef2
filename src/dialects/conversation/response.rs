//! From the response of an endpoint to the response for the client.
//!
//! Contract: docs/contract/dialects.md#1.2, docs/contract/dialects.md#4,
//! docs/contract/translation.md#6, docs/contract/translation.md#8

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::time::Duration;

use olla_engine::exchange::Fault;
use olla_engine::h1::FieldId;
use olla_engine::handler::{self, Response};

use super::native::is_not_spoken_here;
use super::split::Mode;
use super::{
    Conversation, ERROR_BYTES_MAX, NativeHead, NativeStart, NativeStream, NativeVerdict,
    REFUSED_FOR,
};
use crate::dialects::chat::error::{BackendError, Refusal};
use crate::dialects::chat::inflate::{EXPANSION_MAX, Inflater};
use crate::dialects::chat::stream::{ChatStream, EVENT_BYTES_MAX, End, Progress};
use crate::dialects::chat::together::{is_events, put_together};
use crate::dialects::chat::writer::Moment;
use crate::dialects::{Piece, Reading, Whole};
use crate::fleet::Endpoint;

/// The longest body of status 200 in which an endpoint says that it does not know a route.
const UNSPOKEN_BYTES_MAX: u64 = 1024;

/// How the current response is read.
#[derive(Debug, Default)]
pub(super) enum Replying {
    /// It passes without being read.
    #[default]
    Passed,
    /// A stream in the dialect's own form, which is followed.
    Native(Box<dyn NativeStream>),
    /// A stream that is translated.
    Events(Box<ChatStream>),
    /// A whole response that is translated.
    Document,
    /// A whole response that is translated into the stream that the client asked for.
    DocumentAsEvents(Box<ChatStream>),
    /// An error of this status that is translated.
    Error(u16),
    /// A response of this status by which an endpoint may say that it does not speak the dialect.
    Doubtful(u16),
}

impl Conversation {
    /// See [`crate::dialects::Dialect::response`].
    pub(in crate::dialects) fn response(
        &mut self,
        response: &Response<'_>,
        endpoint: Option<&Endpoint>,
        keep_alive: Option<Duration>,
    ) -> Reading {
        let silence_max = self.translator.facts().silence_max;
        let limit = |of: Option<Duration>| match (of, silence_max) {
            (Some(of), Some(max)) => of.min(max),
            (of, max) => of.or(max).unwrap_or(Duration::MAX),
        };
        let encoding = response
            .head
            .get(response.bytes, FieldId::ContentEncoding)
            .and_then(|encoding| std::str::from_utf8(encoding).ok());
        self.inflater = encoding.and_then(Inflater::new).map(Box::new);
        match self.mode {
            Some(Mode::Translation) => self.foreign_response(response, limit(keep_alive)),
            _ => {
                let quiet_max = keep_alive.map_or(Duration::MAX, |of| limit(Some(of)));
                self.native_response(response, endpoint, quiet_max)
            }
        }
    }

    /// The response of an endpoint that speaks the dialect. It is passed through unchanged, unless
    /// the endpoint turns out not to speak it or its stream breaks off.
    fn native_response(
        &mut self,
        response: &Response<'_>,
        endpoint: Option<&Endpoint>,
        quiet_max: Duration,
    ) -> Reading {
        let status = response.head.status;
        let head = NativeHead {
            status,
            is_small_json: is_of(response, b"application/json") && is_small(response),
        };
        let events = is_of(response, b"text/event-stream");
        let compressed = response.head.has(FieldId::ContentEncoding);
        let start = |compressed| {
            endpoint.map(|endpoint| NativeStart {
                status,
                events,
                compressed,
                endpoint,
            })
        };
        if self.translator.holds_native(head) {
            // It is decompressed before it is seen.
            let start = start(false).filter(|_| status < 400);
            self.watches = start.is_some_and(|start| self.translator.begin_watch(&start));
            self.replying = Replying::Doubtful(status);
            return Reading::Hold(ERROR_BYTES_MAX);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.responds(events, self.inflater.take());
        }
        // Nothing can be appended to a compressed body.
        if events
            && !compressed
            && let Some(follower) = self.translator.follower()
        {
            self.replying = Replying::Native(follower);
            return Reading::Follow(quiet_max);
        }
        self.replying = Replying::Passed;
        self.watches = start(compressed).is_some_and(|start| self.translator.begin_watch(&start));
        Reading::Pass {
            watch: self.watches || self.recorder.is_some(),
        }
    }

    /// The response of an endpoint that speaks OpenAI's older API. It is translated.
    fn foreign_response(&mut self, response: &Response<'_>, quiet_max: Duration) -> Reading {
        // No attempt follows.
        self.outgoing = Vec::new();
        let status = response.head.status;
        if status >= 400 {
            self.replying = Replying::Error(status);
            return Reading::Collect(ERROR_BYTES_MAX);
        }
        if !self.checked().is_some_and(|checked| checked.stream) {
            self.replying = Replying::Document;
            return Reading::Collect(EVENT_BYTES_MAX);
        }
        let stream = Box::new(self.translator.stream());
        if let Some(recorder) = &mut self.recorder {
            recorder.responds(true, None);
        }
        if is_of(response, b"application/json") {
            self.replying = Replying::DocumentAsEvents(stream);
            return Reading::Collect(EVENT_BYTES_MAX);
        }
        self.replying = Replying::Events(stream);
        Reading::Stream(quiet_max)
    }

    /// The bytes that a step on so many has to do with.
    pub(in crate::dialects) fn load(&self, bytes: usize) -> usize {
        match self.inflater {
            Some(_) => bytes.saturating_mul(EXPANSION_MAX),
            None => bytes,
        }
    }

    /// The same of a piece of a stream, which may complete an event that began long before.
    pub(in crate::dialects) fn piece_load(&self, piece: &[u8], ends: bool) -> usize {
        let Replying::Events(stream) = &self.replying else {
            return 0;
        };
        let is_compressed = self.inflater.is_some();
        if !(ends || is_compressed || memchr::memchr2(b'\n', b'\r', piece).is_some()) {
            return 0;
        }
        self.load(piece.len()).saturating_add(stream.backlog())
    }

    /// See [`crate::dialects::Dialect::watch`].
    pub(in crate::dialects) fn watch(&mut self, payload: &[u8]) {
        if self.watches && matches!(self.replying, Replying::Passed) {
            self.translator.watch(payload);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.push(payload);
        }
    }

    /// See [`crate::dialects::Dialect::piece`].
    pub(in crate::dialects) fn piece(
        &mut self,
        payload: &[u8],
        end: Option<handler::End>,
        at: Moment,
        out: &mut Vec<u8>,
    ) -> Piece {
        let how = end.map(|end| match end {
            handler::End::Whole => End::Clean,
            handler::End::Broken(Fault::ReadTimeout | Fault::ResponseTimeout) => End::TimedOut,
            handler::End::Broken(_) => End::Broken,
        });
        self.catch_up(at);
        let begun = out.len();
        let (piece, failed) = match &mut self.replying {
            Replying::Native(tail) => native_piece(&mut **tail, payload, how, out),
            Replying::Events(stream) | Replying::DocumentAsEvents(stream) => {
                let inflater = &mut self.inflater;
                of_progress(foreign_piece(stream, inflater, payload, (how, at), out))
            }
            _ => (Piece::Broken, true),
        };
        self.failed |= failed;
        if matches!(piece, Piece::Refused(_)) {
            out.truncate(begun);
        }
        self.watch(&out[begun..]);
        piece
    }

    /// See [`crate::dialects::Dialect::idle`].
    pub(in crate::dialects) fn idle(&mut self, at: Moment, out: &mut Vec<u8>) -> Piece {
        self.catch_up(at);
        let stream = match &mut self.replying {
            Replying::Events(stream) => stream,
            Replying::Native(tail) => {
                tail.keep_alive(out);
                return Piece::More;
            }
            _ => return Piece::More,
        };
        let begun = out.len();
        let (piece, failed) = of_progress(stream.idle(at, out));
        self.failed |= failed;
        self.watch(&out[begun..]);
        piece
    }

    /// See [`crate::dialects::Dialect::whole`].
    pub(in crate::dialects) fn whole(&mut self, body: &[u8], index: usize, at: Moment) -> Whole {
        match &mut self.replying {
            Replying::Doubtful(status) => {
                let status = *status;
                self.whole_native(status, body, index)
            }
            Replying::Error(status) => {
                let status = *status;
                let plain = self.plain_or_empty(body);
                let error = BackendError::read(status, &plain);
                Whole::Refused(self.translator.understood(error.into()).into())
            }
            Replying::DocumentAsEvents(_) => {
                let mut out = Vec::new();
                match self.piece(body, Some(handler::End::Whole), at, &mut out) {
                    Piece::Refused(error) => Whole::Refused(error),
                    _ => Whole::Events(out),
                }
            }
            Replying::Document => match self.document(body, at) {
                Ok(document) => Whole::Json(document),
                Err(refusal) => Whole::Refused(self.translator.understood(refusal).into()),
            },
            Replying::Passed | Replying::Native(_) | Replying::Events(_) => Whole::Held,
        }
    }

    /// A native endpoint's response that was held back.
    fn whole_native(&mut self, status: u16, body: &[u8], index: usize) -> Whole {
        let plain = self.plain_or_empty(body);
        let verdict = self.translator.native_verdict(status, &plain);
        let verdict = verdict.unwrap_or_else(|| {
            let words = [Some(self.name.as_str()), self.translator.named_id()];
            if is_not_spoken_here(status, &plain, words.into_iter().flatten()) {
                NativeVerdict::NotSpoken
            } else {
                NativeVerdict::Passes
            }
        });
        match verdict {
            NativeVerdict::Passes => {
                if self.watches {
                    self.translator.watch(&plain);
                }
                if let Some(recorder) = &mut self.recorder {
                    recorder.whole(&plain);
                }
                Whole::Held
            }
            NativeVerdict::Error(refusal) => Whole::Refused(refusal.into()),
            NativeVerdict::NotSpoken => {
                self.translate_again(index);
                Whole::NotSpoken(self.translator.facts().dialect, REFUSED_FOR)
            }
            NativeVerdict::Translated => {
                self.translate_again(index);
                Whole::Again
            }
        }
    }

    fn translate_again(&mut self, index: usize) {
        self.split.translate_for(index);
        self.again = Some(index);
    }

    fn document(&mut self, body: &[u8], at: Moment) -> Result<Vec<u8>, Refusal> {
        let mut plain = self.plain(body)?;
        if self.translator.facts().puts_together && is_events(&plain) {
            plain = Cow::Owned(put_together(&plain)?);
        }
        let translated = self.translator.whole(&plain, at)?;
        self.output_bytes = translated.output_bytes;
        self.warn(&translated.warnings);
        if let Some(recorder) = &mut self.recorder {
            recorder.whole(&translated.body);
        }
        Ok(translated.body)
    }

    /// The body of an error without compression. If it cannot be decompressed, the status alone
    /// has to do.
    fn plain_or_empty<'b>(&mut self, body: &'b [u8]) -> Cow<'b, [u8]> {
        self.plain(body).unwrap_or(Cow::Borrowed(b""))
    }

    /// A whole body, decompressed if the endpoint compressed it although no client requested that.
    pub(super) fn plain<'b>(&mut self, body: &'b [u8]) -> Result<Cow<'b, [u8]>, Refusal> {
        let Some(mut inflater) = self.inflater.take() else {
            return Ok(Cow::Borrowed(body));
        };
        let mut plain = Vec::new();
        let mut too_long = false;
        inflater.push(body, |piece| {
            too_long = plain.len() + piece.len() > EVENT_BYTES_MAX;
            if too_long {
                return ControlFlow::Break(());
            }
            plain.extend_from_slice(piece);
            ControlFlow::Continue(())
        })?;
        if too_long {
            return Err(Refusal::backend("the endpoint's response is too long"));
        }
        Ok(Cow::Owned(plain))
    }
}

/// A piece of a native stream, which passes as it is; the second value says whether it failed.
fn native_piece(
    tail: &mut dyn NativeStream,
    payload: &[u8],
    how: Option<End>,
    out: &mut Vec<u8>,
) -> (Piece, bool) {
    out.extend_from_slice(payload);
    tail.push(payload);
    match how {
        None => (Piece::More, false),
        Some(End::Clean) => (Piece::Complete, false),
        Some(how) => {
            tail.broken(how, out);
            (Piece::Complete, true)
        }
    }
}

/// A piece of a stream that is translated.
fn foreign_piece(
    stream: &mut ChatStream,
    inflater: &mut Option<Box<Inflater>>,
    payload: &[u8],
    (how, at): (Option<End>, Moment),
    out: &mut Vec<u8>,
) -> Progress {
    let mut progress = Progress::Waiting;
    match inflater {
        None => progress = stream.push(payload, at, out),
        Some(inflater) => {
            let inflated = inflater.push(payload, |plain| {
                progress = stream.push(plain, at, out);
                match progress {
                    Progress::Waiting | Progress::Streaming => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            });
            if inflated.is_err() {
                progress = stream.end(End::Broken, at, out);
            }
        }
    }
    match how {
        Some(how) => stream.end(how, at, out),
        None => progress,
    }
}

fn of_progress(progress: Progress) -> (Piece, bool) {
    match progress {
        Progress::Waiting | Progress::Streaming => (Piece::More, false),
        Progress::Finished => (Piece::Complete, false),
        Progress::Failed => (Piece::Complete, true),
        Progress::Refused(refusal) => (Piece::Refused(refusal.into()), true),
    }
}

/// Whether a response has this type.
fn is_of(response: &Response<'_>, kind: &[u8]) -> bool {
    let value = response.head.get(response.bytes, FieldId::ContentType);
    let start = value.and_then(|value| value.get(..kind.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

/// Whether a response announces a short body.
fn is_small(response: &Response<'_>) -> bool {
    let length = response.head.get(response.bytes, FieldId::ContentLength);
    let length = length.and_then(|length| std::str::from_utf8(length).ok()?.trim().parse().ok());
    length.is_some_and(|length: u64| length <= UNSPOKEN_BYTES_MAX)
}
