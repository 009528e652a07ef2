//! What a name has used: one block of atomics, which outlives snapshots.
//!
//! Contract: docs/contract/access.md#4.3, docs/contract/access.md#17

use std::sync::atomic::{AtomicU32, Ordering};

/// The counters of one name of a key or a policy. Blocks are padded to their own cache lines, so
/// that the cores that serve different keys do not disturb each other.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counters {
    /// The minute of its last use, since 1970; 0 = never.
    last_used_min: AtomicU32,
}

impl Counters {
    /// Counters of a name that has used nothing.
    pub(crate) fn new() -> Self {
        Self {
            last_used_min: AtomicU32::new(0),
        }
    }

    /// Notes a use; `now_ms` in milliseconds since 1970. It is written once a minute.
    pub(crate) fn used(&self, now_ms: u64) {
        let minute = u32::try_from(now_ms / 60_000).unwrap_or(u32::MAX);
        if self.last_used_min.load(Ordering::Relaxed) < minute {
            self.last_used_min.store(minute, Ordering::Relaxed);
        }
    }

    /// When it was last used, to the minute, in milliseconds since 1970.
    pub(crate) fn last_used_ms(&self) -> Option<u64> {
        let minute = self.last_used_min.load(Ordering::Relaxed);
        (minute > 0).then(|| u64::from(minute) * 60_000)
    }
}
