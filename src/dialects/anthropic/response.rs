//! From the response of an endpoint to the response for the client.
//!
//! Contract: docs/contract/translation.md#5, docs/contract/translation.md#6,
//! docs/contract/translation.md#8, docs/contract/translation.md#9

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::time::Duration;

use olla_engine::exchange::Fault;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{End, Response};

use super::split::Mode;
use super::translate::{
    self, EVENT_BYTES_MAX, EXPANSION_MAX, Inflater, NativeTail, Progress, RETRY_HEADERS, Refusal,
    StreamTransformer,
};
use super::{Conversation, ERROR_BYTES_MAX, IDLE, REFUSED_FOR};
use crate::dialects::{Piece, Reading, Whole};

/// How the current response is read.
#[derive(Debug, Default)]
pub(super) enum Replying {
    /// It passes without being read.
    #[default]
    Passed,
    /// A stream in the API's own form; only its end is read.
    Native(Box<NativeTail>),
    /// A stream that is translated.
    Events(Box<StreamTransformer>),
    /// A whole response that is translated.
    Document,
    /// A whole response that is translated into the stream that the client asked for.
    DocumentAsEvents(Box<StreamTransformer>),
    /// An error of this status that is translated; the header lines stay with it.
    Error(u16, Vec<u8>),
    /// A response of this status by which an endpoint may say that it does not speak the API.
    Doubtful(u16),
}

impl Conversation {
    /// See [`crate::dialects::Dialect::response`].
    pub(in crate::dialects) fn response(
        &mut self,
        response: &Response<'_>,
        keep_alive: Option<Duration>,
    ) -> Reading {
        let quiet_max = keep_alive.map(|after| after.min(IDLE));
        let encoding = response
            .head
            .get(response.bytes, FieldId::ContentEncoding)
            .and_then(|encoding| std::str::from_utf8(encoding).ok());
        self.inflater = encoding.and_then(Inflater::new).map(Box::new);
        match self.mode {
            Some(Mode::Translation) => self.foreign_response(response, quiet_max.unwrap_or(IDLE)),
            _ => self.native_response(response, quiet_max.unwrap_or(Duration::MAX)),
        }
    }

    /// The response of an endpoint that speaks the API. It is passed through unchanged, unless the
    /// endpoint turns out not to speak the API or its stream breaks off.
    fn native_response(&mut self, response: &Response<'_>, quiet_max: Duration) -> Reading {
        let status = response.head.status;
        if matches!(status, 404 | 405 | 501) {
            self.replying = Replying::Doubtful(status);
            return Reading::Hold(ERROR_BYTES_MAX);
        }
        let events = is_of(response, b"text/event-stream");
        if let Some(recording) = &mut self.recording {
            recording.responds(events, self.inflater.take());
        }
        // Nothing can be appended to a compressed body.
        if events && !response.head.has(FieldId::ContentEncoding) {
            self.replying = Replying::Native(Box::default());
            return Reading::Follow(quiet_max);
        }
        self.replying = Replying::Passed;
        Reading::Pass {
            watch: self.recording.is_some(),
        }
    }

    /// The response of an endpoint that speaks OpenAI's API. It is translated.
    fn foreign_response(&mut self, response: &Response<'_>, quiet_max: Duration) -> Reading {
        // No attempt follows.
        self.outgoing = Vec::new();
        let status = response.head.status;
        if status >= 400 {
            self.replying = Replying::Error(status, retry_fields(response));
            return Reading::Collect(ERROR_BYTES_MAX);
        }
        let streams = self.checked().is_some_and(|checked| checked.stream);
        let context = self.context.as_ref().filter(|_| streams);
        let Some(context) = context else {
            self.replying = Replying::Document;
            return Reading::Collect(EVENT_BYTES_MAX);
        };
        let stream = Box::new(StreamTransformer::new(context.as_ref().clone()));
        if let Some(recording) = &mut self.recording {
            recording.responds(true, None);
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
        if let Some(recording) = &mut self.recording {
            recording.push(payload);
        }
    }

    /// See [`crate::dialects::Dialect::piece`].
    pub(in crate::dialects) fn piece(
        &mut self,
        payload: &[u8],
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Piece {
        let how = end.map(|end| match end {
            End::Whole => translate::End::Clean,
            End::Broken(Fault::ReadTimeout | Fault::ResponseTimeout) => translate::End::TimedOut,
            End::Broken(_) => translate::End::Broken,
        });
        let begun = out.len();
        let (piece, failed) = match &mut self.replying {
            Replying::Native(tail) => native_piece(tail, payload, how, out),
            Replying::Events(stream) | Replying::DocumentAsEvents(stream) => {
                let inflater = &mut self.inflater;
                of_progress(foreign_piece(stream, inflater, payload, how, out))
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
    pub(in crate::dialects) fn idle(&mut self, out: &mut Vec<u8>) -> Piece {
        let stream = match &mut self.replying {
            Replying::Events(stream) => stream,
            Replying::Native(tail) => {
                tail.keep_alive(out);
                return Piece::More;
            }
            _ => return Piece::More,
        };
        let begun = out.len();
        let (piece, failed) = of_progress(stream.idle(out));
        self.failed |= failed;
        self.watch(&out[begun..]);
        piece
    }

    /// See [`crate::dialects::Dialect::whole`].
    pub(in crate::dialects) fn whole(&mut self, body: &[u8], index: usize) -> Whole {
        match &mut self.replying {
            Replying::Doubtful(status) => {
                let status = *status;
                self.whole_native(status, body, index)
            }
            Replying::Error(status, fields) => {
                let (status, fields) = (*status, std::mem::take(fields));
                let plain = self.plain_or_empty(body);
                Whole::Refused(translate::error_from_backend(status, &plain).into(), fields)
            }
            Replying::DocumentAsEvents(_) => {
                let mut out = Vec::new();
                match self.piece(body, Some(End::Whole), &mut out) {
                    Piece::Refused(error) => Whole::Refused(error, Vec::new()),
                    _ => Whole::Events(out),
                }
            }
            Replying::Document => match self.document(body) {
                Ok(document) => Whole::Json(document),
                Err(refusal) => Whole::Refused(refusal.into(), Vec::new()),
            },
            Replying::Passed | Replying::Native(_) | Replying::Events(_) => Whole::Held,
        }
    }

    /// An error of a native endpoint: one of the API, or of a server that does not know the route.
    fn whole_native(&mut self, status: u16, body: &[u8], index: usize) -> Whole {
        let plain = self.plain_or_empty(body);
        if translate::is_not_spoken_here(status, &plain) {
            self.again = Some(index);
            return Whole::NotSpoken(REFUSED_FOR);
        }
        if let Some(recording) = &mut self.recording {
            recording.whole(&plain);
        }
        Whole::Held
    }

    fn document(&mut self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let plain = self.plain(body)?;
        let Some(context) = self.context.take() else {
            return Err(Refusal::backend(
                "the endpoint sent a response that was not expected",
            ));
        };
        let translated = translate::from_openai(&plain, &context)?;
        self.warn(&translated.warnings);
        if let Some(recording) = &mut self.recording {
            recording.whole(&translated.body);
        }
        Ok(translated.body)
    }

    /// The body of an error without compression. If it cannot be decompressed, the status alone
    /// has to do.
    fn plain_or_empty<'b>(&mut self, body: &'b [u8]) -> Cow<'b, [u8]> {
        self.plain(body).unwrap_or(Cow::Borrowed(b""))
    }

    /// A whole body, decompressed if the endpoint compressed it although no client requested that.
    fn plain<'b>(&mut self, body: &'b [u8]) -> Result<Cow<'b, [u8]>, Refusal> {
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
    tail: &mut NativeTail,
    payload: &[u8],
    how: Option<translate::End>,
    out: &mut Vec<u8>,
) -> (Piece, bool) {
    out.extend_from_slice(payload);
    tail.push(payload);
    match how {
        None => (Piece::More, false),
        Some(translate::End::Clean) => (Piece::Complete, false),
        Some(how) => {
            tail.broken(how, out);
            (Piece::Complete, true)
        }
    }
}

/// A piece of a stream that is translated.
fn foreign_piece(
    stream: &mut StreamTransformer,
    inflater: &mut Option<Box<Inflater>>,
    payload: &[u8],
    how: Option<translate::End>,
    out: &mut Vec<u8>,
) -> Progress {
    let mut progress = Progress::Waiting;
    match inflater {
        None => progress = stream.push(payload, out),
        Some(inflater) => {
            let inflated = inflater.push(payload, |plain| {
                progress = stream.push(plain, out);
                match progress {
                    Progress::Waiting | Progress::Streaming => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            });
            if inflated.is_err() {
                progress = stream.end(translate::End::Broken, out);
            }
        }
    }
    match how {
        Some(how) => stream.end(how, out),
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

/// The headers by which SDKs decide whether and when to retry.
fn retry_fields(response: &Response<'_>) -> Vec<u8> {
    let mut fields = Vec::new();
    for each in &response.head.fields {
        let name = each.name.of(response.bytes);
        let known = |known: &&str| known.as_bytes().eq_ignore_ascii_case(name);
        if RETRY_HEADERS.iter().any(known) {
            emit::field(&mut fields, name, each.value.of(response.bytes));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a piece of a stream has to do with after `before`.
    fn load_after(before: &str, encoding: Option<&str>, piece: &str, ends: bool) -> usize {
        let context = translate::ResponseContext {
            model: "m".to_owned(),
            stop_sequences: Vec::new(),
            input_tokens: 1,
            seed: translate::IdSeed([1; 16]),
        };
        let mut stream = Box::new(StreamTransformer::new(context));
        let _ = stream.push(before.as_bytes(), &mut Vec::new());
        let conversation = Conversation {
            replying: Replying::Events(stream),
            inflater: encoding.and_then(Inflater::new).map(Box::new),
            ..Conversation::default()
        };
        conversation.piece_load(piece.as_bytes(), ends)
    }

    #[test]
    fn a_piece_is_as_long_as_what_it_completes() {
        for (before, encoding, piece, ends, load) in [
            ("", None, "data: {}\n\n", false, 10),
            ("data: {}\n\n", None, "data: {}\n\n", false, 10),
            ("data: {", None, "}\n", false, 9),
            // It completes nothing.
            ("data: {", None, "more", false, 0),
            ("data: {", None, "more", true, 11),
            // A whole response in place of a stream is read at its end.
            ("{\"choices\":", None, "[", true, 12),
            ("data: {", Some("gzip"), "ab", false, 7 + 2 * EXPANSION_MAX),
        ] {
            let found = load_after(before, encoding, piece, ends);
            assert_eq!(found, load, "{before:?} {piece:?} {ends}");
        }
        let compressed = Conversation {
            inflater: Inflater::new("gzip").map(Box::new),
            ..Conversation::default()
        };
        assert_eq!(compressed.load(3), 3 * EXPANSION_MAX);
        assert_eq!(Conversation::default().load(3), 3);
        // A native stream passes as it is.
        assert_eq!(Conversation::default().piece_load(b"\n", true), 0);
    }

    #[test]
    fn no_more_is_decompressed_than_may_be_read() {
        use flate2::{Compression, write::GzEncoder};
        use std::io::Write as _;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&vec![b' '; EVENT_BYTES_MAX + 1]).unwrap();
        let body = encoder.finish().unwrap();
        let mut conversation = Conversation {
            inflater: Inflater::new("gzip").map(Box::new),
            ..Conversation::default()
        };
        let refusal = conversation.plain(&body).unwrap_err();
        assert_eq!(refusal.message, "the endpoint's response is too long");
        let mut inflater = Inflater::new("gzip").unwrap();
        let mut pieces = 0;
        let pushed = inflater.push(&body, |_| {
            pieces += 1;
            ControlFlow::Break(())
        });
        assert_eq!((pushed, pieces), (Ok(()), 1));
    }
}
