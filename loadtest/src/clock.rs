//! The one clock of the load tools: CLOCK_MONOTONIC in nanoseconds, which every process on a
//! machine reads alike, so that a stamp made by the stub can be compared with an arrival seen by a
//! client.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a millisecond.
pub const NS_PER_MS: u64 = 1_000_000;

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// The present time of CLOCK_MONOTONIC, nanoseconds since the machine's start.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Both fields are never negative for this clock (clock_gettime(2)).
    now.tv_sec.unsigned_abs() * NS_PER_S + now.tv_nsec.unsigned_abs()
}
