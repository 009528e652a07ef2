//! What metrics show of single names: of the first thousand that sent a request, and of all others
//! together, so that no counter ever falls.
//!
//! Contract: docs/contract/access.md#16

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Counters, LimitField};

/// The name under which the others are shown; a key of this name is one of them.
pub(crate) const OTHER: &str = "other";

/// Names with series of their own.
const NAMES_MAX: usize = 1_000;

/// What is counted of a name since the start.
#[derive(Debug, Default)]
pub(crate) struct KeyTotals([AtomicU64; 6]);

/// One count of [`KeyTotals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Total {
    /// Requests that ended.
    Requests,
    /// Those of them that failed.
    Errors,
    /// Tokens of their prompts.
    PromptTokens,
    /// Tokens that were generated.
    CompletionTokens,
    /// Refusals by a limit.
    Limited,
    /// Requests in progress.
    InProgress,
}

impl KeyTotals {
    fn cell(&self, total: Total) -> &AtomicU64 {
        let [requests, errors, prompt, completion, limited, in_progress] = &self.0;
        match total {
            Total::Requests => requests,
            Total::Errors => errors,
            Total::PromptTokens => prompt,
            Total::CompletionTokens => completion,
            Total::Limited => limited,
            Total::InProgress => in_progress,
        }
    }

    /// Counts more.
    pub(crate) fn count(&self, total: Total, more: u64) {
        self.cell(total).fetch_add(more, Ordering::Relaxed);
    }

    /// One request in progress less.
    pub(crate) fn left(&self) {
        let cell = self.cell(Total::InProgress);
        cell.fetch_sub(1, Ordering::Relaxed);
    }

    /// The count.
    pub(crate) fn of(&self, total: Total) -> u64 {
        self.cell(total).load(Ordering::Relaxed)
    }
}

/// The series of all names.
#[derive(Debug, Default)]
pub(crate) struct KeySeries {
    /// In the order of their first requests. Locked once for each name, and by metrics.
    named: Mutex<Vec<(Arc<str>, Arc<KeyTotals>)>>,
    other: Arc<KeyTotals>,
}

impl KeySeries {
    /// The counts of a name.
    pub(crate) fn totals<'c>(&self, name: &str, counters: &'c Counters) -> &'c KeyTotals {
        counters.totals.get_or_init(|| self.begin(name))
    }

    fn begin(&self, name: &str) -> Arc<KeyTotals> {
        if name == OTHER {
            return Arc::clone(&self.other);
        }
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let known = named.iter().find(|(known, _)| **known == *name);
        if let Some((_, totals)) = known {
            return Arc::clone(totals);
        }
        if named.len() >= NAMES_MAX {
            return Arc::clone(&self.other);
        }
        let totals = Arc::new(KeyTotals::default());
        named.push((Arc::from(name), Arc::clone(&totals)));
        totals
    }

    /// The names with series of their own, in the order of their first requests, and `None` for the
    /// others if there are some.
    pub(crate) fn all(&self) -> Vec<(Option<Arc<str>>, Arc<KeyTotals>)> {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let has_others = named.len() >= NAMES_MAX || Arc::strong_count(&self.other) > 1;
        let each = named
            .iter()
            .map(|(name, totals)| (Some(name.clone()), Arc::clone(totals)));
        let mut all: Vec<_> = each.collect();
        if has_others {
            all.push((None, Arc::clone(&self.other)));
        }
        all
    }
}

/// Policies and fields whose refusals are counted: more than a configuration has, and a bound for
/// many configurations one after the other.
const LIMIT_COUNTS_MAX: usize = 20_000;

/// The refusals by limits, by policy and field.
#[derive(Debug, Default)]
pub(crate) struct LimitCounts(Mutex<BTreeMap<(Arc<str>, LimitField), u64>>);

impl LimitCounts {
    /// Counts a refusal.
    pub(crate) fn count(&self, policy: &Arc<str>, field: LimitField) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(policy), field);
        if counts.len() < LIMIT_COUNTS_MAX || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        }
    }

    /// All counts.
    pub(crate) fn all(&self) -> Vec<((Arc<str>, LimitField), u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|(key, count)| (key.clone(), *count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_names_have_series_of_their_own() {
        let series = KeySeries::default();
        let blocks: Vec<Counters> = (0..1_003).map(|_| Counters::new()).collect();
        for (number, counters) in blocks.iter().enumerate() {
            let totals = series.totals(&number.to_string(), counters);
            totals.count(Total::Requests, 1);
        }
        series
            .totals("1002", &blocks[1_002])
            .count(Total::Requests, 4);
        // The counters of a name were dropped, and it is back.
        series
            .totals("7", &Counters::new())
            .count(Total::Requests, 1);
        let all = series.all();
        assert_eq!(all.len(), 1_001);
        let shown = |at: usize| (all[at].0.as_deref(), all[at].1.of(Total::Requests));
        assert_eq!(shown(0), (Some("0"), 1));
        assert_eq!(shown(7), (Some("7"), 2));
        assert_eq!(shown(1_000), (None, 7));
    }
}
