//! A bucket of one limit per minute: full at first, refilled continuously, exact over all cores.
//!
//! The state is one word of 128 bits: what is used, and the moment for which that holds. It knows no
//! limit: each call names the one in force, so a limit that changes keeps what was used, and cores
//! that already have the new one and cores that still have the old one count in the same bucket.
//!
//! Contract: docs/contract/access.md#4.3, docs/contract/access.md#5.1, docs/contract/access.md#7.2

use std::sync::atomic::Ordering;
use std::time::Duration;

use portable_atomic::AtomicU128;

/// Microseconds in which a bucket refills from empty to full.
const MINUTE_US: u128 = 60_000_000;

/// Bits of the word that hold the moment, in microseconds: 142 years.
const TIME_BITS: u32 = 52;
const TIME_MASK: u128 = (1 << TIME_BITS) - 1;

/// Bits of a token's fraction. What rounding loses is refill, so that a limit is never exceeded.
const FRACTION_BITS: u32 = 20;

/// The most that a bucket holds as used, in whole tokens: beyond it, debt is forgiven.
const USED_MAX: u64 = (1 << (128 - TIME_BITS - FRACTION_BITS)) - 1;

/// Microseconds of the process's clock.
pub(crate) type Micros = u64;

/// A bucket.
#[derive(Debug, Default)]
pub(crate) struct Bucket(AtomicU128);

/// The state of a bucket at a moment, under a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BucketState {
    /// Tokens a minute, and the capacity.
    limit: u64,
    /// Used tokens, with their fraction.
    used: u128,
}

impl BucketState {
    /// Whole tokens left; 0 while there is a debt.
    pub(crate) fn left(self) -> u64 {
        whole(capacity(self.limit).saturating_sub(self.used))
    }

    /// Tokens of the capacity that are not there, rounded up.
    pub(crate) fn used(self) -> u64 {
        whole(self.used + fraction(1) - 1)
    }

    /// The time until the bucket is full.
    pub(crate) fn full_in(self) -> Duration {
        self.refills_in(self.used)
    }

    /// The time until `tokens` are left, as far as the capacity allows.
    pub(crate) fn has_in(self, tokens: u64) -> Duration {
        let wanted = fraction(tokens.min(self.limit));
        self.refills_in((self.used + wanted).saturating_sub(capacity(self.limit)))
    }

    /// The time in which so much is refilled, rounded up.
    fn refills_in(self, missing: u128) -> Duration {
        let rate = capacity(self.limit).max(1);
        let micros = (missing * MINUTE_US).div_ceil(rate);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

impl Bucket {
    /// Takes `tokens`, at most the whole capacity, if so many are left. Without a limit there is
    /// nothing to take from: the caller does not ask.
    ///
    /// # Errors
    /// There are too few; nothing was taken.
    pub(crate) fn take(
        &self,
        tokens: u64,
        limit: u64,
        now: Micros,
    ) -> Result<BucketState, BucketState> {
        let wanted = fraction(tokens.min(limit));
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (used, at) = refilled(word, limit, now);
            if used + wanted > capacity(limit) {
                return Err(BucketState { limit, used });
            }
            let used = used + wanted;
            match self.swap(word, used, at) {
                Ok(()) => return Ok(BucketState { limit, used }),
                Err(newer) => word = newer,
            }
        }
    }

    /// Takes more than was taken before, or gives back: what is missing at the end of a request may
    /// become a debt, and what is too much fills the bucket at most.
    pub(crate) fn correct(&self, more: i64, limit: u64, now: Micros) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (used, at) = refilled(word, limit, now);
            let change = fraction(more.unsigned_abs().min(USED_MAX));
            let used = match more {
                0.. => (used + change).min(fraction(USED_MAX)),
                _ => used.saturating_sub(change),
            };
            match self.swap(word, used, at) {
                Ok(()) => return,
                Err(newer) => word = newer,
            }
        }
    }

    /// Its state.
    pub(crate) fn level(&self, limit: u64, now: Micros) -> BucketState {
        let (used, _) = refilled(self.0.load(Ordering::Relaxed), limit, now);
        BucketState { limit, used }
    }

    fn swap(&self, word: u128, used: u128, at: u128) -> Result<(), u128> {
        let new = used << TIME_BITS | at;
        // Nothing else is published with the word.
        let order = Ordering::Relaxed;
        self.0
            .compare_exchange_weak(word, new, order, order)
            .map(|_| ())
    }
}

/// What is used now, and the moment for which that holds. Cores may be a little apart: time never
/// goes back.
fn refilled(word: u128, limit: u64, now: Micros) -> (u128, u128) {
    let (used, at) = (word >> TIME_BITS, word & TIME_MASK);
    let now = u128::from(now) & TIME_MASK;
    if used == 0 || now <= at {
        return (used, at.max(now));
    }
    // A division of 128 bits is slow, and hardly ever needed.
    let product = (now - at) * capacity(limit);
    let refill = match u64::try_from(product) {
        Ok(small) => u128::from(small / MINUTE_US as u64),
        Err(_) => product / MINUTE_US,
    };
    (used.saturating_sub(refill), now)
}

fn capacity(limit: u64) -> u128 {
    fraction(limit.min(USED_MAX))
}

const fn fraction(tokens: u64) -> u128 {
    (tokens as u128) << FRACTION_BITS
}

fn whole(fraction: u128) -> u64 {
    u64::try_from(fraction >> FRACTION_BITS).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Micros = 1_000_000;

    #[test]
    fn a_bucket_is_full_at_first_and_refills_continuously() {
        let bucket = Bucket::default();
        for left in [2, 1, 0] {
            let level = bucket.take(1, 3, 0).expect("a token");
            assert_eq!(level.left(), left);
        }
        let level = bucket.take(1, 3, 0).expect_err("no token");
        assert_eq!(level.has_in(1), Duration::from_secs(20));
        assert_eq!(level.full_in(), Duration::from_secs(60));
        assert_eq!(level.used(), 3);
        // A microsecond too early, and then in time.
        assert!(bucket.take(1, 3, 20 * SECOND - 1).is_err());
        let level = bucket.take(1, 3, 20 * SECOND).expect("a token");
        assert_eq!(level.left(), 0);
        assert_eq!(bucket.level(3, 50 * SECOND).left(), 1);
        assert_eq!(bucket.level(3, 1_000 * SECOND).full_in(), Duration::ZERO);
    }

    #[test]
    fn a_debt_is_paid_by_what_is_refilled() {
        let bucket = Bucket::default();
        assert_eq!(bucket.take(5_000, 600, 0).map(BucketState::left), Ok(0));
        bucket.correct(4_400, 600, 0);
        let level = bucket.level(600, 0);
        assert_eq!((level.left(), level.used()), (0, 5_000));
        assert_eq!(level.full_in(), Duration::from_secs(500));
        assert_eq!(level.has_in(1), Duration::from_millis(440_100));
        assert!(bucket.take(1, 600, 440 * SECOND).is_err());
        assert!(bucket.take(1, 600, 441 * SECOND).is_ok());
        // What is given back fills the bucket at most.
        bucket.correct(-1_000_000, 600, 442 * SECOND);
        assert_eq!(bucket.level(600, 442 * SECOND).left(), 600);
    }

    #[test]
    fn a_changed_limit_keeps_what_was_used() {
        let bucket = Bucket::default();
        assert!(bucket.take(20, 100, 0).is_ok());
        for (limit, left) in [(50, 30), (10, 0), (1_000, 980)] {
            assert_eq!(bucket.level(limit, 0).left(), left, "{limit}");
        }
    }

    #[test]
    fn the_ends_of_the_range_hold() {
        const MOST: u64 = 1_000_000_000_000_000;
        let bucket = Bucket::default();
        let late = 1 << 50;
        assert_eq!(bucket.take(MOST, MOST, late).map(BucketState::left), Ok(0));
        assert!(bucket.take(1, MOST, late).is_err());
        bucket.correct(i64::MAX, MOST, late);
        bucket.correct(i64::MAX, MOST, late);
        assert_eq!(bucket.level(MOST, late).used(), USED_MAX);
        assert!(bucket.level(1, late).full_in() > Duration::from_secs(1 << 40));
        assert!(bucket.level(0, late).used() > 0);
    }

    proptest! {
        /// Against a bucket of rational numbers: never more than it admits, and never less but for
        /// the fraction that rounding loses.
        #[test]
        fn agrees_with_an_ideal_bucket(
            limit in prop_oneof![1_u64..20, 1_000..100_000_u64],
            steps in prop::collection::vec((0_u64..30_000_000, 1_u64..30, -20_i64..20), 1..200),
        ) {
            let bucket = Bucket::default();
            let (mut now, mut used, mut last) = (0_u64, 0_u128, 0_u64);
            // The ideal bucket counts in tokens times a minute's microseconds, without rounding.
            let whole = u128::from(limit) * MINUTE_US;
            for (wait, tokens, more) in steps {
                now += wait;
                used = used.saturating_sub(u128::from(now - last) * u128::from(limit));
                last = now;
                let wanted = u128::from(tokens.min(limit)) * MINUTE_US;
                let ideal = used + wanted <= whole;
                let taken = bucket.take(tokens, limit, now);
                if taken.is_ok() {
                    prop_assert!(ideal);
                    used += wanted;
                } else {
                    // 200 roundings of a millionth of a token each.
                    prop_assert!(!ideal || used + wanted + MINUTE_US / 1_000 > whole);
                }
                bucket.correct(more, limit, now);
                let change = u128::from(more.unsigned_abs()) * MINUTE_US;
                used = if more > 0 { used + change } else { used.saturating_sub(change) };
                let exact = bucket.level(limit, now);
                prop_assert!(exact.used >= used * fraction(1) / MINUTE_US);
            }
        }
    }
}
