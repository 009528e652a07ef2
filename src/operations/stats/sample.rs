//! A uniform random sample of bounded size.

use fastrand::Rng;

/// Latencies kept for percentiles (docs/contract/operations.md#5).
pub(super) const SAMPLE_MAX: usize = 100;

/// A uniform sample of all values offered.
#[derive(Debug, Clone, Default)]
pub(super) struct Reservoir {
    offered: u64,
    kept: Vec<u32>,
}

impl Reservoir {
    /// Offers one value.
    pub(super) fn offer(&mut self, value: u32, random: &mut Rng) {
        self.offered += 1;
        if self.kept.len() < SAMPLE_MAX {
            self.kept.push(value);
            return;
        }
        // The n-th value is kept with a chance of SAMPLE_MAX in n (Vitter's algorithm R).
        let at = random.u64(..self.offered) as usize;
        if let Some(place) = self.kept.get_mut(at) {
            *place = value;
        }
    }

    /// The 95th and 99th percentile; 0 of nothing.
    pub(super) fn p95_p99(&self) -> (u64, u64) {
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let at = |percent: usize| {
            let index = (sorted.len() * percent / 100).min(last);
            sorted.get(index).copied().map_or(0, u64::from)
        };
        (at(95), at(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_the_index_rule() {
        let mut random = Rng::with_seed(1);
        let mut reservoir = Reservoir::default();
        assert_eq!(reservoir.p95_p99(), (0, 0));
        reservoir.offer(7, &mut random);
        assert_eq!(reservoir.p95_p99(), (7, 7));
        let mut reservoir = Reservoir::default();
        for value in (1..=21).rev() {
            reservoir.offer(value, &mut random);
        }
        // 21 values: the second largest and the largest.
        assert_eq!(reservoir.p95_p99(), (20, 21));
    }

    #[test]
    fn the_sample_is_uniform_and_bounded() {
        let mut from_first_half = 0;
        for seed in 0..200 {
            let mut random = Rng::with_seed(seed);
            let mut reservoir = Reservoir::default();
            for value in 0..1000 {
                reservoir.offer(value, &mut random);
            }
            assert_eq!(reservoir.kept.len(), SAMPLE_MAX);
            from_first_half += reservoir.kept.iter().filter(|value| **value < 500).count();
        }
        // 20 000 draws; 10 000 expected, standard deviation about 67.
        assert!(
            (9_600..=10_400).contains(&from_first_half),
            "{from_first_half}"
        );
    }
}
