//! The usage ledger: what was used, by key, model, endpoint and day.
//!
//! [`CoreUsage`] counts on one core, [`Ledger`] holds the rows that are in memory: those that wait
//! for the store, or all of them without one.
//!
//! Contract: docs/contract/access.md#13

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::AddAssign;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::day::Day;

/// Rows in memory. Further ones are folded: by key and day, under the model and the endpoint
/// [`FOLDED`].
const ROWS_MAX: usize = 100_000;

/// Rows in memory besides, of keys and days that have been folded. Beyond them the keys are folded
/// too: what is left is a row for each day.
const FOLDED_ROWS_MAX: usize = 200_000;

/// What folded rows have in place of a name.
pub(crate) const FOLDED: &str = "*";

/// Rows that a core keeps from one hand-over to the next, so that it need not allocate them again.
const CORE_ROWS_KEPT: usize = 4096;

/// Rows of a core. Further ones are folded, as in the ledger.
const CORE_ROWS_MAX: usize = 16_384;

/// What a row counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct UsageFigures {
    /// Client requests that an endpoint saw.
    pub requests: u64,
    /// Those with a status of 500 or more, or a response that the endpoint cut.
    pub errors: u64,
    /// Tokens of prompts, those from a cache included.
    pub prompt_tokens: u64,
    /// Tokens of prompts that came from a cache.
    pub cached_tokens: u64,
    /// Tokens of responses.
    pub completion_tokens: u64,
    /// From arrival to last byte.
    pub seconds: f64,
}

impl AddAssign for UsageFigures {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in [
            (&mut self.requests, other.requests),
            (&mut self.errors, other.errors),
            (&mut self.prompt_tokens, other.prompt_tokens),
            (&mut self.cached_tokens, other.cached_tokens),
            (&mut self.completion_tokens, other.completion_tokens),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.seconds += other.seconds;
    }
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageRow {
    /// The day on which the requests arrived.
    pub day: Day,
    /// The key's name; empty with access off.
    pub key: Arc<str>,
    /// The model's name as the endpoint was told; empty = none.
    pub model: Arc<str>,
    /// The endpoint of the last attempt.
    pub endpoint: Arc<str>,
}

/// The same, borrowed: a known row is found without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RowName<'a> {
    /// See [`UsageRow::day`].
    pub day: Day,
    /// See [`UsageRow::key`].
    pub key: &'a str,
    /// See [`UsageRow::model`].
    pub model: &'a str,
    /// See [`UsageRow::endpoint`].
    pub endpoint: &'a str,
}

impl RowName<'_> {
    fn owned(self) -> UsageRow {
        UsageRow {
            day: self.day,
            key: self.key.into(),
            model: self.model.into(),
            endpoint: self.endpoint.into(),
        }
    }

    /// The row that stands for all models and endpoints.
    fn folded(self) -> Self {
        Self {
            model: FOLDED,
            endpoint: FOLDED,
            ..self
        }
    }
}

/// Lets a table of owned rows be searched for a borrowed one.
trait Named {
    fn name(&self) -> RowName<'_>;
}

impl Named for UsageRow {
    fn name(&self) -> RowName<'_> {
        RowName {
            day: self.day,
            key: &self.key,
            model: &self.model,
            endpoint: &self.endpoint,
        }
    }
}

impl Named for RowName<'_> {
    fn name(&self) -> RowName<'_> {
        *self
    }
}

impl Hash for UsageRow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn Named + '_ {}

impl<'a> Borrow<dyn Named + 'a> for UsageRow {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

/// What a core has counted since its last hand-over.
pub(crate) type UsageDelta = Vec<(UsageRow, UsageFigures)>;

/// The rows of one core. Counting takes no lock and allocates nothing for a known row.
#[derive(Debug, Default)]
pub(crate) struct CoreUsage {
    places: FxHashMap<UsageRow, usize>,
    rows: Vec<(UsageRow, UsageFigures)>,
    /// The rows counted since the last hand-over.
    touched: Vec<usize>,
}

impl CoreUsage {
    /// Counts a request.
    pub(crate) fn count(&mut self, name: RowName<'_>, figures: UsageFigures) {
        let place = match self.places.get(&name as &dyn Named) {
            Some(place) => *place,
            None => self.place(name),
        };
        if let Some((_, sum)) = self.rows.get_mut(place) {
            if sum.requests == 0 {
                self.touched.push(place);
            }
            *sum += figures;
        }
    }

    fn place(&mut self, name: RowName<'_>) -> usize {
        let is_full = self.rows.len() >= CORE_ROWS_MAX;
        let row = if is_full { name.folded() } else { name }.owned();
        // Folded rows are few: one for each key that the core has seen since the last hand-over.
        if let Some(place) = self.places.get(&row) {
            return *place;
        }
        let place = self.rows.len();
        self.rows.push((row.clone(), UsageFigures::default()));
        self.places.insert(row, place);
        place
    }

    /// Takes back what could not be handed over.
    pub(crate) fn restore(&mut self, delta: UsageDelta) {
        for (row, figures) in delta {
            self.count(row.name(), figures);
        }
    }

    /// Whether anything was counted since the last hand-over.
    pub(crate) fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// What was counted since the last hand-over.
    pub(crate) fn take(&mut self) -> UsageDelta {
        let rows = &mut self.rows;
        let touched = self.touched.drain(..).filter_map(|place| {
            let (row, sum) = rows.get_mut(place)?;
            Some((row.clone(), std::mem::take(sum)))
        });
        let delta = touched.collect();
        if self.rows.len() > CORE_ROWS_KEPT {
            self.rows.clear();
            self.places.clear();
        }
        delta
    }
}

/// The rows in memory.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: HashMap<UsageRow, UsageFigures>,
}

impl Ledger {
    /// Adds what a core has counted.
    pub(crate) fn add(&mut self, delta: UsageDelta) {
        for (row, figures) in delta {
            self.add_row(row, figures);
        }
    }

    fn add_row(&mut self, row: UsageRow, figures: UsageFigures) {
        if let Some(sum) = self.rows.get_mut(&row) {
            *sum += figures;
            return;
        }
        let row = match self.rows.len() {
            0..ROWS_MAX => row,
            _ => self.folded(&row),
        };
        *self.rows.entry(row).or_default() += figures;
    }

    fn folded(&self, row: &UsageRow) -> UsageRow {
        let mut folded = row.name().folded().owned();
        if self.rows.len() >= FOLDED_ROWS_MAX && !self.rows.contains_key(&folded) {
            folded.key = FOLDED.into();
        }
        folded
    }

    /// The rows, in no order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&UsageRow, &UsageFigures)> {
        self.rows.iter()
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Drops all rows: they are in the store.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    /// Drops the rows of earlier days.
    pub(crate) fn forget_before(&mut self, day: Day) {
        self.rows.retain(|row, _| row.day >= day);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<'a>(key: &'a str, model: &'a str) -> RowName<'a> {
        RowName {
            day: Day::of_unix_ms(0),
            key,
            model,
            endpoint: "gpu",
        }
    }

    fn one(tokens: u64) -> UsageFigures {
        UsageFigures {
            requests: 1,
            prompt_tokens: tokens,
            seconds: 0.5,
            ..UsageFigures::default()
        }
    }

    #[test]
    fn a_core_hands_over_what_it_has_counted_since() {
        let mut core = CoreUsage::default();
        assert!(core.is_empty());
        for _ in 0..3 {
            core.count(name("a", "m"), one(2));
        }
        core.count(name("b", "m"), one(5));
        let mut delta = core.take();
        delta.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
        let shown: Vec<_> = delta
            .iter()
            .map(|(row, sum)| (&*row.key, sum.requests, sum.prompt_tokens, sum.seconds))
            .collect();
        assert_eq!(shown, [("a", 3, 6, 1.5), ("b", 1, 5, 0.5)]);
        assert!(core.is_empty() && core.take().is_empty());
        core.count(name("b", "m"), one(1));
        let delta = core.take();
        core.restore(delta);
        let delta = core.take();
        assert_eq!(delta.len(), 1);
        assert_eq!(delta[0].1, one(1));
    }

    #[test]
    fn rows_of_a_core_are_bounded() {
        let mut core = CoreUsage::default();
        for n in 0..CORE_ROWS_MAX + 10 {
            core.count(name("a", &n.to_string()), one(1));
        }
        assert_eq!(core.rows.len(), CORE_ROWS_MAX + 1);
        let delta = core.take();
        let sum: u64 = delta.iter().map(|(_, sum)| sum.requests).sum();
        assert_eq!(sum, CORE_ROWS_MAX as u64 + 10);
        let folded = delta.iter().find(|(row, _)| &*row.model == FOLDED).unwrap();
        assert_eq!((folded.1.requests, &*folded.0.key), (10, "a"));
        assert!(core.rows.is_empty() && core.places.is_empty());
    }

    #[test]
    fn the_ledger_folds_what_is_beyond_its_bound_and_loses_nothing() {
        let mut ledger = Ledger::default();
        let total = ROWS_MAX + 1000;
        for n in 0..total {
            let key = if n % 2 == 0 { "even" } else { "odd" };
            ledger.add(vec![(name(key, &n.to_string()).owned(), one(1))]);
        }
        // A known row still counts by itself.
        ledger.add(vec![(name("even", "0").owned(), one(1))]);
        assert_eq!(ledger.len(), ROWS_MAX + 2);
        let sum: u64 = ledger.rows().map(|(_, sum)| sum.requests).sum();
        assert_eq!(sum, total as u64 + 1);
        let folded = ledger.rows().filter(|(row, _)| &*row.endpoint == FOLDED);
        let folded: Vec<_> = folded.map(|(_, sum)| sum.requests).collect();
        assert_eq!(folded, [500, 500]);
        for n in 0..FOLDED_ROWS_MAX {
            ledger.add(vec![(name(&n.to_string(), "m").owned(), one(1))]);
        }
        assert!(ledger.len() <= FOLDED_ROWS_MAX + 1, "{}", ledger.len());
        let sum: u64 = ledger.rows().map(|(_, sum)| sum.requests).sum();
        assert_eq!(sum, (total + 1 + FOLDED_ROWS_MAX) as u64);
        ledger.forget_before(Day::of_unix_ms(86_400_000));
        assert_eq!(ledger.len(), 0);
    }
}
