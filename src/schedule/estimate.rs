//! Learned figures: exponentially weighted means that all cores write and read without a lock.
//!
//! Contract: docs/contract/scheduling.md#1

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An estimate that was not refreshed for this time moves halfway to the median, and again after
/// each further such time.
const FADES_EVERY_MS: u64 = 10 * 60 * 1000;

/// The unit of the time of the last sample.
const TICK_MS: u64 = 100;

/// A mean and the time of its last sample, in one word. Of two samples at the same time one may be
/// lost, which the next one makes up for.
#[derive(Debug, Default)]
pub(crate) struct FadingMean(AtomicU64);

/// An estimate as it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Known {
    /// The mean, faded towards the median.
    pub value: f32,
    /// Milliseconds since its last sample, to a tenth of a second.
    pub age_ms: u64,
}

impl FadingMean {
    /// Takes a sample. `weight` is its share of the new mean.
    pub(crate) fn learn(&self, sample: f32, weight: f32, now_ms: u64, median: Option<f32>) {
        if !sample.is_finite() || sample < 0.0 {
            return;
        }
        let mean = match self.known(now_ms, median) {
            None => sample,
            Some(known) => known.value + weight * (sample - known.value),
        };
        self.0.store(word(mean, now_ms), Ordering::Relaxed);
    }

    /// The same; a sample counts as at most so many times what is known.
    pub(crate) fn learn_bounded(
        &self,
        sample: f32,
        times: f32,
        weight: f32,
        now_ms: u64,
        median: Option<f32>,
    ) {
        let most = self
            .known(now_ms, median)
            .map_or(f32::MAX, |known| known.value * times);
        self.learn(sample.min(most), weight, now_ms, median);
    }

    /// The estimate; `None` before the first sample.
    pub(crate) fn known(&self, now_ms: u64, median: Option<f32>) -> Option<Known> {
        let word = self.0.load(Ordering::Relaxed);
        if word == 0 {
            return None;
        }
        let value = f32::from_bits((word >> 32) as u32);
        let at_ms = (word & u64::from(u32::MAX)) * TICK_MS;
        let age_ms = now_ms.saturating_sub(at_ms);
        let value = match median {
            Some(median) if age_ms >= FADES_EVERY_MS => {
                let halves = i32::try_from(age_ms / FADES_EVERY_MS).unwrap_or(i32::MAX);
                median + (value - median) * 0.5_f32.powi(halves)
            }
            _ => value,
        };
        Some(Known { value, age_ms })
    }

    /// The mean; `None` before the first sample.
    pub(crate) fn value(&self, now_ms: u64, median: Option<f32>) -> Option<f32> {
        self.known(now_ms, median).map(|known| known.value)
    }

    /// Forgets all samples.
    pub(crate) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

fn word(value: f32, now_ms: u64) -> u64 {
    // The time is never 0, so a word is 0 only before the first sample.
    let ticks = u32::try_from(now_ms / TICK_MS).unwrap_or(u32::MAX).max(1);
    u64::from(value.to_bits()) << 32 | u64::from(ticks)
}

/// A number that may be unknown, for all cores.
#[derive(Debug)]
pub struct Figure(AtomicU32);

impl Default for Figure {
    fn default() -> Self {
        Self(AtomicU32::new(f32::NAN.to_bits()))
    }
}

impl Figure {
    /// The number, if it is known.
    pub fn get(&self) -> Option<f32> {
        Some(f32::from_bits(self.0.load(Ordering::Relaxed))).filter(|value| !value.is_nan())
    }

    /// Replaces it.
    pub fn set(&self, value: Option<f32>) {
        self.0
            .store(value.unwrap_or(f32::NAN).to_bits(), Ordering::Relaxed);
    }
}

/// The middle one of some values, the upper one of an even number; `None` of none.
pub(crate) fn median(values: &mut [f32]) -> Option<f32> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let (_, value, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    Some(*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_may_be_bounded() {
        let mean = FadingMean::default();
        mean.learn_bounded(1.0, 8.0, 0.5, 1_000, None);
        mean.learn_bounded(1_000.0, 8.0, 0.5, 2_000, None);
        assert_eq!(mean.value(2_000, None), Some(4.5));
    }

    #[test]
    fn the_first_sample_is_the_mean_and_later_ones_have_their_weight() {
        let estimate = FadingMean::default();
        assert_eq!(estimate.value(1, None), None);
        estimate.learn(100.0, 0.2, 1, None);
        assert_eq!(estimate.value(1, None), Some(100.0));
        estimate.learn(200.0, 0.2, 5_000, None);
        assert_eq!(estimate.value(5_000, None), Some(120.0));
        for absurd in [f32::NAN, f32::INFINITY, -1.0] {
            estimate.learn(absurd, 0.2, 6_000, None);
        }
        let known = estimate.known(9_000, None).unwrap();
        assert_eq!((known.value, known.age_ms), (120.0, 4_000));
        estimate.forget();
        assert_eq!(estimate.value(9_000, None), None);
    }

    #[test]
    fn an_old_estimate_fades_to_the_median() {
        let estimate = FadingMean::default();
        estimate.learn(100.0, 0.2, 1_000, None);
        let minute = 60_000;
        let table = [
            (9, 100.0),
            (10, 150.0),
            (19, 150.0),
            (20, 175.0),
            (30, 187.5),
        ];
        for (minutes, want) in table {
            let at = 1_000 + minutes * minute;
            assert_eq!(estimate.value(at, Some(200.0)), Some(want), "{minutes}");
            assert_eq!(estimate.value(at, None), Some(100.0), "no median");
        }
        // A sample goes to the faded mean.
        estimate.learn(250.0, 0.2, 1_000 + 10 * minute, Some(200.0));
        assert_eq!(estimate.value(1_000 + 11 * minute, None), Some(170.0));
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 3.0, 1.0, 2.0]), Some(3.0));
    }
}
