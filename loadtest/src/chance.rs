//! Random numbers that are the same for the same seed.

/// A seeded generator of random numbers.
#[derive(Clone, Debug)]
pub struct Chance(fastrand::Rng);

impl Chance {
    /// The generator of a seed. Generators of seeds that differ in a few bits begin alike, so the
    /// numbers come from one that is two forks away.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed).fork().fork())
    }

    /// A number below `bound`, 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound.max(1))
    }

    /// True once in `count` times on average.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A number from 0 up to, but not including, 1.
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }

    /// The time until the next of independent events that come `mean` apart on average.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// A log-normal factor with mean 1; `sigma` is the deviation of its logarithm, 0 makes it 1.
    pub fn log_normal(&mut self, sigma: f64) -> f64 {
        if sigma == 0.0 {
            return 1.0;
        }
        // Box and Muller's transform of two uniform numbers into a normal one.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        (sigma * normal - sigma * sigma / 2.0).exp()
    }

    /// The place of one of these weights, picked in proportion to them; 0 when there are none.
    pub fn weighted(&mut self, weights: impl Iterator<Item = f64> + Clone) -> usize {
        let mut left = self.unit() * weights.clone().sum::<f64>();
        let mut last = 0;
        for (place, weight) in weights.enumerate() {
            last = place;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        last
    }

    /// One entry of a table, which has at least one.
    pub fn pick<T: Copy>(&mut self, table: &[T]) -> T {
        table[self.below(table.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 20_000;

    fn mean(mut draw: impl FnMut() -> f64) -> f64 {
        (0..DRAWS).map(|_| draw()).sum::<f64>() / DRAWS as f64
    }

    #[test]
    fn distributions_have_their_means() {
        let mut chance = Chance::new(1);
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 0.05, "{got}, {want}");
        near(mean(|| chance.exponential(7.0)), 7.0);
        near(mean(|| chance.log_normal(0.7)), 1.0);
        near(mean(|| chance.log_normal(0.7).ln()), -0.245);
        near(
            mean(|| chance.weighted([1.0, 2.0, 1.0].into_iter()) as f64),
            1.0,
        );
        assert_eq!(chance.log_normal(0.0), 1.0);
        assert_eq!(chance.weighted([].into_iter()), 0);
    }
}
