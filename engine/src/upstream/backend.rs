//! The connection of an attempt.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use super::pool::Upstream;
use crate::buf::Buf;
use crate::limits::BRISK_WAIT_MAX;
use crate::waiting_buffers::WaitingBuffers;

/// A backend's connection during one attempt, with what it has brought already.
pub(crate) struct Backend {
    pub(crate) upstream: Box<Upstream>,
    /// The end of a read that came while something else was waited for.
    early: Option<(io::Result<usize>, Buf)>,
    /// A write failed: the connection was reset, even if reads show its end only, because the
    /// system reports a reset once.
    pub(crate) is_reset: bool,
    /// When it last brought something.
    brought: Instant,
}

impl Backend {
    /// A backend connection at the beginning of an attempt.
    pub(crate) fn new(upstream: Box<Upstream>, now: Instant) -> Self {
        Self {
            upstream,
            early: None,
            is_reset: false,
            brought: now,
        }
    }

    /// Begins to read its next piece, when the last one, in `buf`, was passed on. Returns whether a
    /// buffer waits for it.
    pub(crate) fn read_on(&mut self, buf: Buf, now: Instant, buffers: &WaitingBuffers) -> bool {
        let waited = now.saturating_duration_since(self.brought);
        self.brought = now;
        self.upstream.arm(buf, waited <= BRISK_WAIT_MAX, buffers)
    }

    /// Whether a read ended while something else was waited for.
    pub(crate) fn has_read_early(&self) -> bool {
        self.early.is_some()
    }

    /// Ready when the read in progress has ended.
    pub(crate) fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.early.is_some() || !self.upstream.socket.is_armed() {
            return Poll::Ready(());
        }
        self.upstream
            .socket
            .poll_read(cx)
            .map(|read| self.early = Some(read))
    }

    /// The result of the read in progress.
    pub(crate) async fn read(&mut self) -> (io::Result<usize>, Buf) {
        match self.early.take() {
            Some(read) => read,
            None => self.upstream.socket.read().await,
        }
    }
}
