//! The idle connections of one core.
//!
//! The connection used last is reused first, so that those which are not needed expire. Each idle
//! connection has its read armed. That read detects a close and receives the next response, so
//! reuse costs no further operation. One race remains: a backend may close while a request is being
//! sent. A connection that has been idle for a moment is therefore checked once more, and the
//! exchange knows that it came from the pool.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::buf::Buf;
use crate::limits::{
    IDLE_CONNS_PER_ENDPOINT_MAX, UPSTREAM_READ_BYTES_MAX, UPSTREAM_READ_BYTES_START,
};
use crate::rt::Socket;
use crate::rt::sys::Peek;
use crate::waiting_buffers::{WaitingBuffer, WaitingBuffers};

/// The idle time from which a connection is checked once more, for 0.3 µs, before reuse. Below it,
/// the connection's own read would have reported a close.
const PEEK_AFTER: Duration = Duration::from_millis(2);

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) socket: Socket,
    /// Requests it has carried.
    pub(crate) uses: u32,
    /// Present while its reads have a buffer while they wait.
    waiting: Option<WaitingBuffer>,
    /// The shorter of the configured idle time and what the backend announced.
    idle_max: Duration,
    idle_since: Instant,
}

impl Upstream {
    pub(crate) fn new(socket: Socket, now: Instant) -> Self {
        Self {
            socket,
            uses: 0,
            waiting: None,
            idle_max: Duration::ZERO,
            idle_since: now,
        }
    }

    /// Begins the next read, after the bytes in `buf` were passed on. A connection that is brisk
    /// reads into that buffer, or into a larger one if the last read filled it; one that is not, and
    /// those beyond the bound of [`WaitingBuffers`], give it back while they wait. Returns whether the
    /// connection has a buffer now.
    pub(crate) fn arm(&mut self, mut buf: Buf, is_brisk: bool, buffers: &WaitingBuffers) -> bool {
        let filled = !buf.is_empty() && buf.spare() == 0;
        buffers.settle(&mut self.waiting, is_brisk);
        let capacity = if filled {
            UPSTREAM_READ_BYTES_MAX
        } else {
            UPSTREAM_READ_BYTES_START
        };
        if self.waiting.is_none() {
            drop(buf);
            self.socket.arm_unbuffered(capacity);
            return false;
        }
        buf.clear();
        if buf.capacity() < capacity {
            buf = Buf::with_capacity(capacity);
        }
        self.socket.arm(buf);
        true
    }

    /// Makes it idle from now on, for `idle_max` at most.
    pub(crate) fn rest(&mut self, idle_max: Duration, now: Instant) {
        self.idle_max = idle_max;
        self.idle_since = now;
    }
}

/// The idle connections of one core.
#[derive(Debug)]
pub(crate) struct Pool {
    buffers: WaitingBuffers,
    #[expect(clippy::vec_box, reason = "a request's task holds it by its box")]
    idle: RefCell<FxHashMap<u64, Vec<Box<Upstream>>>>,
    /// The waker of the task in [`Pool::watch`].
    watcher: RefCell<Option<Waker>>,
}

impl Pool {
    /// An empty pool. Its connections count towards the core's bound of buffers that wait.
    pub(crate) fn new(buffers: WaitingBuffers) -> Self {
        Self {
            buffers,
            idle: RefCell::default(),
            watcher: RefCell::default(),
        }
    }

    /// An idle connection that is still open, if there is one.
    pub(crate) fn take(&self, key: u64, now: Instant) -> Option<Box<Upstream>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&key)?;
        while let Some(mut upstream) = kept.pop() {
            let age = now.saturating_duration_since(upstream.idle_since);
            let waker = Waker::noop();
            let ended = upstream
                .socket
                .poll_read(&mut Context::from_waker(waker))
                .is_ready();
            if ended || age >= upstream.idle_max {
                continue;
            }
            if age >= PEEK_AFTER && upstream.socket.peek() != Peek::Silent {
                continue;
            }
            return Some(upstream);
        }
        None
    }

    /// Keeps a connection after a complete response and a call of [`Upstream::rest`]. Its next read
    /// may use the buffer of the last one, unless that has grown.
    pub(crate) fn keep(&self, key: u64, mut upstream: Box<Upstream>, mut buf: Buf) {
        if upstream.idle_max.is_zero() {
            return;
        }
        if buf.capacity() > UPSTREAM_READ_BYTES_START {
            buf = Buf::default();
        }
        buf.clear();
        upstream.arm(buf, true, &self.buffers);
        let watcher = self.watcher.borrow();
        let waker = watcher.as_ref().map_or(Waker::noop(), |waker| waker);
        if upstream
            .socket
            .poll_read(&mut Context::from_waker(waker))
            .is_ready()
        {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(key).or_default();
        if kept.len() >= IDLE_CONNS_PER_ENDPOINT_MAX {
            kept.remove(0);
        }
        kept.push(upstream);
    }

    /// Drops what has been idle for too long.
    pub(crate) fn expire(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|upstream| {
                now.saturating_duration_since(upstream.idle_since) < upstream.idle_max
            });
            !kept.is_empty()
        });
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Drops connections as soon as their backend closes them or sends anything. Never
    /// ends; one task of each core.
    pub(crate) async fn watch(&self) {
        poll_fn(|cx| {
            *self.watcher.borrow_mut() = Some(cx.waker().clone());
            self.idle.borrow_mut().values_mut().for_each(|kept| {
                kept.retain_mut(|upstream| upstream.socket.poll_read(cx).is_pending());
            });
            Poll::<()>::Pending
        })
        .await;
    }
}
