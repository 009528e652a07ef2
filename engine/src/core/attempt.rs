//! One attempt: a connection, the request on it, the head of the response.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::body::Body;
use super::early::{Asker, asker};
use super::lane::{COPIED_BYTES_MAX, Lane, Step, Wire, taken};
use super::relay::Relayed;
use crate::buf::Buf;
use crate::exchange::{Action, ConnectFault, Event, Fault};
use crate::h1::emit;
use crate::h1::framing::{self, RequestBody, ResponseBody, ResponseFraming};
use crate::h1::reject::Malformed;
use crate::h1::{ResponseHead, Scan};
use crate::handler::{
    AttemptEnd, Exchange, Handler, NamesOf, Outcome, Passing, Request, Response, Target,
};
use crate::limits::{
    BODY_BYTES_AHEAD, INTERIM_RESPONSES_MAX, RESPONSE_HEAD_BYTES_MAX, UPSTREAM_READ_BYTES_MAX,
};
use crate::part;
use crate::rt::{Purpose, Socket};
use crate::tls::TlsClient;
use crate::upstream::{self, Backend, Upstream};

impl<H: Handler> Lane<'_, H> {
    /// Tries one backend, on an idle connection if there is one, and then possibly on a fresh one.
    pub(super) async fn attempt(&mut self, target: &Target) -> Step {
        let mut fresh = false;
        loop {
            match self.attempt_on(target, fresh).await {
                Ok(step) => return step,
                Err(Action::RetryFresh) => fresh = true,
                Err(action) => {
                    self.wire.io.deadline.set_patient(false);
                    return self.give_up(action);
                }
            }
        }
    }

    /// The attempt ended without a response.
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
            Action::Reset => {
                self.attempt_ended(AttemptEnd::Abandoned);
                Step::Over(Outcome::ClientStalled)
            }
            Action::Abandon | Action::Continue | Action::Finish { .. } | Action::RetryFresh => {
                self.attempt_ended(AttemptEnd::Abandoned);
                Step::Over(Outcome::ClientLeft)
            }
        }
    }

    async fn attempt_on(&mut self, target: &Target, fresh: bool) -> Result<Step, Action> {
        self.wire.io.deadline.set_patient(true);
        let mut backend = self.backend(target, fresh).await?;
        self.send_request(&mut backend).await?;
        // A failed attempt does not return it; the next one then allocates its own.
        let mut head = std::mem::take(self.response_head);
        let (buf, framing) = self.read_head(&mut backend, &mut head).await?;
        self.wire.io.deadline.set_relaying();
        let bodyless = matches!(framing.body, ResponseBody::None | ResponseBody::Length(0));
        let event = Event::ResponseHead {
            reusable: framing.keep_alive,
            has_body: !bodyless,
        };
        let begun = self.wire.on(event);
        if !matches!(begun, Action::Continue | Action::Finish { .. }) {
            // A response that arrived before the request was sent belongs to no request.
            return Err(begun);
        }
        let now = self.core.clock();
        let passing = {
            let response = Response {
                head: &head,
                bytes: &buf,
            };
            self.write(now, |x, ask, out| x.response_head(ask, &response, out))
        };
        if passing == Passing::Again {
            self.wire.io.deadline.set_patient(false);
            return Ok(self.again());
        }
        if !matches!(passing, Passing::Collect(_)) {
            // No further attempt follows: the body need not be held while the response passes.
            self.wire.life.pass_on();
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
        let step = self.relay(backend, buf, &relayed).await;
        self.wire.io.deadline.set_patient(false);
        *self.response_head = head;
        Ok(step)
    }

    /// An idle connection, or a fresh one if there is none or `fresh` requires it.
    async fn backend(&mut self, target: &Target, fresh: bool) -> Result<Backend, Action> {
        let now = self.core.now();
        let kept = if fresh {
            None
        } else {
            self.core.pool.take(target.key, now)
        };
        self.wire.life.attempt(kept.is_some(), now);
        let mut upstream = match kept {
            Some(upstream) => upstream,
            // On the heap, as few requests need a connection of their own.
            None => Box::pin(self.connect(target)).await?,
        };
        upstream.uses += 1;
        Ok(Backend::new(upstream, now))
    }

    /// The handler wants another pick although this attempt has a response, of which the client has
    /// seen nothing.
    pub(super) fn again(&mut self) -> Step {
        self.attempt_ended(AttemptEnd::Abandoned);
        if !self.wire.life.give_up() {
            debug_assert!(false, "a response is given up that the client has seen");
            return Step::Over(Outcome::Broken(Fault::Malformed));
        }
        self.first_byte = None;
        Step::Again
    }

    async fn connect(&mut self, target: &Target) -> Result<Box<Upstream>, Action> {
        let addresses = self.x.addresses();
        let exhausted = |resource| self.core.handler.connect_failed(resource);
        let connecting =
            upstream::connect(&addresses, target.keep_alive, Purpose::Backend, exhausted);
        let socket = match self
            .wire
            .wait_or_leave(pin!(connecting), asker!(self))
            .await?
        {
            Ok(socket) => socket,
            Err(fault) => return Err(self.connect_failed(fault)),
        };
        let socket = match self.x.tls() {
            None => socket,
            // Boxed, so that connections without TLS need no room for a handshake.
            Some(tls) => Box::pin(self.secure(socket, &tls)).await?,
        };
        let now = self.core.now();
        self.wire.life.on(Event::Connected, now);
        Ok(Box::new(Upstream::new(socket, now)))
    }

    async fn secure(&mut self, socket: Socket, tls: &TlsClient) -> Result<Socket, Action> {
        self.wire.on(Event::TlsBegun);
        let secured = self
            .wire
            .wait_or_leave(pin!(socket.secure(tls)), asker!(self))
            .await?;
        secured.map_err(|fault| self.connect_failed(ConnectFault::Tls(fault)))
    }

    fn connect_failed(&mut self, fault: ConnectFault) -> Action {
        self.wire.on(Event::ConnectFailed(fault))
    }

    /// Sends head and body.
    async fn send_request(&mut self, backend: &mut Backend) -> Result<(), Action> {
        if !backend.upstream.socket.is_armed() {
            // A fresh connection: how quickly its backend responds will show.
            let buffers = &self.core.waiting_buffers;
            backend.upstream.arm(Buf::default(), false, buffers);
        }
        self.write(self.core.now(), |x, ask, out| x.request_head(ask, out));
        let request = self.request;
        let body = self.body.of(&request);
        let parts = self.x.payload(body);
        let is_copy = |part: &&&[u8]| !body.as_ptr_range().contains(&part.as_ptr());
        let copied: usize = parts.iter().filter(is_copy).map(|part| part.len()).sum();
        if copied > BODY_BYTES_AHEAD {
            let empty = self.share();
            self.copy.get_or_insert(empty).settle(copied);
        }
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
            && self.wire.is_sent_with_others(self.out.len())
            && self
                .wire
                .send_batched(backend, self.out, asker!(self))
                .await?
        {
            return Ok(());
        }
        let parts = [self.out.as_slice(), a, b, c];
        self.wire.send_parts(backend, parts, asker!(self)).await
    }

    /// The head of the final response; the buffer begins with it.
    async fn read_head(
        &mut self,
        backend: &mut Backend,
        head: &mut ResponseHead,
    ) -> Result<(Buf, ResponseFraming), Action> {
        let is_head = self.is_head_request();
        let mut scan = Scan::default();
        let mut interim = 0;
        loop {
            let (result, mut buf) = self
                .wire
                .wait_or_leave(pin!(backend.read()), asker!(self))
                .await?;
            match result {
                Ok(0) if !backend.is_reset => {
                    return Err(self.wire.on(Event::UpstreamClosed));
                }
                Ok(0) | Err(_) => return Err(self.wire.on(Event::UpstreamReset)),
                Ok(_) => {}
            }
            loop {
                let max = RESPONSE_HEAD_BYTES_MAX;
                match head.parse::<NamesOf<H>>(&buf, &mut scan, max) {
                    Ok(true) if head.status >= 200 => {
                        return match framing::response(head, &buf, is_head) {
                            Ok(framing) => Ok((buf, framing)),
                            Err(_) => Err(self.malformed()),
                        };
                    }
                    Ok(true) if head.status == 101 || interim >= INTERIM_RESPONSES_MAX => {
                        return Err(self.malformed());
                    }
                    Ok(true) => {
                        buf.consume(head.len);
                        scan.reset();
                        interim += 1;
                    }
                    Ok(false) => break,
                    Err(Malformed::HeadTooLarge) => {
                        return Err(self.wire.on(Event::HeadTooLarge));
                    }
                    Err(_) => return Err(self.malformed()),
                }
            }
            match self.wire.on(Event::ResponseBytes) {
                Action::Continue => {}
                action => return Err(action),
            }
            if buf.spare() == 0 {
                buf = buf.grown(UPSTREAM_READ_BYTES_MAX);
            }
            backend.upstream.socket.arm(buf);
        }
    }

    fn malformed(&mut self) -> Action {
        self.wire.on(Event::Malformed)
    }
}

impl<H: Handler> Wire<'_, H> {
    /// Sends a request through the ring; returns whether sending is over. Bytes that the backend did
    /// not take stay in `out`.
    async fn send_batched(
        &mut self,
        backend: &mut Backend,
        out: &mut Vec<u8>,
        asker: &Asker<'_, H>,
    ) -> Result<bool, Action> {
        let sending = backend.upstream.socket.send_batched(std::mem::take(out));
        let mut sending = pin!(sending);
        let sending = either(sending.as_mut(), |cx| backend.poll_early(cx));
        let ended = self.wait_or_leave(pin!(sending), asker).await?;
        if ended.is_none() {
            // The ring may have sent a part of it.
            self.on(Event::RequestProgress);
        }
        let Some((Ok(sent), bytes)) = ended.map(|(sent, bytes)| (taken(sent), bytes)) else {
            // The backend has responded or closed; it reads no more of the request.
            self.on(Event::SendFailed);
            return Ok(true);
        };
        *out = bytes;
        out.drain(..sent);
        if out.is_empty() {
            self.on(Event::RequestSent);
        } else if sent > 0 {
            self.on(Event::RequestProgress);
        }
        Ok(out.is_empty())
    }

    /// Sends the parts of a request, all of them.
    async fn send_parts(
        &mut self,
        backend: &mut Backend,
        mut parts: [&[u8]; 4],
        asker: &Asker<'_, H>,
    ) -> Result<(), Action> {
        self.turn_to_send(&parts).await;
        loop {
            let slices = parts.map(IoSlice::new);
            // Most requests are one piece, which is the cheaper call.
            let [first, others @ ..] = &slices;
            let sent = if others.iter().all(|part| part.is_empty()) {
                backend
                    .upstream
                    .socket
                    .send_now(std::slice::from_ref(first))
            } else {
                backend.upstream.socket.send_now(&slices)
            };
            match sent {
                Ok(sent) => {
                    if take_off(&mut parts, sent) {
                        self.on(Event::RequestSent);
                        return Ok(());
                    }
                    self.on(Event::RequestProgress);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A backend that responds early, such as with a 413, reads no more.
                    let writable = backend.upstream.socket.writable();
                    let mut writable = pin!(writable);
                    let ready = either(writable.as_mut(), |cx| backend.poll_early(cx));
                    self.wait_or_leave(pin!(ready), asker).await?;
                    if backend.has_read_early() {
                        // The backend has responded or closed; it reads no more of the request.
                        self.on(Event::SendFailed);
                        return Ok(());
                    }
                }
                Err(_) => {
                    backend.is_reset = true;
                    self.on(Event::SendFailed);
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
    for bytes in parts.iter_mut() {
        let of_part = sent.min(bytes.len());
        *bytes = part::rest(bytes, of_part);
        sent -= of_part;
    }
    parts.iter().all(|part| part.is_empty())
}

/// Ready when one of the two is; `None` = the other was first.
async fn either<F: Future>(
    mut future: Pin<&mut F>,
    mut other: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Option<F::Output> {
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        other(cx).map(|()| None)
    })
    .await
}
