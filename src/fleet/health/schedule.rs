//! The times of health checks: the back-off schedule and the pauses between tries.
//!
//! Contract: docs/contract/balancing.md#11 (schedule)

use std::time::Duration;

use crate::clock::micros;

/// The longest back-off.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The time from the start of one check to the start of the next after `failures` failures in a
/// row.
pub(crate) fn backoff(interval: Duration, failures: u32) -> Duration {
    let factor = match failures {
        0 | 1 => 1,
        2 => 2,
        3 => 4,
        4 => 8,
        _ => 12,
    };
    // The cap bounds the back-off only: a longer `check_interval` is what the operator configured.
    (interval * factor).min(BACKOFF_MAX.max(interval))
}

/// The pause between two tries of one check, an eighth longer or shorter depending on `random`.
pub(crate) fn jittered(pause: Duration, random: u32) -> Duration {
    let eighth = pause / 8;
    let spread = u64::from(random) * micros(eighth) * 2;
    pause - eighth + Duration::from_micros(spread >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_back_off_grows_with_failures() {
        let table = [
            (5, 0, 5),
            (5, 1, 5),
            (5, 2, 10),
            (5, 3, 20),
            (5, 4, 40),
            (5, 5, 60),
            (5, 99, 60),
            (1, 4, 8),
            (1, 5, 12),
            (1, 6, 12),
            (30, 3, 60),
            (300, 0, 300),
            (300, 9, 300),
        ];
        for (interval, failures, want) in table {
            assert_eq!(
                backoff(secs(interval), failures),
                secs(want),
                "{interval}s × {failures}"
            );
        }
    }

    #[test]
    fn pauses_vary_by_an_eighth() {
        let pause = Duration::from_millis(100);
        assert_eq!(jittered(pause, 0), Duration::from_micros(87_500));
        let most = jittered(pause, u32::MAX);
        assert!(most > Duration::from_micros(112_400) && most <= Duration::from_micros(112_500));
    }
}
