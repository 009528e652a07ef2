//! Figures that a core keeps for itself and hands on as differences.
//!
//! A core counts into plain memory: no atomics, nothing shared. When something has changed, and at
//! most every 50 ms, it hands over what has been added since the last time ([`Meter::take_if_due`])
//! and starts from zero; whoever receives it adds it up with [`Merge`].
//!
//! What this module must not do: name a figure, format one, or keep labels that come from requests.
//! Which counters and histograms there are, its owner says with a type of its own.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

/// How often a core hands its figures over at the most.
pub const HANDED_OVER_EVERY: Duration = Duration::from_millis(50);

/// Figures that can be added up.
pub trait Merge {
    /// Adds what another has counted.
    fn merge(&mut self, delta: Self);
}

impl Merge for () {
    fn merge(&mut self, (): Self) {}
}

impl Merge for u64 {
    fn merge(&mut self, delta: Self) {
        *self = self.saturating_add(delta);
    }
}

impl<T: Merge, const N: usize> Merge for [T; N] {
    fn merge(&mut self, delta: Self) {
        for (mine, other) in self.iter_mut().zip(delta) {
            mine.merge(other);
        }
    }
}

impl<K: Eq + Hash, V: Merge + Default, S: BuildHasher> Merge for HashMap<K, V, S> {
    fn merge(&mut self, delta: Self) {
        for (key, value) in delta {
            self.entry(key).or_default().merge(value);
        }
    }
}

/// The figures of one core since it last handed them over.
#[derive(Debug)]
pub struct Meter<T> {
    pending: T,
    dirty: bool,
    handed_over: Option<Instant>,
}

impl<T: Default> Default for Meter<T> {
    fn default() -> Self {
        Self {
            pending: T::default(),
            dirty: false,
            handed_over: None,
        }
    }
}

impl<T: Default> Meter<T> {
    /// Nothing counted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts something.
    pub fn record(&mut self, count: impl FnOnce(&mut T)) {
        self.dirty = true;
        count(&mut self.pending);
    }

    /// When the figures are to be handed over; `None` = there is nothing new.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let last = self.dirty.then_some(self.handed_over)?;
        Some(last.map_or(now, |last| last + HANDED_OVER_EVERY))
    }

    /// What was counted since the last time, if there is something and that was long enough ago.
    pub fn take_if_due(&mut self, now: Instant) -> Option<T> {
        if self.due(now)? > now {
            return None;
        }
        self.handed_over = Some(now);
        self.take()
    }

    /// What was counted since the last time, if there is something: for the end of a core.
    pub fn take(&mut self) -> Option<T> {
        std::mem::take(&mut self.dirty).then(|| std::mem::take(&mut self.pending))
    }

    /// Puts back what could not be handed over, as when the receiver's queue is full. It is handed
    /// over with what is counted from then on.
    pub fn put_back(&mut self, delta: T)
    where
        T: Merge,
    {
        self.dirty = true;
        self.pending.merge(delta);
    }
}

/// A histogram of durations, for quantiles.
///
/// From 1 µs to an hour with two significant digits: a value is at most 1 % off, and it takes 27 KB
/// (a third digit would take 200 KB). Shorter and longer durations count as the shortest and the
/// longest. An empty one takes no memory: deltas of what a core has not seen cost nothing.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Option<Box<hdrhistogram::Histogram<u64>>>,
    /// The sum of all durations in µs, exact; the histogram itself only knows it within 1 %.
    sum: u64,
}

/// The shortest and longest durations that a [`Histogram`] tells apart, in µs.
const MICROS_MIN: u64 = 1;
const MICROS_MAX: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 2;

impl Histogram {
    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum = self.sum.saturating_add(micros);
        if self.counts.is_none() {
            // The bounds are constants that it accepts, so there always is one.
            self.counts = hdrhistogram::Histogram::new_with_bounds(
                MICROS_MIN,
                MICROS_MAX,
                SIGNIFICANT_DIGITS,
            )
            .ok()
            .map(Box::new);
        }
        if let Some(counts) = &mut self.counts {
            counts.saturating_record(micros.clamp(MICROS_MIN, MICROS_MAX));
        }
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.as_ref().map_or(0, |counts| counts.len())
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    /// Their mean; zero without any.
    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.sum.checked_div(self.count()).unwrap_or(0))
    }

    /// The shortest of them, within 1 %; zero without any.
    pub fn min(&self) -> Duration {
        self.figure(|counts| counts.min())
    }

    /// The longest of them, within 1 %; zero without any.
    pub fn max(&self) -> Duration {
        self.figure(|counts| counts.max())
    }

    /// The duration that this part of them (0 to 1) does not exceed, within 1 %; zero without any.
    pub fn quantile(&self, part: f64) -> Duration {
        self.figure(|counts| counts.value_at_quantile(part).min(counts.max()))
    }

    fn figure(&self, of: impl FnOnce(&hdrhistogram::Histogram<u64>) -> u64) -> Duration {
        Duration::from_micros(self.counts.as_deref().map_or(0, of))
    }
}

impl Merge for Histogram {
    fn merge(&mut self, delta: Self) {
        self.sum = self.sum.saturating_add(delta.sum);
        match (&mut self.counts, delta.counts) {
            (Some(mine), Some(other)) => {
                // Fails only between histograms of different bounds, and they are all alike.
                let merged = mine.add(*other);
                debug_assert!(merged.is_ok());
            }
            (mine @ None, other) => *mine = other,
            (Some(_), None) => {}
        }
    }
}

/// A histogram with given buckets: how many values were at most each bound, as exporters want it.
///
/// Bounds rise; their unit is that of the values. There is no default: the owner's type says which
/// bounds it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps<const N: usize> {
    bounds: &'static [u64; N],
    /// Values above the bound before and at most this one.
    counts: [u64; N],
    above: u64,
    sum: u64,
}

impl<const N: usize> Steps<N> {
    /// Nothing counted, under these bounds.
    ///
    /// # Panics
    ///
    /// If the bounds do not rise. They are constants; in a constant context this is checked when
    /// the program is compiled.
    pub const fn new(bounds: &'static [u64; N]) -> Self {
        let mut place = 1;
        while place < N {
            assert!(bounds[place - 1] < bounds[place], "bounds must rise");
            place += 1;
        }
        Self {
            bounds,
            counts: [0; N],
            above: 0,
            sum: 0,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        let count = self.counts.get_mut(place).unwrap_or(&mut self.above);
        *count = count.saturating_add(1);
        self.sum = self.sum.saturating_add(value);
    }

    /// Each bound with the number of values at most it, the smaller ones included.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut so_far = 0_u64;
        self.bounds
            .iter()
            .zip(&self.counts)
            .map(move |(bound, count)| {
                so_far = so_far.saturating_add(*count);
                (*bound, so_far)
            })
    }

    /// How many values were counted, those above the last bound included.
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(self.above, |sum, count| sum.saturating_add(*count))
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

impl<const N: usize> Merge for Steps<N> {
    /// Adds counts of the same bounds. Of others only the number and the sum can be kept, as values
    /// above all bounds; that is a mistake of the owner's type.
    fn merge(&mut self, delta: Self) {
        debug_assert_eq!(self.bounds, delta.bounds);
        self.sum = self.sum.saturating_add(delta.sum);
        if self.bounds == delta.bounds {
            self.counts.merge(delta.counts);
            self.above.merge(delta.above);
        } else {
            self.above.merge(delta.count());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[derive(Debug, Default, PartialEq)]
    struct Figures {
        requests: u64,
        bytes: [u64; 2],
    }

    impl Merge for Figures {
        fn merge(&mut self, delta: Self) {
            self.requests.merge(delta.requests);
            self.bytes.merge(delta.bytes);
        }
    }

    #[test]
    fn figures_are_handed_over_when_dirty_and_due() {
        let start = Instant::now();
        let mut meter = Meter::<Figures>::new();
        assert_eq!(meter.due(start), None);
        assert_eq!(meter.take_if_due(start), None);

        meter.record(|figures| figures.requests += 1);
        assert_eq!(meter.due(start), Some(start));
        assert_eq!(
            meter.take_if_due(start),
            Some(Figures {
                requests: 1,
                bytes: [0, 0]
            })
        );
        assert_eq!(meter.take_if_due(start + 1_000 * MS), None);

        meter.record(|figures| figures.requests += 1);
        meter.record(|figures| figures.bytes[1] += 7);
        assert_eq!(meter.due(start + 10 * MS), Some(start + 50 * MS));
        assert_eq!(meter.take_if_due(start + 49 * MS), None);
        let delta = meter.take_if_due(start + 50 * MS).unwrap();
        assert_eq!(
            delta,
            Figures {
                requests: 1,
                bytes: [0, 7]
            }
        );

        // The receiver was full.
        meter.put_back(delta);
        meter.record(|figures| figures.requests += 1);
        assert_eq!(meter.take_if_due(start + 60 * MS), None);
        assert_eq!(
            meter.take(),
            Some(Figures {
                requests: 2,
                bytes: [0, 7]
            })
        );
        assert_eq!(meter.take(), None);
    }

    #[test]
    fn maps_merge_by_key() {
        let mut all = HashMap::from([("a", 1_u64), ("b", u64::MAX)]);
        all.merge(HashMap::from([("b", 1), ("c", 3)]));
        assert_eq!(all, HashMap::from([("a", 1), ("b", u64::MAX), ("c", 3)]));
    }

    #[test]
    fn an_empty_histogram() {
        let mut empty = Histogram::default();
        empty.merge(Histogram::default());
        assert!(empty.counts.is_none());
        for figure in [
            empty.min(),
            empty.max(),
            empty.mean(),
            empty.sum(),
            empty.quantile(0.5),
        ] {
            assert_eq!(figure, Duration::ZERO);
        }
        assert_eq!(empty.count(), 0);
    }

    #[test]
    fn a_histogram_is_bounded_in_memory_and_value() {
        let mut histogram = Histogram::default();
        for duration in [Duration::ZERO, Duration::MAX] {
            histogram.record(duration);
        }
        let bytes = histogram.counts.as_ref().unwrap().distinct_values() * size_of::<u64>();
        assert!(bytes <= 32 * 1024, "{bytes}");
        assert_eq!(histogram.count(), 2);
        assert_eq!(histogram.min(), Duration::from_micros(1));
        let hour = Duration::from_secs(3_600);
        assert!(histogram.max() >= hour && histogram.max() <= hour.mul_f64(1.01));
    }

    proptest! {
        #[test]
        fn a_histogram_is_one_percent_off_at_most(
            mut micros in prop::collection::vec(1_u64..4_000_000_000, 1..200),
            cut in 0_usize..200,
            part in 0.0_f64..=1.0,
        ) {
            let cut = cut.min(micros.len());
            let mut halves = [Histogram::default(), Histogram::default()];
            for (place, micros) in micros.iter().enumerate() {
                halves[usize::from(place < cut)].record(Duration::from_micros(*micros));
            }
            let [mut all, other] = halves;
            all.merge(other);

            let sum: u64 = micros.iter().sum();
            prop_assert_eq!(all.sum(), Duration::from_micros(sum));
            prop_assert_eq!(all.count(), micros.len() as u64);
            micros.sort_unstable();
            let near = |found: Duration, right: u64| {
                let right = right.min(MICROS_MAX) as f64;
                (found.as_micros() as f64 - right).abs() <= right * 0.01
            };
            prop_assert!(near(all.min(), micros[0]));
            prop_assert!(near(all.max(), micros[micros.len() - 1]));
            let place = ((part * micros.len() as f64).ceil() as usize).clamp(1, micros.len());
            prop_assert!(near(all.quantile(part), micros[place - 1]), "{part}");
        }
    }

    #[test]
    fn steps_count_at_most_their_bound() {
        const BOUNDS: [u64; 3] = [10, 20, 50];
        let mut steps = Steps::new(&BOUNDS);
        for value in [0, 10, 11, 20, 50, 51, u64::MAX] {
            steps.record(value);
        }
        assert_eq!(
            steps.cumulative().collect::<Vec<_>>(),
            [(10, 2), (20, 4), (50, 5)]
        );
        assert_eq!((steps.count(), steps.sum()), (7, u64::MAX));

        let mut other = Steps::new(&BOUNDS);
        other.record(15);
        steps.merge(other);
        assert_eq!(
            steps.cumulative().collect::<Vec<_>>(),
            [(10, 2), (20, 5), (50, 6)]
        );
        assert_eq!(steps.count(), 8);
    }

    #[test]
    #[should_panic(expected = "bounds must rise")]
    fn steps_must_rise() {
        Steps::new(&[1, 1]);
    }
}
