//! A uniform random sample of bounded size, and the numbers it draws.

/// Numbers that look random, from a seed (SplitMix64). Good enough to choose samples by; no
/// secret may depend on it.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound; 0 for a bound of 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The bias is below bound / 2^64.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

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
    pub(super) fn offer(&mut self, value: u32, random: &mut Random) {
        self.offered += 1;
        if self.kept.len() < SAMPLE_MAX {
            self.kept.push(value);
            return;
        }
        // The n-th value is kept with a chance of SAMPLE_MAX in n (Vitter's algorithm R).
        let at = usize::try_from(random.below(self.offered)).unwrap_or(usize::MAX);
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
        let mut random = Random::new(1);
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
            let mut random = Random::new(seed);
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

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut random = Random::new(3);
        assert_eq!(random.below(0), 0);
        assert!((0..1000).all(|_| random.below(7) < 7));
    }
}
