//! One client's connection: request after request.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::Core;
use super::body::{Body, NoBody, Receiving};
use super::connection::{Io, after, earliest};
use super::lane::{Lane, Wire, send_local, write_local};
use crate::buf::Buf;
use crate::h1::framing::{self, RequestBody, RequestFraming};
use crate::h1::{Reject, RequestHead, ResponseHead, Scan, Version};
use crate::handler::{AtHead, Cx, Done, Handler, Limits, Local, Outcome, Refusal, Request};
use crate::limits::{CLIENT_READ_BYTES_START, DISCARDED_BODY_BYTES_MAX, OUT_BYTES_KEPT_MAX};
use crate::rt::Socket;

/// Everything that a connection keeps from one request to the next.
struct Connection<H: Handler> {
    core: Rc<Core<H>>,
    peer: SocketAddr,
    io: Io,
    head: RequestHead,
    scan: Scan,
    /// Head and, if it is small, body of the request under way.
    message: Buf,
    /// Where the next request is read to.
    rest: Buf,
    x: H::Exchange,
    local: Local,
    answer_head: ResponseHead,
    out: Vec<u8>,
    /// When the connection was made, until the first request has come.
    fresh: Option<Instant>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Request,
    /// Closed, after what the client is still sending.
    Linger,
    Close,
}

/// Serves a connection to its end.
pub(super) async fn serve<H: Handler>(core: &Rc<Core<H>>, socket: Socket, peer: SocketAddr) {
    let deadline = core.deadlines.make();
    let mut connection = Connection {
        core: Rc::clone(core),
        peer,
        io: Io::new(socket, deadline),
        head: RequestHead::new(),
        scan: Scan::default(),
        message: Buf::with_capacity(CLIENT_READ_BYTES_START),
        rest: Buf::with_capacity(CLIENT_READ_BYTES_START),
        x: H::Exchange::default(),
        local: Local::default(),
        answer_head: ResponseHead::default(),
        out: Vec::new(),
        fresh: Some(core.clock()),
    };
    loop {
        match connection.request().await {
            Next::Request => {}
            Next::Close => return,
            Next::Linger => {
                connection.io.linger(Instant::now()).await;
                return;
            }
        }
    }
}

impl<H: Handler> Connection<H> {
    /// One request, from its first byte to the end of its answer.
    async fn request(&mut self) -> Next {
        let limits = self.core.handler.limits();
        let (arrived, read) = match self.read_head(&limits).await {
            Some(read) => read,
            None => return Next::Close,
        };
        let core = Rc::clone(&self.core);
        let _counted = core.begin_request();
        let framing = match read.and_then(|()| framing::request(&self.head, &self.message)) {
            Ok(framing) => framing,
            Err(reject) => return self.refuse_head(arrived, reject).await,
        };
        let verdict = self.ask_head(arrived, framing);
        let keep = framing.keep_alive && !core.is_draining();
        let outcome = match verdict {
            AtHead::Answered => {
                let keep = keep && is_discardable(framing);
                let outcome = self.answer_locally(keep).await;
                self.tell_done(arrived, Some(framing), outcome);
                return match outcome {
                    Outcome::Local if keep => self.discard_body(framing, &limits, arrived).await,
                    Outcome::Local => Next::Linger,
                    _ => Next::Close,
                };
            }
            AtHead::Body(bytes_max) => {
                match self.receive(framing, bytes_max, &limits, arrived).await {
                    Ok(body) => {
                        let (ended, kept) = self.carry(framing, body, keep, arrived).await;
                        return self.end(ended, kept);
                    }
                    Err(NoBody::Left) => Outcome::ClientLeft,
                    Err(NoBody::Refused(refusal)) => {
                        self.refuse(arrived, Some(framing), refusal).await
                    }
                }
            }
        };
        self.tell_done(arrived, Some(framing), outcome);
        if outcome == Outcome::Local {
            Next::Linger
        } else {
            Next::Close
        }
    }

    fn end(&mut self, outcome: Outcome, keep: bool) -> Next {
        match outcome {
            Outcome::Relayed | Outcome::Local if keep => Next::Request,
            Outcome::Relayed | Outcome::Local => Next::Linger,
            Outcome::Broken(_) | Outcome::ClientLeft => Next::Close,
        }
    }

    /// Reads until a head is complete, or is none. `None`: the connection is over, silently.
    async fn read_head(&mut self, limits: &Limits) -> Option<(Instant, Result<(), Reject>)> {
        let core = Rc::clone(&self.core);
        self.scan.reset();
        if !self.io.is_reading() {
            let rest = std::mem::replace(&mut self.rest, Buf::with_capacity(0));
            self.io.read_into(rest);
        }
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
        let head_by = head_by.unwrap_or(arrived + limits.head_timeout);
        let head_by = earliest(Some(head_by), after(arrived, limits.request_timeout));
        loop {
            match self.head.parse(&buf, &mut self.scan, limits.head_bytes_max) {
                Ok(true) => break,
                Ok(false) => {}
                Err(reject) => {
                    self.rest = std::mem::replace(&mut self.message, buf);
                    self.rest.clear();
                    return Some((arrived, Err(reject)));
                }
            }
            if buf.spare() == 0 {
                let capacity = buf.capacity().saturating_mul(2);
                buf = buf.grown(capacity);
            }
            self.io.deadline.set(head_by);
            self.io.read_on(buf);
            buf = self.io.next().await.ok()?;
        }
        // The room of the request before is where the next one will be read to.
        self.rest = std::mem::replace(&mut self.message, buf);
        self.rest.clear();
        if self.rest.capacity() < CLIENT_READ_BYTES_START
            || self.rest.capacity() > 4 * CLIENT_READ_BYTES_START
        {
            self.rest = Buf::with_capacity(CLIENT_READ_BYTES_START);
        }
        Some((arrived, Ok(())))
    }

    fn ask_head(&mut self, arrived: Instant, framing: RequestFraming) -> AtHead {
        let core = &self.core;
        self.local.clear();
        let request = Request {
            head: &self.head,
            bytes: &self.message,
            framing,
        };
        let date = core.date();
        let cx = context(core, self.peer, arrived, arrived, &date);
        core.handler
            .head(&cx, &mut self.x, &request, &mut self.local)
    }

    /// Gets rid of a body that nobody wants, after the answer has been sent: a client that waits
    /// for a word before it sends the rest would wait for ever.
    async fn discard_body(
        &mut self,
        framing: RequestFraming,
        limits: &Limits,
        arrived: Instant,
    ) -> Next {
        match self.read_body(framing, None, limits, arrived).await {
            Ok(_) => Next::Request,
            Err(_) => Next::Close,
        }
    }

    async fn receive(
        &mut self,
        framing: RequestFraming,
        bytes_max: Option<u64>,
        limits: &Limits,
        arrived: Instant,
    ) -> Result<Body, NoBody> {
        let too_large = match (framing.body, bytes_max) {
            (RequestBody::Length(len), Some(max)) => len > max,
            _ => false,
        };
        if too_large {
            return Err(NoBody::Refused(Refusal::BodyTooLarge));
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
            return Err(NoBody::Left);
        }
        self.read_body(framing, bytes_max, limits, arrived).await
    }

    async fn read_body(
        &mut self,
        framing: RequestFraming,
        bytes_max: Option<u64>,
        limits: &Limits,
        arrived: Instant,
    ) -> Result<Body, NoBody> {
        let core = Rc::clone(&self.core);
        let mut receiving = Receiving {
            io: &mut self.io,
            message: &mut self.message,
            head_len: self.head.len,
            rest: &mut self.rest,
            until: after(arrived, limits.request_timeout),
        };
        receiving
            .receive(&core, &mut self.x, framing.body, bytes_max)
            .await
    }

    /// Carries a complete request to a backend and its answer back.
    async fn carry(
        &mut self,
        framing: RequestFraming,
        body: Body,
        keep: bool,
        arrived: Instant,
    ) -> (Outcome, bool) {
        let core = Rc::clone(&self.core);
        // From here on the read of the next request is the watch for the client's leaving.
        let rest = std::mem::replace(&mut self.rest, Buf::with_capacity(0));
        self.io.read_into(rest);
        let request = Request {
            head: &self.head,
            bytes: &self.message,
            framing,
        };
        let mut lane = Lane {
            core: &core,
            wire: Wire {
                core: &core,
                io: &mut self.io,
            },
            x: &mut self.x,
            request,
            body_bytes: body.of(&request).len() as u64,
            body,
            local: &mut self.local,
            answer_head: &mut self.answer_head,
            out: &mut self.out,
            peer: self.peer,
            arrived,
            keep,
            answer_bytes: 0,
            first_byte: None,
        };
        let outcome = lane.run().await;
        let now = core.clock();
        let done = lane.done(outcome, now);
        let (keep, date) = (lane.keep, core.date());
        let cx = context(&core, lane.peer, arrived, now, &date);
        core.handler.done(&cx, lane.x, Some(&lane.request), &done);
        if self.out.capacity() > OUT_BYTES_KEPT_MAX {
            self.out = Vec::new();
        }
        (outcome, keep)
    }

    async fn answer_locally(&mut self, keep: bool) -> Outcome {
        let is_head = self.head.method.of(&self.message) == b"HEAD";
        let old = self.head.version == Version::Http10;
        let body = write_local(&mut self.out, &mut self.local, keep, is_head, old);
        send_local(&mut self.io, &mut self.out, &body, self.core.now()).await
    }

    /// Answers a request that will not be served; the connection closes after it.
    async fn refuse(
        &mut self,
        arrived: Instant,
        framing: Option<RequestFraming>,
        refusal: Refusal,
    ) -> Outcome {
        let core = Rc::clone(&self.core);
        self.local.clear();
        {
            let request = framing.map(|framing| Request {
                head: &self.head,
                bytes: &self.message,
                framing,
            });
            let date = core.date();
            let cx = context(&core, self.peer, arrived, core.clock(), &date);
            core.handler
                .refuse(&cx, &mut self.x, request.as_ref(), refusal, &mut self.local);
        }
        let is_head = framing.is_some() && self.head.method.of(&self.message) == b"HEAD";
        let body = write_local(&mut self.out, &mut self.local, false, is_head, false);
        send_local(&mut self.io, &mut self.out, &body, core.now()).await
    }

    async fn refuse_head(&mut self, arrived: Instant, reject: Reject) -> Next {
        let outcome = self.refuse(arrived, None, Refusal::Head(reject)).await;
        self.tell_done(arrived, None, outcome);
        if outcome == Outcome::Local {
            Next::Linger
        } else {
            Next::Close
        }
    }

    fn tell_done(&mut self, arrived: Instant, framing: Option<RequestFraming>, outcome: Outcome) {
        let core = &self.core;
        let request = framing.map(|framing| Request {
            head: &self.head,
            bytes: &self.message,
            framing,
        });
        let now = core.clock();
        let total = now.saturating_duration_since(arrived);
        let done = Done {
            outcome,
            request_bytes: 0,
            answer_bytes: 0,
            first_byte: Some(total),
            total,
        };
        let date = core.date();
        let cx = context(core, self.peer, arrived, now, &date);
        core.handler.done(&cx, &mut self.x, request.as_ref(), &done);
    }
}

/// Whether a body that nobody wants is little enough to be read and thrown away.
fn is_discardable(framing: RequestFraming) -> bool {
    match framing.body {
        RequestBody::None => true,
        // The client may never send it now.
        _ if framing.expect_continue => false,
        RequestBody::Length(len) => len <= DISCARDED_BODY_BYTES_MAX,
        RequestBody::Chunked => false,
    }
}

fn context<'d, H: Handler>(
    core: &Core<H>,
    peer: SocketAddr,
    arrived: Instant,
    now: Instant,
    date: &'d [u8],
) -> Cx<'d> {
    Cx {
        now,
        peer,
        arrived,
        date,
        unix_ms: core.unix_ms(),
    }
}
