//! The models that no routable endpoint serves any more.
//!
//! Contract: docs/contract/observe.md#2

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A model is missed for this long.
const MISSED: Duration = Duration::from_secs(3600);

/// Missing models that are remembered.
const MISSING_MAX: usize = 10_000;

/// Which models were available within the last hour.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    available: Vec<Arc<str>>,
    /// The missing ones, and since when; sorted.
    missing: BTreeMap<Arc<str>, SystemTime>,
}

impl Outages {
    /// Notes the models that are available now, sorted by name.
    pub(crate) fn update(&mut self, available: Vec<Arc<str>>, now: SystemTime) {
        for name in &self.available {
            let is_gone = available.binary_search(name).is_err();
            if is_gone && self.missing.len() < MISSING_MAX {
                self.missing.insert(Arc::clone(name), now);
            }
        }
        let is_missed =
            |since: &SystemTime| now.duration_since(*since).unwrap_or(Duration::ZERO) < MISSED;
        self.missing
            .retain(|name, since| is_missed(since) && available.binary_search(name).is_err());
        self.available = available;
    }

    /// The models that were available within the last hour and are not now, sorted by name.
    pub(crate) fn current(&self, now: SystemTime) -> Vec<(&str, SystemTime)> {
        let all = self.missing.iter();
        let recent =
            all.filter(|(_, since)| now.duration_since(**since).unwrap_or(Duration::ZERO) < MISSED);
        recent.map(|(name, since)| (&**name, *since)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_missed_for_an_hour() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let mut outages = Outages::default();
        let shown = |outages: &Outages, seconds| -> Vec<(String, SystemTime)> {
            let all = outages.current(at(seconds)).into_iter();
            all.map(|(name, since)| (name.to_owned(), since)).collect()
        };
        outages.update(names(&["a", "b", "c"]), at(0));
        assert_eq!(shown(&outages, 0), []);
        outages.update(names(&["b"]), at(10));
        let both = [("a".to_owned(), at(10)), ("c".to_owned(), at(10))];
        assert_eq!(shown(&outages, 20), both);
        outages.update(names(&["b", "c"]), at(30));
        assert_eq!(shown(&outages, 30), both[..1], "it is back");
        outages.update(names(&["b"]), at(40));
        let (a, c) = (both[0].clone(), ("c".to_owned(), at(40)));
        assert_eq!(shown(&outages, 3_609), [a, c.clone()]);
        assert_eq!(shown(&outages, 3_610), [c]);
        outages.update(names(&["b"]), at(4_000));
        assert_eq!(outages.missing.len(), 0, "forgotten");
    }
}
