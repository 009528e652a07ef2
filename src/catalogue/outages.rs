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
    missing: MissingModels,
}

/// The models that were available within the last hour and are not now, and since when. Cheap to
/// copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct MissingModels(Arc<BTreeMap<Arc<str>, SystemTime>>);

impl Outages {
    /// Notes the models that are available now, sorted by name.
    pub(crate) fn update(&mut self, available: Vec<Arc<str>>, now: SystemTime) {
        let missing = Arc::make_mut(&mut self.missing.0);
        for name in &self.available {
            let is_gone = available.binary_search(name).is_err();
            if is_gone && missing.len() < MISSING_MAX {
                missing.insert(Arc::clone(name), now);
            }
        }
        missing
            .retain(|name, since| is_missed(*since, now) && available.binary_search(name).is_err());
        self.available = available;
    }

    /// The missing models.
    pub(crate) fn missing(&self) -> &MissingModels {
        &self.missing
    }
}

impl MissingModels {
    /// Those that are still missed, sorted by name.
    pub(crate) fn current(&self, now: SystemTime) -> Vec<(&str, SystemTime)> {
        let recent = self.0.iter().filter(|(_, since)| is_missed(**since, now));
        recent.map(|(name, since)| (&**name, *since)).collect()
    }
}

fn is_missed(since: SystemTime, now: SystemTime) -> bool {
    now.duration_since(since).unwrap_or(Duration::ZERO) < MISSED
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
            let all = outages.missing().current(at(seconds)).into_iter();
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
        assert_eq!(outages.missing.0.len(), 0, "forgotten");
    }
}
