//! A number over time, as it stood at each tick of a clock that all processes of a machine share.

use crate::clock::NS_PER_MS;

/// Time between two ticks, in nanoseconds.
pub const TICK_NS: u64 = 10 * NS_PER_MS;

/// The most ticks that are kept: an hour's.
const TICKS_MAX: usize = 360_000;

/// The values of a number at the ticks since it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticks {
    first: u64,
    values: Vec<u32>,
    now: u32,
}

impl Ticks {
    /// Begins with 0 at this time, in nanoseconds of CLOCK_MONOTONIC.
    pub fn new(now_ns: u64) -> Self {
        Self {
            first: now_ns / TICK_NS + 1,
            values: Vec::new(),
            now: 0,
        }
    }

    /// Ticks that were recorded elsewhere.
    pub fn recorded(first: u64, values: Vec<u32>) -> Self {
        let now = values.last().copied().unwrap_or(0);
        Self { first, values, now }
    }

    /// Says that the number is another one from now on; times do not go back.
    pub fn set(&mut self, now_ns: u64, value: u32) {
        self.fill(now_ns);
        self.now = value;
    }

    /// Records the ticks that have passed.
    pub fn fill(&mut self, now_ns: u64) {
        let passed = (now_ns / TICK_NS + 1).saturating_sub(self.first);
        let length = usize::try_from(passed).unwrap_or(TICKS_MAX).min(TICKS_MAX);
        if self.values.len() < length {
            self.values.resize(length, self.now);
        }
    }

    /// The number of the first tick: nanoseconds since the machine's start divided by [`TICK_NS`].
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The values, one for each tick.
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// The value at a tick; `None` outside of what was recorded.
    pub fn at(&self, tick: u64) -> Option<u32> {
        let place = usize::try_from(tick.checked_sub(self.first)?).ok()?;
        self.values.get(place).copied()
    }

    /// The share of ticks with at least this value; 0 without ticks.
    pub fn share_of(&self, least: u32) -> f64 {
        let count = self.values.iter().filter(|value| **value >= least).count();
        count as f64 / self.values.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_has_the_value_that_stood_then() {
        let mut ticks = Ticks::new(5 * TICK_NS);
        ticks.set(5 * TICK_NS + 1, 3);
        ticks.set(6 * TICK_NS, 4);
        ticks.set(6 * TICK_NS + 1, 5);
        ticks.set(8 * TICK_NS + 1, 6);
        assert_eq!((ticks.first(), ticks.values()), (6, &[3, 5, 5][..]));
        let seen = [5, 6, 7, 8, 9].map(|tick| ticks.at(tick));
        assert_eq!(seen, [None, Some(3), Some(5), Some(5), None]);
        assert_eq!(ticks.share_of(4), 2.0 / 3.0);
        assert_eq!(Ticks::new(0).share_of(0), 0.0);
    }
}
