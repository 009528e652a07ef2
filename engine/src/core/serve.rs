//! One client's connection: request after request.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Core;
use super::body::{Body, BodyError, Receiving, room};
use super::connection::{Interrupt, Io, after};
use super::context::{Arrival, Context};
use super::early::EarlyBytes;
use super::lane::{Carried, Lane, Wire, send_local, write_local};
use super::pace::Pace;
use crate::budget::Share;
use crate::buf::Buf;
use crate::exchange::Lifecycle;
use crate::h1::framing::{self, RequestBody, RequestFraming};
use crate::h1::{RequestHead, ResponseHead, Scan, Version};
use crate::handler::{Ask, AtHead, Done, Exchange, Handler, Limits, Local};
use crate::handler::{NamesOf, Outcome, Refusal, Request};
use crate::limits::{
    BRISK_WAIT_MAX, CLIENT_READ_BYTES_START, DISCARDED_BODY_BYTES_MAX, HEAD_BYTES_UNCHARGED,
    OUT_BYTES_KEPT_MAX, PIPELINED_IN_A_ROW_MAX, PIPELINED_PAUSE,
};
use crate::rt::{self, Socket};
use crate::waiting_buffers::WaitingBuffer;

/// Everything that a connection keeps from one request to the next.
struct Connection<H: Handler> {
    core: Rc<Core<H>>,
    peer: SocketAddr,
    io: Io,
    head: RequestHead,
    scan: Scan,
    /// Head and, if it is small, body of the request in flight.
    message: Buf,
    /// The budget of a message that began with a large head.
    message_share: Option<Share>,
    /// Where the next request is read to.
    rest: Buf,
    kept: <H::Exchange as Exchange>::Kept,
    local: Local,
    response_head: ResponseHead,
    out: Vec<u8>,
    /// Present while the connection is brisk: its reads have a buffer while they wait.
    waiting: Option<WaitingBuffer>,
    /// The time at which the connection was made; `None` once the first request has arrived.
    fresh: Option<Instant>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Request,
    /// The next request, after the body of this one, which is discarded.
    Discard,
    /// Closed, after what the client is still sending.
    Linger,
    Close,
}

/// A request with a complete and well-framed head.
#[derive(Debug, Clone, Copy)]
struct Framed {
    arrival: Arrival,
    framing: RequestFraming,
    limits: Limits,
    /// Whether the connection may go on after it.
    keep: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    outcome: Outcome,
    next: Next,
    /// Sizes and times of a request that was complete; `None` if it was not.
    carried: Option<Carried>,
}

/// The size of what a connection's task has on the heap while it serves a request, in bytes.
pub(super) fn request_bytes<H: Handler>() -> usize {
    fn size<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    size(Connection::<H>::respond_to)
}

/// Serves a connection to its end.
pub(super) async fn serve<H: Handler>(core: &Rc<Core<H>>, socket: Socket, peer: SocketAddr) {
    let deadline = core.deadlines.make();
    let mut connection = Connection {
        core: Rc::clone(core),
        peer,
        io: Io::new(socket, deadline),
        head: RequestHead::default(),
        scan: Scan::default(),
        message: Buf::default(),
        message_share: None,
        rest: Buf::default(),
        kept: Default::default(),
        local: Local::default(),
        response_head: ResponseHead::default(),
        out: Vec::new(),
        waiting: None,
        fresh: Some(core.clock()),
    };
    let mut in_a_row = 0;
    loop {
        match connection.request().await {
            Next::Request | Next::Discard => {}
            Next::Close => return,
            Next::Linger => {
                connection.io.linger(Instant::now()).await;
                return;
            }
        }
        // Requests that are here already keep this task ready, and with it all others waiting.
        in_a_row = if connection.has_more() {
            in_a_row + 1
        } else {
            0
        };
        if in_a_row == PIPELINED_IN_A_ROW_MAX {
            in_a_row = 0;
            rt::sleep(PIPELINED_PAUSE).await;
        }
    }
}

impl<H: Handler> Connection<H> {
    /// One request, from its first byte to the end of its response.
    async fn request(&mut self) -> Next {
        let limits = self.core.handler.limits();
        self.io.stall.set_timeout(limits.stall_timeout);
        match self.read_head(&limits).await {
            // On the heap: a connection that waits for a request does not need the room for one.
            Some((arrived, read)) => Box::pin(self.respond_to(arrived, read, limits)).await,
            None => Next::Close,
        }
    }

    /// Responds to a request whose head was read. The exchange exists from here to
    /// [`Exchange::done`]: no way out lies between the two.
    async fn respond_to(
        &mut self,
        arrived: Instant,
        read: Result<(), Refusal>,
        limits: Limits,
    ) -> Next {
        let core = Rc::clone(&self.core);
        let _counted = core.begin_request();
        let arrival = Arrival {
            peer: self.peer,
            at: arrived,
        };
        let framed = read
            .and_then(|()| framing::request(&self.head, &self.message).map_err(Refusal::Head))
            .map(|framing| Framed {
                arrival,
                framing,
                limits,
                keep: framing.keep_alive && !core.is_draining(),
            });
        let mut x = core.handler.begin(std::mem::take(&mut self.kept));
        let ended = match &framed {
            Ok(framed) => self.serve(&mut x, framed).await,
            Err(refusal) => {
                let outcome = self.refuse(&mut x, arrival, None, *refusal).await;
                Ended::closing(outcome)
            }
        };
        self.kept = {
            let now = core.clock();
            let context = Context::new(&core, arrival, now);
            let framing = framed.as_ref().ok().map(|framed| framed.framing);
            let request = framing.map(|framing| Request {
                head: &self.head,
                bytes: &self.message,
                framing,
            });
            let total = now.saturating_duration_since(arrived);
            let done = ended.done(total, self.waiting.is_some());
            x.done(&context.cx(), request.as_ref(), &done)
        };
        match (ended.next, framed) {
            (Next::Discard, Ok(framed)) => self.discard_body(&framed).await,
            (next, _) => next,
        }
    }

    /// Whether bytes of the next request are here.
    fn has_more(&self) -> bool {
        !self.rest.is_empty() || self.io.holds_bytes()
    }

    /// Serves a request that is understood, to the end of its response.
    async fn serve(&mut self, x: &mut H::Exchange, framed: &Framed) -> Ended {
        let mut now = framed.arrival.at;
        let bytes_max = loop {
            match self.ask_head(x, framed, now) {
                AtHead::Wait(until) => {
                    let core = Rc::clone(&self.core);
                    self.io.deadline.set(Some(until));
                    let waited = self.io.guard(core.wait_for_news()).await;
                    if matches!(waited, Err(Interrupt::Left)) {
                        return Ended::closing(Outcome::ClientLeft);
                    }
                    now = core.clock();
                }
                AtHead::Body(bytes_max) => break bytes_max,
                AtHead::Respond => {
                    let keep = framed.keep && is_discardable(framed.framing);
                    return match self.respond_locally(keep).await {
                        Outcome::Local if keep => Ended {
                            outcome: Outcome::Local,
                            next: Next::Discard,
                            carried: None,
                        },
                        outcome => Ended::closing(outcome),
                    };
                }
            }
        };
        let mut lane = match self.receive(x, framed, bytes_max).await {
            Ok(body) => self.lane(x, framed, body),
            Err(BodyError::Left) => return Ended::closing(Outcome::ClientLeft),
            Err(BodyError::Refused(refusal)) => {
                let framing = Some(framed.framing);
                let outcome = self.refuse(x, framed.arrival, framing, refusal).await;
                return Ended::closing(outcome);
            }
        };
        let outcome = lane.run().await;
        Ended {
            outcome,
            next: match outcome {
                Outcome::Relayed | Outcome::Local if lane.keep => Next::Request,
                Outcome::Relayed | Outcome::Local => Next::Linger,
                Outcome::Broken(_) | Outcome::ClientLeft | Outcome::ClientStalled => Next::Close,
            },
            carried: Some(lane.carried()),
        }
    }

    /// Frees what the last request has made unusually large: a connection may be idle for long. One
    /// that is not brisk keeps nothing of the engine's; the exchange has decided for itself.
    fn shrink(&mut self) {
        if self.waiting.is_none() {
            self.head = RequestHead::default();
            self.response_head = ResponseHead::default();
            self.message = Buf::default();
            self.message_share = None;
            self.out = Vec::new();
            self.local = Local::default();
            return;
        }
        if self.message.capacity() > HEAD_BYTES_UNCHARGED {
            self.message = Buf::default();
        }
        self.message_share = None;
        for bytes in [&mut self.out, &mut self.local.head] {
            if bytes.capacity() > OUT_BYTES_KEPT_MAX {
                *bytes = Vec::new();
            }
        }
    }

    /// Reads until a head is complete, or is none. `None`: the connection is over, silently.
    async fn read_head(&mut self, limits: &Limits) -> Option<(Instant, Result<(), Refusal>)> {
        let core = Rc::clone(&self.core);
        self.shrink();
        self.scan.reset();
        if !self.io.is_reading() {
            self.read_next();
        }
        let began = core.now();
        let fresh = self.fresh.take();
        let head_by = fresh.map(|fresh| fresh + limits.head_timeout);
        let idle_by = after(core.now(), limits.idle_timeout);
        self.io
            .deadline
            .set(if fresh.is_some() { head_by } else { idle_by });
        self.io.deadline.set_idle(true);
        if core.is_draining() {
            return None;
        }
        let first = self.io.next().await;
        self.io.deadline.set_idle(false);
        let mut buf = first.ok()?;
        let arrived = core.clock();
        let waited = arrived.saturating_duration_since(began);
        let is_brisk = fresh.is_none() && waited <= BRISK_WAIT_MAX;
        core.waiting_buffers.settle(&mut self.waiting, is_brisk);
        let head_by = head_by.unwrap_or(arrived + limits.head_timeout);
        loop {
            let max = limits.head_bytes_max;
            let parsed = self.head.parse::<NamesOf<H>>(&buf, &mut self.scan, max);
            match parsed {
                Ok(true) => break,
                Ok(false) => {}
                Err(reject) => {
                    self.rest = std::mem::replace(&mut self.message, buf);
                    self.rest.clear();
                    return Some((arrived, Err(Refusal::Head(reject))));
                }
            }
            if buf.spare() == 0 {
                let capacity = buf.len().saturating_mul(2).max(CLIENT_READ_BYTES_START);
                match Box::pin(self.room_for_head(capacity)).await {
                    Ok(()) => buf = buf.grown(capacity),
                    Err(BodyError::Left) => return None,
                    Err(BodyError::Refused(refusal)) => return Some((arrived, Err(refusal))),
                }
            }
            self.io.deadline.set(Some(head_by));
            self.io.read_on(buf);
            buf = self.io.next().await.ok()?;
        }
        // The room of the request before is where the next one will be read to.
        self.rest = std::mem::replace(&mut self.message, buf);
        self.rest.clear();
        if self.rest.capacity() > 4 * CLIENT_READ_BYTES_START {
            self.rest = Buf::default();
        }
        Some((arrived, Ok(())))
    }

    /// Begins to read the next request, or continues with what has come of it.
    fn read_next(&mut self) {
        let mut rest = std::mem::take(&mut self.rest);
        if rest.is_empty() && self.waiting.is_none() {
            return self.io.read_unbuffered(CLIENT_READ_BYTES_START);
        }
        if rest.capacity() < CLIENT_READ_BYTES_START {
            rest = rest.grown(CLIENT_READ_BYTES_START);
        }
        self.io.read_into(rest);
    }

    /// Waits for room for a head that is larger than usual (docs/contract/surface.md#11).
    async fn room_for_head(&mut self, bytes: usize) -> Result<(), BodyError> {
        if bytes <= HEAD_BYTES_UNCHARGED {
            return Ok(());
        }
        let core = &self.core;
        let client = self.peer.ip();
        let share = self
            .message_share
            .get_or_insert_with(|| core.budget.share(client));
        room(core, &mut self.io, share, bytes).await
    }

    fn ask_head(&mut self, x: &mut H::Exchange, framed: &Framed, now: Instant) -> AtHead {
        self.local.clear();
        let context = Context::new(&self.core, framed.arrival, now);
        let ask = Ask {
            cx: &context.cx(),
            request: Request {
                head: &self.head,
                bytes: &self.message,
                framing: framed.framing,
            },
            body: b"",
        };
        x.head(&ask, &mut self.local)
    }

    /// Reads a body that is not needed and throws it away, after the response has been sent: a
    /// client that waits for a response before it sends the rest would wait for ever.
    async fn discard_body(&mut self, framed: &Framed) -> Next {
        match self.read_body(None, framed, None).await {
            Ok(_) => Next::Request,
            Err(_) => Next::Close,
        }
    }

    async fn receive(
        &mut self,
        x: &mut H::Exchange,
        framed: &Framed,
        bytes_max: Option<u64>,
    ) -> Result<Body, BodyError> {
        let framing = framed.framing;
        let too_large = match (framing.body, bytes_max) {
            (RequestBody::Length(len), Some(max)) => len > max,
            _ => false,
        };
        if too_large {
            return Err(BodyError::Refused(Refusal::BodyTooLarge));
        }
        let waits = framing.expect_continue
            && framing.body != RequestBody::None
            && self.message.len() == self.head.len
            && self.head.version == Version::Http11;
        if waits
            && self
                .io
                .send([b"HTTP/1.1 100 Continue\r\n\r\n", b""])
                .await
                .is_err()
        {
            return Err(BodyError::Left);
        }
        self.read_body(Some(x), framed, bytes_max).await
    }

    async fn read_body(
        &mut self,
        x: Option<&mut H::Exchange>,
        framed: &Framed,
        bytes_max: Option<u64>,
    ) -> Result<Body, BodyError> {
        let client = x.as_ref().and_then(|x| x.client());
        let mut receiving = Receiving {
            client: client.unwrap_or_else(|| self.peer.ip()),
            core: &self.core,
            x,
            io: &mut self.io,
            message: &mut self.message,
            head_len: self.head.len,
            rest: &mut self.rest,
            pace: Pace::new(&framed.limits, self.core.now()),
        };
        receiving.receive(framed.framing.body, bytes_max).await
    }

    /// A complete request on its way to a backend.
    fn lane<'l>(&'l mut self, x: &'l mut H::Exchange, framed: &Framed, body: Body) -> Lane<'l, H> {
        // From here on the read of the next request also detects a disconnect.
        self.read_next();
        if self.waiting.is_none() {
            self.message.fit();
        }
        let request = Request {
            head: &self.head,
            bytes: &self.message,
            framing: framed.framing,
        };
        Lane {
            core: &self.core,
            wire: Wire {
                core: &self.core,
                io: &mut self.io,
                life: Lifecycle::new(x.timeouts(), framed.arrival.at),
                early: EarlyBytes::new(framed.arrival.at),
                revocation: x.revocation(),
            },
            x,
            request,
            body_bytes: body.of(&request).len() as u64,
            body,
            copy: None,
            local: &mut self.local,
            response_head: &mut self.response_head,
            out: &mut self.out,
            arrival: framed.arrival,
            keep: framed.keep,
            response_bytes: 0,
            first_byte: None,
        }
    }

    async fn respond_locally(&mut self, keep: bool) -> Outcome {
        let is_head = self.head.method.of(&self.message) == b"HEAD";
        let old = self.head.version == Version::Http10;
        let body = write_local(&mut self.out, &mut self.local, keep, is_head, old);
        send_local(&mut self.io, &mut self.out, &body).await
    }

    /// Sends the response to a request that will not be served; the connection closes after it.
    async fn refuse(
        &mut self,
        x: &mut H::Exchange,
        arrival: Arrival,
        framing: Option<RequestFraming>,
        refusal: Refusal,
    ) -> Outcome {
        self.local.clear();
        {
            let context = Context::new(&self.core, arrival, self.core.clock());
            let request = framing.map(|framing| Request {
                head: &self.head,
                bytes: &self.message,
                framing,
            });
            x.refuse(&context.cx(), request.as_ref(), refusal, &mut self.local);
        }
        let is_head = framing.is_some() && self.head.method.of(&self.message) == b"HEAD";
        let body = write_local(&mut self.out, &mut self.local, false, is_head, false);
        send_local(&mut self.io, &mut self.out, &body).await
    }
}

impl Ended {
    /// The end of a request that was never complete, and of its connection with it.
    fn closing(outcome: Outcome) -> Self {
        Self {
            outcome,
            next: if outcome == Outcome::Local {
                Next::Linger
            } else {
                Next::Close
            },
            carried: None,
        }
    }

    /// The end of the request in the form that the exchange gets.
    fn done(&self, total: Duration, is_brisk: bool) -> Done {
        let carried = self.carried.unwrap_or(Carried {
            request_bytes: 0,
            response_bytes: 0,
            first_byte: Some(total),
        });
        Done {
            outcome: self.outcome,
            request_bytes: carried.request_bytes,
            response_bytes: carried.response_bytes,
            first_byte: carried.first_byte,
            total,
            is_brisk,
        }
    }
}

/// Whether a body that is not needed is small enough to be read and discarded.
fn is_discardable(framing: RequestFraming) -> bool {
    match framing.body {
        RequestBody::None => true,
        // The client may never send it now.
        _ if framing.expect_continue => false,
        RequestBody::Length(len) => len <= DISCARDED_BODY_BYTES_MAX,
        RequestBody::Chunked => false,
    }
}
