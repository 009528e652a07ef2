//! Streams whose head is sent before an endpoint has responded, and what becomes of its response.
//!
//! Contract: docs/contract/surface.md#8.4

use std::time::Duration;

use bytes::Bytes;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Ask, AtEnd, Cx, End, Local, Made, Passing, Response};

use super::away::Done;
use super::early_decoder::EarlyDecoder;
use super::exchange::Exchange;
use super::keep_alive::EventBorder;
use super::respond::unbuffered;
use crate::dialects::{
    Error, EventForm, FailedStream, KEEP_ALIVE_COMMENT, Reading, STEP_BYTES_MAX, StreamFailure,
};
use crate::encoding::Encoded;

/// Bytes of a document that becomes events.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Bytes to which one piece of a compressed stream may grow: some milliseconds of work.
const PIECE_BYTES_MAX: usize = 4 << 20;

impl Exchange {
    /// The time after which the client gets a head or more, if it asked for events.
    pub(super) fn early_head_after(&self, ask: &Ask<'_>) -> Option<Duration> {
        // Most requests are for no stream: they need no look at the path.
        let may_stream = self.findings.stream || self.dialect.writes_stream();
        if !may_stream || self.consultation.is_some() {
            return None;
        }
        let after = self.view.plan().proxy.stream_keep_alive?;
        let is_post = ask.request.head.method.of(ask.request.bytes) == b"POST";
        let form = EventForm::of(self.path(&ask.request)).filter(|_| is_post);
        // A stream is Ollama's default; what an Ollama itself sends passes unaltered.
        let streams = match form?.is_lines() {
            true => self.dialect.writes_stream(),
            false => self.findings.stream,
        };
        streams.then(|| self.dialect.silence_max(after))
    }

    /// Writes the head, the first time, and what a silent stream gets.
    #[cold]
    pub(super) fn write_early(
        &self,
        ask: &Ask<'_>,
        head: Option<&mut Vec<u8>>,
        body: &mut Vec<u8>,
    ) {
        let Some(form) = EventForm::of(self.path(&ask.request)) else {
            return;
        };
        if let Some(head) = head {
            self.early.set(Some(form));
            self.own_head(ask.cx, Some(&ask.request), (200, ""), head);
            emit::field(head, b"Content-Type", form.content_type());
            emit::field(head, b"Cache-Control", b"no-cache");
            unbuffered(head);
            self.own_id(head);
        }
        if !self.dialect.early(Self::moment(ask.cx), body) && !self.write_position(ask.cx, body) {
            body.extend_from_slice(KEEP_ALIVE_COMMENT);
        }
        self.gateway.recorder.borrow_mut().kept_alive();
    }

    /// How a response passes whose head the client does not get.
    #[cold]
    pub(super) fn early_passing(&mut self, response: &Response<'_>, reading: Reading) -> Passing {
        let status = response.head.status;
        self.status = status;
        // An attempt that was given up may have set them.
        self.is_early_stream = false;
        self.early_decoder = None;
        match reading {
            Reading::Follow(quiet_max) | Reading::Stream(quiet_max) => {
                Passing::Transform(quiet_max)
            }
            Reading::Hold(bytes_max) | Reading::Collect(bytes_max) => Passing::Collect(bytes_max),
            Reading::Pass { .. } if !is_success(status) || !is_event_stream(response) => {
                self.early_decoder = EarlyDecoder::of(response);
                Passing::Collect(DOCUMENT_BYTES_MAX)
            }
            Reading::Pass { .. } => {
                self.border = Some(EventBorder::default());
                self.early_decoder = EarlyDecoder::of(response);
                self.is_early_stream = true;
                let keep_alive = self.view.plan().proxy.stream_keep_alive;
                Passing::Transform(keep_alive.unwrap_or(Duration::MAX))
            }
        }
    }

    /// A piece of a stream that passes unaltered after the gateway's own head.
    #[cold]
    pub(super) fn early_piece(
        &mut self,
        payload: &[u8],
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Made {
        let begun = out.len();
        let whole = match &mut self.early_decoder {
            None => {
                out.extend_from_slice(payload);
                true
            }
            Some(decoder) => decoder.decode(payload, PIECE_BYTES_MAX, out),
        };
        let made = out.get(begun..).unwrap_or_default();
        self.dialect.watch(made);
        if let Some(border) = &mut self.border {
            border.push(made);
        }
        match end {
            _ if !whole => Made::Broken,
            None => Made::More,
            // Of a compressed stream the framing says nothing.
            Some(End::Whole)
                if self
                    .early_decoder
                    .as_ref()
                    .is_some_and(|it| !it.is_complete()) =>
            {
                Made::Broken
            }
            Some(End::Whole) => Made::Complete,
            Some(End::Broken(_)) => Made::Broken,
        }
    }

    /// Such a stream is silent.
    pub(super) fn early_idle(&self, out: &mut Vec<u8>) {
        if self.border.is_some_and(EventBorder::is_here) {
            out.extend_from_slice(KEEP_ALIVE_COMMENT);
        }
    }

    /// The events of a response that came as a whole, after the gateway's own head.
    #[cold]
    pub(super) fn early_document(
        &mut self,
        ask: &Ask<'_>,
        form: EventForm,
        body: &[u8],
        local: &mut Local,
    ) -> AtEnd {
        let status = self.upstream_status.unwrap_or(502);
        self.status = status;
        let decoder = self.early_decoder.take();
        let unix_secs = ask.cx.unix_ms / 1000;
        if body.len() <= STEP_BYTES_MAX && decoder.is_none() {
            let about = self.about(unix_secs);
            return self.early_document_made(document(form, status, body, about), local);
        }
        let (id, model) = (
            self.kept.id.clone(),
            self.model().unwrap_or_default().to_owned(),
        );
        self.send_away(move |_, body| {
            let mut plain = Vec::new();
            let body = match decoder {
                None => body,
                Some(mut decoder) => {
                    if !decoder.decode(body, DOCUMENT_BYTES_MAX, &mut plain) {
                        plain.clear();
                    }
                    &plain
                }
            };
            let about = FailedStream {
                id: id.as_str(),
                model: &model,
                unix_secs,
            };
            Done::Document(document(form, status, body, about))
        });
        AtEnd::Work
    }

    /// These events are what is left of the client's stream.
    pub(super) fn early_document_made(&mut self, events: Vec<u8>, local: &mut Local) -> AtEnd {
        local.body = Bytes::from(events);
        self.dialect.refused(&local.body);
        AtEnd::Respond
    }

    /// The event that an error becomes after the gateway's own head.
    #[cold]
    pub(super) fn early_error(&mut self, form: EventForm, error: &Error, cx: &Cx<'_>) -> Bytes {
        let failure = StreamFailure::Own(error);
        let events = self.dialect.fail(error, Self::moment(cx));
        Bytes::from(events.unwrap_or_else(|| form.failure(&failure, self.about(cx.unix_ms / 1000))))
    }

    fn about(&self, unix_secs: u64) -> FailedStream<'_> {
        FailedStream {
            id: self.kept.id.as_str(),
            model: self.model().unwrap_or_default(),
            unix_secs,
        }
    }
}

/// The events of a document, or the one of an error.
fn document(form: EventForm, status: u16, body: &[u8], about: FailedStream<'_>) -> Vec<u8> {
    if !is_success(status) {
        return form.failure(&StreamFailure::Endpoint(status, body), about);
    }
    form.document(body).unwrap_or_else(|| {
        const MESSAGE: &str = "the endpoint's response is neither a stream of events nor JSON";
        let error = Error::new(502, "bad_gateway", "BACKEND_ERROR", MESSAGE);
        form.failure(&StreamFailure::Own(&error), about)
    })
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Whether a response may pass after a head that announces events: it is a stream of events, or of
/// no type, in a coding that the gateway knows.
fn is_event_stream(response: &Response<'_>) -> bool {
    let field = |id| response.head.get(response.bytes, id);
    let kind = field(FieldId::ContentType);
    let kind = kind.and_then(|kind| kind.split(|byte| *byte == b';').next());
    let is_of_type =
        kind.is_none_or(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"));
    let coding = field(FieldId::ContentEncoding);
    is_of_type && coding.is_none_or(|coding| Encoded::of([coding]) != Encoded::Otherwise)
}
