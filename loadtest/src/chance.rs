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

    /// One entry of a table, which has at least one.
    pub fn pick<T: Copy>(&mut self, table: &[T]) -> T {
        table[self.below(table.len())]
    }
}
