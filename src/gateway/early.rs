//! Streams whose head is sent before an endpoint has responded, and what becomes of its response.
//!
//! Contract: docs/contract/surface.md#8.4

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Ask, End, Local, Made, Passing, Response};

use super::exchange::Exchange;
use super::keep_alive::EventBorder;
use super::respond::unbuffered;
use crate::dialects::{
    Error, EventForm, FailedStream, Inflater, KEEP_ALIVE_COMMENT, Reading, StreamFailure,
};

/// Bytes of a document that becomes events, and of what a piece of a stream is decompressed to.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

impl Exchange {
    /// The time after which the client gets a head, if it asked for events.
    pub(super) fn early_head_after(&self, ask: &Ask<'_>) -> Option<Duration> {
        if !self.findings.stream || self.consultation.is_some() {
            return None;
        }
        let after = self.view.plan().proxy.stream_keep_alive?;
        let is_post = ask.request.head.method.of(ask.request.bytes) == b"POST";
        let form = EventForm::of(self.path(&ask.request)).filter(|_| is_post);
        form.map(|_| after)
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
        form.keep_alive(body);
        self.gateway.recorder.borrow_mut().kept_alive();
    }

    /// How a response passes whose head the client does not get.
    #[cold]
    pub(super) fn early_passing(&mut self, response: &Response<'_>, reading: Reading) -> Passing {
        let status = response.head.status;
        self.status = status;
        match reading {
            Reading::Follow(quiet_max) | Reading::Stream(quiet_max) => {
                Passing::Transform(quiet_max)
            }
            Reading::Hold(bytes_max) | Reading::Collect(bytes_max) => Passing::Collect(bytes_max),
            Reading::Pass { .. } if !is_success(status) || is_json(response) => {
                self.early_inflater = inflater(response).map(Box::new);
                Passing::Collect(DOCUMENT_BYTES_MAX)
            }
            Reading::Pass { .. } => {
                self.border = Some(EventBorder::default());
                self.early_inflater = inflater(response).map(Box::new);
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
        let whole = match &mut self.early_inflater {
            None => {
                out.extend_from_slice(payload);
                true
            }
            Some(inflater) => {
                let inflated = inflater.push(payload, |plain| {
                    out.extend_from_slice(plain);
                    bounded(out.len() - begun)
                });
                inflated.is_ok() && out.len() - begun <= DOCUMENT_BYTES_MAX
            }
        };
        let made = out.get(begun..).unwrap_or_default();
        self.dialect.watch(made);
        if let Some(border) = &mut self.border {
            border.push(made);
        }
        match end {
            _ if !whole => Made::Broken,
            None => Made::More,
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
    ) {
        let status = self.upstream_status.unwrap_or(502);
        self.status = status;
        let mut plain = Vec::new();
        let body = match &mut self.early_inflater {
            None => body,
            Some(inflater) => {
                let inflated = inflater.push(body, |piece| {
                    plain.extend_from_slice(piece);
                    bounded(plain.len())
                });
                if inflated.is_err() || plain.len() > DOCUMENT_BYTES_MAX {
                    plain.clear();
                }
                &plain
            }
        };
        let events = is_success(status).then(|| form.document(body)).flatten();
        local.body = Bytes::from(match events {
            Some(events) => events,
            None => form.failure(
                &StreamFailure::Endpoint(status, body),
                self.failed_request(ask),
            ),
        });
        self.dialect.refused(&local.body);
    }

    /// The event that an error of the gateway becomes after its own head.
    #[cold]
    pub(super) fn early_error(&self, form: EventForm, error: &Error, unix_ms: u64) -> Bytes {
        let about = FailedStream {
            unix_secs: unix_ms / 1000,
            ..self.about()
        };
        Bytes::from(form.failure(&StreamFailure::Own(error), about))
    }

    fn failed_request(&self, ask: &Ask<'_>) -> FailedStream<'_> {
        FailedStream {
            unix_secs: ask.cx.unix_ms / 1000,
            ..self.about()
        }
    }

    fn about(&self) -> FailedStream<'_> {
        FailedStream {
            id: self.kept.id.as_str(),
            model: self.model().unwrap_or_default(),
            unix_secs: 0,
        }
    }
}

fn bounded(bytes: usize) -> ControlFlow<()> {
    if bytes > DOCUMENT_BYTES_MAX {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

fn inflater(response: &Response<'_>) -> Option<Inflater> {
    let encoding = response
        .head
        .get(response.bytes, FieldId::ContentEncoding)?;
    Inflater::new(std::str::from_utf8(encoding).ok()?)
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Whether a response is a JSON document by its type.
fn is_json(response: &Response<'_>) -> bool {
    let kind = response.head.get(response.bytes, FieldId::ContentType);
    let kind = kind.and_then(|kind| kind.split(|byte| *byte == b';').next());
    kind.is_some_and(|kind| {
        let kind = kind.trim_ascii();
        kind.eq_ignore_ascii_case(b"application/json")
            || kind.to_ascii_lowercase().ends_with(b"+json")
    })
}
