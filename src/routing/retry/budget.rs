//! The budget of repeats: a fleet that is full must not be sent every request three times.
//!
//! Cores count the requests that they proxy and add them up here a few dozen times a second, so
//! that the lock is no part of a request. A repeat takes from the budget under the lock, which makes
//! the bound exact over all cores.
//!
//! Contract: docs/contract/balancing.md#9.1

use std::sync::{Mutex, PoisonError};

/// Repeats that are always allowed within a window, whatever the number of requests.
const REPEATS_MIN: u64 = 10;
/// The window is made of this many slots, the last one in progress.
const SLOTS: usize = 20;
/// Length of a slot.
const SLOT_MS: u64 = 500;

/// The budget, shared by all cores.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    window: Mutex<Window>,
}

impl RetryBudget {
    /// Counts proxied requests.
    pub(crate) fn count(&self, now_ms: u64, requests: u32) {
        self.with(|window| window.slot(now_ms).requests += u64::from(requests));
    }

    /// Takes one repeat, after counting requests; false if the budget is exhausted.
    pub(crate) fn take(&self, now_ms: u64, requests: u32, percent: u8) -> bool {
        self.with(|window| {
            window.slot(now_ms).requests += u64::from(requests);
            window.take(now_ms, percent)
        })
    }

    /// A panic ends the process, so a poisoned lock is never seen.
    fn with<R>(&self, act: impl FnOnce(&mut Window) -> R) -> R {
        act(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The requests and repeats of the last ten seconds.
#[derive(Debug, Default)]
struct Window {
    slots: [Slot; SLOTS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Number of the slot since the start of the clock.
    number: u64,
    requests: u64,
    repeats: u64,
}

impl Window {
    /// The slot in progress.
    fn slot(&mut self, now_ms: u64) -> &mut Slot {
        let number = now_ms / SLOT_MS;
        let slot = &mut self.slots[(number % SLOTS as u64) as usize];
        if slot.number != number {
            *slot = Slot {
                number,
                ..Slot::default()
            };
        }
        slot
    }

    fn take(&mut self, now_ms: u64, percent: u8) -> bool {
        let oldest = (now_ms / SLOT_MS).saturating_sub(SLOTS as u64 - 1);
        let (mut requests, mut repeats) = (0, 0);
        for slot in self.slots.iter().filter(|slot| slot.number >= oldest) {
            requests += slot.requests;
            repeats += slot.repeats;
        }
        let has_room = repeats < REPEATS_MIN + requests * u64::from(percent) / 100;
        self.slot(now_ms).repeats += u64::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// How many of 1,000 repeats are allowed at one moment.
    fn allowed(budget: &RetryBudget, now_ms: u64, percent: u8) -> usize {
        (0..1000)
            .filter(|_| budget.take(now_ms, 0, percent))
            .count()
    }

    #[test]
    fn ten_and_a_share_of_the_requests() {
        for (requests, percent, expected) in [
            (0, 20, 10),
            (4, 20, 10),
            (5, 20, 11),
            (100, 20, 30),
            (100, 0, 10),
            (50, 100, 60),
        ] {
            let budget = RetryBudget::default();
            budget.count(1, requests);
            assert_eq!(
                allowed(&budget, 1, percent),
                expected,
                "{requests} {percent}"
            );
        }
    }

    #[test]
    fn the_window_moves() {
        let budget = RetryBudget::default();
        budget.count(0, 100);
        assert_eq!(allowed(&budget, 5_000, 20), 30);
        assert_eq!(allowed(&budget, 9_999, 20), 0);
        // The requests have left the window, the repeats have not.
        assert_eq!(allowed(&budget, 10_000, 20), 0);
        assert_eq!(allowed(&budget, 15_000, 20), 10);
        assert_eq!(allowed(&budget, 1_000_000, 20), 10);
    }

    proptest! {
        /// Over any window that ends at a repeat: at most ten and the share of the requests.
        #[test]
        fn it_is_never_exceeded(
            events in prop::collection::vec((0u64..400, 0u32..20, any::<bool>()), 0..400),
            percent in 0u8..=100,
        ) {
            let budget = RetryBudget::default();
            let (mut now, mut requests, mut repeats) = (0, VecDeque::new(), VecDeque::new());
            for (pause, count, repeat) in events {
                now += pause;
                requests.push_back((now, u64::from(count)));
                if repeat {
                    if budget.take(now, count, percent) {
                        repeats.push_back(now);
                    }
                } else {
                    budget.count(now, count);
                }
                // The window of the implementation is at most one slot shorter.
                let within = |at: &u64| *at + SLOT_MS * (SLOTS as u64 - 1) > now;
                let all: u64 = requests.iter().filter(|(at, _)| at + 10_000 > now)
                    .map(|(_, count)| count).sum();
                let taken = repeats.iter().filter(|at| within(at)).count() as u64;
                if repeat && repeats.back() == Some(&now) {
                    prop_assert!(taken <= REPEATS_MIN + all * u64::from(percent) / 100);
                }
            }
        }
    }
}
