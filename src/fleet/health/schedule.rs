//! The times of health checks: the back-off schedule, `Retry-After` and the pauses between tries.
//!
//! Contract: docs/contract/balancing.md#11 (schedule)

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::micros;

/// The longest back-off.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The longest `Retry-After` that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

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

/// The time that a `Retry-After` field asks for, in seconds or as a date; 30 s if it is missing or
/// unreadable (docs/contract/balancing.md#11).
pub(crate) fn retry_after(value: Option<&str>, unix_secs: u64) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(30);
    let Some(value) = value.map(str::trim) else {
        return DEFAULT;
    };
    if let Ok(seconds) = value.parse::<u64>() {
        return Duration::from_secs(seconds).min(RETRY_AFTER_MAX);
    }
    let date = httpdate::parse_http_date(value).ok();
    match date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()) {
        Some(at) => at
            .saturating_sub(Duration::from_secs(unix_secs))
            .min(RETRY_AFTER_MAX),
        None => DEFAULT,
    }
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
    fn retry_after_is_seconds_or_a_date() {
        let now = 1_700_000_000;
        let table = [
            (None, 30),
            (Some("soon"), 30),
            (Some("7"), 7),
            (Some(" 0 "), 0),
            (Some("999999999"), 86400),
            (Some("Tue, 14 Nov 2023 22:13:30 GMT"), 10),
            (Some("Tue, 14 Nov 2023 22:00:00 GMT"), 0),
            (Some("Tuesday, 14-Nov-23 22:13:30 GMT"), 10),
            (Some("Tue Nov 14 22:13:30 2023"), 10),
            (Some("Tue, 14 Nov 2023 22:13:30 CET"), 30),
        ];
        for (value, want) in table {
            assert_eq!(retry_after(value, now), secs(want), "{value:?}");
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
