//! One attempt: a connection, the request on it, the head of the answer.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::{Context, Poll};

use super::body::Body;
use super::lane::{COPIED_BYTES_MAX, Lane, Step, Wire, taken};
use super::relay::Relayed;
use crate::buf::Buf;
use crate::exchange::{Action, ConnectFault, Event, Lifecycle};
use crate::h1::emit;
use crate::h1::framing::{self, RequestBody, ResponseBody, ResponseFraming};
use crate::h1::{ResponseHead, Scan};
use crate::handler::{AttemptEnd, Exchange, Handler, Outcome, Passing, Request, Response, Target};
use crate::limits::{
    INTERIM_RESPONSES_MAX, RESPONSE_HEAD_BYTES_MAX, UPSTREAM_READ_BYTES_MAX,
    UPSTREAM_READ_BYTES_START,
};
use crate::rt::Socket;
use crate::tls::TlsClient;
use crate::upstream::{self, Upstream};

/// A backend's connection during one attempt, with what it has brought already.
pub(super) struct Backend {
    pub(super) upstream: Upstream,
    /// The end of a read that came while something else was waited for.
    early: Option<(io::Result<usize>, Buf)>,
}

impl Backend {
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.early.is_some() || !self.upstream.socket.is_armed() {
            return Poll::Ready(());
        }
        self.upstream
            .socket
            .poll_read(cx)
            .map(|read| self.early = Some(read))
    }

    /// The end of the read under way.
    pub(super) async fn read(&mut self) -> (io::Result<usize>, Buf) {
        match self.early.take() {
            Some(read) => read,
            None => self.upstream.socket.read().await,
        }
    }
}

impl<H: Handler> Lane<'_, H> {
    /// Tries one backend, over a kept connection and then perhaps over a fresh one.
    pub(super) async fn attempt(&mut self, exchange: &mut Lifecycle, target: &Target) -> Step {
        let mut fresh = false;
        loop {
            match self.attempt_on(exchange, target, fresh).await {
                Ok(step) => return step,
                Err(Action::RetryFresh) => fresh = true,
                Err(action) => return self.give_up(action),
            }
        }
    }

    /// The attempt brought no answer.
    pub(super) fn give_up(&mut self, action: Action) -> Step {
        match action {
            Action::NextEndpoint(fault) => {
                self.attempt_ended(AttemptEnd::Failed(fault));
                Step::Next(fault)
            }
            Action::Fail(fault) => {
                self.attempt_ended(AttemptEnd::Failed(fault));
                Step::Fail(fault)
            }
            Action::Cut(fault) => {
                self.attempt_ended(AttemptEnd::Failed(fault));
                Step::Over(Outcome::Broken(fault))
            }
            Action::Abandon | Action::Continue | Action::Finish { .. } | Action::RetryFresh => {
                self.attempt_ended(AttemptEnd::Abandoned);
                Step::Over(Outcome::ClientLeft)
            }
        }
    }

    async fn attempt_on(
        &mut self,
        exchange: &mut Lifecycle,
        target: &Target,
        fresh: bool,
    ) -> Result<Step, Action> {
        let mut backend = self.backend(exchange, target, fresh).await?;
        self.send_request(exchange, &mut backend).await?;
        // An attempt that fails does not bring it back; the next one then makes its own.
        let mut head = std::mem::take(self.response_head);
        let (buf, framing) = self.read_head(exchange, &mut backend, &mut head).await?;
        let bodyless = matches!(framing.body, ResponseBody::None | ResponseBody::Length(0));
        let event = Event::AnswerHead {
            reusable: framing.keep_alive,
            has_body: !bodyless,
        };
        let begun = exchange.on(event, self.core.now());
        if !matches!(begun, Action::Continue | Action::Finish { .. }) {
            // An answer that was there before the request was sent belongs to nobody.
            return Err(begun);
        }
        let now = self.core.clock();
        let passing = {
            let response = Response {
                head: &head,
                bytes: &buf,
                reused: exchange.is_reused(),
            };
            self.write(now, |x, ask, out| x.response_head(ask, &response, out))
        };
        if passing == Passing::Again {
            return Ok(self.again(exchange));
        }
        if !matches!(passing, Passing::Collect(_)) {
            // Nobody is tried any more: a long answer does not hold a long prompt.
            self.body = Body::default();
        }
        self.first_byte = Some(now.saturating_duration_since(self.arrival.at));
        let relayed = Relayed {
            head: &head,
            framing,
            passing,
            target,
            begun,
        };
        let step = self.relay(exchange, backend, buf, &relayed).await;
        *self.response_head = head;
        Ok(step)
    }

    /// A kept connection, unless a fresh one is wanted or none is kept.
    async fn backend(
        &mut self,
        exchange: &mut Lifecycle,
        target: &Target,
        fresh: bool,
    ) -> Result<Backend, Action> {
        let now = self.core.now();
        let kept = if fresh {
            None
        } else {
            self.core.pool.take(target.key, now)
        };
        exchange.attempt(kept.is_some(), now);
        let mut upstream = match kept {
            Some(upstream) => upstream,
            None => self.connect(exchange, target).await?,
        };
        upstream.uses += 1;
        Ok(Backend {
            upstream,
            early: None,
        })
    }

    /// The handler wants another pick although this attempt has an answer, of which the client has
    /// seen nothing.
    pub(super) fn again(&mut self, exchange: &mut Lifecycle) -> Step {
        self.attempt_ended(AttemptEnd::Abandoned);
        *exchange = Lifecycle::new(self.x.timeouts(), self.arrival.at);
        self.first_byte = None;
        Step::Again
    }

    async fn connect(
        &mut self,
        exchange: &mut Lifecycle,
        target: &Target,
    ) -> Result<Upstream, Action> {
        let addresses = self.x.addresses();
        let connecting = upstream::connect(&addresses, target.keep_alive);
        let socket = match self.wire.wait(exchange, connecting).await? {
            Ok(socket) => socket,
            Err(fault) => return Err(self.connect_failed(exchange, fault)),
        };
        let socket = match self.x.tls() {
            None => socket,
            // Boxed, or every connection's task would have the room of a handshake.
            Some(tls) => Box::pin(self.secure(exchange, socket, &tls)).await?,
        };
        let now = self.core.now();
        exchange.on(Event::Connected, now);
        Ok(Upstream::new(socket, now))
    }

    async fn secure(
        &mut self,
        exchange: &mut Lifecycle,
        socket: Socket,
        tls: &TlsClient,
    ) -> Result<Socket, Action> {
        exchange.on(Event::TlsBegun, self.core.now());
        let secured = self.wire.wait(exchange, socket.secure(tls)).await?;
        secured.map_err(|fault| self.connect_failed(exchange, ConnectFault::Tls(fault)))
    }

    fn connect_failed(&self, exchange: &mut Lifecycle, fault: ConnectFault) -> Action {
        exchange.on(Event::ConnectFailed(fault), self.core.now())
    }

    /// Sends head and body.
    async fn send_request(
        &mut self,
        exchange: &mut Lifecycle,
        backend: &mut Backend,
    ) -> Result<(), Action> {
        if !backend.upstream.socket.is_armed() {
            backend
                .upstream
                .socket
                .arm(Buf::with_capacity(UPSTREAM_READ_BYTES_START));
        }
        self.write(self.core.now(), |x, ask, out| x.request_head(ask, out));
        let request = self.request;
        let parts = self.x.payload(self.body.of(&request));
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > 0 || expects_a_length(&request) {
            emit::field_number(self.out, b"Content-Length", len as u64);
        }
        self.out.extend_from_slice(b"\r\n");
        let [mut a, mut b, mut c] = parts;
        if len <= COPIED_BYTES_MAX {
            for part in [a, b, c] {
                self.out.extend_from_slice(part);
            }
            (a, b, c) = (&[], &[], &[]);
        }
        let in_one_piece = a.len() + b.len() + c.len() == 0;
        if in_one_piece
            && backend.upstream.socket.batches()
            && self.wire.has_company(self.out.len())
            && self.wire.send_batched(exchange, backend, self.out).await?
        {
            return Ok(());
        }
        self.wire
            .send_parts(exchange, backend, [self.out, a, b, c])
            .await
    }

    /// The head of the final answer; the buffer begins with it.
    async fn read_head(
        &mut self,
        exchange: &mut Lifecycle,
        backend: &mut Backend,
        head: &mut ResponseHead,
    ) -> Result<(Buf, ResponseFraming), Action> {
        let is_head = self.is_head_request();
        let mut scan = Scan::default();
        let mut interim = 0;
        loop {
            let (result, mut buf) = self.wire.wait(exchange, backend.read()).await?;
            match result {
                Ok(0) => return Err(exchange.on(Event::UpstreamClosed, self.core.now())),
                Err(_) => return Err(exchange.on(Event::UpstreamReset, self.core.now())),
                Ok(_) => {}
            }
            loop {
                match head.parse(&buf, &mut scan, RESPONSE_HEAD_BYTES_MAX) {
                    Ok(true) if head.status >= 200 => {
                        return match framing::response(head, &buf, is_head) {
                            Ok(framing) => Ok((buf, framing)),
                            Err(_) => Err(self.malformed(exchange)),
                        };
                    }
                    Ok(true) if head.status == 101 || interim >= INTERIM_RESPONSES_MAX => {
                        return Err(self.malformed(exchange));
                    }
                    Ok(true) => {
                        buf.consume(head.len);
                        scan.reset();
                        interim += 1;
                    }
                    Ok(false) => break,
                    Err(_) => return Err(self.malformed(exchange)),
                }
            }
            match exchange.on(Event::AnswerBytes, self.core.now()) {
                Action::Continue => {}
                action => return Err(action),
            }
            if buf.spare() == 0 {
                buf = buf.grown(UPSTREAM_READ_BYTES_MAX);
            }
            backend.upstream.socket.arm(buf);
        }
    }

    fn malformed(&self, exchange: &mut Lifecycle) -> Action {
        exchange.on(Event::Malformed, self.core.now())
    }
}

impl<H: Handler> Wire<'_, H> {
    /// Sends a request through the ring; whether that is over. What the backend did not take of it
    /// is left.
    async fn send_batched(
        &mut self,
        exchange: &mut Lifecycle,
        backend: &mut Backend,
        out: &mut Vec<u8>,
    ) -> Result<bool, Action> {
        let sending = backend.upstream.socket.send_batched(std::mem::take(out));
        let sending = either(sending, |cx| backend.poll_early(cx));
        let ended = self.wait(exchange, sending).await?;
        let Some((Ok(sent), bytes)) = ended.map(|(sent, bytes)| (taken(sent), bytes)) else {
            // It has answered, or ended, and takes no more.
            exchange.on(Event::SendFailed, self.core.now());
            return Ok(true);
        };
        *out = bytes;
        out.drain(..sent);
        if out.is_empty() {
            exchange.on(Event::RequestSent, self.core.now());
        } else if sent > 0 {
            exchange.on(Event::RequestProgress, self.core.now());
        }
        Ok(out.is_empty())
    }

    /// Sends the parts of a request, all of them.
    async fn send_parts(
        &mut self,
        exchange: &mut Lifecycle,
        backend: &mut Backend,
        mut parts: [&[u8]; 4],
    ) -> Result<(), Action> {
        self.turn_to_send(&parts).await;
        loop {
            let slices = parts.map(IoSlice::new);
            // Most requests are one piece, which is the cheaper call.
            let sent = if parts.iter().skip(1).all(|part| part.is_empty()) {
                backend
                    .upstream
                    .socket
                    .send_now(slices.get(..1).unwrap_or_default())
            } else {
                backend.upstream.socket.send_now(&slices)
            };
            match sent {
                Ok(sent) => {
                    if take_off(&mut parts, sent) {
                        exchange.on(Event::RequestSent, self.core.now());
                        return Ok(());
                    }
                    exchange.on(Event::RequestProgress, self.core.now());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A backend that answers early, such as with a 413, reads no more.
                    let writable = backend.upstream.socket.writable();
                    let ready = either(writable, |cx| backend.poll_early(cx));
                    self.wait(exchange, ready).await?;
                    if backend.early.is_some() {
                        // It has answered, or ended, and takes no more.
                        exchange.on(Event::SendFailed, self.core.now());
                        return Ok(());
                    }
                }
                Err(_) => {
                    exchange.on(Event::SendFailed, self.core.now());
                    return Ok(());
                }
            }
        }
    }
}

/// A method that usually has a body says so when it has none (RFC 9110 8.6).
fn expects_a_length(request: &Request<'_>) -> bool {
    request.framing.body != RequestBody::None
        || matches!(
            request.head.method.of(request.bytes),
            b"POST" | b"PUT" | b"PATCH"
        )
}

/// Takes sent bytes off the front of the parts; whether nothing is left.
fn take_off(parts: &mut [&[u8]; 4], mut sent: usize) -> bool {
    for part in parts.iter_mut() {
        let of_part = sent.min(part.len());
        *part = part.get(of_part..).unwrap_or_default();
        sent -= of_part;
    }
    parts.iter().all(|part| part.is_empty())
}

/// Ready when one of the two is; `None` = the other was first.
async fn either<F: Future>(
    future: F,
    mut other: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        other(cx).map(|()| None)
    })
    .await
}
