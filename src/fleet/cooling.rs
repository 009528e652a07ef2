//! Cool-downs: which models of an endpoint are left alone after a response that says "not now".
//!
//! All cores share the list of each endpoint. Reading it takes one load while nothing cools down;
//! the lock is taken only while something does, for a walk over at most [`PAIRS_MAX`] entries.
//!
//! Contract: docs/contract/balancing.md#9.1

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most models of one endpoint that cool down at a time. Beyond this bound, a new one replaces the
/// one that ends first: it is tried again a little earlier.
const PAIRS_MAX: usize = 64;

/// The longest name of a model that cools down, in bytes. Requests for a model with a longer name
/// are not remembered, so that the list stays small.
const NAME_BYTES_MAX: usize = 512;

/// The cool-downs of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Cooling {
    /// No entry ends later than this time of the process's clock; 0 = there is none.
    until_ms: AtomicU64,
    pairs: Mutex<Vec<CoolDown>>,
}

/// The cool-down of one model on the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CoolDown {
    /// The model as the endpoint names it; empty = the whole endpoint.
    pub(crate) model: Box<str>,
    /// When it ends, in milliseconds on the process's clock.
    pub(crate) until_ms: u64,
    /// The same time in milliseconds since 1970, for display.
    pub(crate) until_unix_ms: u64,
}

impl Cooling {
    /// Begins a cool-down. A longer one of the same model stays in force.
    pub(crate) fn begin(&self, now_ms: u64, cool_down: CoolDown) {
        if cool_down.until_ms <= now_ms || cool_down.model.len() > NAME_BYTES_MAX {
            return;
        }
        let mut pairs = self.lock();
        pairs.retain(|pair| pair.until_ms > now_ms);
        if let Some(known) = pairs.iter_mut().find(|pair| pair.model == cool_down.model) {
            if known.until_ms < cool_down.until_ms {
                *known = cool_down;
            }
        } else {
            if pairs.len() >= PAIRS_MAX {
                let first = (0..pairs.len()).min_by_key(|at| pairs[*at].until_ms);
                first.map(|at| pairs.swap_remove(at));
            }
            pairs.push(cool_down);
        }
        self.publish(&pairs);
    }

    /// Whether a model is left alone, because of itself or of the whole endpoint. The name is made
    /// only if anything cools down.
    pub(crate) fn covers<'n>(&self, now_ms: u64, model: impl FnOnce() -> &'n str) -> bool {
        if self.until_ms.load(Ordering::Relaxed) <= now_ms {
            return false;
        }
        let model = model();
        self.lock()
            .iter()
            .any(|pair| pair.until_ms > now_ms && (pair.model.is_empty() || *pair.model == *model))
    }

    /// A response for the model was no error: ends its cool-down and that of the whole endpoint.
    pub(crate) fn end<'n>(&self, model: impl FnOnce() -> &'n str) {
        if self.until_ms.load(Ordering::Relaxed) == 0 {
            return;
        }
        let model = model();
        let mut pairs = self.lock();
        pairs.retain(|pair| !pair.model.is_empty() && *pair.model != *model);
        self.publish(&pairs);
    }

    /// The cool-downs in force at a time in milliseconds since 1970, sorted by model.
    pub(crate) fn list(&self, unix_ms: u64) -> Vec<CoolDown> {
        if self.until_ms.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let mut list = self.lock().clone();
        list.retain(|pair| pair.until_unix_ms > unix_ms);
        list.sort_unstable();
        list
    }

    fn publish(&self, pairs: &[CoolDown]) {
        let until = pairs.iter().map(|pair| pair.until_ms).max();
        self.until_ms.store(until.unwrap_or(0), Ordering::Relaxed);
    }

    /// A panic ends the process, so a poisoned lock is never seen.
    fn lock(&self) -> MutexGuard<'_, Vec<CoolDown>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(model: &str, until_ms: u64) -> CoolDown {
        CoolDown {
            model: model.into(),
            until_ms,
            until_unix_ms: 1_000_000 + until_ms,
        }
    }

    fn covered(cooling: &Cooling, now_ms: u64) -> [bool; 3] {
        ["", "a", "b"].map(|model| cooling.covers(now_ms, || model))
    }

    #[test]
    fn a_pair_cools_until_its_time() {
        let cooling = Cooling::default();
        assert_eq!(covered(&cooling, 0), [false; 3]);
        cooling.begin(10, until("a", 10));
        assert!(cooling.list(0).is_empty(), "it had ended when it began");
        cooling.begin(10, until("a", 50));
        assert_eq!(covered(&cooling, 49), [false, true, false]);
        assert_eq!(covered(&cooling, 50), [false; 3]);
        cooling.begin(10, until("a", 20));
        assert_eq!(cooling.list(1_000_000), [until("a", 50)]);
        cooling.begin(10, until("a", 90));
        assert_eq!(covered(&cooling, 60), [false, true, false]);
    }

    #[test]
    fn the_whole_endpoint_covers_every_model() {
        let cooling = Cooling::default();
        cooling.begin(0, until("", 50));
        cooling.begin(0, until("b", 90));
        assert_eq!(covered(&cooling, 10), [true; 3]);
        assert_eq!(covered(&cooling, 60), [false, false, true]);
        assert_eq!(cooling.list(0), [until("", 50), until("b", 90)]);
        assert_eq!(cooling.list(1_000_050), [until("b", 90)]);
    }

    #[test]
    fn a_good_response_ends_its_own_and_the_endpoint_s() {
        let cooling = Cooling::default();
        for model in ["", "a", "b"] {
            cooling.begin(0, until(model, 50));
        }
        cooling.end(|| "a");
        assert_eq!(covered(&cooling, 10), [false, false, true]);
        cooling.end(|| "b");
        assert_eq!(covered(&cooling, 10), [false; 3]);
        cooling.end(|| unreachable!("nothing cools down"));
    }

    #[test]
    fn the_list_is_bounded_and_loses_what_ends_first() {
        let cooling = Cooling::default();
        for at in 0..PAIRS_MAX as u64 + 1 {
            cooling.begin(0, until(&format!("m{at}"), 100 + at));
        }
        cooling.begin(0, until(&"x".repeat(NAME_BYTES_MAX + 1), 900));
        assert_eq!(cooling.list(0).len(), PAIRS_MAX);
        assert!(!cooling.covers(1, || "m0"));
        assert!(cooling.covers(1, || "m1") && cooling.covers(1, || "m64"));
        // What has ended makes room.
        cooling.begin(200, until("new", 300));
        assert_eq!(cooling.list(0), [until("new", 300)]);
    }
}
