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
#[derive(Debug, Default)]
pub(super) struct EarlyBytes {
    pub(super) due: Option<Instant>,
    pub(super) every: Duration,
    pub(super) unsent: Vec<u8>,
}

impl EarlyBytes {
    /// The client waits from now on.
    pub(super) fn begin(&mut self, every: Option<Duration>, now: Instant) {
        self.every = every.unwrap_or_default();
        self.due = every.and_then(|every| now.checked_add(every));
    }
}
