//! The requests that ended within the last minutes, by which the system is judged.
//!
//! Contract: docs/contract/observe.md#2

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Tally;
use crate::clock::millis;

/// Parts of the window. It moves on by one part at a time.
const SLOTS: u64 = 60;

/// A sliding window.
#[derive(Debug)]
pub(super) struct Window {
    span: Duration,
    /// The number of a slot since 1970, and what ended in it; in rising order.
    slots: VecDeque<(u64, Tally)>,
}

impl Window {
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span,
            slots: VecDeque::new(),
        }
    }

    /// Another length of the window, which begins anew then.
    pub(super) fn resize(&mut self, span: Duration) {
        if span != self.span {
            *self = Self::new(span);
        }
    }

    /// Requests that have just ended.
    pub(super) fn add(&mut self, more: &Tally, now: SystemTime) {
        if more.requests == 0 {
            return;
        }
        let slot = self.slot(now);
        match self.slots.back_mut() {
            // A system clock that was set back counts for the newest slot.
            Some((last, tally)) if *last >= slot => tally.add(more),
            _ => self.slots.push_back((slot, *more)),
        }
        while self
            .slots
            .front()
            .is_some_and(|(first, _)| first + SLOTS <= slot)
        {
            self.slots.pop_front();
        }
    }

    /// The requests that ended within the window.
    pub(super) fn tally(&self, now: SystemTime) -> Tally {
        let slot = self.slot(now);
        let mut sum = Tally::default();
        for (number, tally) in &self.slots {
            if number + SLOTS > slot {
                sum.add(tally);
            }
        }
        sum
    }

    fn slot(&self, at: SystemTime) -> u64 {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        millis(since) * SLOTS / millis(self.span).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(requests: u64, failures: u64) -> Tally {
        Tally {
            requests,
            failures,
            ..Tally::default()
        }
    }

    #[test]
    fn what_ended_long_ago_does_not_count() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(1_000_000 * 300 + seconds);
        let mut window = Window::new(Duration::from_secs(300));
        let shown = |window: &Window, seconds: u64| {
            let sum = window.tally(at(seconds));
            (sum.requests, sum.failures)
        };
        assert_eq!(shown(&window, 0), (0, 0), "no traffic is no failure");
        window.add(&tally(10, 10), at(0));
        window.add(&tally(5, 0), at(2));
        window.add(&tally(1, 0), at(100));
        assert_eq!(shown(&window, 100), (16, 10));
        assert_eq!(shown(&window, 299), (16, 10));
        assert_eq!(shown(&window, 300), (1, 0));
        assert_eq!(shown(&window, 400), (0, 0));
        window.add(&tally(3, 1), at(300));
        assert_eq!(window.slots.len(), 2, "old slots are dropped");
        window.add(&tally(1, 1), at(10));
        assert_eq!(shown(&window, 300), (5, 2), "the clock was set back");
        window.resize(Duration::from_secs(300));
        assert_eq!(shown(&window, 300), (5, 2));
        window.resize(Duration::from_secs(10));
        assert_eq!(shown(&window, 300), (0, 0));
    }
}
