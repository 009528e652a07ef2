//! Histograms with fixed bounds, as Prometheus reads them.

/// Upper bounds of the buckets of times, in milliseconds.
pub(in crate::operations) const TIMES_MS: [f64; 15] = [
    5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5,
];

/// Upper bounds of the buckets of a prediction divided by what was measured. They are closest where
/// the two are equal.
pub(in crate::operations) const RATIOS: [f64; 12] =
    [0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.1, 1.4, 2.0, 3.0, 5.0, 10.0];

/// A histogram of times, with the bounds of [`TIMES_MS`].
pub(in crate::operations) type Times = Buckets<{ TIMES_MS.len() }>;

/// A histogram of ratios, with the bounds of [`RATIOS`].
pub(in crate::operations) type Ratios = Buckets<{ RATIOS.len() }>;

/// A Prometheus histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::operations) struct Buckets<const N: usize> {
    /// Observations between the bound before and this one; not cumulative.
    counts: [u64; N],
    pub(in crate::operations) count: u64,
    pub(in crate::operations) sum: f64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self {
            counts: [0; N],
            count: 0,
            sum: 0.0,
        }
    }
}

impl<const N: usize> Buckets<N> {
    pub(super) fn observe(&mut self, bounds: &[f64; N], value: f64) {
        self.count += 1;
        self.sum += value;
        let at = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
    }

    /// Adds another histogram with the same bounds.
    pub(in crate::operations) fn add(&mut self, more: &Self) {
        for (count, more) in self.counts.iter_mut().zip(more.counts) {
            *count += more;
        }
        self.count += more.count;
        self.sum += more.sum;
    }

    /// Observations up to each of the bounds.
    pub(in crate::operations) fn cumulative(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
    }
}
