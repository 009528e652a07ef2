//! The state of a client that gets bytes of the exchange's own while it waits for a backend's
//! response; `fill.rs` sends them.

use std::time::{Duration, Instant};

use super::context::Arrival;
use crate::handler::{Handler, Request};

/// What the waits before a response need of their request.
pub(super) struct Asker<'a, H: Handler> {
    pub(super) x: &'a H::Exchange,
    pub(super) request: Request<'a>,
    pub(super) arrival: Arrival,
    /// Whether the client's connection may go on after this request.
    pub(super) keep: bool,
}

/// The parts of a lane that make its [`Asker`].
macro_rules! asker {
    ($lane:ident) => {
        &$crate::core::early::Asker {
            x: &*$lane.x,
            request: $lane.request,
            arrival: $lane.arrival,
            keep: $lane.keep,
        }
    };
}
pub(super) use asker;

/// When the client gets bytes of the exchange's own, and those that it has not taken yet.
#[derive(Debug)]
pub(super) struct EarlyBytes {
    pub(super) due: Option<Instant>,
    every: Option<Duration>,
    /// When the client last got something, or began to wait.
    since: Instant,
    pub(super) unsent: Vec<u8>,
}

impl EarlyBytes {
    /// For a client that waits for nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: None,
            every: None,
            since: now,
            unsent: Vec::new(),
        }
    }

    /// The client waits from now on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// In the attempt that begins the client gets bytes after each such time without any.
    pub(super) fn repeat(&mut self, every: Option<Duration>) {
        self.every = every;
        self.schedule();
    }

    /// The client gets bytes now.
    pub(super) fn sends(&mut self, now: Instant) {
        self.since = now;
        self.schedule();
    }

    /// When the client last got something, or began to wait.
    pub(super) fn quiet_since(&self) -> Instant {
        self.since
    }

    fn schedule(&mut self) {
        self.due = self.every.and_then(|every| self.since.checked_add(every));
    }
}
