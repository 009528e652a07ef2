//! How figures are written: the formats that all pages share.
//!
//! Pure functions; they know no page and read no clock.
//!
//! Contract: docs/contract/operations.md#2

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::since;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Bytes for people: `0 B`, `1023 B`, `2.93 KB`. Rounding never carries to the next unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // The unit comes from the whole number, so that 1048575 stays `1024.00 KB`.
    let exponent = (count.ilog2() / 10) as usize;
    let unit = UNITS.get(exponent - 1).copied().unwrap_or("EB");
    format!(
        "{:.2} {unit}",
        count as f64 / 1024_f64.powi(exponent as i32)
    )
}

/// A latency in whole milliseconds: `0ms`, `999ms`, `1.2s`.
pub(crate) fn latency(ms: u64) -> String {
    if ms < 1000 {
        format!("{ms}ms")
    } else {
        format!("{:.1}s", ms as f64 / 1000.0)
    }
}

/// `part` of `whole` in percent; 0 of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

/// A percentage: `0%` and `100%` when exact, else one decimal (`66.7%`).
pub(crate) fn percentage(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        "0%".to_owned()
    } else if part == whole {
        "100%".to_owned()
    } else {
        format!("{:.1}%", percent(part, whole))
    }
}

/// A percentage, `N/A` without traffic.
pub(crate) fn percentage_or_na(part: u64, whole: u64) -> String {
    if whole == 0 {
        "N/A".to_owned()
    } else {
        percentage(part, whole)
    }
}

/// How long ago something was: `2m ago`, `never`. An instant in the future was just now: clocks can
/// be set back.
pub(crate) fn ago(then: Option<SystemTime>, now: SystemTime) -> String {
    match then {
        Some(then) => format!("{} ago", span(since(then, now))),
        None => "never".to_owned(),
    }
}

/// How soon something is due: `in 4s`, `now`, `unknown`.
pub(crate) fn until(then: Option<SystemTime>, now: SystemTime) -> String {
    match then.map(|then| then.duration_since(now)) {
        None => "unknown".to_owned(),
        Some(Ok(left)) if !left.is_zero() => format!("in {}", span(left)),
        Some(_) => "now".to_owned(),
    }
}

/// Whole seconds rounded down, then minutes, hours and days rounded to the nearest.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let nearest = |unit: u64| {
        let half = u128::from(unit) * 500_000_000;
        (duration.as_nanos() + half) / (u128::from(unit) * 1_000_000_000)
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", nearest(60)),
        3600..86_400 => format!("{}h", nearest(3600)),
        _ => format!("{}d", nearest(86_400)),
    }
}

/// The uptime of the status page: `37s`, `5m`, `2h 5m`, `3d 4h`.
pub(crate) fn uptime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The durations of the process page: `1h2m3s`, `2m0s`, `5s`, `231.9ms`, `12.5µs`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => {
            let nanos = f64::from(duration.subsec_nanos());
            let (value, unit) = match nanos {
                0.0 => return "0s".to_owned(),
                nanos if nanos >= 1e6 => (nanos / 1e6, "ms"),
                nanos => (nanos / 1e3, "µs"),
            };
            // Cut, not rounded: 999.99ms must not read as 1000ms.
            format!("{}{unit}", decimal((value * 10.0).floor() / 10.0))
        }
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!(
            "{}h{}m{}s",
            seconds / 3600,
            seconds % 3600 / 60,
            seconds % 60
        ),
    }
}

/// A plain decimal with at most six digits after the point, without trailing zeros. What is no
/// number is `0`.
pub(crate) fn decimal(value: f64) -> String {
    if !value.is_finite() {
        return "0".to_owned();
    }
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0" } else { text }.to_owned()
}

/// A number of a JSON page: at most six digits after the point, whole numbers without one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Number(pub(super) f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole numbers up to 2^53 are exact.
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        let rounded = (self.0 * 1e6).round() / 1e6;
        if !rounded.is_finite() {
            serializer.serialize_u64(0)
        } else if rounded.fract() == 0.0 && rounded.abs() <= EXACT_MAX {
            serializer.serialize_i64(rounded as i64)
        } else {
            serializer.serialize_f64(rounded)
        }
    }
}

/// An instant as RFC 3339 in UTC, with as many digits of the second as there are.
pub(crate) fn instant(at: SystemTime) -> String {
    let nanos = match at.duration_since(UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()),
        Err(before) => i128::try_from(before.duration().as_nanos()).map(|nanos| -nanos),
    };
    nanos
        .ok()
        .and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        // Beyond the year 9999 there is no such text; a clock that says so is broken.
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// A value of a CSV file, quoted if it must be (RFC 4180).
pub(crate) fn csv_cell(value: &str) -> Cow<'_, str> {
    if value.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", value.replace('"', "\"\"")).into()
    } else {
        value.into()
    }
}

/// A number in lower-case base 36.
pub(crate) fn base36(mut number: u64) -> String {
    let mut digits = Vec::with_capacity(13);
    loop {
        let digit = (number % 36) as u32;
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_base_1024() {
        let table = [
            (0, "0 B"),
            (484, "484 B"),
            (1023, "1023 B"),
            (1024, "1.00 KB"),
            (3000, "2.93 KB"),
            (1_048_575, "1024.00 KB"),
            (1_048_576, "1.00 MB"),
            (4_661_224_676, "4.34 GB"),
            (1 << 40, "1.00 TB"),
            (1 << 50, "1.00 PB"),
            ((1 << 60) - 1, "1024.00 PB"),
            (1 << 60, "1.00 EB"),
            (u64::MAX, "16.00 EB"),
        ];
        for (count, expected) in table {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn latencies_and_percentages() {
        for (ms, expected) in [
            (0, "0ms"),
            (4, "4ms"),
            (999, "999ms"),
            (1000, "1.0s"),
            (1234, "1.2s"),
            (61_000, "61.0s"),
        ] {
            assert_eq!(latency(ms), expected);
        }
        for (part, whole, expected) in [
            (0, 0, "0%"),
            (0, 5, "0%"),
            (5, 5, "100%"),
            (2, 3, "66.7%"),
            (1, 2, "50.0%"),
            (9999, 10_000, "100.0%"),
            (1, 100_000, "0.0%"),
        ] {
            assert_eq!(percentage(part, whole), expected, "{part}/{whole}");
        }
        assert_eq!(percentage_or_na(0, 0), "N/A");
        assert_eq!(percentage_or_na(0, 1), "0%");
    }

    #[test]
    fn spans_of_time() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (back_ms, expected) in [
            (0, "0s ago"),
            (999, "0s ago"),
            (59_999, "59s ago"),
            (60_000, "1m ago"),
            (89_000, "1m ago"),
            (90_000, "2m ago"),
            (3_599_000, "60m ago"),
            (3_600_000, "1h ago"),
            (5_400_000, "2h ago"),
            (86_399_000, "24h ago"),
            (86_400_000, "1d ago"),
            (216_000_000, "3d ago"),
        ] {
            let then = now - Duration::from_millis(back_ms);
            assert_eq!(ago(Some(then), now), expected);
        }
        assert_eq!(ago(None, now), "never");
        assert_eq!(ago(Some(now + Duration::from_secs(9)), now), "0s ago");
        assert_eq!(until(Some(now + Duration::from_secs(4)), now), "in 4s");
        assert_eq!(until(Some(now + Duration::from_secs(90)), now), "in 2m");
        assert_eq!(until(Some(now), now), "now");
        assert_eq!(until(Some(now - Duration::from_secs(4)), now), "now");
        assert_eq!(until(None, now), "unknown");
    }

    #[test]
    fn uptimes_and_durations() {
        for (seconds, up, long) in [
            (0, "0s", "0s"),
            (37, "37s", "37s"),
            (60, "1m", "1m0s"),
            (3599, "59m", "59m59s"),
            (3723, "1h 2m", "1h2m3s"),
            (7500, "2h 5m", "2h5m0s"),
            (273_600, "3d 4h", "76h0m0s"),
        ] {
            assert_eq!(uptime(Duration::from_secs(seconds)), up);
            assert_eq!(duration(Duration::from_secs(seconds)), long);
        }
        assert_eq!(duration(Duration::from_micros(231_912)), "231.9ms");
        assert_eq!(duration(Duration::from_micros(2000)), "2ms");
        assert_eq!(duration(Duration::from_nanos(12_560)), "12.5µs");
        assert_eq!(duration(Duration::from_nanos(999_999_999)), "999.9ms");
    }

    #[test]
    fn decimals_have_six_digits_at_most() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (25.0, "25"),
            (200.0 / 3.0, "66.666667"),
            (0.1, "0.1"),
            (1e15, "1000000000000000"),
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
        ] {
            assert_eq!(decimal(value), expected);
        }
        for (value, expected) in [(100.0, "100"), (200.0 / 3.0, "66.666667"), (f64::NAN, "0")] {
            assert_eq!(serde_json::to_string(&Number(value)).unwrap(), expected);
        }
    }

    #[test]
    fn instants_keep_their_fraction() {
        let at = UNIX_EPOCH + Duration::from_millis(1_776_249_000_123);
        assert_eq!(instant(at), "2026-04-15T10:30:00.123Z");
        assert_eq!(instant(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(
            instant(UNIX_EPOCH - Duration::from_secs(1)),
            "1969-12-31T23:59:59Z"
        );
        let broken = UNIX_EPOCH + Duration::from_secs(1 << 50);
        assert_eq!(instant(broken), "1970-01-01T00:00:00Z");
    }
}
