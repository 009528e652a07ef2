//! What the cores and the control thread share besides snapshots and messages.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use olla_engine::limit::{Epoch, Nanos};

use crate::clock::millis;
use crate::dialects::anthropic::Records;
use crate::log::Logger;
use crate::routing::balance::Turns;
use crate::routing::sticky::Sticky;

/// What all cores share besides the snapshots.
#[derive(Debug)]
pub struct Common {
    /// When the process began.
    pub start: Instant,
    /// When that was, as the Messages API shows it.
    pub started_rfc3339: String,
    /// Whose turn it is.
    pub turns: Turns,
    /// Conversations and their endpoints.
    pub sticky: Sticky,
    /// Where lines go.
    pub logger: Logger,
    /// Files of the inspector.
    pub records: Records,
    /// Counts the endpoints that a core could not reach, so that every core knows with one load
    /// whether it has to look.
    pub losses: AtomicU64,
    /// Whether the process is shutting down.
    pub draining: AtomicBool,
}

impl Common {
    /// The time of the process's clock, for rate limits.
    pub fn nanos(&self, now: Instant) -> Nanos {
        Epoch::new(self.start).nanos(now)
    }

    /// Milliseconds of the process's clock, for breakers and sessions.
    pub fn clock_ms(&self, now: Instant) -> u64 {
        // One more, because 0 stands for never.
        millis(now.saturating_duration_since(self.start)).saturating_add(1)
    }
}
