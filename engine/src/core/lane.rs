//! A request in progress: the state that the steps from routing to the end of the response share.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use super::Core;
use super::body::Body;
use super::connection::{Interrupt, Io, earliest};
use super::context::{Arrival, Context};
use super::early::{Asker, EarlyBytes};
use crate::budget::{Client, Share};
use crate::exchange::{Action, Event, Fault, Lifecycle};
use crate::h1::{ResponseHead, Version};
use crate::handler::{
    Ask, AttemptEnd, Exchange, Handler, Local, Outcome, Pick, Request, Revocation, Routed,
};
use crate::part;

/// The largest part of a body that is copied after its head, so that one write sends both; more is
/// sent from its own buffer.
pub(super) const COPIED_BYTES_MAX: usize = 4 << 10;

/// The largest piece that waits for the end of the turn. A larger one would have left the
/// processor's caches by then: sending eight bodies of a megabyte took 75 % more time when each
/// waited for the others.
const TURN_BYTES_MAX: usize = 16 << 10;

/// A request in progress; see the module's documentation.
pub(super) struct Lane<'l, H: Handler> {
    pub(super) core: &'l Core<H>,
    pub(super) wire: Wire<'l, H>,
    pub(super) x: &'l mut H::Exchange,
    pub(super) request: Request<'l>,
    /// The request's body; dropped when a response is passed on, which ends the attempts.
    pub(super) body: Body,
    /// What the exchange has made of the body for a backend, as it is charged to the client.
    pub(super) copy: Option<Share>,
    /// Bytes of the client's body.
    pub(super) body_bytes: u64,
    pub(super) local: &'l mut Local,
    /// The parsed head of the last response, reused for the next one.
    pub(super) response_head: &'l mut ResponseHead,
    /// What is being written, to the client or to a backend.
    pub(super) out: &'l mut Vec<u8>,
    pub(super) arrival: Arrival,
    /// Whether the client's connection may go on after this request.
    pub(super) keep: bool,
    /// Bytes of the response's body that the client has taken.
    pub(super) response_bytes: u64,
    pub(super) first_byte: Option<Duration>,
}

/// The client's side of a request in flight, and the state of its attempts. It is separate from the
/// exchange, so that bytes borrowed from the exchange can be sent while the client is watched.
pub(super) struct Wire<'l, H: Handler> {
    pub(super) core: &'l Core<H>,
    pub(super) io: &'l mut Io,
    /// The lifecycle of the attempts; [`Lane::restart`] begins a new one.
    pub(super) life: Lifecycle,
    pub(super) early: EarlyBytes,
    /// What ends the request while it is in progress.
    pub(super) revocation: Option<Revocation>,
}

/// Sizes and times of a complete request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) first_byte: Option<Duration>,
}

/// The result of one attempt.
pub(super) enum Step {
    /// The handler requests another pick.
    Again,
    /// Try another backend.
    Next(Fault),
    /// Respond with an error.
    Fail(Fault),
    /// The request is over.
    Over(Outcome),
}

impl<H: Handler> Lane<'_, H> {
    /// Carries a complete request to the end of its response.
    pub(super) async fn run(&mut self) -> Outcome {
        loop {
            let now = self.core.now();
            let routed = self.ask(now, |x, ask, local| x.route(ask, local));
            match routed {
                Routed::Respond => return self.send_local().await,
                Routed::Upstream => return self.upstream().await,
                Routed::Wait(until) => {
                    if self.wait_for_news(until).await.is_err() {
                        return Outcome::ClientLeft;
                    }
                }
                Routed::Work => {
                    if Box::pin(self.work_on_body()).await.is_err() {
                        return Outcome::ClientLeft;
                    }
                }
            }
        }
    }

    /// Calls the exchange at a point where it may supply the response itself.
    pub(super) fn ask<R>(
        &mut self,
        now: Instant,
        question: impl FnOnce(&mut H::Exchange, &Ask<'_>, &mut Local) -> R,
    ) -> R {
        self.local.clear();
        let context = Context::new(self.core, self.arrival, now);
        let ask = Ask {
            cx: &context.cx(),
            request: self.request,
            body: self.body.of(&self.request),
        };
        question(self.x, &ask, self.local)
    }

    /// Lets the exchange write a head.
    pub(super) fn write<R>(
        &mut self,
        now: Instant,
        question: impl FnOnce(&mut H::Exchange, &Ask<'_>, &mut Vec<u8>) -> R,
    ) -> R {
        self.out.clear();
        let context = Context::new(self.core, self.arrival, now);
        let ask = Ask {
            cx: &context.cx(),
            request: self.request,
            body: self.body.of(&self.request),
        };
        question(self.x, &ask, self.out)
    }

    async fn wait_for_news(&mut self, until: Instant) -> Result<(), Interrupt> {
        self.wire.io.deadline.set(Some(until));
        match self.wire.io.guard(self.core.wait_for_news()).await {
            Err(Interrupt::Left) => Err(Interrupt::Left),
            _ => Ok(()),
        }
    }

    /// Has the exchange's work done on the request's body. The body is moved to the other thread,
    /// with its share of the budget; a small one that follows the head is copied.
    async fn work_on_body(&mut self) -> Result<(), Interrupt> {
        let work = self.x.work();
        let (core, client) = (self.core, self.client());
        match self.body.take_own() {
            Some(body) => self.body = self.until_left(core.work_on(client, work, body)).await?,
            None => {
                let copy = self.body.of(&self.request).to_vec();
                self.until_left(core.work_on(client, work, copy)).await?;
            }
        }
        Ok(())
    }

    /// Waits, without a deadline, until the client disconnects.
    async fn until_left<F: Future>(&mut self, future: F) -> Result<F::Output, Interrupt> {
        let mut future = pin!(future);
        loop {
            self.wire.io.deadline.set(None);
            match self.wire.io.guard(future.as_mut()).await {
                Err(Interrupt::Deadline) => {}
                done => return done,
            }
        }
    }

    /// Starts with no attempt made, and with the time limits that apply now.
    pub(super) fn restart(&mut self) {
        self.wire.life = Lifecycle::new(self.x.timeouts(), self.arrival.at);
    }

    /// Makes attempts until one is the last.
    async fn upstream(&mut self) -> Outcome {
        self.restart();
        self.wire.early.begin(self.core.now());
        let mut failed = None;
        loop {
            let now = self.core.now();
            let before = failed.take();
            let pick = self.ask(now, |x, ask, local| x.pick(ask, before, local));
            let target = match pick {
                Pick::Respond => {
                    self.wire.life.respond_locally();
                    return self.send_local().await;
                }
                Pick::Wait(until) => {
                    if let Err(action) = Box::pin(self.wait_for_turn(until)).await {
                        return self.ended_waiting(action);
                    }
                    failed = before;
                    continue;
                }
                Pick::Work => {
                    if Box::pin(self.work_on_body()).await.is_err() {
                        return Outcome::ClientLeft;
                    }
                    continue;
                }
                Pick::Upstream(target) => target,
            };
            let early_after = self.ask(now, |x, ask, _| x.early_after(ask));
            self.wire.early.repeat(early_after);
            self.wire.life.set_timeouts(self.x.timeouts());
            match self.attempt(&target).await {
                Step::Again => {}
                Step::Next(fault) => failed = Some(fault),
                Step::Fail(fault) => {
                    let now = self.core.now();
                    self.ask(now, |x, ask, local| x.failed(ask, fault, local));
                    return self.send_local().await;
                }
                Step::Over(outcome) => return outcome,
            }
        }
    }

    /// Reports the end of the current attempt to the exchange.
    pub(super) fn attempt_ended(&mut self, end: AttemptEnd) {
        let bytes = self.response_bytes;
        let context = Context::new(self.core, self.arrival, self.core.now());
        let ask = Ask {
            cx: &context.cx(),
            request: self.request,
            body: self.body.of(&self.request),
        };
        self.x.attempt_ended(&ask, end, bytes);
    }

    /// An empty share of the budget for bytes of this request.
    pub(super) fn share(&self) -> Share {
        self.core.budget.share(self.address())
    }

    /// The client, among whom work is shared out.
    pub(super) fn client(&self) -> Client {
        self.core.budget.client(self.address())
    }

    fn address(&self) -> IpAddr {
        let client = self.x.client();
        client.unwrap_or_else(|| self.arrival.peer.ip())
    }

    /// Sends all of a piece of a backend's response to the client.
    pub(super) async fn deliver(&mut self, body: &[u8]) -> Result<(), Action> {
        if body.is_empty() {
            let batched = self.wire.io.batches() && self.wire.is_sent_with_others(self.out.len());
            if batched && !self.out.is_empty() {
                self.wire.deliver_batched(self.out).await?;
            }
            if self.out.is_empty() {
                return Ok(());
            }
        }
        let sent = self.wire.deliver([self.out, body]).await;
        self.out.clear();
        sent
    }

    /// Sends the handler's own response.
    pub(super) async fn send_local(&mut self) -> Outcome {
        let now = self.core.clock();
        self.first_byte = Some(now.saturating_duration_since(self.arrival.at));
        if let Some(outgoing) = self.continue_early() {
            return Box::pin(self.end_early(outgoing)).await;
        }
        let is_head = self.is_head_request();
        let old = self.request.head.version == Version::Http10;
        self.keep &= !self.core.is_draining();
        let body = write_local(self.out, self.local, self.keep, is_head, old);
        self.response_bytes += body.len() as u64;
        send_local(self.wire.io, self.out, &body).await
    }

    pub(super) fn is_head_request(&self) -> bool {
        self.request.head.method.of(self.request.bytes) == b"HEAD"
    }

    /// Sizes and times at the end.
    pub(super) fn carried(&self) -> Carried {
        Carried {
            request_bytes: self.body_bytes,
            response_bytes: self.response_bytes,
            first_byte: self.first_byte,
        }
    }
}

impl<H: Handler> Wire<'_, H> {
    /// Reports an event to the lifecycle; returns what to do next.
    pub(super) fn on(&mut self, event: Event) -> Action {
        self.life.on(event, self.core.now())
    }

    /// Waits for an operation of the attempt until the client disconnects or the deadline passes.
    /// `Err` says what to do then. This and the waits below borrow the operation: an async fn has
    /// room for what is moved into it twice.
    pub(super) async fn wait<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Action> {
        loop {
            let due = earliest(self.life.deadline(), self.io.stall.deadline());
            self.io.deadline.set(due);
            match self.io.guard(future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(Interrupt::Left) => {
                    return Err(self.on(Event::ClientLeft));
                }
                Err(Interrupt::Stalled) => return Err(self.on(Event::ClientStalled)),
                Err(Interrupt::Deadline) => match self.on_deadline(self.core.clock()) {
                    Action::Continue => {}
                    action => return Err(action),
                },
            }
        }
    }

    /// The deadline has passed: that of a stall, or one of the lifecycle.
    fn on_deadline(&mut self, now: Instant) -> Action {
        let event = if self.io.has_stalled(now) {
            Event::ClientStalled
        } else if self.is_revoked() {
            Event::Revoked
        } else {
            Event::Timer
        };
        self.life.on(event, now)
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.revocation.as_ref().is_some_and(Revocation::is_revoked)
    }

    /// As [`Self::wait`], while the endpoint has sent no response byte: the wait also ends if the exchange
    /// leaves the endpoint, because it was found dead. A client that has waited for too long gets
    /// bytes of the exchange's own.
    pub(super) async fn wait_or_leave<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
        asker: &Asker<'_, H>,
    ) -> Result<F::Output, Action> {
        loop {
            let due = earliest(self.life.deadline(), self.early.due);
            self.io.deadline.set(due);
            match self.io.guard(future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(Interrupt::Left) => return Err(self.on(Event::ClientLeft)),
                Err(Interrupt::Stalled) => return Err(self.on(Event::ClientStalled)),
                Err(Interrupt::Deadline) => {}
            }
            let now = self.core.clock();
            let mut action = self.life.on(Event::Timer, now);
            if action == Action::Continue && self.is_revoked() {
                action = self.life.on(Event::Revoked, now);
            }
            if action == Action::Continue && asker.x.leaves(now) {
                action = self.life.on(Event::EndpointDown, now);
            }
            if action != Action::Continue {
                return Err(action);
            }
            if self.early.due.is_some_and(|due| due <= now) {
                Box::pin(self.fill(asker, now)).await?;
            }
        }
    }

    /// As [`Self::wait`], but `Ok(None)` when `until` passes first. Giving up the wait does not give
    /// up a read, which belongs to its socket.
    pub(super) async fn wait_until<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
        until: Option<Instant>,
    ) -> Result<Option<F::Output>, Action> {
        let Some(until) = until else {
            return self.wait(future).await.map(Some);
        };
        loop {
            let due = earliest(self.life.deadline(), self.io.stall.deadline());
            self.io.deadline.set(earliest(due, Some(until)));
            match self.io.guard(future.as_mut()).await {
                Ok(output) => return Ok(Some(output)),
                Err(Interrupt::Left) => return Err(self.on(Event::ClientLeft)),
                Err(Interrupt::Stalled) => return Err(self.on(Event::ClientStalled)),
                Err(Interrupt::Deadline) => {
                    let now = self.core.clock();
                    match self.on_deadline(now) {
                        Action::Continue if now >= until => return Ok(None),
                        Action::Continue => {}
                        action => return Err(action),
                    }
                }
            }
        }
    }

    /// Whether `len` bytes are sent together with other bytes of this turn; see [`super::turn`].
    pub(super) fn is_sent_with_others(&self, len: usize) -> bool {
        len <= TURN_BYTES_MAX && self.core.is_shared()
    }

    /// Waits until it is time to send these; see [`super::turn`].
    pub(super) async fn turn_to_send(&self, parts: &[&[u8]]) {
        if self.is_sent_with_others(parts.iter().map(|part| part.len()).sum()) {
            self.core.end_of_turn().await;
        }
    }

    /// Sends a piece of a backend's response through the ring. Bytes that the client did not take
    /// stay in `out`.
    async fn deliver_batched(&mut self, out: &mut Vec<u8>) -> Result<(), Action> {
        // The ring does not report when it waits for the client.
        self.on(Event::ClientBlocked);
        self.io.stall.began(self.core.now());
        let sending = self.io.send_batched(std::mem::take(out));
        let (sent, bytes) = self.wait(pin!(sending)).await?;
        self.io.stall.ended();
        *out = bytes;
        match taken(sent) {
            Ok(sent) => {
                out.drain(..sent);
                self.on(Event::ClientTook);
                Ok(())
            }
            Err(_) => Err(self.on(Event::ClientLeft)),
        }
    }

    /// Sends all of a piece of a backend's response.
    pub(super) async fn deliver(&mut self, mut parts: [&[u8]; 2]) -> Result<(), Action> {
        let mut blocked = false;
        self.turn_to_send(&parts).await;
        loop {
            match self.io.send_now(&mut parts) {
                Ok(true) if blocked => {
                    self.io.stall.ended();
                    self.life.on(Event::ClientTook, self.core.clock());
                    return Ok(());
                }
                Ok(true) => return Ok(()),
                Ok(false) => {
                    if !std::mem::replace(&mut blocked, true) {
                        self.on(Event::ClientBlocked);
                    }
                    self.io.waits_to_send(self.core.clock());
                    let writable = self.io.writable();
                    if self.wait(pin!(writable)).await?.is_err() {
                        return Err(self.on(Event::ClientLeft));
                    }
                }
                Err(_) => return Err(self.on(Event::ClientLeft)),
            }
        }
    }
}

/// How many bytes the ring has sent; none if it could not wait for the socket. The rest is sent
/// without the ring.
pub(super) fn taken(sent: io::Result<usize>) -> io::Result<usize> {
    match sent {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(0)
        }
        sent => sent,
    }
}

/// Writes the head of a local response with its framing; returns the body to be sent.
pub(super) fn write_local(
    out: &mut Vec<u8>,
    local: &mut Local,
    keep: bool,
    is_head: bool,
    old: bool,
) -> bytes::Bytes {
    use crate::h1::emit::{field, field_number};
    out.clear();
    out.append(&mut local.head);
    let body = std::mem::take(&mut local.body);
    if !local.bodyless {
        field_number(out, b"Content-Length", body.len() as u64);
    }
    match (keep, old) {
        (false, _) => field(out, b"Connection", b"close"),
        (true, true) => field(out, b"Connection", b"keep-alive"),
        (true, false) => {}
    }
    out.extend_from_slice(b"\r\n");
    if is_head || local.bodyless {
        bytes::Bytes::new()
    } else {
        body
    }
}

/// Sends a local response that [`write_local`] began.
pub(super) async fn send_local(io: &mut Io, out: &mut Vec<u8>, body: &[u8]) -> Outcome {
    io.deadline.set_patient(false);
    io.deadline.set(None);
    let mut rest = body;
    if rest.len() <= COPIED_BYTES_MAX {
        out.extend_from_slice(rest);
        rest = &[];
    }
    match io.send([out, rest]).await {
        Ok(()) => Outcome::Local,
        Err(Interrupt::Left) => Outcome::ClientLeft,
        Err(Interrupt::Stalled) => Outcome::ClientStalled,
        // Sending has no other deadline than that of a stall.
        Err(Interrupt::Deadline) => Outcome::Broken(Fault::WriteTimeout),
    }
}

impl Io {
    /// Sends the bytes of two pieces that the kernel takes at once and removes them from the
    /// pieces; true when both are sent.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn send_now(&self, parts: &mut [&[u8]; 2]) -> io::Result<bool> {
        loop {
            let [head, body] = *parts;
            let sent = match (head.is_empty(), body.is_empty()) {
                (true, true) => return Ok(true),
                (true, false) => self.try_send(&[IoSlice::new(body)]),
                (false, true) => self.try_send(&[IoSlice::new(head)]),
                _ => self.try_send(&[IoSlice::new(head), IoSlice::new(body)]),
            };
            match sent {
                Ok(sent) => {
                    let of_head = sent.min(head.len());
                    *parts = [part::rest(head, of_head), part::rest(body, sent - of_head)];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}
