//! When an endpoint is checked next.
//!
//! contract: balancing 11 (schedule)

use std::time::{Duration, Instant};

/// No wait is longer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long to wait from the start of one check to the next after so many failures in a row.
pub(super) fn wait(interval: Duration, failures: u32) -> Duration {
    let factor = match failures {
        0 | 1 => 1,
        2 => 2,
        3 => 4,
        4 => 8,
        _ => 12,
    };
    // An interval above the cap is the operator's wish, not a backoff.
    (interval * factor).min(WAIT_MAX.max(interval))
}

/// The rest of an endpoint that asked to be left alone, from a `Retry-After`: seconds, or a date.
/// Unreadable or missing: 30 s (contract: balancing 11).
pub(super) fn retry_after(value: Option<&str>, unix_secs: u64) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(30);
    const MAX: Duration = Duration::from_secs(24 * 3600);
    let Some(value) = value.map(str::trim) else {
        return DEFAULT;
    };
    if let Ok(seconds) = value.parse::<u64>() {
        return Duration::from_secs(seconds).min(MAX);
    }
    let format = time::format_description::well_known::Rfc2822;
    // An HTTP date is an RFC 2822 one but for the name of its zone.
    let date = time::OffsetDateTime::parse(&value.replace("GMT", "+0000"), &format);
    match date
        .map(time::OffsetDateTime::unix_timestamp)
        .map(u64::try_from)
    {
        Ok(Ok(at)) => Duration::from_secs(at.saturating_sub(unix_secs)).min(MAX),
        _ => DEFAULT,
    }
}

/// A pause between two tries of one check, an eighth more or less by chance.
pub(super) fn jittered(pause: Duration, random: u32) -> Duration {
    let eighth = pause / 8;
    let spread = u64::from(random) * u64::try_from(eighth.as_micros()).unwrap_or(0) * 2;
    pause - eighth + Duration::from_micros(spread >> 32)
}

/// The later of two moments.
pub(super) fn later(a: Instant, b: Option<Instant>) -> Instant {
    b.map_or(a, |b| a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_grow_with_failures() {
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
                wait(secs(interval), failures),
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
