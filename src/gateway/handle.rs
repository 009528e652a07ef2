//! The engine's questions, each answered by the part that knows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use olla_engine::exchange::{Fault, Timeouts};
use olla_engine::h1::FieldId;
use olla_engine::handler::{
    Answer, AtHead, AttemptEnd, Cx, Done, End, Handler, Limits, Local, Made, Passing, Pick,
    Refusal, Request, Routed,
};
use olla_engine::tls::TlsClient;

use super::answers::{self, Error};
use super::arrive::body_limit;
use super::exchange::{Exchange, Kind};
use super::{Gateway, forward};
use crate::operations::stats::Violation;
use crate::providers::figures::{AnswerKind, Tail};
use crate::routing::rejection;

impl Handler for Gateway {
    type Exchange = Exchange;

    fn limits(&self) -> Limits {
        self.view.borrow().limits
    }

    fn head(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        local: &mut Local,
    ) -> AtHead {
        let at_head = self.arrive(cx, x, request, local);
        x.times.headed = Some(cx.now);
        at_head
    }

    fn refuse(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: Option<&Request<'_>>,
        refusal: Refusal,
        local: &mut Local,
    ) {
        if request.is_none() {
            x.begin(self.view());
            x.id.make(&self.random);
        }
        if refusal == Refusal::BodyTooLarge {
            self.recorder.borrow_mut().violation(Violation::Size);
        }
        let error = refused(x, refusal);
        answers::error(cx, x, request, &error, local);
    }

    fn arrived(&self, x: &mut Exchange, body: &[u8]) {
        if let Some(inspector) = &mut x.inspector {
            inspector.advance(body);
        }
    }

    fn route(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> Routed {
        x.times.routed.get_or_insert(cx.now);
        let routed = match x.kind {
            Kind::Proxy { .. } | Kind::Management(..) => self.decide(cx, x, request, body, local),
            Kind::Messages => self.decide_message(cx, x, request, body, local),
            _ => return self.answer_locally(cx, x, request, body, local),
        };
        if routed == Routed::Upstream {
            self.log_received(cx, x, request);
        }
        routed
    }

    fn pick(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        failed: Option<Fault>,
        local: &mut Local,
    ) -> Pick {
        self.pick_next(cx, x, request, body, failed, local)
    }

    fn addresses(&self, x: &Exchange) -> Arc<[SocketAddr]> {
        let endpoint = x.view.as_ref().and_then(|view| view.endpoint(x.endpoint));
        endpoint.map_or_else(|| Arc::from([]), |endpoint| Arc::clone(&endpoint.addresses))
    }

    fn tls(&self, x: &Exchange) -> Option<TlsClient> {
        let view = x.view.as_ref()?;
        view.backend(x.endpoint)?.tls.clone()
    }

    fn timeouts(&self, x: &Exchange) -> Timeouts {
        x.view
            .as_ref()
            .map_or_else(|| self.view.borrow().timeouts, |view| view.timeouts)
    }

    fn upstream_head(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        _body: &[u8],
        out: &mut Vec<u8>,
    ) {
        let Some(view) = x.view.clone() else { return };
        let Some(backend) = view.backend(x.endpoint) else {
            return;
        };
        let message = self.message_target(x, &view);
        forward::head(x, &view, backend, request, message.as_ref(), out);
        x.times.dispatched = Some(cx.now);
        let target = message.map_or_else(|| x.rest(request.bytes), |m| m.path.as_bytes());
        self.log_dispatching(cx, x, &view, target);
    }

    fn payload<'b>(&'b self, x: &'b Exchange, body: &'b [u8]) -> [&'b [u8]; 3] {
        if let Some(own) = x.message.payload() {
            return [own, b"", b""];
        }
        match &x.splice {
            Some(splice) => splice.parts(body),
            None => [body, b"", b""],
        }
    }

    fn answer(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
    ) -> Passing {
        if let Some(lease) = &mut x.lease {
            lease.succeeded();
        }
        x.answer_status = Some(answer.head.status);
        x.times.answered = Some(cx.now);
        if let Some(passing) = self.message_answer(cx, x, request, answer, out) {
            return passing;
        }
        if x.kind != Kind::Messages {
            answers::relayed(cx, x, request, answer, out);
        }
        self.begin_tail(x, answer);
        if x.reads_figures || x.message.watches() {
            Passing::Tap
        } else {
            Passing::Pass
        }
    }

    fn tap(&self, x: &mut Exchange, payload: &[u8]) {
        if let Some(tail) = x.tail.as_mut().filter(|_| x.reads_figures) {
            tail.push(payload);
        }
        x.message.saw(payload);
    }

    fn transform(
        &self,
        x: &mut Exchange,
        payload: &[u8],
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Made {
        self.message_piece(x, payload, end, out)
    }

    fn idle(&self, x: &mut Exchange, out: &mut Vec<u8>) -> Made {
        self.message_idle(x, out)
    }

    fn collected(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> bool {
        self.message_whole(cx, x, request, body, local)
    }

    fn failed(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        fault: Fault,
        local: &mut Local,
    ) {
        x.failed_by = Some(fault);
        let fault = if fault.is_silence() {
            rejection::Fault::BackendTimeout
        } else {
            rejection::Fault::BackendError
        };
        let Some(view) = x.view.clone() else { return };
        self.reject(cx, x, &view, request, fault, local);
    }

    fn attempt_ended(&self, cx: &Cx<'_>, x: &mut Exchange, end: AttemptEnd, bytes: u64) {
        self.end_attempt(cx, x, end, bytes);
    }

    fn done(&self, cx: &Cx<'_>, x: &mut Exchange, request: Option<&Request<'_>>, done: &Done) {
        self.record(cx, x, request, done);
    }

    fn tick(&self, now: Instant) {
        self.hand_over_counts(now, false);
        self.log.borrow_mut().tick(crate::log::unix_ms());
        let view = self.view();
        let shards = &mut *view.shards.borrow_mut();
        let nanos = shards.epoch.nanos(now);
        shards.proxied.tick(nanos);
        shards.health.tick(nanos);
    }

    fn news(&self, _now: Instant) {
        self.take_letters();
        drop(self.view());
    }
}

impl Gateway {
    /// Begins to take note of an answer's end, if token figures may be in it.
    pub(super) fn begin_tail(&self, x: &mut Exchange, answer: &Answer<'_>) {
        let kind = AnswerKind::of(
            answer.head.get(answer.bytes, FieldId::ContentType),
            answer.head.get(answer.bytes, FieldId::ContentEncoding),
        );
        x.reads_figures = kind != AnswerKind::Opaque && answer.head.status < 400;
        if x.reads_figures {
            x.tail
                .get_or_insert_with(|| Box::new(Tail::default()))
                .begin(kind);
        }
    }
}

/// What `Allow` says of a route that passes methods on.
const ANY_METHOD: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";

/// The error of a request that could not be asked about (contract: surface 1.1, 1.2, 9).
fn refused(x: &Exchange, refusal: Refusal) -> Error<'static> {
    match refusal {
        Refusal::Head(reject) => {
            let (kind, code) = match reject.status() {
                405 => ("method_not_allowed", "METHOD_NOT_ALLOWED"),
                431 => ("headers_too_large", "HEADERS_TOO_LARGE"),
                501 => ("not_implemented", "NOT_SUPPORTED"),
                _ => ("bad_request", "BAD_REQUEST"),
            };
            let mut error = Error::new(reject.status(), kind, code, reject.sentence());
            // RFC 9110 15.5.6: said of every 405. Any other method may do.
            error.allow = (error.status == 405).then_some(ANY_METHOD);
            error
        }
        Refusal::BodyTooLarge => Error::new(
            413,
            "request_too_large",
            "BODY_TOO_LARGE",
            match x.view.as_ref().map(|view| body_limit(x.kind, view)) {
                Some((Some(max), key)) => {
                    format!("the request's body is larger than the {max} bytes that {key} allows")
                }
                _ => "the request's body is too large".to_owned(),
            },
        ),
        Refusal::BodyBroken => Error::new(
            400,
            "bad_request",
            "INVALID_BODY",
            "the request's body is not framed as announced, or was cut short",
        ),
        Refusal::BodyTooSlow => Error::new(
            408,
            "request_timeout",
            "REQUEST_TIMEOUT",
            "the request did not arrive within server.read_timeout",
        ),
        Refusal::NoRoom => {
            let mut error = Error::new(
                503,
                "service_unavailable",
                "OVERLOADED",
                "too many request bodies are held already; try again later",
            );
            error.retry_after = Some(5);
            error
        }
    }
}
