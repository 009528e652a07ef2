//! Receives a request's body: in large reads, into one buffer, inspected while it arrives.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Instant;

use super::Core;
use super::connection::{Interrupt, Io};
use super::pace::Pace;
use crate::budget::Share;
use crate::buf::Buf;
use crate::h1::chunk::{Decoder, Piece};
use crate::h1::framing::RequestBody;
use crate::handler::{Exchange, Handler, Refusal, Request};
use crate::limits::{
    BODIES_TURN_BYTES, BODIES_UNSHARED_MAX, BODY_BYTES_AHEAD, BODY_BYTES_START,
    BODY_READ_BYTES_MAX, BODY_READ_BYTES_MIN, BODY_READ_BYTES_SHARED_MIN, BODY_SHOW_BYTES_MAX,
    BODY_SHOW_PAUSE, BODY_SHOW_TIME_MAX, BUDGET_WAIT_TIMEOUT, CLIENT_READ_BYTES_START,
};
use crate::offload::Input;
use crate::part;
use crate::rt;

/// Where a request's body is.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// A separate buffer; `None` if the body follows the head in the message.
    own: Option<Buf>,
    /// Bytes of the body that follow the head.
    behind_head: usize,
    /// The body's share of the process's budget, returned when the body is dropped.
    _share: Option<Share>,
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The client disconnected before it had sent the whole body.
    Left,
    /// The client gets this error response.
    Refused(Refusal),
}

impl Body {
    /// A body that was decoded into a buffer of its own.
    pub(super) fn decoded(own: Buf, share: Share) -> Self {
        Self {
            own: Some(own),
            behind_head: 0,
            _share: Some(share),
        }
    }

    /// The bytes of the body, whose head begins this message.
    pub(super) fn behind<'b>(&'b self, message: &'b [u8], head_len: usize) -> &'b [u8] {
        match &self.own {
            Some(own) => own,
            None => part::between(message, head_len, head_len + self.behind_head),
        }
    }

    /// The bytes of the body of this request.
    pub(super) fn of<'b>(&'b self, request: &Request<'b>) -> &'b [u8] {
        self.behind(request.bytes, request.head.len)
    }
}

impl Body {
    /// Moves the body out, if it is in a buffer of its own.
    pub(super) fn take_own(&mut self) -> Option<Self> {
        self.own.is_some().then(|| std::mem::take(self))
    }
}

impl Input for Body {
    fn bytes(&self) -> &[u8] {
        self.own.as_deref().unwrap_or_default()
    }
}

/// The bodies that a core is receiving into buffers of their own. They share the bytes that may be
/// read of bodies in one turn, so that a flood of uploads does not delay all other requests.
#[derive(Debug, Default)]
pub(super) struct IncomingBodies(Cell<usize>);

/// One of them.
struct IncomingBody<'i>(&'i IncomingBodies);

impl IncomingBodies {
    fn join(&self) -> IncomingBody<'_> {
        self.0.set(self.0.get() + 1);
        IncomingBody(self)
    }
}

impl IncomingBody<'_> {
    /// The maximum to read of it now.
    fn read_bytes_max(&self) -> usize {
        match self.0.0.get() {
            ..=BODIES_UNSHARED_MAX => BODY_READ_BYTES_MAX,
            many => (BODIES_TURN_BYTES / many).max(BODY_READ_BYTES_SHARED_MIN),
        }
    }
}

impl Drop for IncomingBody<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// The parts that receiving a body works on.
pub(super) struct Receiving<'r, H: Handler> {
    pub(super) core: &'r Core<H>,
    /// Sees the body while it arrives; `None` for a body that is discarded.
    pub(super) x: Option<&'r mut H::Exchange>,
    pub(super) io: &'r mut Io,
    /// Begins with the head, followed by the part of the body that has arrived. Afterwards it ends
    /// with the body, or with the head if the body has a separate buffer.
    pub(super) message: &'r mut Buf,
    pub(super) head_len: usize,
    /// The bytes after the body: the beginning of the next request.
    pub(super) rest: &'r mut Buf,
    pub(super) pace: Pace,
    /// Who is charged for the body.
    pub(super) client: IpAddr,
}

impl<H: Handler> Receiving<'_, H> {
    /// Receives the whole body. Afterwards no read of this connection is armed.
    pub(super) async fn receive(
        &mut self,
        framing: RequestBody,
        bytes_max: Option<u64>,
    ) -> Result<Body, BodyError> {
        let max = bytes_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let body = match framing {
            RequestBody::None => {
                self.leave_rest(0);
                return Ok(Body::default());
            }
            RequestBody::Length(len) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                if len > max {
                    return Err(BodyError::Refused(Refusal::BodyTooLarge));
                }
                self.fixed(len).await?
            }
            RequestBody::Chunked => self.chunked(max).await?,
        };
        if body.behind(self.message, self.head_len).is_empty() {
            return Ok(body);
        }
        match self.x.as_mut().and_then(|x| x.decoding()) {
            Some(decoding) => Box::pin(self.decode(body, decoding)).await,
            None => Ok(body),
        }
    }

    /// Moves everything after the first `len` bytes of the body out of the message.
    fn leave_rest(&mut self, len: usize) {
        let end = self.head_len + len;
        let after = self.message.len().saturating_sub(end);
        if after <= CLIENT_READ_BYTES_START {
            self.rest.extend(part::rest(self.message, end));
            self.message.truncate(end);
            return;
        }
        // Many requests have come in one piece. If each moved all that follow it, the time for it
        // would grow with the square of their number.
        let mut own = Buf::with_capacity(end);
        own.extend(part::first(self.message, end));
        *self.rest = std::mem::replace(self.message, own);
        self.rest.consume(end);
    }

    async fn fixed(&mut self, len: usize) -> Result<Body, BodyError> {
        let here = self.message.len() - self.head_len;
        if here >= len {
            self.leave_rest(len);
            return Ok(Body {
                behind_head: len,
                ..Body::default()
            });
        }
        if len - here <= self.message.spare() {
            // The rest fits after the head. The read may include a part of the next request.
            while self.message.len() - self.head_len < len {
                let message = std::mem::take(self.message);
                *self.message = self.more(message).await?;
            }
            self.leave_rest(len);
            return Ok(Body {
                behind_head: len,
                ..Body::default()
            });
        }
        let mut share = self.core.budget.share(self.client);
        let own = self.fill(len, &mut share).await;
        self.own(own, share)
    }

    /// A body in a buffer of its own. If there is none, its share of the budget is held until the
    /// connection ends.
    fn own(&mut self, own: Result<Buf, BodyError>, share: Share) -> Result<Body, BodyError> {
        match own {
            Ok(own) => Ok(Body {
                own: Some(own),
                behind_head: 0,
                _share: Some(share),
            }),
            Err(no_body) => {
                self.io.hold(share);
                Err(no_body)
            }
        }
    }

    /// Receives a body of a known length into a buffer of its own.
    async fn fill(&mut self, len: usize, share: &mut Share) -> Result<Buf, BodyError> {
        let incoming = self.core.incoming_bodies.join();
        // A body that is announced but never arrives must not take memory for its whole size.
        let mut own = Buf::with_capacity(len.min(BODY_BYTES_START));
        self.move_out(&mut own);
        while own.len() < len {
            if own.spare() == 0 {
                let capacity = own.len().saturating_mul(2).min(len);
                own = own.grown(capacity);
            }
            let bytes_max = self.admit(share, &own, incoming.read_bytes_max()).await?;
            let before = own.len();
            own = self.more_at_most(own, bytes_max).await?;
            self.show_all(part::first(&own, len), before).await;
        }
        if let Some(rest) = own.get(len..).filter(|rest| !rest.is_empty()) {
            self.rest.extend(rest);
            own.truncate(len);
        }
        share.settle(own.len());
        Ok(own)
    }

    async fn chunked(&mut self, max: usize) -> Result<Body, BodyError> {
        let mut share = self.core.budget.share(self.client);
        let own = self.fill_unchunked(max, &mut share).await;
        self.own(own, share)
    }

    /// Receives a body in chunks into a buffer of its own, without the framing.
    async fn fill_unchunked(&mut self, max: usize, share: &mut Share) -> Result<Buf, BodyError> {
        let incoming = self.core.incoming_bodies.join();
        let mut decoder = Decoder::new();
        let mut own = Buf::with_capacity(BODY_READ_BYTES_MIN);
        self.move_out(&mut own);
        let mut payload = 0;
        loop {
            let before = payload;
            payload = self.unchunk(&mut decoder, &mut own, payload)?;
            if payload > max {
                return Err(BodyError::Refused(Refusal::BodyTooLarge));
            }
            self.show_all(part::first(&own, payload), before).await;
            if decoder.is_done() {
                share.settle(own.len());
                return Ok(own);
            }
            if own.spare() < BODY_READ_BYTES_MIN {
                let capacity = own
                    .capacity()
                    .saturating_mul(2)
                    .max(2 * BODY_READ_BYTES_MIN);
                own = own.grown(capacity);
            }
            let bytes_max = self.admit(share, &own, incoming.read_bytes_max()).await?;
            own = self.more_at_most(own, bytes_max).await?;
        }
    }

    /// Removes the framing from everything after the first `payload` bytes and returns the new
    /// number of payload bytes. What follows the body goes to the rest.
    fn unchunk(
        &mut self,
        decoder: &mut Decoder,
        own: &mut Buf,
        payload: usize,
    ) -> Result<usize, BodyError> {
        let (mut filled, mut at) = (payload, payload);
        loop {
            match decoder.next(own, at) {
                Ok(Piece::Data { start, end }) => {
                    own.copy_within(start..end, filled);
                    filled += end - start;
                    at = end;
                }
                Ok(Piece::Skip { to }) => at = to,
                Ok(Piece::Done { at }) => {
                    self.rest.extend(part::rest(own, at));
                    break;
                }
                Ok(Piece::More) => break,
                Err(_) => return Err(BodyError::Refused(Refusal::BodyBroken)),
            }
        }
        own.truncate(filled);
        Ok(filled)
    }

    /// Shows the exchange what has arrived of the body since there were `before` bytes of it. Other
    /// tasks run in between if that takes long.
    async fn show_all(&mut self, body: &[u8], before: usize) {
        let mut shown = before;
        while body.len() - shown > BODY_SHOW_BYTES_MAX {
            shown += BODY_SHOW_BYTES_MAX;
            let began = Instant::now();
            self.show(part::first(body, shown));
            if began.elapsed() > BODY_SHOW_TIME_MAX {
                rt::sleep(BODY_SHOW_PAUSE).await;
            }
        }
        self.show(body);
    }

    /// Shows the exchange what has arrived of the body.
    pub(super) fn show(&mut self, body: &[u8]) {
        if let Some(x) = &mut self.x {
            x.arrived(body);
        }
    }

    /// Moves the part of the body that has arrived into a buffer of its own.
    fn move_out(&mut self, own: &mut Buf) {
        own.extend(part::rest(self.message, self.head_len));
        self.message.truncate(self.head_len);
    }

    /// Waits for one more read.
    async fn more(&mut self, buf: Buf) -> Result<Buf, BodyError> {
        self.more_at_most(buf, usize::MAX).await
    }

    async fn more_at_most(&mut self, buf: Buf, bytes_max: usize) -> Result<Buf, BodyError> {
        let before = buf.len();
        let due = self.pace.due();
        self.io.deadline.set(due.map(|(at, _)| at));
        self.io.read_on_at_most(buf, bytes_max);
        match self.io.next().await {
            Ok(buf) => {
                self.pace.arrived(buf.len() - before, self.core.clock());
                Ok(buf)
            }
            // A client that ended its side may still read the error response.
            Err(Interrupt::Left) => Err(BodyError::Refused(Refusal::BodyBroken)),
            Err(Interrupt::Deadline | Interrupt::Stalled) => {
                let refusal = due.map_or(Refusal::BodyTooSlow, |(_, refusal)| refusal);
                Err(BodyError::Refused(refusal))
            }
        }
    }

    /// Waits for room for what has arrived of a body and the least that a read is worth, and returns
    /// the most that the next read may bring. What it brings beyond that is charged before the one
    /// after it: to charge the room of a read would be to charge what was only announced, and asking
    /// the kernel how much has arrived is a system call for each read. So what a core holds uncharged
    /// is one read of each body, and bodies share what may be read in a turn.
    async fn admit(
        &mut self,
        share: &mut Share,
        own: &Buf,
        bytes_max: usize,
    ) -> Result<usize, BodyError> {
        let all = own.len().saturating_add(own.spare().min(BODY_BYTES_AHEAD));
        if !share.enlarge(all) {
            room(self.core, self.io, share, all).await?;
            self.pace.resume(self.core.clock());
        }
        Ok(bytes_max.min(self.core.budget.of_a_read()))
    }
}

/// Waits for room in the process's budget; meanwhile nothing more is read from the client unless a
/// read is in progress.
pub(super) async fn room<H: Handler>(
    core: &Core<H>,
    io: &mut Io,
    share: &mut Share,
    bytes: usize,
) -> Result<(), BodyError> {
    if share.enlarge(bytes) {
        return Ok(());
    }
    io.deadline.set(Some(Instant::now() + BUDGET_WAIT_TIMEOUT));
    // No read may be in progress that would detect a disconnect.
    let watch = io.watch();
    let granted = async {
        while !share.enlarge(bytes) {
            core.wait_for_room().await;
            if watch.has_left() {
                return false;
            }
        }
        true
    };
    match io.guard(granted).await {
        Ok(true) => Ok(()),
        Ok(false) | Err(Interrupt::Left) => Err(BodyError::Left),
        Err(Interrupt::Deadline | Interrupt::Stalled) => Err(BodyError::Refused(Refusal::NoRoom)),
    }
}
