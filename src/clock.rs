//! Durations between instants, and as the whole numbers in headers, logs and pages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time from one instant to another; zero if the clock was set back between them.
pub(crate) fn since(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or(Duration::ZERO)
}

/// Whole milliseconds; the largest number if they do not fit.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole milliseconds since 1970; 0 before that.
pub(crate) fn unix_millis(at: SystemTime) -> u64 {
    millis(since(UNIX_EPOCH, at))
}

/// Whole microseconds; the largest number if they do not fit.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
