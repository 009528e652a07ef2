//! A token bucket in one atomic word.
//!
//! The word is the moment at which the bucket was, or would have been, empty: its level is the time
//! since then, divided by the time for one token. Refilling is therefore continuous and free, and
//! taking a token moves that moment forward by one token's time.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::{Admission, Nanos};

const MINUTE: u64 = 60_000_000_000;

/// Moments and spans are kept below this, so that sums and differences of them cannot overflow.
const SPAN_MAX: i64 = 1 << 61;

/// A moment so early that a bucket which was empty then is full.
const LONG_AGO: i64 = -(1 << 62);

/// The value of a cell that is out of use.
const RETIRED: i64 = i64::MAX;

/// A limit: the rate of tokens and the capacity for them (docs/contract/surface.md#10.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds for one token, at least 1.
    interval: i64,
    /// Nanoseconds from empty to full.
    capacity: i64,
    burst: u32,
}

impl Rate {
    /// `per_minute` tokens a minute, at most `burst` at once; a burst of 0 admits nothing.
    ///
    /// The time of one token is rounded up to a nanosecond, so the limit is never exceeded; up to
    /// 60 million a minute it is met within 0.1 %.
    pub fn new(per_minute: NonZeroU32, burst: u32) -> Self {
        let interval = MINUTE.div_ceil(u64::from(per_minute.get())).cast_signed();
        let capacity = i64::from(burst).saturating_mul(interval).min(SPAN_MAX);
        Self {
            interval,
            capacity,
            burst,
        }
    }

    /// The most tokens at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// The time in which the bucket gains `tokens`.
    fn span(&self, tokens: u32) -> i64 {
        i64::from(tokens)
            .saturating_mul(self.interval)
            .min(SPAN_MAX)
    }

    /// Whole tokens at `now` in a bucket that was empty at `zero`.
    fn level(&self, zero: i64, now: i64) -> u32 {
        let span = (now - zero).clamp(0, self.capacity);
        u32::try_from(span.cast_unsigned() / self.interval.cast_unsigned()).unwrap_or(u32::MAX)
    }

    /// The state of a bucket that was empty at `zero`, counting `aside` tokens that were taken out
    /// of it and not spent.
    pub(super) fn admission(&self, admitted: bool, zero: i64, aside: u32, now: Nanos) -> Admission {
        let now = moment(now);
        let zero = zero.max(now - self.capacity) - self.span(aside);
        let remaining = self.level(zero, now);
        let retry_after = match remaining {
            _ if self.burst == 0 => Duration::from_nanos(MINUTE),
            0 => nanos(zero + self.interval - now),
            _ => Duration::ZERO,
        };
        Admission {
            admitted,
            remaining,
            full_at: nanos(zero + self.capacity - now),
            retry_after,
        }
    }

    /// What a bucket says that nothing was ever taken from.
    pub(super) fn full(&self, now: Nanos) -> Admission {
        self.admission(self.burst > 0, LONG_AGO, 0, now)
    }
}

fn moment(now: Nanos) -> i64 {
    i64::try_from(now).unwrap_or(SPAN_MAX).min(SPAN_MAX)
}

fn nanos(span: i64) -> Duration {
    Duration::from_nanos(u64::try_from(span).unwrap_or(0))
}

/// The cell was retired: its holder has to look up the cell that replaced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retired;

/// The outcome of taking tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Number of tokens taken; 0 if there was no whole one.
    pub(super) tokens: u32,
    /// The moment at which the bucket was empty, after the tokens were taken.
    pub(super) zero: i64,
}

/// The shared state of one bucket, without its rate.
#[derive(Debug)]
pub(super) struct Cell {
    zero: AtomicI64,
    /// When it was last used.
    used: AtomicU64,
}

// Every operation is on one word, and nothing else is published with it: relaxed order is enough.
impl Cell {
    pub(super) const fn new() -> Self {
        Self {
            zero: AtomicI64::new(LONG_AGO),
            used: AtomicU64::new(0),
        }
    }

    /// Takes up to `want` tokens: the first if there is one, more only from what is plenty, so that
    /// the last tokens of a bucket are not locked away in one core's lease.
    pub(super) fn take(&self, rate: &Rate, want: u32, now: Nanos) -> Result<Taken, Retired> {
        self.touch(now);
        let now = moment(now);
        let mut zero = self.zero.load(Ordering::Relaxed);
        loop {
            if zero == RETIRED {
                return Err(Retired);
            }
            let from = zero.max(now - rate.capacity);
            if now - from < rate.interval {
                return Ok(Taken {
                    tokens: 0,
                    zero: from,
                });
            }
            // Dividing is the dearest part of all this, and most takings are of one token.
            let tokens = if want > 1 {
                want.min(rate.level(from, now) / 2).max(1)
            } else {
                1
            };
            let to = from + rate.span(tokens);
            match self
                .zero
                .compare_exchange_weak(zero, to, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(Taken { tokens, zero: to }),
                Err(newer) => zero = newer,
            }
        }
    }

    /// Returns tokens to the bucket, which never holds more than its capacity.
    pub(super) fn give_back(&self, rate: &Rate, tokens: u32) {
        let span = rate.span(tokens);
        let mut zero = self.zero.load(Ordering::Relaxed);
        while zero != RETIRED {
            let to = zero.saturating_sub(span).max(LONG_AGO);
            match self
                .zero
                .compare_exchange_weak(zero, to, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(newer) => zero = newer,
            }
        }
    }

    /// The moment at which the bucket was empty.
    pub(super) fn zero(&self) -> Result<i64, Retired> {
        match self.zero.load(Ordering::Relaxed) {
            RETIRED => Err(Retired),
            zero => Ok(zero),
        }
    }

    /// Retires the cell for good: no token can be taken from it afterwards.
    pub(super) fn retire(&self) {
        self.zero.store(RETIRED, Ordering::Relaxed);
    }

    /// Records that it is used.
    pub(super) fn touch(&self, now: Nanos) {
        self.used.store(now, Ordering::Relaxed);
    }

    /// When it was last used.
    pub(super) fn used(&self) -> Nanos {
        self.used.load(Ordering::Relaxed)
    }
}

/// One limit, shared by all cores, exact over them: full at the start, refilled continuously.
///
/// Aligned so that two buckets never share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Bucket {
    rate: Rate,
    pub(super) cell: Cell,
}

impl Bucket {
    /// A full bucket.
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            cell: Cell::new(),
        }
    }

    /// Its limit.
    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Takes a token, if there is a whole one.
    pub fn take(&self, now: Nanos) -> Admission {
        // A bucket of its own is never retired.
        match self.cell.take(&self.rate, 1, now) {
            Ok(taken) => self.rate.admission(taken.tokens > 0, taken.zero, 0, now),
            Err(Retired) => self.rate.full(now),
        }
    }

    /// What [`Bucket::take`] would find, without taking: `admitted` = there is a token;
    /// `remaining` = tokens there. It promises nothing: another core may take it.
    pub fn peek(&self, now: Nanos) -> Admission {
        self.peek_with(0, now)
    }

    pub(super) fn peek_with(&self, aside: u32, now: Nanos) -> Admission {
        match self.cell.zero() {
            Ok(zero) => {
                let state = self.rate.admission(false, zero, aside, now);
                Admission {
                    admitted: state.remaining > 0,
                    ..state
                }
            }
            Err(Retired) => self.rate.full(now),
        }
    }

    /// Undoes a [`Bucket::take`] that admitted: the bucket is as if it had not happened. Only if it
    /// would have been full in between may it keep a fraction of a token that ought to have been
    /// lost; it never holds more than its burst.
    pub fn give_back(&self) {
        self.cell.give_back(&self.rate, 1);
    }
}
