//! When an issuer's keys are fetched, and how long they are used.
//!
//! Pure: the time is a value.
//!
//! Contract: docs/contract/access.md#9

use std::time::{Duration, Instant};

/// The pause after the first failed fetch; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest pause after a failed fetch.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The time between two fetches for tokens with an unknown key.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(60);

/// The schedule of one issuer.
#[derive(Debug)]
pub(super) struct Schedule {
    refresh: Duration,
    stale_limit: Duration,
    next: Instant,
    failures: u32,
    last_success: Option<Instant>,
    last_unknown: Option<Instant>,
}

impl Schedule {
    /// The first fetch is due at once. `last_success` is that of a schedule before, if the keys of its
    /// last fetch are still in force.
    pub(super) fn new(
        now: Instant,
        (refresh, stale_limit): (Duration, Duration),
        last_success: Option<Instant>,
    ) -> Self {
        Self {
            refresh,
            stale_limit,
            next: now,
            failures: 0,
            last_success,
            last_unknown: None,
        }
    }

    /// When a fetch brought keys last.
    pub(super) fn last_success(&self) -> Option<Instant> {
        self.last_success
    }

    /// Whether a fetch is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// A fetch brought keys.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.last_success = Some(now);
        self.next = now + self.refresh;
    }

    /// A fetch failed. Returns the pause before the next one.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(16));
        let pause = doubled.min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.next = now + pause;
        pause
    }

    /// Whether the keys of the last success are no longer used.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.last_success
            .is_none_or(|last| now >= last + self.stale_limit)
    }

    /// Whether a token with an unknown key is a reason for a fetch.
    pub(super) fn may_fetch_unknown(&self, now: Instant) -> bool {
        self.last_unknown
            .is_none_or(|last| now >= last + UNKNOWN_PAUSE)
    }

    /// Takes the turn of [`Self::may_fetch_unknown`]; whether there was one.
    pub(super) fn take_unknown(&mut self, now: Instant) -> bool {
        let may = self.may_fetch_unknown(now);
        if may {
            self.last_unknown = Some(now);
        }
        may
    }

    /// How long nothing changes by itself.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        let stale = self.last_success.map(|last| last + self.stale_limit);
        let unknown = self.last_unknown.map(|last| last + UNKNOWN_PAUSE);
        let ahead = [stale, unknown]
            .into_iter()
            .flatten()
            .filter(|at| *at > now);
        let next = ahead.chain([self.next]).min().unwrap_or(self.next);
        next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failed_fetches_are_repeated_after_doubling_pauses() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, (s(3600), s(7200)), None);
        assert!(schedule.is_due(begin) && schedule.is_stale(begin));
        let mut now = begin;
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(schedule.failed(now), s(pause));
            assert!(!schedule.is_due(now + s(pause - 1)));
            now += s(pause);
            assert!(schedule.is_due(now));
        }
        schedule.succeeded(now);
        assert!(!schedule.is_due(now + s(3599)) && schedule.is_due(now + s(3600)));
        assert_eq!(schedule.failed(now + s(3600)), s(1), "pauses begin anew");
    }

    #[test]
    fn keys_are_used_for_the_stale_limit() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, (s(60), s(120)), None);
        schedule.succeeded(begin);
        assert_eq!(schedule.pause(begin), s(60));
        schedule.failed(begin + s(60));
        assert!(!schedule.is_stale(begin + s(119)) && schedule.is_stale(begin + s(120)));
        for _ in 0..10 {
            schedule.failed(begin + s(100));
        }
        assert_eq!(
            schedule.pause(begin + s(100)),
            s(20),
            "it wakes to drop them"
        );
        assert_eq!(schedule.pause(begin + s(121)), s(39));
    }

    #[test]
    fn an_unknown_key_causes_one_fetch_a_minute() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, (s(3600), s(3600)), None);
        schedule.succeeded(begin);
        assert!(schedule.take_unknown(begin + s(1)));
        assert!(!schedule.take_unknown(begin + s(60)));
        assert_eq!(
            schedule.pause(begin + s(60)),
            s(1),
            "it wakes to allow the next"
        );
        // Other fetches do not count.
        schedule.succeeded(begin + s(61));
        assert!(schedule.take_unknown(begin + s(61)));
    }
}
