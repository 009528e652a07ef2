//! The text form of single values: durations, sizes and booleans, read and shown.
//!
//! Contract: docs/contract/operations.md#10

use std::time::Duration;

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The part before the first of these characters; without one of them, the whole text.
pub(super) fn before<'t>(text: &'t str, ends: &[char]) -> &'t str {
    text.find(ends).map_or(text, |at| &text[..at])
}

/// Reads `1h30m`, `1.5s`, `250ms` or `0`. Other numbers without a unit, negative values and days are
/// refused.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(scaled(number, *scale)?)?;
        rest = tail;
    }
    // The bound of a signed 64-bit number of nanoseconds, 292 years, does not overflow when it is
    // added to a clock.
    let nanos = u64::try_from(nanos)
        .ok()
        .filter(|n| i64::try_from(*n).is_ok())?;
    Some(Duration::from_nanos(nanos))
}

/// Reads a number of bytes with an optional unit: `100MB`, `1.5g`, `4096`. Units count by 1024.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1_u128 << 40,
        _ => return None,
    };
    if scale == 1 && number.contains('.') {
        return None;
    }
    u64::try_from(scaled(number, scale)?)
        .ok()
        .filter(|n| i64::try_from(*n).is_ok())
}

/// A decimal number times a scale, rounded down; exact, without floating point.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u128>().ok()
        }
    };
    // More than twelve digits of a fraction do not change nanoseconds or bytes.
    let fraction = &fraction[..fraction.len().min(12)];
    let part = digits(fraction)?.checked_mul(scale)? / 10_u128.pow(fraction.len() as u32);
    digits(whole)?.checked_mul(scale)?.checked_add(part)
}

/// Reads a boolean from the environment.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A duration in the fewest units that are exact: `15m`, `90s`, `1500ms`.
pub(super) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, scale) = match nanos {
        0 => ("s", 1),
        n if n % 3_600_000_000_000 == 0 => ("h", 3_600_000_000_000),
        n if n % 60_000_000_000 == 0 => ("m", 60_000_000_000),
        n if n % 1_000_000_000 == 0 => ("s", 1_000_000_000),
        n if n % 1_000_000 == 0 => ("ms", 1_000_000),
        _ => ("ns", 1),
    };
    format!("{}{unit}", nanos / scale)
}

/// A text as TOML's basic string, for messages and listings.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let millis = |n| Some(Duration::from_millis(n));
        let table = [
            ("0", millis(0)),
            ("0s", millis(0)),
            ("30s", millis(30_000)),
            ("1h30m", millis(5_400_000)),
            ("1.5s", millis(1_500)),
            (".5s", millis(500)),
            ("+5s", millis(5_000)),
            ("250ms", millis(250)),
            ("10us", Some(Duration::from_micros(10))),
            ("10µs", Some(Duration::from_micros(10))),
            ("7ns", Some(Duration::from_nanos(7))),
            ("1m0.25s", millis(60_250)),
            ("", None),
            ("5", None),
            ("00", None),
            ("1d", None),
            ("-5s", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1 s", None),
            (" 1s", None),
            ("1S", None),
            ("1m2", None),
            ("soon", None),
            ("9999999h", None),
            ("99999999999999999999999999999999999999999h", None),
        ];
        for (text, want) in table {
            assert_eq!(duration(text), want, "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        let table = [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("100MB", Some(100 << 20)),
            ("1KB", Some(1024)),
            ("1.5g", Some(3 << 29)),
            ("10 mb", Some(10 << 20)),
            (" 1b ", Some(1)),
            ("2TiB", Some(2 << 40)),
            ("", None),
            ("MB", None),
            ("-1", None),
            ("1.5", None),
            ("1e6", None),
            ("10XB", None),
            ("99999999999T", None),
        ];
        for (text, want) in table {
            assert_eq!(size(text), want, "{text:?}");
        }
    }

    #[test]
    fn booleans_and_quotes() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(boolean(text), Some(true));
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(boolean(text), Some(false));
        }
        for text in ["", "yes", "on", "tRUE", "2", " true"] {
            assert_eq!(boolean(text), None, "{text:?}");
        }
        assert_eq!(quoted("a\"b\\\n\u{1}"), r#""a\"b\\\n\u0001""#);
    }

    #[test]
    fn shown_durations_read_back() {
        for (nanos, shown) in [
            (0, "0s"),
            (1_000_000_000, "1s"),
            (90_000_000_000, "90s"),
            (900_000_000_000, "15m"),
            (86_400_000_000_000, "24h"),
            (1_500_000_000, "1500ms"),
            (5, "5ns"),
        ] {
            let value = Duration::from_nanos(nanos);
            assert_eq!(show_duration(value), shown);
            assert_eq!(duration(shown), Some(value));
        }
    }
}
