//! What a name has used: one block of atomics, which outlives snapshots.
//!
//! Contract: docs/contract/access.md#4.3, docs/contract/access.md#17

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use olla_engine::handler::{Revocation, RevocationNumber};

use super::bucket::Bucket;
use super::series::KeyTotals;
use super::window::{QuotaWindow, Span, Use, WindowNumber};

/// The counters of one name of a key or a policy. With its counts of references a block takes two
/// cache lines, and the program's allocator gives it two of its own, so that cores that serve
/// different keys do not disturb each other. (An alignment that the type asks for would cost it 128
/// bytes more: 48 in front of it, and what the allocator takes to find an aligned place.)
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests of the minute.
    pub(super) requests: Bucket,
    /// Tokens of the minute.
    pub(super) tokens: Bucket,
    day: QuotaWindow,
    month: QuotaWindow,
    /// Requests in progress.
    in_progress: AtomicU32,
    /// The minute of its last use, since 1970; 0 = never.
    last_used_min: AtomicU32,
    /// How often the requests in progress of the name were cut.
    cuts: AtomicU32,
    /// When a refusal by a limit was logged last, in seconds since 1970, and how many were not since.
    limit_logged_s: AtomicU32,
    suppressed: AtomicU32,
    /// Whether a window has changed since it was last given to the state store.
    changed: AtomicBool,
    /// Whether the state store may have windows of the name that are not counted here yet.
    awaits_store: AtomicBool,
    /// What metrics show of it, from its first request on.
    pub(crate) totals: OnceLock<Arc<KeyTotals>>,
}

// The block is what 100,000 names cost.
const _: () = assert!(size_of::<Counters>() == 112 && align_of::<Counters>() == 16);

impl RevocationNumber for Counters {
    fn number(&self) -> u32 {
        self.cuts()
    }
}

impl Counters {
    /// Counters of a name that has used nothing.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Whether a refusal by a limit is to be logged: at most one in a minute. The result is the number
    /// of refusals since then that were not.
    pub(crate) fn limit_is_due(&self, unix_ms: u64) -> Option<u64> {
        let order = Ordering::Relaxed;
        let now = u32::try_from(unix_ms / 1_000).unwrap_or(u32::MAX);
        let last = self.limit_logged_s.load(order);
        let is_due = now.abs_diff(last) >= 60;
        let cell = &self.limit_logged_s;
        if is_due && cell.compare_exchange(last, now, order, order).is_ok() {
            return Some(self.suppressed.swap(0, order).into());
        }
        self.suppressed.fetch_add(1, order);
        None
    }

    /// Requests in progress.
    pub(crate) fn in_progress(&self) -> u32 {
        self.in_progress.load(Ordering::Relaxed)
    }

    /// Adds a request in progress, unless that makes more than `limit`; 0 = no limit.
    pub(super) fn take_place(&self, limit: u64) -> bool {
        let order = Ordering::Relaxed;
        let taken = self.in_progress.fetch_update(order, order, |now| {
            (limit == 0 || u64::from(now) < limit).then(|| now.saturating_add(1))
        });
        taken.is_ok()
    }

    pub(super) fn leave_place(&self) {
        let order = Ordering::Relaxed;
        let less = |now: u32| Some(now.saturating_sub(1));
        // The closure always gives a value.
        let _ = self.in_progress.fetch_update(order, order, less);
    }

    fn window(&self, span: Span) -> &QuotaWindow {
        match span {
            Span::Day => &self.day,
            Span::Month => &self.month,
        }
    }

    /// See [`QuotaWindow::take`].
    ///
    /// # Errors
    /// The tokens do not fit; nothing was taken.
    pub(super) fn take_tokens(
        &self,
        span: Span,
        tokens: u64,
        (limit, now): (u64, WindowNumber),
    ) -> Result<Use, Use> {
        let taken = self.window(span).take(tokens, limit, now)?;
        self.note_change();
        Ok(taken)
    }

    /// See [`QuotaWindow::correct`].
    pub(super) fn correct_tokens(&self, span: Span, more: i64, number: WindowNumber) {
        self.window(span).correct(more, number);
        self.note_change();
    }

    /// Notes that a window has changed. It comes after the change: whoever takes the note sees it.
    pub(crate) fn note_change(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Takes the note that a window has changed.
    pub(crate) fn take_change(&self) -> bool {
        self.changed.load(Ordering::Relaxed) && self.changed.swap(false, Ordering::AcqRel)
    }

    /// Whether the windows of the state store are not counted here yet.
    pub(crate) fn awaits_store(&self) -> bool {
        self.awaits_store.load(Ordering::Relaxed)
    }

    /// Says whether they are.
    pub(crate) fn set_awaits_store(&self, awaits: bool) {
        self.awaits_store.store(awaits, Ordering::Relaxed);
    }

    /// Whether nothing was ever counted here.
    pub(super) fn is_untouched(&self) -> bool {
        let is_empty = |window: &QuotaWindow| window.state(0).used == 0;
        is_empty(&self.day)
            && is_empty(&self.month)
            && self.last_used_ms().is_none()
            && self.in_progress() == 0
            && self.cuts() == 0
    }

    /// Tokens of the current day or month. `unix_ms` is now.
    pub(crate) fn used_in(&self, span: Span, unix_ms: u64) -> Use {
        self.window(span).state(span.number(unix_ms))
    }

    /// Counts what was stored of an earlier block of the name, if that window is still the current
    /// one.
    pub(crate) fn restore(&self, span: Span, stored: Use) {
        self.window(span).restore(stored);
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
    pub(crate) fn revocation(self: &Arc<Self>, begun_at: u32) -> Revocation {
        let source: Arc<dyn RevocationNumber> = Arc::<Self>::clone(self);
        Revocation::new(source, begun_at)
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
