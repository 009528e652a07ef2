//! What a name has used: one block of atomics, which outlives snapshots.
//!
//! Contract: docs/contract/access.md#4.3, docs/contract/access.md#17

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use olla_engine::handler::Revocation;

/// The counters of one name of a key or a policy. Blocks are padded to their own cache lines, so
/// that the cores that serve different keys do not disturb each other.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Counters {
    /// The minute of its last use, since 1970; 0 = never.
    last_used_min: AtomicU32,
    /// How often the requests in progress of the name were cut.
    cuts: Arc<AtomicU32>,
}

impl Counters {
    /// Counters of a name that has used nothing.
    pub(crate) fn new() -> Self {
        Self {
            last_used_min: AtomicU32::new(0),
            cuts: Arc::default(),
        }
    }

    /// Ends the requests of the name that are in progress; those that begin later are not touched.
    /// The cores are to be told by [`AccessKeeper::cut`](super::AccessKeeper::cut).
    pub(super) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the requests of the name were cut.
    pub(crate) fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// What cuts a request that began when [`Self::cuts`] was `begun_at`.
    pub(crate) fn revocation(&self, begun_at: u32) -> Revocation {
        Revocation::new(&self.cuts, begun_at)
    }

    /// Notes a use; `now_ms` in milliseconds since 1970. It is written once a minute.
    pub(crate) fn used(&self, now_ms: u64) {
        let minute = now_ms / 60_000;
        if self
            .last_used_ms()
            .is_none_or(|last| last / 60_000 < minute)
        {
            let minute = u32::try_from(minute).unwrap_or(u32::MAX);
            self.last_used_min.store(minute, Ordering::Relaxed);
        }
    }

    /// When it was last used, to the minute, in milliseconds since 1970.
    pub(crate) fn last_used_ms(&self) -> Option<u64> {
        let minute = self.last_used_min.load(Ordering::Relaxed);
        (minute > 0).then(|| u64::from(minute) * 60_000)
    }
}
