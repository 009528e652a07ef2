//! Durations as the whole numbers that headers, logs and pages hold.

use std::time::Duration;

/// Whole milliseconds; the largest number if they do not fit.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds; the largest number if they do not fit.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
