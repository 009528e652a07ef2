//! The client's side of a connection: what it sends next, whether it is still there, its deadline.
//!
//! While a request is in flight, the read that waits for the next one also detects that the client
//! disconnects. It has a buffer of its own, so that the request in flight keeps its bytes.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::stall::Stall;
use crate::budget::Share;
use crate::buf::Buf;
use crate::limits::{LINGER_BYTES_MAX, LINGER_IDLE_TIMEOUT, LINGER_TIMEOUT};
use crate::rt::{Deadline, Socket, Watch};

/// Why waiting for something else ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// The client has closed or reset its connection.
    Left,
    /// The deadline has passed.
    Deadline,
    /// The client has taken nothing for too long; its connection has been reset.
    Stalled,
}

/// The client's side.
#[derive(Debug)]
pub(super) struct Io {
    socket: Socket,
    /// The bytes of the next request that have been read; `None` while the read is in progress.
    held: Option<Buf>,
    gone: bool,
    /// The budget of a buffer that a read still owns although its request has ended.
    share: Option<Share>,
    /// How long the client has taken nothing of what is being sent.
    pub(super) stall: Stall,
    pub(super) deadline: Deadline,
}

impl Io {
    pub(super) fn new(socket: Socket, deadline: Deadline) -> Self {
        Self {
            socket,
            held: None,
            gone: false,
            share: None,
            stall: Stall::default(),
            deadline,
        }
    }

    /// Begins to read the next request, and to detect a disconnect. If the buffer has bytes, they
    /// are the beginning of the next request, which counts as arrived.
    pub(super) fn read_into(&mut self, buf: Buf) {
        // Bytes that are held already would be lost.
        debug_assert!(!self.is_reading(), "one read at a time");
        if buf.is_empty() {
            self.socket.arm(buf);
        } else {
            self.keep(buf);
        }
    }

    /// The same without a buffer while it waits; one of this capacity is made when bytes come.
    pub(super) fn read_unbuffered(&mut self, capacity: usize) {
        debug_assert!(!self.is_reading(), "one read at a time");
        self.socket.arm_unbuffered(capacity);
    }

    /// Holds bytes of the next request. No read is in progress then that would detect a disconnect,
    /// so it is looked for every quarter of a second.
    fn keep(&mut self, buf: Buf) {
        self.held = Some(buf);
        self.deadline.set_looking(true);
    }

    /// Keeps a part of the budget to the end of the connection: a body was given up, and the read
    /// in progress still owns its buffer.
    pub(super) fn hold(&mut self, share: Share) {
        self.share = Some(share);
    }

    /// Detects that the client disconnects while no read is armed.
    pub(super) fn watch(&self) -> Watch {
        self.socket.watch()
    }

    /// Continues reading after the received bytes. There must be room.
    pub(super) fn read_on(&mut self, buf: Buf) {
        self.socket.arm(buf);
    }

    /// The same, for `bytes_max` bytes at most.
    pub(super) fn read_on_at_most(&mut self, buf: Buf, bytes_max: usize) {
        self.socket.arm_at_most(buf, bytes_max);
    }

    /// The bytes of the read in progress; `Err` if the client disconnects or the deadline passes.
    pub(super) async fn next(&mut self) -> Result<Buf, Interrupt> {
        if let Some(buf) = self.held.take() {
            self.deadline.set_looking(false);
            return if self.gone {
                Err(Interrupt::Left)
            } else {
                Ok(buf)
            };
        }
        poll_fn(|cx| {
            if let Poll::Ready((result, buf)) = self.socket.poll_read(cx) {
                return Poll::Ready(match result {
                    Ok(1..) => Ok(buf),
                    Ok(0) | Err(_) => {
                        self.gone = true;
                        Err(Interrupt::Left)
                    }
                });
            }
            self.deadline
                .poll_passed(cx)
                .map(|()| Err(Interrupt::Deadline))
        })
        .await
    }

    /// Waits for something else as long as the client is there and the deadline has not passed.
    pub(super) async fn guard<F: Future>(&mut self, future: F) -> Result<F::Output, Interrupt> {
        let mut future = pin!(future);
        poll_fn(|cx| self.poll_guarded(cx, future.as_mut())).await
    }

    fn poll_guarded<F: Future>(
        &mut self,
        cx: &mut Context<'_>,
        future: Pin<&mut F>,
    ) -> Poll<Result<F::Output, Interrupt>> {
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if self.poll_gone(cx) {
            return Poll::Ready(Err(Interrupt::Left));
        }
        self.deadline
            .poll_passed(cx)
            .map(|()| Err(Interrupt::Deadline))
    }

    /// Whether the client has disconnected. If it has sent bytes instead, they are held for the
    /// next request.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        if self.gone {
            return true;
        }
        if !self.socket.is_armed() {
            self.gone = self.deadline.is_time_to_look() && self.socket.has_left();
            return self.gone;
        }
        if let Poll::Ready((result, buf)) = self.socket.poll_read(cx) {
            self.gone = !matches!(result, Ok(1..));
            self.keep(buf);
        }
        self.gone
    }

    /// See [`Socket::batches`].
    pub(super) fn batches(&self) -> bool {
        self.socket.batches()
    }

    /// See [`Socket::send_batched`].
    pub(super) fn send_batched(
        &self,
        bytes: Vec<u8>,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> + 'static {
        self.socket.send_batched(bytes)
    }

    /// What the client takes at once; see [`Socket::send_now`].
    pub(super) fn try_send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket.send_now(parts)
    }

    /// Waits until the client takes more.
    pub(super) fn writable(&self) -> impl Future<Output = io::Result<()>> + 'static {
        self.socket.writable()
    }

    /// Sends everything, waiting while the client reads slowly. The deadline moves.
    pub(super) async fn send(&mut self, mut parts: [&[u8]; 2]) -> Result<(), Interrupt> {
        loop {
            match self.send_now(&mut parts) {
                Ok(true) => {
                    self.stall.ended();
                    return Ok(());
                }
                Ok(false) => {
                    self.waits_to_send(Instant::now());
                    self.until_writable().await?;
                }
                Err(_) => return Err(Interrupt::Left),
            }
        }
    }

    async fn until_writable(&mut self) -> Result<(), Interrupt> {
        let mut writable = pin!(self.writable());
        loop {
            self.deadline.set(self.stall.deadline());
            match self.guard(writable.as_mut()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(Interrupt::Left),
                Err(Interrupt::Deadline) if !self.has_stalled(Instant::now()) => {}
                Err(Interrupt::Deadline) => return Err(Interrupt::Stalled),
                Err(interrupt) => return Err(interrupt),
            }
        }
    }

    /// The kernel takes no more of what is being sent.
    pub(super) fn waits_to_send(&mut self, now: Instant) {
        self.stall.waits(self.socket.unacknowledged(), now);
    }

    /// Whether the client has taken nothing for too long; if so, its connection is reset.
    pub(super) fn has_stalled(&mut self, now: Instant) -> bool {
        let is_due = self.stall.deadline().is_some_and(|at| at <= now);
        if !is_due || !self.stall.is_over(self.socket.unacknowledged(), now) {
            return false;
        }
        self.socket.reset_on_close();
        // Also ends what the ring still tries to send.
        self.socket.shutdown_both();
        true
    }

    /// Whether a read is in progress or has ended with bytes.
    pub(super) fn is_reading(&self) -> bool {
        self.held.is_some() || self.socket.is_armed()
    }

    /// Whether bytes of the next request have been read.
    pub(super) fn holds_bytes(&self) -> bool {
        self.held.is_some()
    }

    /// Makes sure that the client cannot mistake the bytes it has for a complete response.
    pub(super) fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }

    /// Closes so that the client gets the response although it may still be sending: a close with
    /// bytes unread would reset the connection and destroy the response in transit.
    pub(super) async fn linger(&mut self, now: Instant) {
        self.socket.shutdown_write();
        let end = now + LINGER_TIMEOUT;
        let mut seen = 0;
        let mut silent_at = now + LINGER_IDLE_TIMEOUT;
        if !self.socket.is_armed() {
            let buf = self.held.take().unwrap_or_else(|| Buf::with_capacity(1));
            self.socket.arm(reusable(buf));
        }
        loop {
            self.deadline.set(Some(silent_at.min(end)));
            let Ok(buf) = self.next().await else { return };
            seen += buf.len();
            let now = Instant::now();
            if seen > LINGER_BYTES_MAX || now >= end {
                return;
            }
            silent_at = now + LINGER_IDLE_TIMEOUT;
            self.socket.arm(reusable(buf));
        }
    }
}

/// An empty buffer that is worth a read: larger only for a client that fills it, since there may be
/// thousands that send nothing more.
fn reusable(mut buf: Buf) -> Buf {
    let filled = buf.spare() == 0;
    buf.clear();
    let capacity = if filled {
        LINGER_READ_BYTES_MAX
    } else {
        LINGER_READ_BYTES_MIN
    };
    buf.grown(capacity)
}

const LINGER_READ_BYTES_MIN: usize = 1 << 10;
const LINGER_READ_BYTES_MAX: usize = 16 << 10;

/// The earlier of two optional moments.
pub(super) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) => one,
        (None, other) => other,
    }
}

/// The moment at this distance from `now`, if there is one.
pub(super) fn after(now: Instant, duration: Option<Duration>) -> Option<Instant> {
    duration.and_then(|duration| now.checked_add(duration))
}
