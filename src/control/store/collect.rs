//! Waits until all cores have handed over what they had counted, for a short time. Pure.

use std::time::Instant;

/// Those who wait.
#[derive(Debug)]
pub(super) struct Collections<T> {
    waiting: Vec<Waiting<T>>,
    /// Number of the next collection.
    next: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    wanted: T,
    round: u64,
    missing: usize,
    until: Instant,
}

impl<T> Default for Collections<T> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            next: 0,
        }
    }
}

impl<T> Collections<T> {
    /// Begins a collection. `request` asks the cores for it by its number and returns how many will
    /// hand over.
    pub(super) fn begin(&mut self, wanted: T, until: Instant, request: impl FnOnce(u64) -> usize) {
        let round = self.next;
        self.next += 1;
        self.waiting.push(Waiting {
            wanted,
            round,
            missing: request(round),
            until,
        });
    }

    /// A core has handed over.
    pub(super) fn arrived(&mut self, round: u64) {
        for waiting in self.waiting.iter_mut().filter(|one| one.round == round) {
            waiting.missing = waiting.missing.saturating_sub(1);
        }
    }

    /// What no longer has to wait.
    pub(super) fn take_complete(&mut self, now: Instant) -> Vec<T> {
        let is_complete = |one: &mut Waiting<T>| one.missing == 0 || one.until <= now;
        let complete = self.waiting.extract_if(.., is_complete);
        complete.map(|one| one.wanted).collect()
    }

    /// When the first wait ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|one| one.until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_cores_are_waited_for_and_no_longer_than_the_time_limit() {
        let now = Instant::now();
        let until = now + Duration::from_millis(30);
        let mut waiting = Collections::default();
        waiting.begin("a", until, |round| 2 + usize::from(round != 0));
        waiting.begin("b", until + Duration::from_secs(1), |round| round as usize);
        waiting.begin("c", until, |_| 0);
        assert_eq!(waiting.take_complete(now), ["c"], "no core to wait for");
        waiting.arrived(0);
        assert!(waiting.take_complete(now).is_empty());
        waiting.arrived(1);
        assert_eq!(waiting.take_complete(now), ["b"]);
        waiting.arrived(7);
        assert_eq!(waiting.due(), Some(until));
        assert_eq!(
            waiting.take_complete(until),
            ["a"],
            "one core did not respond"
        );
        assert_eq!(waiting.due(), None);
    }
}
