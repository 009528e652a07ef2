//! From a backend's answer to the client's, on the routes of the Messages API.
//!
//! contract: translation 5, 6, 8, 9, 14

use std::time::Duration;

use bytes::Bytes;
use olla_engine::exchange::Fault;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Answer, Cx, End, Local, Made, Outcome, Passing, Request};

use super::{Collecting, ERROR_BYTES_MAX, IDLE, Message, REFUSED_FOR, fallback};
use crate::clock::millis;
use crate::dialects::anthropic::split::Mode;
use crate::dialects::anthropic::translate::{
    self, EVENT_BYTES_MAX, Inflater, Progress, RETRY_HEADERS, Refusal, StreamTransformer,
};
use crate::gateway::Gateway;
use crate::gateway::answers::{self, Error};
use crate::gateway::exchange::{Exchange, Kind};
use crate::operations::stats::TranslatorEnd;

/// The name of the translator in statistics.
const NAME: &str = "anthropic";

impl Gateway {
    /// What becomes of a backend's answer; `None`: as for other requests.
    pub(in crate::gateway) fn message_answer(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Passing> {
        let mode = x.message.mode.filter(|_| x.kind == Kind::Messages)?;
        let encoding = answer.head.get(answer.bytes, FieldId::ContentEncoding);
        let inflater = encoding
            .and_then(|encoding| std::str::from_utf8(encoding).ok())
            .and_then(Inflater::new);
        x.message.inflater = inflater.map(Box::new);
        match mode {
            Mode::Passthrough => self.native_answer(cx, x, request, answer, out),
            Mode::Translation => Some(self.foreign_answer(cx, x, request, answer, out)),
        }
    }

    /// Of a backend that speaks the API: untouched, unless it turns out that it does not, or its
    /// stream breaks off.
    fn native_answer(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Passing> {
        answers::relayed(cx, x, request, answer, out);
        let is_request_id = |name: &[u8]| name.eq_ignore_ascii_case(b"request-id");
        let mut fields = answer.head.fields.iter();
        if !fields.any(|field| is_request_id(field.name.of(answer.bytes))) {
            emit::field(out, b"request-id", x.id.as_bytes());
        }
        let status = answer.head.status;
        if matches!(status, 404 | 405 | 501) {
            x.message.held.clear();
            x.message.held.append(out);
            x.message.collecting = Collecting::Native(status);
            return Some(Passing::Collect(ERROR_BYTES_MAX));
        }
        let events = is_of(answer, b"text/event-stream");
        if let Some(recording) = &mut x.message.recording {
            recording.answers(events, x.message.inflater.take());
        }
        // Nothing can be appended to what is compressed.
        if events && !answer.head.has(FieldId::ContentEncoding) {
            x.message.native = Some(Box::default());
            self.begin_tail(x, answer);
            return Some(Passing::Transform(Duration::MAX));
        }
        None
    }

    /// Of a backend that speaks OpenAI's dialect: translated.
    fn foreign_answer(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
    ) -> Passing {
        x.message.is_sent();
        let status = answer.head.status;
        if status >= 400 {
            x.message.collecting = Collecting::Error(status);
            x.message.held.clear();
            for each in &answer.head.fields {
                let name = each.name.of(answer.bytes);
                let known = |known: &&str| known.as_bytes().eq_ignore_ascii_case(name);
                if RETRY_HEADERS.iter().any(known) {
                    emit::field(&mut x.message.held, name, each.value.of(answer.bytes));
                }
            }
            return Passing::Collect(ERROR_BYTES_MAX);
        }
        self.begin_tail(x, answer);
        let checked = x.message.checked.as_ref();
        if !checked.is_some_and(|checked| checked.stream) {
            x.message.collecting = Collecting::Answer;
            return Passing::Collect(EVENT_BYTES_MAX);
        }
        if let Some(recording) = &mut x.message.recording {
            recording.answers(true, None);
        }
        if let Some(context) = &x.message.context {
            let stream = StreamTransformer::new(context.as_ref().clone());
            x.message.stream = Some(Box::new(stream));
        }
        if is_of(answer, b"application/json") {
            x.message.collecting = Collecting::Stream;
            return Passing::Collect(EVENT_BYTES_MAX);
        }
        stream_head(cx, x, request, out);
        Passing::Transform(IDLE)
    }

    /// A piece of a stream.
    pub(in crate::gateway) fn message_piece(
        &self,
        x: &mut Exchange,
        payload: &[u8],
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Made {
        if let Some(tail) = x.tail.as_mut().filter(|_| x.reads_figures) {
            tail.push(payload);
        }
        let how = end.map(|end| match end {
            End::Whole => translate::End::Clean,
            End::Broken(Fault::ReadTimeout | Fault::ResponseTimeout) => translate::End::TimedOut,
            End::Broken(_) => translate::End::Broken,
        });
        let made = if x.message.native.is_some() {
            x.message.native_piece(payload, how, out)
        } else {
            x.message.foreign_piece(payload, how, out)
        };
        x.message.saw(out);
        made
    }

    /// Nothing has come for a while.
    pub(in crate::gateway) fn message_idle(&self, x: &mut Exchange, out: &mut Vec<u8>) -> Made {
        let Some(stream) = &mut x.message.stream else {
            return Made::More;
        };
        let progress = stream.idle(out);
        let made = x.message.progress(progress, out);
        x.message.saw(out);
        made
    }

    /// A whole answer of a backend. False: another attempt is to be made.
    pub(in crate::gateway) fn message_whole(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> bool {
        if let Some(refusal) = x.message.refusal.take() {
            self.refuse_message(cx, x, request, &refusal, local);
            return true;
        }
        match std::mem::take(&mut x.message.collecting) {
            Collecting::Native(status) => return self.whole_native(cx, x, status, body, local),
            Collecting::Error(status) => {
                let plain = x.message.plain(body).unwrap_or_default();
                let refusal = translate::error_from_backend(status, &plain);
                let mut held = std::mem::take(&mut x.message.held);
                self.refuse_message(cx, x, request, &refusal, local);
                local.head.append(&mut held);
            }
            Collecting::Answer => {
                if let Err(refusal) = self.whole_answer(cx, x, request, body, local) {
                    self.refuse_message(cx, x, request, &refusal, local);
                }
            }
            Collecting::Stream => {
                let mut out = Vec::new();
                match self.message_piece(x, body, Some(End::Whole), &mut out) {
                    Made::Instead => return self.message_whole(cx, x, request, &[], local),
                    _ => {
                        stream_head(cx, x, request, &mut local.head);
                        local.body = Bytes::from(out);
                    }
                }
            }
            Collecting::Nothing => {
                let error = Error::new(502, "bad_gateway", "BACKEND_ERROR", "no answer");
                answers::error(cx, x, Some(request), &error, local);
            }
        }
        true
    }

    /// An error of a native backend: its own, or that of a server that does not know the route.
    fn whole_native(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        status: u16,
        body: &[u8],
        local: &mut Local,
    ) -> bool {
        let plain = x.message.plain(body).unwrap_or_default();
        if translate::is_not_spoken_here(status, &plain) {
            let endpoint = x.view.as_ref().and_then(|view| view.endpoint(x.endpoint));
            if let Some(endpoint) = endpoint {
                let until = self.common.clock_ms(cx.now) + millis(REFUSED_FOR);
                endpoint.live.refuse_messages(until);
                x.message.again = x.endpoint;
                return false;
            }
        }
        if let Some(recording) = &mut x.message.recording {
            recording.whole(&plain);
        }
        local.head.append(&mut x.message.held);
        local.body = Bytes::copy_from_slice(body);
        true
    }

    fn whole_answer(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> Result<(), Refusal> {
        let plain = x.message.plain(body)?;
        if let Some(tail) = x.tail.as_mut().filter(|_| x.reads_figures) {
            tail.push(&plain);
        }
        let Some(context) = x.message.context.take() else {
            return Ok(());
        };
        let translated = translate::from_openai(&plain, &context)?;
        self.log_warnings(cx, x, translated.warnings.iter());
        if let Some(recording) = &mut x.message.recording {
            recording.whole(&translated.body);
        }
        answers::json(cx, x, request, Bytes::from(translated.body), local);
        emit::field(&mut local.head, b"request-id", x.id.as_bytes());
        Ok(())
    }

    /// Counts a request of the Messages API (contract: translation 14), and hands its answer to the
    /// inspector.
    pub(in crate::gateway) fn end_message(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        outcome: Outcome,
        total: Duration,
    ) {
        if x.kind != Kind::Messages {
            return;
        }
        x.message.is_sent();
        if let Some(stream) = &x.message.stream {
            self.log_warnings(cx, x, stream.warnings().iter());
        }
        if let Some(recording) = x.message.recording.take() {
            self.common.records.write(recording.response(x.status));
        }
        let checked = x.message.checked.as_ref();
        let whole = matches!(outcome, Outcome::Relayed | Outcome::Local);
        self.recorder.borrow_mut().translator(&TranslatorEnd {
            translator: NAME,
            passthrough: x.message.mode == Some(Mode::Passthrough),
            streaming: checked.is_some_and(|checked| checked.stream),
            success: whole && x.status < 400 && !x.message.failed,
            latency_ms: millis(total),
            fallback: fallback(x),
        });
    }
}

impl Message {
    /// A piece of a native stream, which passes as it is.
    fn native_piece(
        &mut self,
        payload: &[u8],
        how: Option<translate::End>,
        out: &mut Vec<u8>,
    ) -> Made {
        out.extend_from_slice(payload);
        let Some(native) = &mut self.native else {
            return Made::Broken;
        };
        native.push(payload);
        match how {
            None => Made::More,
            Some(translate::End::Clean) => Made::Complete,
            Some(how) => {
                native.broken(how, out);
                self.failed = true;
                Made::Complete
            }
        }
    }

    /// A piece of a stream that is translated.
    fn foreign_piece(
        &mut self,
        payload: &[u8],
        how: Option<translate::End>,
        out: &mut Vec<u8>,
    ) -> Made {
        let Some(stream) = &mut self.stream else {
            return Made::Broken;
        };
        let mut progress = Progress::Waiting;
        match &mut self.inflater {
            None => progress = stream.push(payload, out),
            Some(inflater) => {
                let inflated = inflater.push(payload, |plain| progress = stream.push(plain, out));
                if inflated.is_err() {
                    progress = stream.end(translate::End::Broken, out);
                }
            }
        }
        if let Some(how) = how {
            progress = stream.end(how, out);
        }
        self.progress(progress, out)
    }

    fn progress(&mut self, progress: Progress, out: &mut Vec<u8>) -> Made {
        match progress {
            Progress::Waiting | Progress::Streaming => Made::More,
            Progress::Finished => Made::Complete,
            Progress::Failed => {
                self.failed = true;
                Made::Complete
            }
            Progress::Refused(refusal) => {
                self.failed = true;
                out.clear();
                self.refusal = Some(refusal);
                Made::Instead
            }
        }
    }
}

/// Whether an answer has this type.
fn is_of(answer: &Answer<'_>, kind: &[u8]) -> bool {
    let value = answer.head.get(answer.bytes, FieldId::ContentType);
    let start = value.unwrap_or_default().get(..kind.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

/// The head of a translated stream.
fn stream_head(cx: &Cx<'_>, x: &mut Exchange, request: &Request<'_>, out: &mut Vec<u8>) {
    let mut local = Local {
        head: std::mem::take(out),
        ..Local::default()
    };
    answers::begin(cx, x, Some(request), 200, &mut local);
    *out = local.head;
    emit::field(out, b"Content-Type", b"text/event-stream");
    emit::field(out, b"Cache-Control", b"no-cache");
    emit::field(out, b"request-id", x.id.as_bytes());
}
