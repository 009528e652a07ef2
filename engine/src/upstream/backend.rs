//! The connection of an attempt.

use std::io;
use std::task::{Context, Poll};

use super::pool::Upstream;
use crate::buf::Buf;

/// A backend's connection during one attempt, with what it has brought already.
pub(crate) struct Backend {
    pub(crate) upstream: Upstream,
    /// The end of a read that came while something else was waited for.
    early: Option<(io::Result<usize>, Buf)>,
    /// A write failed: the connection was reset, even if reads show its end only, because the
    /// system reports a reset once.
    pub(crate) is_reset: bool,
}

impl Backend {
    /// A backend connection at the beginning of an attempt.
    pub(crate) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            early: None,
            is_reset: false,
        }
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
