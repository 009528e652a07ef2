//! Tokens that a core has taken in advance.

use std::sync::Arc;
use std::time::Duration;

use super::bucket::{Bucket, Cell, Rate, Retired};
use super::{Admission, Nanos};

/// All leases of a bucket together are at most this part of its burst: 1/64. That is how far the
/// cores together can exceed a limit, and 1.6 % of a burst goes unnoticed.
pub const LEASE_PART: u32 = 64;

/// How long a lease lasts. Short, so that tokens that a core does not spend come back to the others
/// before they run short; long enough for a busy core to spend thousands.
pub const LEASE_LASTS: Duration = Duration::from_millis(10);

/// [`LEASE_LASTS`], in the unit of this module.
const LASTS: Nanos = 10_000_000;
const _: () = assert!(LASTS as u128 == LEASE_LASTS.as_nanos());

/// The largest lease of one of `cores` cores.
pub(super) fn lease_max(rate: &Rate, cores: usize) -> u32 {
    let cores = u32::try_from(cores).unwrap_or(u32::MAX).max(1);
    (rate.burst() / LEASE_PART / cores).max(1)
}

/// Whether a token was got, and what the bucket's [`Admission`] is to be made of if it is needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grab {
    pub(super) admitted: bool,
    zero: i64,
    aside: u32,
}

impl Grab {
    pub(super) fn admission(self, rate: &Rate, now: Nanos) -> Admission {
        rate.admission(self.admitted, self.zero, self.aside, now)
    }
}

/// The tokens one core holds of one bucket. It keeps no token when the largest lease is 1.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stash {
    tokens: u32,
    /// How many to ask for next: doubles as long as leases are spent before they expire.
    size: u32,
    expires: Nanos,
}

impl Stash {
    /// Takes a token from the stash, or else from the bucket, with more in advance.
    pub(super) fn take(
        &mut self,
        cell: &Cell,
        rate: &Rate,
        max: u32,
        now: Nanos,
    ) -> Result<Grab, Retired> {
        self.expire(cell, rate, now);
        if self.tokens > 0 {
            self.tokens -= 1;
            return Ok(Grab {
                admitted: true,
                zero: cell.zero()?,
                aside: self.tokens,
            });
        }
        self.size = if now < self.expires {
            self.size.saturating_mul(2)
        } else {
            1
        }
        .clamp(1, max);
        let taken = cell.take(rate, self.size, now)?;
        self.tokens = taken.tokens.saturating_sub(1);
        self.expires = now.saturating_add(LASTS);
        Ok(Grab {
            admitted: taken.tokens > 0,
            zero: taken.zero,
            aside: self.tokens,
        })
    }

    /// Tokens that are still good.
    pub(super) fn tokens(&self, now: Nanos) -> u32 {
        if now < self.expires { self.tokens } else { 0 }
    }

    /// Gives the tokens back if their time is over.
    pub(super) fn expire(&mut self, cell: &Cell, rate: &Rate, now: Nanos) {
        if self.tokens > 0 && now >= self.expires {
            self.release(cell, rate);
        }
    }

    /// Gives all tokens back.
    pub(super) fn release(&mut self, cell: &Cell, rate: &Rate) {
        if self.tokens > 0 {
            cell.give_back(rate, self.tokens);
            self.tokens = 0;
        }
    }
}

/// One core's view of a [`Bucket`]: mostly without touching what the cores share, if the burst is
/// large enough for leases.
#[derive(Debug)]
pub struct Leased {
    bucket: Arc<Bucket>,
    stash: Stash,
    max: u32,
}

impl Leased {
    /// The view of one of `cores` cores. That number bounds what all of them lease together.
    pub fn new(bucket: Arc<Bucket>, cores: usize) -> Self {
        let max = lease_max(bucket.rate(), cores);
        Self {
            bucket,
            stash: Stash::default(),
            max,
        }
    }

    /// Takes a token, if there is a whole one.
    pub fn take(&mut self, now: Nanos) -> Admission {
        match self.grab(now) {
            Ok(grab) => grab.admission(self.bucket.rate(), now),
            // A bucket of its own is never retired.
            Err(Retired) => self.bucket.rate().full(now),
        }
    }

    /// Takes a token like [`Leased::take`], and computes the state of the bucket only if there was
    /// none; `None` = admitted.
    pub fn refuses(&mut self, now: Nanos) -> Option<Admission> {
        let grab = self.grab(now).ok()?;
        (!grab.admitted).then(|| grab.admission(self.bucket.rate(), now))
    }

    fn grab(&mut self, now: Nanos) -> Result<Grab, Retired> {
        self.stash
            .take(&self.bucket.cell, self.bucket.rate(), self.max, now)
    }

    /// What [`Leased::take`] would find, without taking.
    pub fn peek(&self, now: Nanos) -> Admission {
        self.bucket.peek_with(self.stash.tokens(now), now)
    }

    /// Undoes a [`Leased::take`] that admitted; see [`Bucket::give_back`].
    pub fn give_back(&mut self) {
        self.bucket.give_back();
    }

    /// Gives expired tokens back. To be called every 50-100 ms, for a core that may sleep while it
    /// holds tokens that the others could use.
    pub fn tick(&mut self, now: Nanos) {
        self.stash
            .expire(&self.bucket.cell, self.bucket.rate(), now);
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.stash.release(&self.bucket.cell, self.bucket.rate());
    }
}
