//! Token buckets that are exact over all cores: one shared state per bucket, from which each core
//! may take a few tokens in advance.
//!
//! - [`Bucket`]: one limit, one atomic word. Correct from any thread; a core that uses it rarely, or a
//!   limit that is small, uses it directly.
//! - [`Leased`]: one core's view of a bucket. Where the burst is large enough it takes tokens in
//!   small batches, which expire.
//! - [`KeyedLimiter`] and its per-core [`KeyedShard`]: a bucket for each client, identified by its
//!   address or by another [`LimitKey`].
//!
//! **Exactness.** A token is admitted at most once: leasing takes it out of the shared bucket.
//! Compared with one ideal bucket, the cores together admit at most the tokens in leases more: those
//! are out of the bucket while it goes on refilling. All leases of one bucket together are bounded
//! by a 64th of its burst, so a burst below 128 on one core (128 n on n cores) is not leased at all
//! and the limit is exact. A client that is alone on one core gets the whole limit.
//!
//! **Time** is a parameter everywhere: nanoseconds since any moment that all cores agree on
//! ([`Epoch`]). This module reads no clock, knows no header and no configuration. A changed limit is
//! a new object.
//!
//! Contract: docs/contract/surface.md#10

mod bucket;
mod clients;
mod lease;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use bucket::{Bucket, Rate};
pub use clients::{CLIENTS_MAX, FORGOTTEN_AFTER, KeyedLimiter, KeyedShard, LimitKey};
pub use lease::{LEASE_LASTS, LEASE_PART, Leased};

/// Nanoseconds since an [`Epoch`]. Counted up to 2^61 (73 years); later moments are taken as that.
pub type Nanos = u64;

/// The moment that a process counts its [`Nanos`] from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(Instant);

impl Epoch {
    /// Counts from `start`; earlier moments are 0.
    pub const fn new(start: Instant) -> Self {
        Self(start)
    }

    /// `now` in nanoseconds.
    pub fn nanos(self, now: Instant) -> Nanos {
        Nanos::try_from(now.saturating_duration_since(self.0).as_nanos()).unwrap_or(Nanos::MAX)
    }
}

/// What a bucket says to a request. The times are from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// There was a token.
    pub admitted: bool,
    /// Whole tokens left, after this request took its own; 0 if it was refused
    /// (`X-RateLimit-Remaining`).
    pub remaining: u32,
    /// Until the bucket is full again if nothing more is taken (`X-RateLimit-Reset`).
    pub full_at: Duration,
    /// Until there is a whole token; zero if there is one now (`Retry-After`). A bucket of capacity
    /// 0 never has one: then it is a minute, the period of the limit.
    pub retry_after: Duration,
}
