//! Which refreshes a missing model may cause: not for a name that a refresh has just not found, and
//! for each endpoint at most one a second.
//!
//! Pure: the time is a value.
//!
//! Contract: docs/contract/balancing.md#5

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

/// How long a name that was not found causes no refresh.
const MEMORY: Duration = Duration::from_secs(5);

/// The number of such names; beyond it the oldest are forgotten.
const NAMES_MAX: usize = 4096;

/// The time between two refreshes of one endpoint.
const PAUSE: Duration = Duration::from_secs(1);

/// The names that a refresh did not find, by a hash of the name and the endpoints that were listed.
#[derive(Debug, Default)]
pub(super) struct Misses {
    hasher: RandomState,
    until: FxHashMap<u64, Instant>,
    /// In the order in which they end.
    order: VecDeque<(u64, Instant)>,
}

/// Identifies a name that is missing on some endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MissId(u64);

impl Misses {
    /// The id of a name, in any letter case, on these endpoints.
    pub(super) fn id(&self, name: &str, endpoints: &[u32]) -> MissId {
        MissId(self.hasher.hash_one((name.to_lowercase(), endpoints)))
    }

    /// Whether a refresh has just not found the name.
    pub(super) fn is_remembered(&self, id: MissId, now: Instant) -> bool {
        self.until.get(&id.0).is_some_and(|until| now < *until)
    }

    /// Remembers that a refresh has not found the name.
    pub(super) fn remember(&mut self, id: MissId, now: Instant) {
        let until = now + MEMORY;
        self.until.insert(id.0, until);
        self.order.push_back((id.0, until));
        while let Some((oldest, ends)) = self.order.front().copied() {
            if self.order.len() <= NAMES_MAX && now < ends {
                break;
            }
            self.order.pop_front();
            // It may have been remembered again since.
            if self.until.get(&oldest) == Some(&ends) {
                self.until.remove(&oldest);
            }
        }
    }
}

/// When an endpoint may be listed for a miss again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MissTurn {
    next: Option<Instant>,
}

impl MissTurn {
    /// Takes the next turn. Returns how long to wait for it; `None`, without a turn, if that is
    /// longer than `limit`.
    pub(super) fn take(&mut self, now: Instant, limit: Duration) -> Option<Duration> {
        let next = self.next.map_or(now, |next| next.max(now));
        let wait = next.saturating_duration_since(now);
        if wait >= limit {
            return None;
        }
        self.next = Some(next + PAUSE);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_name_is_remembered_for_its_time_and_its_endpoints() {
        let mut misses = Misses::default();
        let begin = Instant::now();
        let id = misses.id("Name", &[1, 2]);
        assert_eq!(id, misses.id("nAME", &[1, 2]), "in any letter case");
        assert_ne!(id, misses.id("name", &[1]));
        assert!(!misses.is_remembered(id, begin));
        misses.remember(id, begin);
        assert!(misses.is_remembered(id, begin + ms(4999)));
        assert!(!misses.is_remembered(id, begin + ms(5000)));
        assert!(!misses.is_remembered(misses.id("name", &[1]), begin));
        misses.remember(id, begin + ms(3000));
        assert!(misses.is_remembered(id, begin + ms(7999)));
        misses.remember(misses.id("other", &[1]), begin + ms(6000));
        assert!(
            misses.is_remembered(id, begin + ms(7999)),
            "not by its first end"
        );
    }

    #[test]
    fn the_oldest_names_are_forgotten() {
        let mut misses = Misses::default();
        let now = Instant::now();
        let ids: Vec<_> = (0..=NAMES_MAX)
            .map(|n| misses.id(&format!("m{n}"), &[]))
            .collect();
        for id in &ids {
            misses.remember(*id, now);
        }
        let known = ids.iter().filter(|id| misses.is_remembered(**id, now));
        assert_eq!(known.count(), NAMES_MAX);
        assert!(!misses.is_remembered(ids[0], now));
        for round in 0..3 * NAMES_MAX {
            misses.remember(ids[round % 2], now);
        }
        assert!(misses.order.len() <= NAMES_MAX && misses.until.len() <= NAMES_MAX);
    }

    #[test]
    fn an_endpoint_is_listed_once_a_second() {
        let mut turn = MissTurn::default();
        let begin = Instant::now();
        let limit = ms(2000);
        assert_eq!(turn.take(begin, limit), Some(ms(0)));
        assert_eq!(turn.take(begin + ms(100), limit), Some(ms(900)));
        assert_eq!(turn.take(begin + ms(200), limit), Some(ms(1800)));
        assert_eq!(turn.take(begin + ms(300), limit), None, "beyond the limit");
        assert_eq!(turn.take(begin + ms(1500), limit), Some(ms(1500)));
        assert_eq!(turn.take(begin + ms(9000), limit), Some(ms(0)));
    }
}
